//! Reading a value's bytes: every chunk is checked (id, seal, plaintext identity) before a byte of it is handed on.
//!
//! A piece that was resealed under a later key epoch is read from there, and from the chunk that the value names if that does not do: what
//! an event says of where a plaintext lies as well is a word that only opening the chunk proves.

use super::{Vault, VaultError};
use crate::{
    codec,
    event::{ChunkRef, Content},
    frame::HEADER_BYTES,
    id::{ChunkId, PlaintextId},
    limits::{CHUNK_BYTES_MAX, NODE_REFERENCES_MAX},
    seal::ChunkType,
    store::Location,
};
use rayon::prelude::*;
use std::io::Write;

/// Chunks opened in parallel ahead of a sequential sink.
const AHEAD: usize = 8;

/// A piece of a value, where it belongs, and which chunk it is read from and where that lies, if that was looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) reference: ChunkRef,
    pub(super) offset: u64,
    pub(super) located: Option<(ChunkId, Location)>,
}

impl Vault {
    /// Opens one chunk into `out`, replacing what is there.
    pub(super) fn open_chunk(&self, reference: &ChunkRef, kind: ChunkType, out: &mut Vec<u8>) -> Result<(), VaultError> {
        if let Some(chunk) = self.look_up(|view| view.resealed(&[reference.plaintext]))?[0]
            && self.open_as_named(&ChunkRef { chunk, ..*reference }, kind, out).is_ok()
        {
            return Ok(());
        }
        self.open_as_named(reference, kind, out)
    }

    /// Opens the very chunk that `reference` names.
    pub(super) fn open_as_named(&self, reference: &ChunkRef, kind: ChunkType, out: &mut Vec<u8>) -> Result<(), VaultError> {
        out.clear();
        let frame = self
            .store()
            .read_frame(&reference.chunk)?
            .ok_or_else(|| VaultError::Damaged(format!("chunk {} is missing", reference.chunk)))?;
        self.seal_keys()?
            .open(&frame[HEADER_BYTES..], kind, reference, out)
            .map_err(|error| VaultError::Damaged(format!("chunk {}: {error}", reference.chunk)))
    }

    /// Opens one chunk that lies at `location` into `out`. If that fails, the long way says what is wrong.
    pub(super) fn open_placed(&self, placed: &Placed, out: &mut Vec<u8>) -> Result<(), VaultError> {
        if let Some((chunk, location)) = placed.located
            && let Ok(frame) = self.store().frame_at(&location)
        {
            out.clear();
            let reference = ChunkRef { chunk, ..placed.reference };
            if self.seal_keys()?.open(&frame[HEADER_BYTES..], ChunkType::Data, &reference, out).is_ok() {
                return Ok(());
            }
        }
        self.open_chunk(&placed.reference, ChunkType::Data, out)
    }

    /// Looks up where the chunks of `pieces` lie, all at once.
    pub(super) fn locate(&self, pieces: &mut [&mut Placed]) -> Result<(), VaultError> {
        let references: Vec<ChunkRef> = pieces.iter().map(|placed| placed.reference).collect();
        let chunks = self.newest_chunks(&references)?;
        for ((placed, chunk), location) in pieces.iter_mut().zip(&chunks).zip(self.store().locate(&chunks)?) {
            placed.located = location.map(|location| (*chunk, location));
        }
        Ok(())
    }

    /// The chunk under the latest key epoch for each reference: its own, unless the plaintext was resealed.
    pub(super) fn newest_chunks(&self, references: &[ChunkRef]) -> Result<Vec<ChunkId>, VaultError> {
        let plaintexts: Vec<PlaintextId> = references.iter().map(|reference| reference.plaintext).collect();
        let resealed = self.look_up(|view| view.resealed(&plaintexts))?;
        Ok(references.iter().zip(resealed).map(|(reference, chunk)| chunk.unwrap_or(reference.chunk)).collect())
    }

    /// The data pieces of `content`, in order. Nodes are read; a level's references are held in memory (78 bytes each).
    pub(super) fn pieces(&self, content: &Content) -> Result<Vec<Placed>, VaultError> {
        let mut references = content.references.clone();
        for _ in 0..content.depth {
            references = self.below(&references)?;
        }
        let mut offset = 0;
        let place = |reference: ChunkRef| {
            let placed = Placed { reference, offset, located: None };
            offset += u64::from(reference.length);
            placed
        };
        let pieces: Vec<Placed> = references.into_iter().map(place).collect();
        if offset != content.bytes {
            return Err(VaultError::Damaged("a value's pieces do not add up to its length".into()));
        }
        Ok(pieces)
    }

    pub(super) fn below(&self, nodes: &[ChunkRef]) -> Result<Vec<ChunkRef>, VaultError> {
        let mut references = Vec::new();
        let mut plaintext = Vec::new();
        for node in nodes {
            self.open_chunk(node, ChunkType::Node, &mut plaintext)?;
            let below: Vec<ChunkRef> = codec::decode("node", &plaintext).map_err(|error| VaultError::Damaged(error.to_string()))?;
            if below.len() > NODE_REFERENCES_MAX || below.iter().any(|reference| reference.length as usize > CHUNK_BYTES_MAX) {
                return Err(VaultError::Damaged("a node holds too much".into()));
            }
            references.extend(below);
        }
        Ok(references)
    }

    /// Streams a value in order; at most [`AHEAD`] chunks are in memory.
    pub(super) fn stream(&self, content: &Content, sink: &mut dyn Write) -> Result<(), VaultError> {
        let mut pieces = self.pieces(content)?;
        self.locate(&mut pieces.iter_mut().collect::<Vec<_>>())?;
        for group in pieces.chunks(AHEAD) {
            let opened: Vec<Vec<u8>> = group
                .par_iter()
                .map(|placed| {
                    let mut plaintext = Vec::new();
                    self.open_placed(placed, &mut plaintext).map(|()| plaintext)
                })
                .collect::<Result<_, _>>()?;
            for plaintext in opened {
                sink.write_all(&plaintext).map_err(|error| VaultError::io("writing the value", error))?;
            }
        }
        Ok(())
    }
}
