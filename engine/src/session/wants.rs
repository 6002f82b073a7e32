//! The chunks that are expected, by id: what tells a wanted chunk from one that nobody asked for, before its bytes are read.
//!
//! Pure and owned by the driver, beside the session: lanes look chunks up here, the session only counts. About 100 bytes of
//! memory for each chunk, at most [`WANTED_CHUNKS_MAX`](crate::limits::WANTED_CHUNKS_MAX) of them and one list more.

use crate::{
    bitmap::Bitmap,
    event::{ChunkList, Entry},
    frame::HEADER_BYTES,
    id::{ChunkId, IdMap, ListId},
};
use std::collections::hash_map;

/// What an arrived chunk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// It was expected; it is no longer.
    Wanted {
        /// The list that it was expected for.
        landed: Landed,
        /// Other lists that named it too. Rare: two authors added the same content.
        others: Vec<Landed>,
    },
    /// Its length is not what the list says: drop it and report it as damaged, for the list can never be completed.
    WrongLength {
        /// The list.
        list: ListId,
    },
    /// Nobody asked for it: drop it.
    Unwanted,
}

/// A list that came one chunk closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landed {
    /// The list.
    pub list: ListId,
    /// Chunks of it that are still expected; at 0 it is complete.
    pub remaining: u32,
}

#[derive(Debug)]
struct Slot {
    list: ListId,
    length: u32,
}

/// A session that stays may have brought very much once, and a little ever since: for so many chunks room is kept when none is expected.
const ROOM_AT_REST: usize = 1_024;

/// Chunks that are expected.
#[derive(Debug, Default)]
pub struct Wants {
    chunks: IdMap<ChunkId, Slot>,
    /// Further lists of chunks that more than one list expects.
    shared: IdMap<ChunkId, Vec<ListId>>,
    remaining: IdMap<ListId, u32>,
    bytes: u64,
}

impl Wants {
    /// Nothing is expected.
    pub fn new() -> Self {
        Self::default()
    }

    /// Expects the chunks of `list` at the positions `want`; those that it expects for this list already stay as they are.
    pub fn expect(&mut self, list: ListId, chunks: &ChunkList, want: &Bitmap) {
        self.chunks.reserve(want.len());
        let entries = want.iter().filter_map(|position| chunks.entries().get(position as usize));
        let added = entries.filter(|entry| self.add(list, entry)).count() as u32;
        if added > 0 {
            *self.remaining.entry(list).or_default() += added;
        }
    }

