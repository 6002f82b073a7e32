//! The merge rule: which version of a key stands, as a pure function of the set of events.
//!
//! ```text
//!   events that a replica holds ──► per key: versions ──► maximal under causality ──► winner = highest (lamport, author)
//!                                                          the rest is history          other maximal ones = a conflict
//! ```
//! Replicas that hold the same events agree without talking, whatever order the events came in: the result depends on the set
//! alone. Nothing is ever dropped, a version that lost can still be read and chosen. There are no merge events made by machines
//! either: two replicas would answer each other's for ever. `docs/specs/merge.md` tells the rule with examples.
//!
//! - [`merge`] is the specification, straight from the definition and quadratic. Tests hold everything else to it.
//! - [`apply`] is the step that a replica takes for one more version, in any order that respects causality.
//!
//! Invariants: at most one maximal version an author (an author's own log is a chain), so (lamport, author) orders them strictly;
//! a version's meaning never changes once its causal past is held, so a step never looks back.
//!
//! Source: the maximal elements of the happened-before order (Lamport 1978), kept as in a multi-value register (Shapiro, Preguiça,
//! Baquero, Zawirski: A comprehensive study of convergent and commutative replicated data types, 2011, section 3.2.2).

mod rule;
#[cfg(test)]
pub(crate) mod tests;

pub use rule::{Agreement, Rule, agreement, apply};

use crate::{
    event::{Content, Dot, Event, Frontier, Key, Operation, Value},
    id::{EventId, ReplicaId},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// An event with its body opened: all that merging needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedEvent {
    /// Author and sequence number.
    pub dot: Dot,
    /// The event.
    pub id: EventId,
    /// One more than everything that the author had seen.
    pub lamport: u64,
    /// Wall time at the author, milliseconds since 1970. Only for display.
    pub wall_ms: u64,
    /// What the author had seen of other authors.
    pub deps: Frontier,
    /// What it says, in order. None when this program cannot read the body: such an event still counts as seen.
    pub operations: Vec<Operation>,
}

impl OpenedEvent {
    /// The facts of `event`, with its body opened to `operations`.
    pub fn new(event: &Event, operations: Vec<Operation>) -> Self {
        let header = event.header();
        Self { dot: event.dot(), id: event.id(), lamport: header.lamport, wall_ms: header.wall_ms, deps: header.deps.clone(), operations }
    }

    /// Everything that happened before it: what it depends on and its author's earlier events.
    pub fn past(&self) -> Frontier {
        let mut past = self.deps.clone();
        past.raise(Dot { author: self.dot.author, sequence: self.dot.sequence.saturating_sub(1) });
        past
    }
}

/// Where a version stands in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Lamport time of its event.
    pub lamport: u64,
    /// Author and sequence number of its event.
    pub dot: Dot,
    /// Position among the operations of its event.
    pub index: u32,
    /// Its event.
    pub event: EventId,
}

impl Place {
    /// The place of the operation at `index` in `event`.
    pub fn of(event: &OpenedEvent, index: usize) -> Self {
        Self { lamport: event.lamport, dot: event.dot, index: index as u32, event: event.id }
    }

    /// What decides between maximal versions: the highest wins.
    pub fn rank(&self) -> (u64, ReplicaId) {
        (self.lamport, self.dot.author)
    }

    /// Whether this version supersedes `older`: its event's `past` holds it, or it comes later in the same event.
    pub fn dominates(&self, past: &Frontier, older: &Self) -> bool {
        past.contains(&older.dot) || (self.dot == older.dot && self.index > older.index)
    }
}

impl AsRef<Place> for Place {
    fn as_ref(&self) -> &Place {
        self
    }
}

/// What a version says of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It has this value.
    Put(Value),
    /// It is gone, for this reason.
    Delete(Option<String>),
}

impl Action {
    /// Whether both say the same of the key, whenever and whyever it was said: the same kind of thing with the same bytes, or that it
    /// is gone. Bytes are compared by the identities of their plaintexts: the same bytes may lie in different chunks.
    pub fn agrees_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Put(one), Self::Put(other)) => one.kind == other.kind && same_bytes(&one.content, &other.content),
            (Self::Delete(_), Self::Delete(_)) => true,
            (Self::Put(_), Self::Delete(_)) | (Self::Delete(_), Self::Put(_)) => false,
        }
    }
}

