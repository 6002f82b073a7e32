//! Chunk lists: the chunks that an event adds, in the order in which they lie in the author's packs.
//!
//! A list is public: ids and lengths of sealed records. Its record is `(chunk id 32 || record length u32 LE)` for each entry, its id
//! BLAKE3 of that; a want is a bitmap over it.

use crate::{
    codec::CodecError,
    frame::{FrameBuf, HEADER_BYTES, Kind},
    id::{ChunkId, ListId},
    limits::{CHUNK_BYTES_MAX, KIB, LIST_ENTRIES_MAX},
};
use minicbor::{Decode, Encode};
use std::collections::HashSet;

const ENTRY_BYTES: usize = 36;

/// One chunk of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The chunk.
    pub id: ChunkId,
    /// Bytes of its record.
    pub length: u32,
}

impl Entry {
    /// Bytes of its frame: what it takes in a pack and on a lane.
    pub fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }
}

/// What an event says of a chunk list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ListRef {
    /// The list.
    #[n(0)]
    pub id: ListId,
    /// Chunks in it.
    #[n(1)]
    pub entries: u32,
    /// Bytes of their frames.
    #[n(2)]
    pub bytes: u64,
}

/// A checked chunk list: at most [`LIST_ENTRIES_MAX`] different chunks of possible lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkList {
    entries: Vec<Entry>,
}

impl ChunkList {
    /// A list of `entries`.
    ///
    /// # Errors
    /// [`CodecError`] when it is empty, too long, or names a chunk twice.
    pub fn new(entries: Vec<Entry>) -> Result<Self, CodecError> {
        let error = |reason| Err(CodecError::new("chunk list", reason));
        if entries.is_empty() || entries.len() > LIST_ENTRIES_MAX {
            return error("it has no entries or too many");
        }
        if entries.iter().any(|entry| entry.length == 0 || entry.length as usize > CHUNK_BYTES_MAX + KIB) {
            return error("a chunk's length is impossible");
        }
        let mut seen = HashSet::with_capacity(entries.len());
        if !entries.iter().all(|entry| seen.insert(entry.id)) {
            return error("it names a chunk twice");
        }
        Ok(Self { entries })
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// [`CodecError`] on anything that [`ChunkList::record`] does not make.
    pub fn from_record(record: &[u8]) -> Result<Self, CodecError> {
        if !record.len().is_multiple_of(ENTRY_BYTES) || record.len() > LIST_ENTRIES_MAX * ENTRY_BYTES {
            return Err(CodecError::new("chunk list", "its length is wrong"));
        }
        let entries = record.chunks_exact(ENTRY_BYTES).filter_map(|bytes| {
            let (id, length) = bytes.split_first_chunk::<32>()?;
            Some(Entry { id: ChunkId::from_bytes(*id), length: u32::from_le_bytes(length.try_into().ok()?) })
        });
        Self::new(entries.collect())
    }

    /// The encoding.
    pub fn record(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.id.as_bytes().iter().copied().chain(entry.length.to_le_bytes())).collect()
    }

    /// The record as a frame.
    pub fn to_frame(&self) -> FrameBuf {
        FrameBuf::new(Kind::List, &self.record())
    }

    /// BLAKE3 of the record.
    pub fn id(&self) -> ListId {
        ListId::from_bytes(*blake3::hash(&self.record()).as_bytes())
    }

    /// What an event says of it.
    pub fn reference(&self) -> ListRef {
        let bytes = self.entries.iter().map(Entry::frame_bytes).sum();
        ListRef { id: self.id(), entries: self.entries.len() as u32, bytes }
    }

    /// The chunks, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}