    /// Whether `entry` was not yet expected for `list`.
    fn add(&mut self, list: ListId, entry: &Entry) -> bool {
        match self.chunks.entry(entry.id) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Slot { list, length: entry.length });
                self.bytes += entry.frame_bytes();
                true
            }
            hash_map::Entry::Occupied(slot) if slot.get().list == list => false,
            hash_map::Entry::Occupied(_) => {
                let others = self.shared.entry(entry.id).or_default();
                let new = !others.contains(&list);
                if new {
                    others.push(list);
                }
                new
            }
        }
    }

    /// Bytes that the record of an expected chunk must have; none if nobody asked for it.
    pub fn length_of(&self, chunk: &ChunkId) -> Option<u32> {
        self.chunks.get(chunk).map(|slot| slot.length)
    }

    /// A copy came that cannot be used. The chunk is expected no more, so that a peer is heard once about it, and the lists that
    /// expected it, which are returned, can no longer be completed.
    pub fn spoiled(&mut self, chunk: &ChunkId) -> Vec<ListId> {
        let Some(slot) = self.chunks.remove(chunk) else { return Vec::new() };
        self.bytes -= frame_bytes(slot.length);
        let mut lists = self.shared.remove(chunk).unwrap_or_default();
        lists.push(slot.list);
        lists
    }

    /// The list that expects a chunk, one of them if there are several.
    pub fn list_of(&self, chunk: &ChunkId) -> Option<ListId> {
        self.chunks.get(chunk).map(|slot| slot.list)
    }

    /// A chunk with a record of `length` bytes has been checked and stored.
    pub fn arrived(&mut self, chunk: &ChunkId, length: u32) -> Arrival {
        let slot = match self.chunks.entry(*chunk) {
            hash_map::Entry::Vacant(_) => return Arrival::Unwanted,
            hash_map::Entry::Occupied(slot) if slot.get().length != length => return Arrival::WrongLength { list: slot.get().list },
            hash_map::Entry::Occupied(slot) => slot.remove(),
        };
        self.bytes -= frame_bytes(slot.length);
        let others = self.shared.remove(chunk).unwrap_or_default();
        if self.chunks.is_empty() {
            self.chunks.shrink_to(ROOM_AT_REST);
        }
        let landed = self.land(slot.list);
        Arrival::Wanted { landed, others: others.into_iter().map(|list| self.land(list)).collect() }
    }

    fn land(&mut self, list: ListId) -> Landed {
        let remaining = match self.remaining.get_mut(&list) {
            Some(remaining) => {
                *remaining = remaining.saturating_sub(1);
                *remaining
            }
            None => 0,
        };
        if remaining == 0 {
            self.remaining.remove(&list);
        }
        Landed { list, remaining }
    }

    /// Bytes of the frames that are expected; a chunk of several lists counts once.
    pub fn outstanding_bytes(&self) -> u64 {
        self.bytes
    }

    /// Chunks that are expected; a chunk of several lists counts once.
    pub fn outstanding_chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Whether chunks are still expected for `list`.
    pub fn expects(&self, list: &ListId) -> bool {
        self.remaining.contains_key(list)
    }

    /// Expects nothing more for `list`. Costs a pass over everything expected.
    pub fn drop_list(&mut self, list: &ListId) {
        self.remaining.remove(list);
        self.shared.retain(|_, others| {
            others.retain(|other| other != list);
            !others.is_empty()
        });
        let (shared, bytes) = (&mut self.shared, &mut self.bytes);
        self.chunks.retain(|chunk, slot| {
            if slot.list != *list {
                return true;
            }
            match shared.get_mut(chunk).and_then(Vec::pop) {
                Some(other) => slot.list = other,
                None => *bytes -= frame_bytes(slot.length),
            }
            slot.list != *list
        });
        self.shared.retain(|_, others| !others.is_empty());
    }
}

