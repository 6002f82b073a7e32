//! Reading and sealing, in rayon's threads.

use super::{Item, Known, Whole, gate::Gate, gate::Permit, stages::Stages, stages::Step};
use crate::{
    chunk::Cutter,
    event::ChunkRef,
    frame::FrameBuf,
    id::PlaintextId,
    io::map::Map,
    limits::{CHUNK_BYTES_MAX, MIB},
    seal::{ChunkType, Compression, Draft, KeyRing},
    vault::{
        Vault, VaultError,
        walk::{Found, Stamp},
    },
};
use std::{
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A sealed piece of a value, or the reference to one that the vault already holds.
pub(super) struct Piece {
    pub(super) reference: ChunkRef,
    /// None when the chunk is already stored.
    pub(super) frame: Option<FrameBuf>,
    /// Whether some earlier event already names the chunk in a list.
    pub(super) listed: bool,
    pub(super) permit: Permit,
}

/// A large file, mapped.
pub(super) struct Source {
    path: PathBuf,
    map: Map,
}

impl Source {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    pub(super) fn len(&self) -> usize {
        self.map.bytes().len()
    }

    /// So many bytes of it have been sealed.
    pub(super) fn touched(&self, bytes: usize) {
        self.map.touched(bytes as u64);
    }

    /// Whether the file was cut off while it was mapped, so that zeros were read in place of its bytes.
    pub(super) fn is_damaged(&self) -> bool {
        self.map.is_damaged()
    }
}

/// What every task needs.
pub(super) struct Reader<'a> {
    vault: &'a Vault,
    cutter: &'a Cutter,
    gate: &'a Gate,
    pub(super) stages: &'a Stages,
}

impl<'a> Reader<'a> {
    pub(super) fn new(vault: &'a Vault, gate: &'a Gate, stages: &'a Stages) -> Result<Self, VaultError> {
        Ok(Self { vault, cutter: vault.cutter()?, gate, stages })
    }

