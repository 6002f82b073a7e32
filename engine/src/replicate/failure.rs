//! What went wrong on this side, kept whole: the session only carries words.

use super::ReplicateError;
use crate::{session::Done, store::StoreError, vault::VaultError};
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tokio::sync::mpsc;

/// The first failure of this side, shared by the threads of one session.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures(Arc<Mutex<Option<ReplicateError>>>);

impl Failures {
    /// This replica failed.
    pub(super) fn here(&self, error: StoreError) {
        self.note(match error {
            StoreError::Fork { .. } => ReplicateError::Fork(error.to_string()),
            // Another session was to bring them, and has failed: the next one asks for them.
            StoreError::MissingChunks { .. } => ReplicateError::Vault(VaultError::Busy(error.to_string())),
            other => ReplicateError::Vault(VaultError::from(other)),
        });
    }

    /// Keeps `error` unless there was one before it.
    pub(super) fn note(&self, error: ReplicateError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// In words, for the peer's and the session's log.
    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// The failure itself, once.
    pub(super) fn take(&self) -> Option<ReplicateError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Failures {
    /// `work`, of which the session hears should it break down: it would wait for the rest of it for ever.
    pub(super) async fn told<T>(self, done: mpsc::UnboundedSender<Done>, work: impl Future<Output = T>) -> T {
        let _telling = Telling { failures: self, done };
        work.await
    }
}

/// Tells of a breakdown when it is dropped by one.
struct Telling {
    failures: Failures,
    done: mpsc::UnboundedSender<Done>,
}

impl Drop for Telling {
    fn drop(&mut self) {
        if thread::panicking() {
            self.failures.note(ReplicateError::BrokeDown("a thread of it panicked".into()));
            // Nobody listens any more once the session has ended.
            let _ = self.done.send(Done::Failed { reason: self.failures.text() });
        }
    }
}
