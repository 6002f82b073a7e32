//! A vault in memory and the driver that connects it to a session: the plainest thing that keeps the contract of actions.

use crate::{
    bitmap::Bitmap,
    codec,
    event::{ChunkList, Dot, Entry, Frontier, Head, Heads, ListRef, Operation},
    frame::{self, FrameBuf, Kind, Verified},
    id::{ChunkId, EventId, ListId, ReplicaId, Root, VaultId},
    keys::DeviceKey,
    merge::OpenedEvent,
    session::{
        Action, Admitted, Arrival, Config, Cursor, Direction, Done, ForkKnowledge, HelloKeys, Holding, LoadedEvent, Local, Side, Stay, Via,
        Wants, Windows,
    },
};
use minicbor::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};

/// Lists with lost chunks that are found at a time: few, so that there are several pages.
const LOST_PAGE: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct ModelEvent {
    #[n(0)]
    author: ReplicaId,
    #[n(1)]
    sequence: u64,
    #[n(2)]
    deps: Frontier,
    #[n(3)]
    lists: Vec<ListRef>,
    #[n(4)]
    lamport: u64,
    #[n(5)]
    operations: Vec<Operation>,
}

impl ModelEvent {
    pub(super) fn dot(&self) -> Dot {
        Dot { author: self.author, sequence: self.sequence }
    }

    fn frame(&self) -> FrameBuf {
        FrameBuf::new(Kind::Event, &codec::encode(self))
    }

    fn opened(&self) -> OpenedEvent {
        OpenedEvent {
            dot: self.dot(),
            id: EventId::from_bytes(self.frame().id()),
            lamport: self.lamport,
            wall_ms: 0,
            deps: self.deps.clone(),
            operations: self.operations.clone(),
        }
    }
}

/// A replica's store: what survives a crash, and chunks that have not been synced yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Vault {
    pub(super) name: u8,
    log: Vec<ModelEvent>,
    journal: Vec<ModelEvent>,
    lists: BTreeMap<ListId, ChunkList>,
    chunks: BTreeMap<ChunkId, Vec<u8>>,
    volatile: BTreeSet<ChunkId>,
    /// Chunks of visible events that are gone, by no fault of a session.
    lost: BTreeSet<ChunkId>,
}

impl Vault {
    pub(super) fn new(name: u8) -> Self {
        Self { name, ..Self::default() }
    }

    pub(super) fn replica(&self) -> ReplicaId {
        ReplicaId::from_bytes([self.name; 32])
    }

    pub(super) fn device(&self) -> DeviceKey {
        DeviceKey::from_seed(&[self.name; 32])
    }

    pub(super) fn frontier(&self) -> Frontier {
        self.log.iter().map(ModelEvent::dot).collect()
    }

    pub(super) fn root(&self) -> Root {
        let mut heads = Heads::default();
        for event in &self.log {
            let head = Head { sequence: event.sequence, event: EventId::from_bytes(event.frame().id()) };
            heads.0.insert(event.author, head);
        }
        heads.root()
    }

    pub(super) fn pending(&self) -> usize {
        self.journal.len()
    }

    pub(super) fn events(&self) -> usize {
        self.log.len()
    }

    /// What merging needs of its log, from the `nth` event on.
    pub(super) fn opened(&self, nth: usize) -> Vec<OpenedEvent> {
        self.log[nth..].iter().map(ModelEvent::opened).collect()
    }

    /// The log of each author, as its bytes lie here.
    pub(super) fn author_logs(&self) -> BTreeMap<ReplicaId, Vec<Vec<u8>>> {
        let mut logs: BTreeMap<ReplicaId, Vec<Vec<u8>>> = BTreeMap::new();
        for event in &self.log {
            logs.entry(event.author).or_default().push(event.frame().into_bytes());
        }
        logs
    }

    /// Writes an event with a list of chunks for each number in `lists`.
    pub(super) fn write(&mut self, lists: &[u32]) {
        self.write_saying(lists, Vec::new());
    }

    /// The same, which says something of keys.
    pub(super) fn write_saying(&mut self, lists: &[u32], operations: Vec<Operation>) {
        let lamport = 1 + self.log.iter().map(|event| event.lamport).max().unwrap_or(0);
        let deps = self.frontier().without(&self.replica());
        let sequence = self.frontier().sequence_of(&self.replica()) + 1;
        let lists = lists.iter().enumerate().map(|(nth, chunks)| self.write_list(sequence, nth, *chunks)).collect();
        self.log.push(ModelEvent { author: self.replica(), sequence, deps, lists, lamport, operations });
    }

