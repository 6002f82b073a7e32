//! Histories of a few replicas that write, sync and fall apart again.

use crate::{
    event::{ChunkRef, Content, Dot, Frontier, Key, Operation, Value, ValueKind},
    id::{ChunkId, EventId, PlaintextId, ReplicaId},
    merge::OpenedEvent,
};
use proptest::{collection::vec, prelude::*};
use std::collections::{BTreeMap, BTreeSet};

/// The key `name`.
pub(crate) fn key(name: &str) -> Key {
    Key::new(name.as_bytes()).expect("short and not empty")
}

/// A put under `name` of a value that no other `number` has.
pub(crate) fn put_of(name: &str, number: u64) -> Operation {
    let id = *blake3::hash(&number.to_le_bytes()).as_bytes();
    let piece = ChunkRef { chunk: ChunkId::from_bytes(id), plaintext: PlaintextId::from_bytes(id), length: 7 };
    let content = Content { bytes: 7, depth: 0, references: vec![piece] };
    Operation::Put(key(name), Value { kind: ValueKind::Blob, modified_s: number as i64, modified_ns: 0, content })
}

#[derive(Debug, Clone, Default)]
struct Replica {
    seen: Frontier,
    lamport: u64,
    held: BTreeSet<usize>,
}

/// Replicas and all events that they have written.
#[derive(Debug, Clone)]
pub(crate) struct World {
    replicas: Vec<Replica>,
    events: Vec<OpenedEvent>,
}

impl World {
    pub(crate) fn new(replicas: usize) -> Self {
        Self { replicas: vec![Replica::default(); replicas], events: Vec::new() }
    }

    pub(crate) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Higher replicas have higher ids.
    pub(crate) fn author(&self, replica: usize) -> ReplicaId {
        ReplicaId::from_bytes([0xa0 + replica as u8; 32])
    }

    pub(crate) fn events(&self) -> &[OpenedEvent] {
        &self.events
    }

    pub(crate) fn event(&self, id: &EventId) -> &OpenedEvent {
        self.events.iter().find(|event| event.id == *id).expect("an event of this world")
    }

    pub(crate) fn held_by(&self, replica: usize) -> Vec<&OpenedEvent> {
        self.replicas[replica].held.iter().map(|index| &self.events[*index]).collect()
    }

    /// A new event of `replica` with the operations that `operations` makes of the event's number.
    pub(crate) fn write(&mut self, replica: usize, operations: impl FnOnce(u64) -> Vec<Operation>) -> EventId {
        let (author, number) = (self.author(replica), self.events.len() as u64);
        let writer = &mut self.replicas[replica];
        let dot = Dot { author, sequence: writer.seen.sequence_of(&author) + 1 };
        let id = EventId::from_bytes(*blake3::hash(&[author.as_bytes().as_slice(), &dot.sequence.to_le_bytes()].concat()).as_bytes());
        writer.lamport += 1;
        let deps = writer.seen.clone().without(&author);
        writer.seen.raise(dot);
        writer.held.insert(self.events.len());
        let (lamport, operations) = (writer.lamport, operations(number));
        self.events.push(OpenedEvent { dot, id, lamport, wall_ms: 1_000 + number, deps, operations });
        id
    }

    pub(crate) fn put(&mut self, replica: usize, name: &str) -> EventId {
        self.write(replica, |number| vec![put_of(name, number)])
    }

    pub(crate) fn delete(&mut self, replica: usize, name: &str) -> EventId {
        self.write(replica, |_| vec![Operation::Delete(key(name), Some("reason".to_owned()))])
    }

    pub(crate) fn resolve(&mut self, replica: usize, name: &str, chosen: EventId) -> EventId {
        self.write(replica, |_| vec![Operation::Resolve(key(name), chosen)])
    }

    /// `to` gets everything that `from` holds.
    pub(crate) fn sync(&mut self, from: usize, to: usize) {
        let from = self.replicas[from].clone();
        let to = &mut self.replicas[to];
        to.seen.join(&from.seen);
        to.held.extend(&from.held);
        to.lamport = to.lamport.max(from.lamport);
    }

    pub(crate) fn sync_all(&mut self) {
        (1..self.replicas()).for_each(|replica| self.sync(replica, 0));
        (1..self.replicas()).for_each(|replica| self.sync(0, replica));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize, Vec<(u8, Said)>),
    Sync(usize, usize),
}

#[derive(Debug, Clone)]
enum Said {
    Put,
    Delete,
    Resolve(usize),
}

fn steps(replicas: usize) -> impl Strategy<Value = Vec<Step>> {
    let said = prop_oneof![4 => Just(Said::Put), 1 => Just(Said::Delete), 2 => any::<usize>().prop_map(Said::Resolve)];
    let write = (0..replicas, vec((b'a'..b'e', said), 0..4)).prop_map(|(replica, said)| Step::Write(replica, said));
    let sync = (0..replicas, 0..replicas).prop_map(|(from, to)| Step::Sync(from, to));
    vec(prop_oneof![3 => write, 2 => sync], 0..40)
}

/// Two to five replicas after some forty random writes and one-way syncs.
pub(crate) fn histories() -> impl Strategy<Value = World> {
    (2..=5_usize).prop_flat_map(|replicas| (Just(replicas), steps(replicas))).prop_map(|(replicas, steps)| {
        let mut world = World::new(replicas);
        for step in steps {
            match step {
                Step::Sync(from, to) => world.sync(from, to),
                Step::Write(replica, said) => {
                    let ids: Vec<EventId> = world.events().iter().map(|event| event.id).collect();
                    world.write(replica, |number| operations(&said, number, &ids));
                }
            }
        }
        world
    })
}

/// A resolution may name any event so far, seen or not, or one that does not exist.
fn operations(said: &[(u8, Said)], number: u64, ids: &[EventId]) -> Vec<Operation> {
    let operation = |(index, (name, said)): (usize, &(u8, Said))| {
        let name = (*name as char).to_string();
        match said {
            // Few different values, so that replicas say the same by chance.
            Said::Put => put_of(&name, (number * 8 + index as u64) % 5),
            Said::Delete => Operation::Delete(key(&name), None),
            Said::Resolve(choice) => {
                let chosen = ids.get(choice % (ids.len() + 1)).copied();
                Operation::Resolve(key(&name), chosen.unwrap_or(EventId::from_bytes([0xee; 32])))
            }
        }
    };
    said.iter().enumerate().map(operation).collect()
}

/// One of the orders in which each event comes after its past, picked by `seed`. The set holds every event's past.
pub(crate) fn causal_order<'e>(events: &[&'e OpenedEvent], seed: u64) -> Vec<&'e OpenedEvent> {
    let priority = |event: &OpenedEvent| *blake3::hash(&[event.id.as_bytes().as_slice(), &seed.to_le_bytes()].concat()).as_bytes();
    let mut waiting: BTreeMap<_, &OpenedEvent> = events.iter().map(|event| (priority(event), *event)).collect();
    let (mut seen, mut ordered) = (Frontier::new(), Vec::new());
    while let Some(next) = waiting.iter().find(|(_, event)| seen.covers(&event.past())).map(|(priority, _)| *priority) {
        ordered.extend(waiting.remove(&next).inspect(|event| seen.raise(event.dot)));
    }
    assert_eq!(ordered.len(), events.len(), "the set holds every event's past");
    ordered
}
