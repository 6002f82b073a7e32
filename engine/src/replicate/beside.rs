//! What other processes append to the log here: noticed when the system says that files of the vault have changed.
//!
//! The last that an append changes is the index, in the vault's directory itself, so that is the one directory to watch; an index that
//! could not be written leaves `heads`, in the same place. What the system says is only that it is time to look: the look itself is
//! [`Store::refresh`], which finds nothing where this very process has written. Systems that say nothing are asked instead, seldom where a
//! watch could be set (a network file system keeps quiet about other machines) and often where none could.

use super::worker;
use crate::store::Store;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::timeout};

/// Between two looks at least: what is written comes in a few steps.
const LOOK: Duration = Duration::from_millis(10);
/// Between two looks where the system tells nothing.
const LOOK_UNWATCHED: Duration = Duration::from_millis(50);
/// Between two looks at most, although nothing was said.
const LOOK_UNTOLD: Duration = Duration::from_secs(2);

/// Notices what other processes append to the log of `store`, for as long as it is polled.
pub async fn watch(store: &Arc<Store>) -> Infallible {
    if worker::is_alone() {
        return std::future::pending().await;
    }
    let told = Arc::new(Notify::new());
    let watcher = watcher(store.dir(), told.clone());
    let patience = if watcher.is_some() { LOOK_UNTOLD } else { LOOK_UNWATCHED };
    loop {
        let _ = timeout(patience, told.notified()).await;
        look(store).await;
        tokio::time::sleep(LOOK).await;
    }
}

/// Whoever begins to listen looks by itself first, so nothing is missed while nobody does.
async fn look(store: &Arc<Store>) {
    if !store.is_watched() {
        return;
    }
    let store = store.clone();
    if let Ok(Err(error)) = worker::call(move || store.refresh()).await {
        tracing::warn!(%error, "what other processes write is not seen");
    }
}

/// Tells of each change in `dir`, not below; none where the system tells nothing.
fn watcher(dir: &Path, told: Arc<Notify>) -> Option<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        // Looking at files is no change, or each look would bring on the next.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            told.notify_one();
        }
    };
    let watching = notify::recommended_watcher(tell).and_then(|mut watcher| {
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watching.inspect_err(|error| tracing::info!(%error, "changes are looked for instead of being told")).ok()
}