fn same_bytes(one: &Content, other: &Content) -> bool {
    let plaintexts = |content: &Content| content.references.iter().map(|piece| piece.plaintext).collect::<Vec<_>>();
    one.bytes == other.bytes && one.depth == other.depth && plaintexts(one) == plaintexts(other)
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Where it stands in the history.
    pub place: Place,
    /// Wall time at the author, milliseconds since 1970. Only for display.
    pub wall_ms: u64,
    /// What it says. A resolution says what the version says that it chose.
    pub action: Action,
    /// The event that a resolution chose; none for a put or a deletion.
    pub chosen: Option<EventId>,
}

impl Version {
    /// The value, unless it is a deletion.
    pub fn value(&self) -> Option<&Value> {
        match &self.action {
            Action::Put(value) => Some(value),
            Action::Delete(_) => None,
        }
    }
}

impl AsRef<Place> for Version {
    fn as_ref(&self) -> &Place {
        &self.place
    }
}

/// What stands for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The version that counts.
    pub winner: Version,
    /// The other maximal versions, highest first.
    pub losers: Vec<Version>,
}

impl Resolved {
    /// Whether all maximal versions say the same. If not, the key is in conflict.
    pub fn agreement(&self) -> Agreement {
        agreement(std::iter::once(&self.winner).chain(&self.losers).map(|version| &version.action))
    }

    /// Which rule made the winner win, given how many versions it and the others have superseded.
    pub fn rule(&self, superseded: usize) -> Rule {
        Rule::of(self, superseded)
    }
}

/// What stands for every key that `events` speak of. Events given twice count once.
///
/// Depends on the set of events alone. The set need not be complete, yet a replica only ever sees sets that hold every event's past.
pub fn merge<'e>(events: impl IntoIterator<Item = &'e OpenedEvent>) -> BTreeMap<Key, Resolved> {
    let events: BTreeMap<EventId, &OpenedEvent> = events.into_iter().map(|event| (event.id, event)).collect();
    let keys: BTreeSet<&Key> = events.values().flat_map(|event| &event.operations).map(Operation::key).collect();
    keys.into_iter().filter_map(|key| Some((key.clone(), resolve(key, &events)?))).collect()
}

fn resolve(key: &Key, events: &BTreeMap<EventId, &OpenedEvent>) -> Option<Resolved> {
    let versions: Vec<(Version, Frontier)> = events.values().flat_map(|event| versions_in(event, key, events)).collect();
    let superseded = |old: &Version| versions.iter().any(|(new, past)| new.place.dominates(past, &old.place));
    let mut maximal: Vec<Version> = versions.iter().map(|(version, _)| version).filter(|version| !superseded(version)).cloned().collect();
    maximal.sort_by_key(|version| Reverse(version.place.rank()));
    let mut maximal = maximal.into_iter();
    Some(Resolved { winner: maximal.next()?, losers: maximal.collect() })
}

fn versions_in(event: &OpenedEvent, key: &Key, events: &BTreeMap<EventId, &OpenedEvent>) -> Vec<(Version, Frontier)> {
    let about_key = event.operations.iter().enumerate().filter(|(_, operation)| operation.key() == key);
    let versions = about_key.filter_map(|(index, operation)| {
        let chosen = match operation {
            Operation::Resolve(_, chosen) => Some(*chosen),
            Operation::Put(..) | Operation::Delete(..) => None,
        };
        let action = meaning(operation, event, events)?;
        Some((Version { place: Place::of(event, index), wall_ms: event.wall_ms, action, chosen }, event.past()))
    });
    versions.collect()
}

/// What `operation` of `event` says. A resolution that names an event outside its own past, or one that says nothing of the key,
/// means nothing: it is no version. Recursion ends because an event can only name events whose hash was known before its own.
fn meaning(operation: &Operation, event: &OpenedEvent, events: &BTreeMap<EventId, &OpenedEvent>) -> Option<Action> {
    match operation {
        Operation::Put(_, value) => Some(Action::Put(value.clone())),
        Operation::Delete(_, reason) => Some(Action::Delete(reason.clone())),
        Operation::Resolve(key, chosen) => {
            let chosen = events.get(chosen).filter(|chosen| event.past().contains(&chosen.dot))?;
            let about_key = chosen.operations.iter().rev().filter(|operation| operation.key() == key);
            about_key.into_iter().find_map(|operation| meaning(operation, chosen, events))
        }
    }
}
