//! Forks across replicas: how two replicas notice that they hold different events for one place, and how proofs spread.
//!
//! A frontier says how far a log is held, not which events. So a Hello also carries, in the order of its frontier, the first bytes of each
//! newest event's id. Where two frontiers agree on a number and the ids do not, each side sends its event once more, as if the other
//! lacked it: whoever gets it finds the contradiction, keeps both events, and says the proof ([`Message::Fork`](super::Message::Fork)).
//! Where the numbers differ, the first event beyond contradicts by the event that it names as the one before it.
//!
//! A Hello names the authors whose forks are proved on its side. A proof goes to whoever does not name that author, so every replica
//! ends up with it; two that hold equal logs and different proofs exchange those before they part.

use super::Hello;
use crate::{
    codec,
    event::{Dot, Frontier, Heads},
    id::ReplicaId,
    limits::PROOFS_MAX,
};
use bytes::Bytes;
use minicbor::{Decode, Encode};

/// Of each newest event's id: enough for chance, and whoever makes two alike on purpose hides a fork of its own log from one Hello.
const SHORT_BYTES: usize = 8;

/// What a replica knows of forked logs when a session starts, and what shows further ones.
#[derive(Debug, Clone, Default)]
pub struct ForkKnowledge {
    /// The newest event of each author.
    pub heads: Heads,
    /// Forks that are proved here: whose log, and two event frames.
    pub proofs: Vec<(ReplicaId, Bytes)>,
    /// How far other branches are kept, without holes, beyond what is applied: such events need not come again.
    pub aside: Frontier,
}

/// What a Hello adds for forks, in its `extensions`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct ForkHello {
    /// In the order of the Hello's frontier, [`SHORT_BYTES`] of each newest event's id.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    heads: Vec<u8>,
    /// Authors whose forks are proved.
    #[n(1)]
    forked: Vec<ReplicaId>,
}

impl ForkKnowledge {
    /// For our Hello.
    pub(super) fn to_hello(&self) -> Vec<u8> {
        let heads = self.heads.0.values().flat_map(|head| head.event.as_bytes()[..SHORT_BYTES].to_vec()).collect();
        codec::encode(&ForkHello { heads, forked: self.authors() })
    }

    fn authors(&self) -> Vec<ReplicaId> {
        self.proofs.iter().map(|(author, _)| *author).take(PROOFS_MAX).collect()
    }

    /// Whether the peer has proofs that we lack, or the other way round.
    pub(super) fn differs(&self, theirs: &ForkHello) -> bool {
        let ours = self.authors();
        ours.len() != theirs.forked.len() || ours.iter().any(|author| !theirs.forked.contains(author))
    }

    /// The proofs that the peer lacks.
    pub(super) fn lacking(&self, theirs: &ForkHello) -> impl Iterator<Item = Bytes> {
        self.proofs.iter().take(PROOFS_MAX).filter(|(author, _)| !theirs.forked.contains(author)).map(|(_, proof)| proof.clone())
    }

    /// The peer's frontier without the events that differ from ours although they have the same number: ours go to it once more. Not
    /// those of forks that both know.
    pub(super) fn agreed(&self, hello: &Hello, theirs: &ForkHello) -> Frontier {
        let ours = self.authors();
        let known = |author: &ReplicaId| ours.contains(author) && theirs.forked.contains(author);
        let agreed = |((author, sequence), theirs): ((&ReplicaId, u64), &[u8])| {
            let head = self.heads.0.get(author).filter(|head| head.sequence == sequence);
            let differs = head.is_some_and(|head| !head.event.as_bytes().starts_with(theirs)) && !known(author);
            Dot { author: *author, sequence: if differs { sequence - 1 } else { sequence } }
        };
        hello.frontier.iter().zip(theirs.heads.chunks(SHORT_BYTES)).map(agreed).collect()
    }
}

/// What the peer's Hello says of forks; nothing if it is older, or makes no sense.
pub(super) fn heard(hello: &Hello) -> Option<ForkHello> {
    let heard: ForkHello = codec::decode("forks", &hello.extensions).ok()?;
    (heard.heads.len() == hello.frontier.len() * SHORT_BYTES && heard.forked.len() <= PROOFS_MAX).then_some(heard)
}
