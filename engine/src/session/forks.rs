//! Forks across replicas: how two replicas notice that they hold different events for one place, and how proofs spread.
//!
//! A frontier says how far a log is held, not which events. So a Hello also carries, in the order of its frontier, the first bytes of each
//! newest event's id. Where two frontiers agree on a number and the ids do not, each side sends its event once more, as if the other
//! lacked it: whoever gets it finds the contradiction, keeps both events, and says the proof ([`Message::Fork`](super::Message::Fork)).
//! Where the numbers differ, the first event beyond contradicts by the event that it names as the one before it.
//!
//! A contradiction need not lie where the log forks: the first event that shows one may come later. So while two replicas hold different
//! branches, each takes the other to hold the same only up to some number before the first contradiction that it knows, twice as far back
//! each time ([`ForkKnowledge::shared`]), and what it sends from there on is kept beside the other's log. In a few sessions both know all of
//! both branches.
//!
//! A Hello names the authors whose forks are proved on its side. A proof goes to whoever does not name that author, so every replica
//! ends up with it; two that hold equal logs and different proofs exchange those before they part.

use super::Hello;
use crate::{
    event::{Dot, Frontier, Heads},
    id::ReplicaId,
    limits::PROOFS_MAX,
};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use std::collections::BTreeSet;

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
    /// Of each author whose fork is proved here: up to which number a peer whose newest event is another is taken to hold the same.
    pub shared: Frontier,
    /// This device's wall clock, for the peer's user.
    pub wall_ms: u64,
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
    /// The sender's wall clock. Nothing is ordered by it: a user is told when clocks differ.
    #[n(2)]
    pub(super) wall_ms: u64,
}

