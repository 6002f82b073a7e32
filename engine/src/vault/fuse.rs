//! The fuse: stops before somebody else's mass deletion becomes this replica's.
//!
//! A vault forgets nothing, so every deletion can be undone; but a replica that follows has lost its files before anybody looks. The
//! events stay where they wait for their chunks, so that nothing comes twice once the user agrees.
//!
//! Counted are deletions of keys that stand here: the history of a vault that a new replica receives deletes nothing that it had. A
//! decision in favour of a deletion is somebody's deliberate act and is not counted. Only a replica with the vault's key can count.

use super::{Sealing, Vault, VaultError, epochs::Keychain, history::opened};
use crate::{
    event::{Event, KIND_MEMBERSHIP, KIND_OPERATIONS, Key, Operation},
    limits::FUSE_KEYS_MIN,
    members::Roster,
    seal::KeyRing,
    store::Store,
};
use std::{
    fmt,
    sync::{Arc, Weak},
};

/// How many keys others may delete at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteLimit {
    /// So many.
    Keys(u64),
    /// So many of a hundred, and never more than `keys`; a hundred keys always.
    Share {
        /// Of a hundred.
        percent: u8,
        /// At most.
        keys: u64,
    },
}

impl DeleteLimit {
    /// How many that is of `keys`.
    pub(crate) fn of(self, keys: u64) -> u64 {
        match self {
            Self::Keys(limit) => limit,
            Self::Share { percent, keys: most } => (keys.saturating_mul(percent.into()) / 100).max(FUSE_KEYS_MIN).min(most),
        }
    }
}

/// Counts deletions in events that are about to be taken over.
pub struct Fuse {
    sealing: Arc<Sealing>,
    keychain: Arc<Keychain>,
    store: Arc<Store>,
    allowed: u64,
    /// Whose view is to be brought up to date first.
    vault: Weak<Vault>,
}

impl fmt::Debug for Fuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fuse").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Vault {
    /// A fuse that blows beyond `limit` of the keys that stand here now. None on a keyless replica, which cannot see keys.
    ///
    /// # Errors
    /// When the log or the view cannot be read.
    pub fn fuse(&self, limit: DeleteLimit) -> Result<Option<Arc<Fuse>>, VaultError> {
        let Some(sealing) = &self.sealing else { return Ok(None) };
        self.catch_up()?;
        let counts = self.ask(|view| view.counts())?;
        let (sealing, keychain, store) = (sealing.clone(), self.keychain.clone(), self.store.clone());
        Ok(Some(Arc::new(Fuse { sealing, keychain, store, allowed: limit.of(counts.keys), vault: Weak::new() })))
    }

    /// A fuse for sessions that stay: it counts what stands when something is deleted, not what stood when the session began.
    ///
    /// # Errors
    /// As [`Vault::fuse`].
    pub fn lasting_fuse(self: &Arc<Self>, limit: DeleteLimit) -> Result<Option<Arc<Fuse>>, VaultError> {
        let fuse = self.fuse(limit)?.and_then(Arc::into_inner);
        Ok(fuse.map(|fuse| Arc::new(Fuse { vault: Arc::downgrade(self), ..fuse })))
    }
}

impl Fuse {
    /// Deletions that pass.
    pub fn allowed(&self) -> u64 {
        self.allowed
    }

    /// How many keys that stand here `events` delete, as far as the view has followed the log. An event that cannot be read deletes
    /// nothing; one that is sealed under a key epoch that begins in `events` can be.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub fn deletions<'e>(&self, events: impl IntoIterator<Item = &'e Event>) -> Result<u64, VaultError> {
        let mut ring = self.keychain.keys().ring.clone();
        let mut ahead: Option<Roster> = None;
        let mut count = 0;
        for event in events {
            match (event.header().kind, &ring) {
                (KIND_MEMBERSHIP, _) => ring = self.ring_after(event, &mut ahead).or(ring),
                (KIND_OPERATIONS, Some(ring)) => count += self.deletions_by(event, ring)?,
                _ => {}
            }
        }
        Ok(count)
    }

    /// The keys once `event` is in the log as well, and what is in `ahead`.
    fn ring_after(&self, event: &Event, ahead: &mut Option<Roster>) -> Option<Arc<KeyRing>> {
        if ahead.is_none() {
            *ahead = self.store.roster().map(|roster| Roster::clone(&roster));
        }
        let roster = ahead.as_mut()?;
        roster.add(event);
        self.keychain.keys_by(roster.membership()).ring
    }

    fn deletions_by(&self, event: &Event, ring: &KeyRing) -> Result<u64, VaultError> {
        let operations = opened(ring, event).unwrap_or_default();
        let deleted: Vec<&Key> = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Delete(key, _) => Some(key),
                _ => None,
            })
            .collect();
        if let Some(vault) = self.vault.upgrade().filter(|_| !deleted.is_empty()) {
            vault.catch_up()?;
        }
        Ok(self.sealing.derived.lookups().standing(deleted)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_keys_that_there_are_within_bounds() {
        let limit = DeleteLimit::Share { percent: 10, keys: 10_000 };
        assert_eq!([0, 500, 5_000, 1_000_000].map(|keys| limit.of(keys)), [100, 100, 500, 10_000]);
        assert_eq!(DeleteLimit::Keys(3).of(1_000_000), 3);
        assert_eq!(DeleteLimit::Share { percent: 10, keys: 5 }.of(1_000), 5);
    }
}
