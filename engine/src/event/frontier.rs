//! Frontiers: what a replica has seen of each author, and the heads that its logs end with.

use crate::{
    id::{EventId, ReplicaId, Root},
    limits::FRONTIER_AUTHORS_MAX,
};
use minicbor::{Decode, Decoder, Encode, Encoder, data::Type, decode, encode};
use std::collections::BTreeMap;

/// One event's place: author and sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who wrote it.
    pub author: ReplicaId,
    /// Position in the author's log, from 1.
    pub sequence: u64,
}

/// Author -> highest sequence number held, without holes. Authors with nothing held are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier(BTreeMap<ReplicaId, u64>);

impl Frontier {
    /// Nothing seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Highest sequence number of `author`; 0 if nothing is held.
    pub fn sequence_of(&self, author: &ReplicaId) -> u64 {
        self.0.get(author).copied().unwrap_or(0)
    }

    /// Whether the event at `dot` is in it.
    pub fn contains(&self, dot: &Dot) -> bool {
        self.sequence_of(&dot.author) >= dot.sequence
    }

    /// Whether everything in `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(author, sequence)| self.sequence_of(author) >= sequence)
    }

    /// Raises the entry of `dot`'s author to it.
    pub fn raise(&mut self, dot: Dot) {
        if dot.sequence > 0 {
            let held = self.0.entry(dot.author).or_default();
            *held = dot.sequence.max(*held);
        }
    }

    /// Raises every entry to that of `other`: the least frontier that covers both.
    pub fn join(&mut self, other: &Self) {
        for (author, sequence) in other.iter() {
            self.raise(Dot { author: *author, sequence });
        }
    }

    /// Forgets one author.
    pub fn without(mut self, author: &ReplicaId) -> Self {
        self.0.remove(author);
        self
    }

    /// Authors and their sequence numbers, by author.
    pub fn iter(&self) -> impl Iterator<Item = (&ReplicaId, u64)> {
        self.0.iter().map(|(author, sequence)| (author, *sequence))
    }

    /// Number of authors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Events in it that `other` lacks.
    pub fn events_beyond(&self, other: &Self) -> u64 {
        let beyond = self.iter().map(|(author, sequence)| sequence.saturating_sub(other.sequence_of(author)));
        // A peer's frontier may claim any number.
        beyond.fold(0, u64::saturating_add)
    }
}

impl FromIterator<Dot> for Frontier {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut frontier = Self::new();
        dots.into_iter().for_each(|dot| frontier.raise(dot));
        frontier
    }
}

impl<C> Encode<C> for Frontier {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.map(self.0.len() as u64)?;
        for (author, sequence) in &self.0 {
            author.encode(e, ctx)?;
            e.u64(*sequence)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Frontier {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let count = match d.datatype()? {
            Type::Map => d.map()?.unwrap_or(u64::MAX),
            other => return Err(decode::Error::type_mismatch(other)),
        };
        if count > FRONTIER_AUTHORS_MAX as u64 {
            return Err(decode::Error::message("a frontier names too many authors"));
        }
        let mut frontier = BTreeMap::new();
        for _ in 0..count {
            let author = ReplicaId::decode(d, ctx)?;
            let sequence = d.u64()?;
            if sequence == 0 || frontier.insert(author, sequence).is_some() {
                return Err(decode::Error::message("a frontier names an author twice or with nothing"));
            }
        }
        Ok(Self(frontier))
    }
}

/// An author's newest event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// Its sequence number.
    #[n(0)]
    pub sequence: u64,
    /// Its identifier.
    #[n(1)]
    pub event: EventId,
}

/// Author -> newest event accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads(pub BTreeMap<ReplicaId, Head>);

impl Heads {
    /// The sequence numbers alone.
    pub fn frontier(&self) -> Frontier {
        self.0.iter().map(|(author, head)| Dot { author: *author, sequence: head.sequence }).collect()
    }

    /// Raises each entry to that of `other`; of two with one number, the own stays.
    pub fn join(&mut self, other: &Self) {
        for (author, head) in &other.0 {
            let held = self.0.entry(*author).or_insert(*head);
            if held.sequence < head.sequence {
                *held = *head;
            }
        }
    }

    /// Digest over authors, sequence numbers and event ids: equal on two replicas exactly when they hold the same events.
    pub fn root(&self) -> Root {
        let mut hasher = blake3::Hasher::new_derive_key("mirror 2026-11 v1 root");
        for (author, head) in &self.0 {
            hasher.update(author.as_bytes()).update(&head.sequence.to_le_bytes()).update(head.event.as_bytes());
        }
        Root::from_bytes(*hasher.finalize().as_bytes())
    }
}
