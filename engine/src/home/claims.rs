//! What each peer's replica said that it held: what tells when it holds less than it once did.
//!
//! A peer that was put back to an older state (a backup, the snapshot of a virtual machine) does not know that itself if its own
//! `MIRROR_HOME` was put back with it; those it has talked with do. One small file a peer, replaced at the end of each session, for the
//! few replicas that one device may have of a vault. A lost or damaged file costs one rollback that is not noticed.

use super::{HomeError, VaultHome, failed};
use crate::{
    codec,
    event::{Dot, Frontier},
    id::{DeviceId, ReplicaId},
    keys::private_file,
    limits::{CLAIMS_MAX, HELLO_BYTES_MAX},
};
use minicbor::{Decode, Encode};
use std::path::PathBuf;

/// What the replicas of one device have claimed, the one heard last first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Claims {
    #[n(0)]
    claims: Vec<Claim>,
}

/// What one replica said last, and what it had lost by then.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Claim {
    #[n(0)]
    replica: ReplicaId,
    #[n(1)]
    frontier: Frontier,
    /// Ends of logs that it had once, and did not have at its last Hello.
    #[n(2)]
    gone: Frontier,
}

/// The end of one author's log that a peer had and has no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// The newest event that it had.
    pub had: Dot,
    /// The sequence number of the newest that it has; 0 if it has none.
    pub has: u64,
}

impl Claims {
    /// What `replica`, which holds `frontier`, held once and holds no more. Of one that was not heard before nothing is known: it may be
    /// another directory, a copy, or one that was put back and has noticed that itself.
    pub fn gone(&self, replica: &ReplicaId, frontier: &Frontier) -> Vec<Gone> {
        let known = self.claims.iter().find(|claim| claim.replica == *replica);
        known.map_or(Vec::new(), |claim| gone(&claim.frontier, frontier))
    }

    /// Notes the end of a session with `replica`, which holds `frontier` now and had lost `found` at its start.
    pub fn note(&mut self, replica: ReplicaId, frontier: Frontier, found: &[Gone]) {
        let place = self.claims.iter().position(|claim| claim.replica == replica);
        let mut gone = place.map_or_else(Frontier::new, |place| self.claims.remove(place).gone);
        found.iter().for_each(|lost| gone.raise(lost.had));
        let gone = gone.iter().map(|(author, sequence)| Dot { author: *author, sequence }).filter(|dot| !frontier.contains(dot)).collect();
        self.claims.insert(0, Claim { replica, frontier, gone });
        self.claims.truncate(CLAIMS_MAX);
    }

    /// What the replica heard last had lost, and has not got back since.
    pub fn still_gone(&self) -> Vec<Gone> {
        self.claims.first().map_or(Vec::new(), |claim| gone(&claim.gone, &claim.frontier))
    }
}

fn gone(had: &Frontier, has: &Frontier) -> Vec<Gone> {
    let all = had.iter().map(|(author, sequence)| Gone { had: Dot { author: *author, sequence }, has: has.sequence_of(author) });
    all.filter(|gone| gone.has < gone.had.sequence).collect()
}

impl VaultHome {
    /// What `device` has claimed so far; nothing if its file cannot be read.
    pub fn claims(&self, device: &DeviceId) -> Claims {
        let bytes = private_file::read(&self.claims_path(device), CLAIMS_MAX * 2 * HELLO_BYTES_MAX).ok();
        bytes.and_then(|bytes| codec::decode("claims", private_file::checked(&bytes)?).ok()).unwrap_or_default()
    }

    /// Replaces what is remembered of `device`, without waiting for the disk.
    ///
    /// # Errors
    /// [`HomeError::Io`]. Only a rollback of that peer might go unnoticed.
    pub fn record_claims(&self, device: &DeviceId, claims: &Claims) -> Result<(), HomeError> {
        let path = self.claims_path(device);
        private_file::write_unsynced(&path, &private_file::with_check(codec::encode(claims))).map_err(failed("writing", &path))
    }

    fn claims_path(&self, device: &DeviceId) -> PathBuf {
        self.dir.join("contacts").join(format!("{device}.claims"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{home::Home, id::VaultId};

    const A: ReplicaId = ReplicaId::from_bytes([1; 32]);
    const B: ReplicaId = ReplicaId::from_bytes([2; 32]);

    fn up_to(sequence: u64) -> Frontier {
        Frontier::from_iter([Dot { author: A, sequence }])
    }

    fn claimed(sequence: u64) -> Claims {
        let mut claims = Claims::default();
        claims.note(A, up_to(sequence), &[]);
        claims
    }

    #[test]
    fn a_replica_that_holds_less_is_found_told_once_and_shown_until_it_has_all_back() {
        let mut claims = claimed(42);
        assert_eq!(claims.gone(&A, &up_to(42)), []);
        let found = claims.gone(&A, &up_to(40));
        assert_eq!(found, [Gone { had: Dot { author: A, sequence: 42 }, has: 40 }]);
        claims.note(A, up_to(41), &found);
        assert_eq!(claims.gone(&A, &up_to(41)), [], "once");
        assert_eq!(claims.still_gone(), [Gone { had: Dot { author: A, sequence: 42 }, has: 41 }]);
        claims.note(A, up_to(43), &[]);
        assert_eq!(claims.still_gone(), []);
    }

    #[test]
    fn each_replica_of_a_device_is_held_to_its_own_word() {
        let mut claims = claimed(42);
        assert_eq!(claims.gone(&B, &up_to(40)), []);
        claims.note(B, up_to(40), &[]);
        assert_eq!((claims.gone(&A, &up_to(41)).len(), claims.gone(&B, &up_to(40)).len()), (1, 0));
    }

    #[test]
    fn claims_are_kept_for_a_few_replicas_and_survive_a_damaged_file_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap().vault(&VaultId::from_bytes([1; 32])).unwrap();
        let device = DeviceId::from_bytes([3; 32]);
        assert_eq!(home.claims(&device), Claims::default());
        let mut claims = claimed(1);
        (0..2 * CLAIMS_MAX as u8).for_each(|n| claims.note(ReplicaId::from_bytes([n; 32]), up_to(1), &[]));
        assert_eq!(claims.claims.len(), CLAIMS_MAX);
        home.record_claims(&device, &claims).unwrap();
        assert_eq!(home.claims(&device), claims);
        std::fs::write(home.claims_path(&device), b"garbage").unwrap();
        assert_eq!(home.claims(&device), Claims::default());
    }
}