    fn write_list(&mut self, sequence: u64, nth: usize, chunks: u32) -> ListRef {
        let mut entries = Vec::new();
        for n in 0..chunks {
            let seed = format!("{} {sequence} {nth} {n}", self.name);
            let mut record = vec![0; 1 + (blake3::hash(seed.as_bytes()).as_bytes()[0] as usize)];
            blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut record);
            let id = ChunkId::from_bytes(*blake3::hash(&record).as_bytes());
            entries.push(Entry { id, length: record.len() as u32 });
            self.chunks.insert(id, record);
        }
        // One-byte records may repeat; a list names each chunk once.
        let mut seen = BTreeSet::new();
        entries.retain(|entry| seen.insert(entry.id));
        let list = ChunkList::new(entries).unwrap();
        let reference = list.reference();
        self.lists.insert(list.id(), list);
        reference
    }

    /// Applies what `other` holds and this one lacks, as another session of the same replica does.
    pub(super) fn receive_all(&mut self, other: &Self) {
        let held = self.frontier();
        for event in other.log.iter().filter(|event| !held.contains(&event.dot())) {
            for list in event.lists.iter().map(|list| &other.lists[&list.id]) {
                self.lists.insert(list.id(), list.clone());
                for Entry { id, .. } in list.entries() {
                    self.volatile.remove(id);
                    if let Some(record) = other.chunks.get(id) {
                        self.chunks.insert(*id, record.clone());
                    }
                }
            }
            self.journal.retain(|pending| pending.dot() != event.dot());
            self.log.push(event.clone());
        }
    }

    /// Loses the chunks of its `nth` event.
    pub(super) fn damage(&mut self, nth: usize) {
        let ids: Vec<ChunkId> =
            self.log[nth].lists.iter().flat_map(|list| self.lists[&list.id].entries().iter().map(|entry| entry.id)).collect();
        for id in ids {
            self.chunks.remove(&id);
            self.lost.insert(id);
        }
    }

    /// Loses the chunks of an event of the replica `name`.
    pub(super) fn lose(&mut self, name: u8, sequence: u64) {
        let dot = Dot { author: ReplicaId::from_bytes([name; 32]), sequence };
        let at = self.log.iter().position(|event| event.dot() == dot).unwrap();
        self.damage(at);
    }

    /// Loses some chunks of its visible events, one in `one_in`.
    pub(super) fn rot(&mut self, dice: &mut super::world::Dice, one_in: usize) {
        let lists: Vec<ListId> = self.log.iter().flat_map(|event| &event.lists).map(|list| list.id).collect();
        for entry in lists.iter().flat_map(|list| self.lists[list].entries()) {
            if dice.roll(one_in) == 0 {
                self.chunks.remove(&entry.id);
                self.lost.insert(entry.id);
            }
        }
    }

    /// Chunks that visible events name and that are not here.
    pub(super) fn lost(&self) -> usize {
        self.lost.iter().filter(|id| !self.chunks.contains_key(id)).count()
    }

    /// Chunks that are gone here and there.
    pub(super) fn lost_in_both(&self, other: &Self) -> usize {
        self.lost.iter().filter(|id| !self.chunks.contains_key(id) && !other.chunks.contains_key(id)).count()
    }

    fn lost_lists(&self, within: &Frontier, after: Option<ListId>) -> Vec<(ListRef, Bitmap)> {
        let named = self.log.iter().filter(|event| within.contains(&event.dot())).flat_map(|event| &event.lists);
        let lists: BTreeMap<ListId, ListRef> = named.map(|list| (list.id, *list)).collect();
        let later = lists.into_values().filter(|list| after.is_none_or(|after| list.id > after));
        later.map(|list| (list, self.missing(&list))).filter(|(_, missing)| !missing.is_empty()).collect()
    }

    /// What was not synced is gone.
    pub(super) fn crash(&mut self) {
        for id in std::mem::take(&mut self.volatile) {
            self.chunks.remove(&id);
        }
    }

    fn missing(&self, list: &ListRef) -> Bitmap {
        let mut missing = Bitmap::empty(list.entries as usize);
        for (position, entry) in self.lists[&list.id].entries().iter().enumerate() {
            if !self.chunks.contains_key(&entry.id) {
                missing.insert(position as u32);
            }
        }
        missing
    }

    fn admitted(&self, event: &ModelEvent) -> Admitted {
        let lists: Vec<(ListRef, Bitmap)> = event.lists.iter().map(|list| (*list, self.missing(list))).collect();
        Admitted { dot: event.dot(), deps: event.deps.clone(), bytes: event.frame().into_bytes().len(), lists }
    }

    pub(super) fn local(&self) -> Local {
        let pending = self.journal.iter().map(|event| self.admitted(event)).collect();
        let holding = if self.lost() == 0 { Holding::Whole } else { Holding::Gaps };
        Local { frontier: self.frontier(), root: self.root(), pending, holding, forks: ForkKnowledge::default() }
    }

    fn lacks_only_what_was_lost(&self, list: &ListRef) -> bool {
        let entries = self.lists[&list.id].entries();
        self.missing(list).iter().all(|position| self.lost.contains(&entries[position as usize].id))
    }

    /// Every visible event has all its chunks but those that were lost since, and all that it builds on comes before it.
    pub(super) fn check(&self) {
        let mut seen = Frontier::new();
        for event in &self.log {
            assert!(event.lists.iter().all(|list| self.lacks_only_what_was_lost(list)), "{:?} is visible without its chunks", event.dot());
            assert!(
                seen.covers(&event.deps) && seen.sequence_of(&event.author) + 1 == event.sequence,
                "{:?} before its cause",
                event.dot()
            );
            seen.raise(event.dot());
        }
    }
}

