//! Behaviour of the whole store, on real files.

mod chunks;
mod crash;
mod doubt;
mod events;
mod faults;
mod forks;
mod journal;
mod leaving;
mod losing;
mod mending;
mod scrubbing;
mod verifying;

use super::{Repair, Slot, Store, StoreError};
use crate::{
    event::{ChunkList, Entry, Event, EventHeader, Frontier, Incarnation, KIND_OPERATIONS, author},
    frame::{FrameBuf, Kind, Verified},
    id::{ChunkId, ReplicaId, VaultId},
    io::durable::Disk,
    keys::DeviceKey,
};
use std::path::Path;
use tempfile::TempDir;

const VAULT: VaultId = VaultId::from_bytes([42; 32]);

/// A vault directory that goes away at the end.
struct Dir(TempDir);

impl Dir {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Store::create(dir.path(), &VAULT).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Opens a store that needs no mending.
    fn open(&self) -> Store {
        let (store, repairs) = self.open_mending();
        assert_eq!(repairs, []);
        store
    }

    fn open_mending(&self) -> (Store, Vec<Repair>) {
        Store::open(self.path(), &VAULT).unwrap()
    }

    fn open_on(&self, disk: Disk) -> Store {
        Store::open_on(self.path(), &VAULT, disk).unwrap().0
    }

    fn remove_index(&self) {
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            let _ = std::fs::remove_file(self.path().join(name));
        }
    }

    fn pack(&self, number: u32) -> std::path::PathBuf {
        self.path().join(super::SegmentKind::Pack.file(number))
    }

    fn segment(&self, number: u32) -> std::path::PathBuf {
        self.path().join(super::SegmentKind::Log.file(number))
    }
}

/// Who writes a log.
struct Author {
    key: DeviceKey,
    incarnation: Incarnation,
}

impl Author {
    fn new(seed: u8) -> Self {
        Self { key: DeviceKey::from_seed(&[seed; 32]), incarnation: Incarnation([seed; 16]) }
    }

    fn id(&self) -> ReplicaId {
        author(&self.key.id(), &self.incarnation)
    }

    fn sign(&self, slot: &Slot, lists: &[ChunkList], body: &[u8]) -> Event {
        let header = EventHeader {
            vault: VAULT,
            device: self.key.id(),
            incarnation: self.incarnation,
            sequence: slot.sequence,
            lamport: slot.lamport,
            previous: slot.previous,
            deps: slot.deps.clone(),
            epoch: 1,
            lists: lists.iter().map(ChunkList::reference).collect(),
            kind: KIND_OPERATIONS,
            body_hash: [0; 32],
            wall_ms: 0,
        };
        Event::sign(header, body, &self.key).unwrap()
    }

    /// Appends an event that names `lists` to the author's own store.
    fn append(&self, store: &Store, lists: &[ChunkList]) -> Result<Event, StoreError> {
        store.append_own(&self.id(), &mut |slot| Ok((self.sign(&slot, lists, b"body"), lists.to_vec())))
    }
}

fn first_slot() -> Slot {
    Slot { sequence: 1, previous: None, lamport: 1, deps: Frontier::new() }
}

fn chunk(seed: u64, bytes: usize) -> FrameBuf {
    let mut record = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut record);
    FrameBuf::new(Kind::Chunk, &record)
}

fn id_of(frame: &FrameBuf) -> ChunkId {
    ChunkId::from_bytes(frame.id())
}

fn verified(frames: &[FrameBuf]) -> Vec<Verified<'_>> {
    frames.iter().map(FrameBuf::verified).collect()
}

fn list_of(frames: &[FrameBuf]) -> ChunkList {
    let entry = |frame: &FrameBuf| Entry { id: id_of(frame), length: frame.verified().header().length };
    ChunkList::new(frames.iter().map(entry).collect()).unwrap()
}

/// Chunks `seeds`, of different lengths.
fn chunks(seeds: std::ops::Range<u64>) -> Vec<FrameBuf> {
    seeds.map(|seed| chunk(seed, 100 + (seed as usize * 37) % 3_000)).collect()
}

/// Stores `frames` durably and returns the list of them.
fn put(store: &Store, frames: &[FrameBuf]) -> ChunkList {
    let mut writer = store.writer();
    writer.append_run(&verified(frames)).unwrap();
    writer.checkpoint().unwrap();
    list_of(frames)
}

/// Events with their lists, as they go to another replica.
fn all_events(store: &Store) -> Vec<(Event, Vec<ChunkList>)> {
    store.events_beyond(&Frontier::new(), super::LogPosition::START, usize::MAX).unwrap().events
}