impl ForkKnowledge {
    /// For our Hello.
    pub(super) fn to_hello(&self) -> ForkHello {
        let heads = self.heads.0.values().flat_map(|head| head.event.as_bytes()[..SHORT_BYTES].to_vec()).collect();
        ForkHello { heads, forked: self.authors(), wall_ms: self.wall_ms }
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
    /// those of forks that both know, but for what finds out where they begin: see [`ForkKnowledge::shared`].
    pub(super) fn agreed(&self, hello: &Hello, theirs: &ForkHello) -> Frontier {
        let ours = self.authors();
        let known = |author: &ReplicaId| ours.contains(author) && theirs.forked.contains(author);
        let agreed = |((author, sequence), theirs): ((&ReplicaId, u64), &[u8])| {
            let head = self.heads.0.get(author).filter(|head| head.sequence == sequence);
            let differs = head.is_some_and(|head| !head.event.as_bytes().starts_with(theirs));
            let same = head.is_some() && !differs;
            let shared = if same { None } else { self.shared.iter().find(|(forked, _)| *forked == author) };
            let sequence = if differs && !known(author) { sequence - 1 } else { sequence };
            Dot { author: *author, sequence: shared.map_or(sequence, |(_, shared)| sequence.min(shared)) }
        };
        hello.frontier.iter().zip(theirs.heads.chunks(SHORT_BYTES)).map(agreed).collect()
    }
}

/// Authors of which less is agreed than the peer's frontier says: what lies beyond goes again.
pub(super) fn again(hello: &Hello, agreed: &Frontier) -> BTreeSet<ReplicaId> {
    let less = |(author, sequence): &(&ReplicaId, u64)| agreed.sequence_of(author) < *sequence;
    hello.frontier.iter().filter(less).map(|(author, _)| *author).collect()
}

/// What the peer's Hello says of forks; nothing if it is older, or makes no sense.
pub(super) fn heard(hello: &Hello, said: Option<ForkHello>) -> Option<ForkHello> {
    let heard = said?;
    (heard.heads.len() == hello.frontier.len() * SHORT_BYTES && heard.forked.len() <= PROOFS_MAX).then_some(heard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Head,
        id::{EventId, Root, VaultId},
        session::{Direction, hello},
    };

    fn author(byte: u8) -> ReplicaId {
        ReplicaId::from_bytes([byte; 32])
    }

    /// Author, number and event of each newest one, and whose forks are proved.
    fn knowledge(heads: &[(u8, u64, u8)], proved: &[u8]) -> ForkKnowledge {
        let head =
            |(who, sequence, event): &(u8, u64, u8)| (author(*who), Head { sequence: *sequence, event: EventId::from_bytes([*event; 32]) });
        let proofs = proved.iter().map(|who| (author(*who), Bytes::from_static(b"proof"))).collect();
        ForkKnowledge {
            heads: Heads(heads.iter().map(head).collect()),
            proofs,
            aside: Frontier::new(),
            shared: Frontier::new(),
            wall_ms: 1,
        }
    }

    fn hello_of(side: &ForkKnowledge) -> Hello {
        Hello {
            version: hello::VERSION,
            features: 0,
            vault: VaultId::from_bytes([1; 32]),
            replica: author(9),
            direction: Direction::Both,
            frontier: side.heads.frontier(),
            pending: Frontier::new(),
            root: Root::from_bytes([3; 32]),
            inline_bytes_max: 0,
            early: None,
            extensions: Vec::new(),
        }
    }

    fn said_by(side: &ForkKnowledge) -> ForkHello {
        heard(&hello_of(side), Some(side.to_hello())).unwrap()
    }

    #[test]
    fn only_an_event_that_differs_at_the_same_number_goes_again_and_only_until_both_know() {
        let theirs = knowledge(&[(1, 5, 50), (2, 5, 50), (3, 7, 70)], &[]);
        let hello = hello_of(&theirs);
        let heard = said_by(&theirs);
        let agreed = |ours: &ForkKnowledge| ours.agreed(&hello, &heard);
        let ours = [(1, 5, 50), (2, 5, 51), (3, 6, 71)];
        let expected = Frontier::from_iter([(1, 5), (2, 4), (3, 7)].map(|(who, sequence)| Dot { author: author(who), sequence }));
        assert_eq!(agreed(&knowledge(&ours, &[])), expected);
        assert_eq!(agreed(&knowledge(&ours, &[2])), expected, "they do not know");
        let theirs = knowledge(&[(1, 5, 50), (2, 5, 50), (3, 7, 70)], &[2]);
        let (knowing, known) = (hello_of(&theirs), said_by(&theirs));
        assert_eq!(knowledge(&ours, &[2]).agreed(&knowing, &known), knowing.frontier);
    }

    #[test]
    fn where_a_fork_begins_is_searched_until_the_newest_events_are_the_same() {
        let shared = |sequence| Frontier::from_iter([Dot { author: author(1), sequence }]);
        let agreed = |ours: (u8, u64, u8), theirs: (u8, u64, u8)| {
            let ours = ForkKnowledge { shared: shared(3), ..knowledge(&[ours, (2, 5, 50)], &[1]) };
            let theirs = knowledge(&[theirs, (2, 5, 50)], &[1]);
            let hello = hello_of(&theirs);
            let agreed = ours.agreed(&hello, &said_by(&theirs));
            assert_eq!(agreed.sequence_of(&author(2)), 5);
            (agreed.sequence_of(&author(1)), again(&hello, &agreed).contains(&author(1)))
        };
        assert_eq!(agreed((1, 6, 60), (1, 6, 60)), (6, false), "the same branch");
        assert_eq!(agreed((1, 6, 60), (1, 6, 61)), (3, true));
        assert_eq!(agreed((1, 6, 60), (1, 7, 71)), (3, true));
        assert_eq!(agreed((1, 6, 60), (1, 2, 20)), (2, false), "it made room");
    }

    #[test]
    fn a_proof_goes_to_who_lacks_it_and_equal_knowledge_is_no_reason_to_talk() {
        let heard = |proved: &[u8]| said_by(&knowledge(&[], proved));
        let ours = knowledge(&[], &[1, 2]);
        assert_eq!(ours.lacking(&heard(&[1])).count(), 1);
        assert!(ours.differs(&heard(&[1])) && ours.differs(&heard(&[1, 3])) && ours.differs(&heard(&[1, 2, 3])));
        assert!(!ours.differs(&heard(&[2, 1])));
    }

    #[test]
    fn what_an_older_or_a_wrong_hello_says_is_nothing() {
        let side = knowledge(&[(1, 5, 50)], &[]);
        for said in [None, Some(knowledge(&[], &[]).to_hello()), Some(knowledge(&[(1, 1, 1), (2, 1, 1)], &[]).to_hello())] {
            assert_eq!(heard(&hello_of(&side), said), None);
        }
    }
}