pub(super) const VAULT: VaultId = VaultId::from_bytes([7; 32]);

pub(super) fn config(vault: &Vault, side: Side, direction: Direction, windows: Windows) -> Config {
    Config {
        side,
        direction,
        vault: VAULT,
        replica: vault.replica(),
        hello_keys: HelloKeys::derive(&[1; 32], &[2; 32]),
        cached_peer_frontier: None,
        stay: Stay::UntilEqual,
        windows,
        witness: None,
        wall_ms: 1_000,
    }
}

/// What an action led to.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) done: Vec<Done>,
    /// Chunk frames for the lanes.
    pub(super) lanes: Vec<Vec<u8>>,
}

/// Carries out actions on a vault.
#[derive(Debug, Default)]
pub(super) struct Driver {
    pub(super) vault: Vault,
    pub(super) wants: Wants,
    pub(super) sent_chunks: usize,
    pub(super) landed_chunks: usize,
    pub(super) unwanted_chunks: usize,
    pub(super) lanes_asked: usize,
    /// Frames to damage on their way out.
    pub(super) spoil: usize,
}

impl Driver {
    pub(super) fn new(vault: Vault) -> Self {
        Self { vault, ..Self::default() }
    }

    pub(super) fn carry_out(&mut self, action: Action) -> Effects {
        let done = match action {
            Action::LoadEvents { beyond, after, bytes_max, events_max } => vec![self.load(&beyond, after, bytes_max, events_max)],
            Action::Admit { frames } => vec![self.admit(&frames)],
            Action::Expect { list, want } => self.expect(&list, &want),
            Action::Forget { list } => {
                self.wants.drop_list(&list);
                vec![]
            }
            Action::FindLost { within, after } => {
                let lists = self.vault.lost_lists(&within, after);
                let next = lists.get(LOST_PAGE).map(|_| lists[LOST_PAGE - 1].0.id);
                vec![Done::Lost { lists: lists.into_iter().take(LOST_PAGE).collect(), next }]
            }
            Action::Serve { list, want, via } => return self.serve(&list, &want, via),
            Action::StoreInline { list, frames } => {
                let mut done: Vec<Done> = frame::split(&frames).flat_map(|frame| self.land(frame.unwrap().1)).collect();
                done.push(Done::Stored { list });
                done
            }
            Action::Commit { events } => vec![self.commit(&events)],
            // The model forks no log.
            Action::TakeProof { .. } => vec![],
            Action::OpenLanes | Action::AcceptLanes => {
                self.lanes_asked += 1;
                vec![]
            }
        };
        Effects { done, lanes: vec![] }
    }

    fn load(&self, beyond: &Frontier, after: Option<Cursor>, bytes_max: usize, events_max: usize) -> Done {
        let start = after.map_or(0, |cursor| cursor.0 as usize);
        let (mut events, mut bytes, mut at) = (Vec::new(), 0, start);
        for event in &self.vault.log[start..] {
            if !beyond.contains(&event.dot()) {
                if events.len() >= events_max || (bytes > 0 && bytes >= bytes_max) {
                    return Done::Events { events, next: Some(Cursor(at as u64, 0)) };
                }
                let lists = event.lists.iter().map(|list| self.vault.lists[&list.id].to_frame().into_bytes().into());
                let frames = lists.chain([event.frame().into_bytes().into()]).collect();
                let loaded = LoadedEvent { dot: event.dot(), frames, lists: event.lists.clone() };
                bytes += loaded.bytes();
                events.push(loaded);
            }
            at += 1;
        }
        Done::Events { events, next: None }
    }