fn frame_bytes(length: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn entry(n: u8) -> Entry {
        Entry { id: ChunkId::from_bytes([n; 32]), length: 100 + u32::from(n) }
    }

    fn list(chunks: &[u8]) -> ChunkList {
        ChunkList::new(chunks.iter().map(|n| entry(*n)).collect()).unwrap()
    }

    #[test]
    fn room_for_many_chunks_is_given_back_once_none_is_expected() {
        let id = |n: u32| ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let many: Vec<Entry> = (0..10_000).map(|n| Entry { id: id(n), length: 1 }).collect();
        let (mut wants, chunks) = (Wants::new(), ChunkList::new(many).unwrap());
        wants.expect(chunks.id(), &chunks, &Bitmap::full(10_000));
        (0..9_999).for_each(|n| _ = wants.arrived(&id(n), 1));
        assert!(wants.chunks.capacity() >= 10_000, "the last one is on its way");
        wants.arrived(&id(9_999), 1);
        assert!(wants.chunks.capacity() < 4 * ROOM_AT_REST);
    }

    #[test]
    fn a_chunk_is_wanted_once_and_the_last_completes_its_list() {
        let (mut wants, chunks) = (Wants::new(), list(&[1, 2, 3]));
        let mut want = Bitmap::full(3);
        want.remove(1);
        wants.expect(chunks.id(), &chunks, &want);
        assert_eq!(wants.outstanding_bytes(), entry(1).frame_bytes() + entry(3).frame_bytes());
        assert_eq!(wants.arrived(&entry(2).id, 102), Arrival::Unwanted);
        let landed = |remaining| Arrival::Wanted { landed: Landed { list: chunks.id(), remaining }, others: vec![] };
        assert_eq!(wants.arrived(&entry(3).id, 103), landed(1));
        assert_eq!(wants.arrived(&entry(3).id, 103), Arrival::Unwanted);
        assert_eq!(wants.arrived(&entry(1).id, 101), landed(0));
        assert_eq!((wants.outstanding_bytes(), wants.outstanding_chunks()), (0, 0));
    }

    #[test]
    fn a_chunk_of_another_length_than_the_list_says_is_told_apart() {
        let (mut wants, chunks) = (Wants::new(), list(&[1]));
        wants.expect(chunks.id(), &chunks, &Bitmap::full(1));
        assert_eq!(wants.arrived(&entry(1).id, 7), Arrival::WrongLength { list: chunks.id() });
        assert_eq!(wants.list_of(&entry(1).id), Some(chunks.id()));
    }

    #[test]
    fn a_spoiled_chunk_is_reported_to_every_list_once_and_completes_none() {
        let (mut wants, left, right) = (Wants::new(), list(&[1, 2]), list(&[1, 3]));
        wants.expect(left.id(), &left, &Bitmap::full(2));
        wants.expect(right.id(), &right, &Bitmap::full(2));
        let mut told = wants.spoiled(&entry(1).id);
        told.sort();
        let mut both = vec![left.id(), right.id()];
        both.sort();
        assert_eq!(told, both);
        assert_eq!(wants.spoiled(&entry(1).id), []);
        assert_eq!(wants.length_of(&entry(1).id), None);
        let landed = Landed { list: left.id(), remaining: 1 };
        assert_eq!(wants.arrived(&entry(2).id, 102), Arrival::Wanted { landed, others: vec![] }, "one is still missing");
        assert_eq!(wants.outstanding_bytes(), entry(3).frame_bytes());
    }

    proptest! {
        /// Against the plain model: a set of chunks for each list.
        #[test]
        fn shared_chunks_land_in_every_list_that_expects_them(
            lists in proptest::collection::vec(proptest::collection::btree_set(0_u8..12, 1..8), 1..5),
            arrivals in proptest::collection::vec(0_u8..14, 0..20),
            dropped in proptest::option::of(0_usize..4),
        ) {
            let mut wants = Wants::new();
            let mut model: BTreeMap<ListId, BTreeSet<u8>> = BTreeMap::new();
            for chunks in &lists {
                let chunk_list = list(&chunks.iter().copied().collect::<Vec<_>>());
                wants.expect(chunk_list.id(), &chunk_list, &Bitmap::full(chunks.len()));
                model.insert(chunk_list.id(), chunks.clone());
            }
            if let Some(id) = dropped.and_then(|n| model.keys().nth(n).copied()) {
                wants.drop_list(&id);
                model.remove(&id);
            }
            for n in arrivals {
                let mut expected: Vec<(ListId, u32)> = Vec::new();
                for (id, chunks) in &mut model {
                    if chunks.remove(&n) {
                        expected.push((*id, chunks.len() as u32));
                    }
                }
                let mut landed: Vec<(ListId, u32)> = match wants.arrived(&entry(n).id, entry(n).length) {
                    Arrival::Wanted { landed, others } => others.iter().chain([&landed]).map(|l| (l.list, l.remaining)).collect(),
                    Arrival::WrongLength { .. } | Arrival::Unwanted => vec![],
                };
                landed.sort();
                prop_assert_eq!(landed, expected);
                let left: BTreeSet<u8> = model.values().flatten().copied().collect();
                prop_assert_eq!(wants.outstanding_chunks(), left.len());
                prop_assert_eq!(wants.outstanding_bytes(), left.iter().map(|n| entry(*n).frame_bytes()).sum::<u64>());
            }
        }
    }
}