    pub(super) fn gate(&self) -> &'a Gate {
        self.gate
    }

    /// Opens a large file for cutting.
    pub(super) fn open(&self, found: &Found) -> Result<Source, String> {
        let file = open_regular(&found.path)?;
        let length = usize::try_from(found.stamp.size).map_err(|error| error.to_string())?;
        let map = Map::open(&file, length).map_err(|error| error.to_string())?;
        map.advise_sequential();
        Ok(Source { path: found.path.clone(), map })
    }

    /// Length of the next chunk of a mapped file.
    pub(super) fn next_cut(&self, source: &Source, at: usize) -> usize {
        let end = source.len().min(at + CHUNK_BYTES_MAX);
        self.stages.timed(Step::Populate, || source.map.populate(at..source.len().min(at + MIB)));
        self.cut(&source.bytes()[at..end])
    }

    pub(super) fn cut(&self, data: &[u8]) -> usize {
        self.stages.timed(Step::Cut, || self.cutter.next_cut(&data[..data.len().min(CHUNK_BYTES_MAX)]))
    }

    /// Copies, hashes and, unless the vault has it, seals one piece.
    pub(super) fn seal(&self, data: &[u8], permit: Permit) -> Result<Piece, VaultError> {
        let drafted = self.vault.seal_keys().and_then(|keys| {
            let draft = self.stages.timed(Step::Seal, || keys.current().draft(data, self.gate.buffer()));
            let known = self.vault.known_chunks(&[draft.plaintext_id()])?;
            Ok((keys, draft, known.first().copied().flatten()))
        });
        match drafted {
            Ok((keys, draft, known)) => Ok(self.finish(&keys, draft, known, permit)),
            Err(error) => {
                // Nobody else gives it back, and whoever cuts the next pieces waits for it.
                self.gate.leave(permit);
                Err(error)
            }
        }
    }

    /// Reads and seals a group of small files, links and directories.
    pub(super) fn read_group(&self, group: Vec<(Found, Known)>, permit: Permit) -> Vec<Item> {
        let keys = match self.vault.seal_keys() {
            Ok(keys) => keys,
            Err(error) => {
                self.gate.leave(permit);
                return group.into_iter().map(|(found, _)| Item::Skipped(found.path, error.to_string())).collect();
            }
        };
        let mut items = Vec::new();
        let mut drafts = Vec::with_capacity(group.len());
        for (found, known) in group {
            match self.draft(&keys, &found) {
                Ok((draft, moved)) => drafts.push(((found, known), draft, moved)),
                Err(reason) => items.push(Item::Skipped(found.path, reason)),
            }
        }
        let ids: Vec<PlaintextId> = drafts.iter().filter_map(|(_, draft, _)| draft.as_ref().map(Draft::plaintext_id)).collect();
        let mut chunks = match self.vault.known_chunks(&ids) {
            Ok(chunks) => chunks.into_iter(),
            Err(error) => {
                self.gate.leave(permit);
                items.extend(drafts.into_iter().map(|((found, _), ..)| Item::Skipped(found.path, error.to_string())));
                return items;
            }
        };
        let mut permit = Some(permit);
        let mut wholes: Vec<Whole> = Vec::with_capacity(drafts.len());
        for ((found, known), draft, moved) in drafts {
            let piece = draft.map(|draft| {
                let permit = permit.take().unwrap_or_else(Permit::none);
                self.finish(&keys, draft, chunks.next().flatten(), permit)
            });
            wholes.push(Whole { found, known, piece, moved });
        }
        if let Some(permit) = permit {
            self.gate.leave(permit);
        }
        items.push(Item::Whole(wholes));
        items
    }

    fn draft(&self, keys: &KeyRing, found: &Found) -> Result<(Option<Draft>, bool), String> {
        if !found.is_file() || found.stamp.size == 0 {
            return Ok((None, false));
        }
        let (mut bytes, after) = self.stages.timed(Step::Read, || read_small(found))?;
        let moved = Stamp::of(&after) != found.stamp || bytes.len() as u64 != found.stamp.size;
        bytes.truncate(found.stamp.size as usize);
        let draft = (!bytes.is_empty()).then(|| self.stages.timed(Step::Seal, || keys.current().draft(&bytes, self.gate.buffer())));
        Ok((draft, moved))
    }

    fn finish(&self, keys: &KeyRing, draft: Draft, known: Option<KnownChunk>, permit: Permit) -> Piece {
        if let Some(KnownChunk { chunk, present: true }) = known {
            let reference = ChunkRef { chunk, plaintext: draft.plaintext_id(), length: draft.length() };
            self.gate.recycle(draft.into_buffer());
            return Piece { reference, frame: None, listed: true, permit };
        }
        let sealed = self.stages.timed(Step::Seal, || keys.current().seal(draft, ChunkType::Data, Compression::Auto));
        // A chunk that some event names but no pack holds any more comes back under its old list, if it sealed the same.
        let listed = known.is_some_and(|known| known.chunk == sealed.reference.chunk);
        Piece { reference: sealed.reference, frame: Some(sealed.frame), listed, permit }
    }
}

/// A chunk that an applied event names for this plaintext.
#[derive(Debug, Clone, Copy)]
pub(in crate::vault) struct KnownChunk {
    pub(in crate::vault) chunk: crate::id::ChunkId,
    /// Whether a pack here holds it.
    pub(in crate::vault) present: bool,
}

/// What a small file holds, and what it was after that was read.
fn read_small(found: &Found) -> Result<(Vec<u8>, Metadata), String> {
    let mut file = open_regular(&found.path)?;
    let mut bytes = Vec::with_capacity(found.stamp.size as usize + 1);
    // One byte more than expected shows growth; the file is then read again as a whole.
    (&mut file).take(found.stamp.size + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let after = file.metadata().map_err(|error| error.to_string())?;
    Ok((bytes, after))
}

/// Opens a file without following a link that has taken its place and without waiting for a pipe's other end.
fn open_regular(path: &Path) -> Result<File, String> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.is_file() { Ok(file) } else { Err("it is no longer a regular file".into()) }
}