    fn admit(&mut self, frames: &[u8]) -> Done {
        let mut events = Vec::new();
        for frame in frame::split(frames) {
            let frame = Verified::check(frame.unwrap().1).unwrap();
            if frame.header().kind == Kind::List {
                let list = ChunkList::from_record(frame.record()).unwrap();
                self.vault.lists.insert(list.id(), list);
                continue;
            }
            let event: ModelEvent = codec::decode("event", frame.record()).unwrap();
            let mut known = self.vault.frontier();
            self.vault.journal.iter().for_each(|event| known.raise(event.dot()));
            if known.contains(&event.dot()) {
                continue;
            }
            if !known.covers(&event.deps) || known.sequence_of(&event.author) + 1 != event.sequence {
                return Done::Refused { reason: "an event came before its cause".into() };
            }
            events.push(self.vault.admitted(&event));
            self.vault.journal.push(event);
        }
        Done::Admitted { events }
    }

    fn expect(&mut self, list: &ListRef, want: &Bitmap) -> Vec<Done> {
        let chunks = self.vault.lists[&list.id].clone();
        self.wants.expect(list.id, &chunks, want);
        let here = |entry: &&Entry| self.vault.chunks.contains_key(&entry.id);
        let present: Vec<Entry> = want.iter().map(|position| &chunks.entries()[position as usize]).filter(here).copied().collect();
        present.iter().flat_map(|entry| self.arrived(entry.id, entry.length)).collect()
    }

    fn serve(&mut self, list: &ListRef, want: &Bitmap, via: Via) -> Effects {
        let Some(chunks) = self.vault.lists.get(&list.id) else {
            return Effects { done: vec![Done::UnknownList { list: list.id }], lanes: vec![] };
        };
        let (mut frames, mut unavailable) = (Vec::new(), Bitmap::empty(list.entries as usize));
        for position in want.iter() {
            match self.vault.chunks.get(&chunks.entries()[position as usize].id) {
                Some(record) => frames.push(FrameBuf::new(Kind::Chunk, record).into_bytes()),
                None => drop(unavailable.insert(position)),
            }
        }
        self.sent_chunks += frames.len();
        for frame in frames.iter_mut().take(self.spoil) {
            *frame.last_mut().unwrap() ^= 1;
            self.spoil -= 1;
        }
        let (list, bytes) = (list.id, frames.iter().map(Vec::len).sum::<usize>() as u64);
        match via {
            Via::Lanes => Effects { done: vec![Done::Served { list, unavailable, bytes }], lanes: frames },
            Via::Inline => Effects { done: vec![Done::Inline { list, frames: frames.concat().into(), unavailable }], lanes: vec![] },
        }
    }

    /// A chunk frame arrived.
    pub(super) fn land(&mut self, bytes: &[u8]) -> Vec<Done> {
        self.landed_chunks += 1;
        let header = frame::Header::parse(bytes).unwrap();
        let id = ChunkId::from_bytes(header.id);
        if self.wants.list_of(&id).is_none() {
            self.unwanted_chunks += 1;
            return vec![];
        }
        match Verified::check(bytes) {
            Ok(frame) => {
                if self.vault.chunks.insert(id, frame.record().to_vec()).is_none() {
                    self.vault.volatile.insert(id);
                }
                self.arrived(id, header.length)
            }
            Err(_) => {
                let list = self.vault.lists.values().find(|list| list.entries().iter().any(|entry| entry.id == id)).unwrap();
                vec![Done::Damaged { list: list.id(), chunks: vec![id] }]
            }
        }
    }

    fn arrived(&mut self, id: ChunkId, length: u32) -> Vec<Done> {
        let bytes = u64::from(length) + frame::HEADER_BYTES as u64;
        let Arrival::Wanted { landed, others } = self.wants.arrived(&id, length) else { return vec![] };
        let mut done = Vec::new();
        for landed in others.into_iter().chain([landed]) {
            done.push(Done::Progress { list: landed.list, chunks: 1, bytes });
            if landed.remaining == 0 {
                done.push(Done::ListComplete { list: landed.list });
            }
        }
        done
    }

    fn commit(&mut self, events: &[Dot]) -> Done {
        self.vault.volatile.clear();
        for dot in events {
            match self.vault.journal.iter().position(|event| event.dot() == *dot) {
                Some(at) => {
                    let event = self.vault.journal.remove(at);
                    self.vault.log.push(event);
                }
                None => assert!(self.vault.frontier().contains(dot), "nobody else has committed it either"),
            }
        }
        self.vault.check();
        Done::Committed { frontier: self.vault.frontier(), root: self.vault.root() }
    }
}
