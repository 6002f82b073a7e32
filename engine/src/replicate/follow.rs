//! Following: a session that stays, and what wakes it.
//!
//! ```text
//! put, or another session's commit ─► log durable ─► Store::changes ─► every session of this store ─► its peer
//! another process's append ──► beside: Store::refresh ──────────┘
//! ```
//! So what B receives from A goes on to C at once, by the same notification. Nothing is looked for in files while nobody listens.

use super::{Observer, Options, ReplicateError, Summary, Target, beside::watch, sync};
use crate::{
    event::Frontier,
    id::Root,
    session::Stay,
    store::{LogPosition, Store},
    vault::{Vault, VaultError},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};

/// What this replica holds, each time that it has become more.
pub(super) struct Growth {
    store: Store,
    changes: watch::Receiver<LogPosition>,
}

impl Growth {
    /// From now on.
    pub(super) fn of(store: &Store) -> Self {
        Self { store: store.clone(), changes: store.changes() }
    }

    /// Waits until there is more, and returns all of it. Cancel-safe.
    pub(super) async fn next(&mut self) -> (Frontier, Root) {
        if self.changes.changed().await.is_err() {
            // The store is kept here, so it cannot be gone.
            std::future::pending::<()>().await;
        }
        let heads = self.store.heads();
        (heads.frontier(), heads.root())
    }
}

/// How often it is looked whether the vault is still there.
const STILL_THERE: Duration = Duration::from_secs(1);

/// Waits until the vault's directory is gone. Nothing tells of that: what is open of it stays open, and leads nowhere.
async fn gone(vault: &Vault) -> ReplicateError {
    while vault.is_there() {
        sleep(STILL_THERE).await;
    }
    VaultError::Gone(vault.dir().to_owned()).into()
}

/// Keeps this replica and `target` equal, both ways unless `options` say otherwise, until `observer` says stop. Notices what other
/// processes write to the vault here.
///
/// # Errors
/// [`ReplicateError`] when the session broke or the peer ended it: what was committed stays, and following again goes on from there.
/// [`VaultError::Gone`] within a second after the vault's directory has gone.
pub async fn follow(vault: &Vault, target: &Target, options: &Options, observer: Arc<dyn Observer>) -> Result<Summary, ReplicateError> {
    let options = Options { stay: Stay::Live, ..options.clone() };
    let summary = select! {
        summary = sync(vault, target, &options, observer.clone()) => match summary {
            // What it failed with is what comes of writing to nowhere.
            Err(ReplicateError::Vault(_)) if !vault.is_there() => return Err(gone(vault).await),
            summary => summary?,
        },
        never = watch(vault.store()) => match never {},
        gone = gone(vault) => return Err(gone),
    };
    if observer.cancelled() { Ok(summary) } else { Err(ReplicateError::PeerStopped("it ended the session".into())) }
}
