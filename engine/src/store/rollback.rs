//! Events that were acknowledged here and are gone: what the log lacks of what was accepted.
//!
//! What was accepted stands in `heads`, and outside the vault directory at the device ([`Store::expect`]): a directory that was put back
//! to an older state brings an older `heads` along. The difference to the log closes by itself when a peer gives the events back: another
//! event in the place of the newest lost one is refused as a fork.

use super::{Store, StoreError, heads, index::lock, leaving::without_left, log::LogState};
use crate::{
    event::{Dot, Heads},
    id::{DeviceId, ReplicaId},
};

/// The end of one author's log is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Whose log.
    pub author: ReplicaId,
    /// The newest event that was ever accepted.
    pub accepted: u64,
    /// The newest that is here; 0 if there is none.
    pub held: u64,
}

impl Lost {
    /// The first event that is missing.
    pub fn first(&self) -> Dot {
        Dot { author: self.author, sequence: self.held + 1 }
    }
}

/// An event that waits for one that nobody has offered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// What waits.
    pub event: Dot,
    /// What has to come first.
    pub missing: Dot,
    /// Who wrote that, if anything of the same log is here.
    pub device: Option<DeviceId>,
}

impl Store {
    /// `event` waits for `missing`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn hole(&self, event: Dot, missing: Dot) -> Result<Hole, StoreError> {
        let first = self.event(&Dot { author: missing.author, sequence: 1 })?;
        Ok(Hole { event, missing, device: first.map(|first| first.header().device) })
    }

    /// Takes `heads` for accepted: the device has seen them in this directory. What was left since is not missed.
    pub fn expect(&self, heads: &Heads) {
        let branches = std::sync::Arc::clone(&lock(&self.inner.branches));
        self.inner.lock_state().state.accepted.join(&without_left(&branches, heads, &Heads::default()));
    }

    /// What was accepted and is not here, by author. Nothing in a store that is whole.
    pub fn lost(&self) -> Vec<Lost> {
        self.inner.log_snapshot().lost()
    }

    /// Expects nothing any more that is not here, because the user says that it is gone for good. Its author must not write on.
    ///
    /// # Errors
    /// When `heads` cannot be written.
    pub fn accept_loss(&self) -> Result<(), StoreError> {
        let mut guard = self.inner.lock_log()?;
        let held = guard.state.held();
        heads::write(&self.inner.disk, &self.inner.heads_path(), &self.inner.vault, &held)?;
        guard.state.accepted = held;
        Ok(())
    }
}

impl LogState {
    pub(super) fn lost(&self) -> Vec<Lost> {
        let held = |author| self.heads.get(author).map_or(0, |head| head.sequence);
        let lost = self.accepted.0.iter().map(|(author, head)| Lost { author: *author, accepted: head.sequence, held: held(author) });
        lost.filter(|lost| lost.held < lost.accepted).collect()
    }
}
