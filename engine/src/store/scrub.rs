//! Scrubbing: every chunk that the index knows is read again, a block at a time, and what is damaged is put into quarantine.
//!
//! ```text
//! pack ─ rows by offset ─► block ─► read, hashed ─► bad: quarantine ─► the caller: goes on, waits, or stops and keeps the place
//! ```
//! Unlike [`Store::verify`] it begins anywhere, goes forward through one pack after the other, and mends: the caller sets the pace between
//! blocks. Which bytes should lie where only the index says, so a good record in the wrong place is found like any other damage.

use super::{
    Inner, Location, Store, StoreError, StoreReport,
    index::ChunkRow,
    pack::try_lock,
    segment::{FileHeader, HeaderState, SegmentKind},
};
use crate::{
    id::ChunkId,
    io::cached,
    limits::{MIB, SEGMENT_BYTES_MAX},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    ops::ControlFlow,
};

/// Bytes that are read between two looks at the clock.
const BLOCK_BYTES: u64 = 4 * MIB as u64;
/// Places of chunks in memory at once, about: 24 MiB.
const ROWS_MAX: u64 = 512 * 1024;

/// A place in the packs: everything before it has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScrubPlace {
    /// Number of the pack.
    pub pack: u32,
    /// Where in it.
    pub offset: u64,
}

/// A block that has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubStep {
    /// Where the next one begins.
    pub next: ScrubPlace,
    /// Chunks read.
    pub chunks: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Chunks among them that were damaged and put into quarantine.
    pub damaged: u64,
}

/// Told of each block; may take its time, or stop the scrub.
pub(super) type EachStep<'a> = &'a mut dyn FnMut(ScrubStep) -> ControlFlow<()>;

impl Store {
    /// Reads every chunk from `from` on, and quarantines what is damaged. A damaged header of a pack is written anew. Returns the files
    /// that it could not mend.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when `each` says so; when the index fails. Damage is no error, nor is a pack that cannot be read.
    pub fn scrub(&self, from: ScrubPlace, each: EachStep<'_>) -> Result<StoreReport, StoreError> {
        let mut report = StoreReport::default();
        for (number, rows) in self.inner.index.chunks_by_pack()? {
            if number >= from.pack {
                let offset = if number == from.pack { from.offset } else { 0 };
                let scrubbed = self.mend_header(number, &mut report);
                match scrubbed.and_then(|()| self.scrub_pack(ScrubPlace { pack: number, offset }, rows, each)) {
                    // One that may not be read keeps nobody from reading the others.
                    Err(error @ (StoreError::Io { .. } | StoreError::ReadOnly { .. })) => {
                        report.files.push((SegmentKind::Pack.file(number), error.to_string()));
                    }
                    scrubbed => scrubbed?,
                }
            }
        }
        self.inner.verify_log(&mut report)?;
        Ok(report)
    }

    fn scrub_pack(&self, from: ScrubPlace, rows: u64, each: EachStep<'_>) -> Result<(), StoreError> {
        // What the system remembers of the file says nothing about the disk.
        if let Ok(file) = File::open(self.inner.path(SegmentKind::Pack, from.pack)) {
            let _ = cached::forget(&file);
        }
        let window = SEGMENT_BYTES_MAX / (rows / ROWS_MAX + 1);
        let mut at = from.offset;
        while at < SEGMENT_BYTES_MAX {
            let rows = self.inner.index.chunks_between(from.pack, at, at + window)?;
            for block in rows.chunk_by(|left, right| left.1.offset / BLOCK_BYTES == right.1.offset / BLOCK_BYTES) {
                let step = self.scrub_block(block)?;
                if each(step).is_break() {
                    return Err(StoreError::Stopped);
                }
            }
            at += window;
        }
        Ok(())
    }

    fn scrub_block(&self, block: &[ChunkRow]) -> Result<ScrubStep, StoreError> {
        let mut bad = Vec::new();
        let mut bytes = 0;
        for (id, place) in block {
            bytes += u64::from(place.length);
            if !self.inner.reads_well(id, place)? {
                bad.push((*id, *place));
            }
        }
        let next = block.last().map_or(ScrubPlace::default(), |(_, place)| ScrubPlace { pack: place.pack, offset: place.end() });
        Ok(ScrubStep { next, chunks: block.len() as u64, bytes, damaged: self.quarantine(&bad)? })
    }

    /// A pack's header says nothing that its name and the vault do not, so it can be written anew, unless the pack is in use.
    fn mend_header(&self, number: u32, report: &mut StoreReport) -> Result<(), StoreError> {
        let inner = &*self.inner;
        let name = SegmentKind::Pack.file(number);
        let path = inner.dir.join(&name);
        let mut start = Vec::new();
        match File::open(&path).and_then(|file| file.take(64).read_to_end(&mut start)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(|error| StoreError::io("read", &path, error))?,
        };
        if FileHeader::read(&start, SegmentKind::Pack, &inner.vault, &name)? != HeaderState::Damaged {
            return Ok(());
        }
        let header = FileHeader { kind: SegmentKind::Pack, number, follows: 0, vault: inner.vault }.to_bytes();
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| StoreError::io("open", &path, error))?;
        if !try_lock(&file, &path)? {
            report.files.push((name, "its header is damaged, and somebody writes to it".to_owned()));
            return Ok(());
        }
        inner.disk.write_all_at(&file, &path, &[&header], 0).map_err(|error| StoreError::io("write", &path, error))?;
        inner.disk.sync_data(&file, &path).map_err(|error| StoreError::io("sync", &path, error))
    }
}

impl Inner {
    /// Whether the chunk's bytes are right, or gone with their file, which whoever opens the store next finds.
    fn reads_well(&self, id: &ChunkId, place: &Location) -> Result<bool, StoreError> {
        match self.read_frame(id, place) {
            Ok(_) => Ok(true),
            Err(StoreError::DamagedChunk { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
