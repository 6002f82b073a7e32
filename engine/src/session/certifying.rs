//! Certifying: once both hold the same, each signs it for the other.
//!
//! ```text
//! Hello{root, our word for it} ◄──► Hello{root, its word}       equal: certified, nothing more is said
//! commit makes our root the peer's ─► Attested, then Applied     the word goes ahead of what it would have to wait for
//! Applied names our root ───────────► Attested, then Finished
//! ```
//! A word is said as soon as a side knows that both are equal, ahead of the message that may be the last one, so it needs no round trip of
//! its own and nobody waits for it. A word that comes for a root that is not ours yet is kept, the newest only. A peer whose Hello holds none
//! does not know of certificates and is told nothing. A word that is not the peer's is dropped, nothing more of the kind is heard from it, and the session goes on.

use super::{SessionEvent, message::Message, outbox::Outbox};
use crate::{
    id::Root,
    keys::{Attestation, Witness},
};
use std::time::Instant;

/// Whether the peer knows of certificates, and signs with its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Deaf,
    Listens,
}

#[derive(Debug)]
pub(super) struct Certifying {
    witness: Option<Witness>,
    /// When the session began: by the clock that is shown, and by the one that counts.
    began: (u64, Instant),
    peer: Peer,
    /// What we said last.
    ours: Option<Attestation>,
    /// What the peer said last, unchecked.
    theirs: Option<Attestation>,
    certified: Option<Root>,
}

impl Certifying {
    pub(super) fn new(witness: Option<Witness>, wall_ms: u64, now: Instant) -> Self {
        Self { witness, began: (wall_ms, now), peer: Peer::Deaf, ours: None, theirs: None, certified: None }
    }

    /// What our Hello says beside that we hold `root`.
    pub(super) fn introduce(&mut self, root: Root) -> Option<Attestation> {
        let witness = self.witness.as_ref()?;
        self.ours = Some(witness.attest(root, self.began.0));
        self.ours.clone()
    }

    /// What the peer's Hello says beside what it holds.
    pub(super) fn introduced(&mut self, attestation: Option<Attestation>) {
        if attestation.is_some() {
            self.peer = Peer::Listens;
            self.theirs = attestation;
        }
    }

    /// The peer's word.
    pub(super) fn heard(&mut self, theirs: Attestation) {
        self.theirs = Some(theirs);
    }

    /// We hold `root`, and the peer `peer_root` as far as it is known. Says our word if both are equal, and tells once both have signed.
    pub(super) fn compare(&mut self, root: Root, peer_root: Option<Root>, now: Instant, out: &mut Outbox) {
        let Some(witness) = &self.witness else { return };
        if self.certified == Some(root) || self.peer == Peer::Deaf {
            return;
        }
        let theirs = self.theirs.take_if(|theirs| theirs.root == root);
        if theirs.is_none() && peer_root != Some(root) {
            return;
        }
        let ours = match &self.ours {
            Some(said) if said.root == root => said,
            _ => {
                let said = self.ours.insert(witness.attest(root, wall_ms(self.began, now)));
                out.mention(&Message::Attested(said.clone()));
                said
            }
        };
        match theirs.map(|theirs| witness.certify(ours, &theirs)) {
            None => {}
            Some(None) => {
                self.peer = Peer::Deaf;
                out.tell(SessionEvent::Misattested);
            }
            Some(Some(certificate)) => {
                self.certified = Some(root);
                out.tell(SessionEvent::Certified(certificate));
            }
        }
    }
}

fn wall_ms((wall_ms, began): (u64, Instant), now: Instant) -> u64 {
    wall_ms.saturating_add(u64::try_from(now.duration_since(began).as_millis()).unwrap_or(u64::MAX))
}
