//! Writing chunks: one writer, one pack.
//!
//! ```text
//! append ─► buffer ──1 MiB──► file, overlay (readable, not durable) ──checkpoint──► fdatasync ─► index (durable, true)
//! ```
//! A writer holds its pack's flock, so that no other process or writer appends to it or cuts its tail. Small frames are gathered to one
//! write of a mebibyte; a run that is larger goes to the system as it lies, without a copy of ours.
//!
//! # After an error
//! - A write failed: what was buffered is lost; what was written before can still be checkpointed.
//! - A sync failed: everything since the last checkpoint is given up, and the pack with it: cut back as far as the disk lets us (pages
//!   that the system failed to write look clean afterwards and would pass for durable), and never written again by this process.
//!
//! Either way the caller appends anew what a checkpoint has not covered; it goes to another pack.

use super::{
    FILE_MODE, Inner, Location, StoreError,
    index::{ChunkRow, lock},
    mend_packs::Tail,
    segment::{FILE_HEADER_BYTES, FileHeader, SegmentKind},
};
use crate::{
    frame::{Kind, Verified},
    id::ChunkId,
    limits::{CHUNK_BYTES_MAX, KIB, MIB, SEGMENT_BYTES_MAX},
};
use std::{
    collections::HashSet,
    fs::{File, OpenOptions, TryLockError},
    io,
    path::PathBuf,
    sync::Arc,
};

/// Bytes gathered for one write.
const WRITE_BYTES: usize = MIB;
/// Chunks written but not published, over all writers: beyond, writers checkpoint by themselves. Some 6 MiB of memory.
pub(super) const OVERLAY_ENTRIES_MAX: usize = 65_536;
/// A pack without room for the longest chunk is full.
const FULL_AT: u64 = SEGMENT_BYTES_MAX - (CHUNK_BYTES_MAX + 2 * KIB) as u64;
/// Packs that are tried before a new one is made: more writers than this at once each find their own anyway.
const REUSE_TRIES: usize = 16;

/// What became of a chunk that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It was not here and will be durable with the next checkpoint.
    New,
    /// It is here already; nothing was written.
    Present,
}

/// Appends chunks to a pack of its own. Dropped without a checkpoint, what came after the last one is not published; whoever takes the
/// pack next finds it and checks it.
#[derive(Debug)]
pub struct PackWriter {
    inner: Arc<Inner>,
    pack: Option<OpenPack>,
    buffer: Vec<u8>,
    /// What lies in the buffer.
    buffered: Vec<ChunkRow>,
    buffered_ids: HashSet<ChunkId>,
    /// What lies in the file and is not published yet.
    written: Vec<ChunkRow>,
}

/// A pack whose lock this writer holds.
#[derive(Debug)]
struct OpenPack {
    number: u32,
    path: PathBuf,
    file: File,
    /// Up to where the file holds frames.
    written_to: u64,
    /// Up to where it was synced.
    durable_to: u64,
    /// Whether its directory entry still has to be synced.
    entry: Entry,
    /// Whether more may be written to it.
    state: PackState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    New,
    Durable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PackState {
    Open,
    /// A write failed for another reason than space: go on elsewhere.
    Doubtful,
}

impl PackWriter {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, pack: None, buffer: Vec::new(), buffered: Vec::new(), buffered_ids: HashSet::new(), written: Vec::new() }
    }

    /// Appends one chunk unless it is here already. For many use [`PackWriter::append_run`]: it looks them up together.
    ///
    /// # Errors
    /// See the module: a failed write or sync, or the index. Nothing that a checkpoint covered is affected.
    pub fn append(&mut self, frame: Verified<'_>) -> Result<Appended, StoreError> {
        Ok(self.append_run(&[frame])?[0])
    }

    /// Appends a run of chunks, those that are not here already. Frames of a mebibyte or more together are written from where they
    /// lie, without a copy.
    ///
    /// # Errors
    /// As [`PackWriter::append`]; some of the run may have been written.
    ///
    /// # Panics
    /// If a frame is not a chunk's: events and lists belong in the log.
    pub fn append_run(&mut self, frames: &[Verified<'_>]) -> Result<Vec<Appended>, StoreError> {
        assert!(frames.iter().all(|frame| frame.header().kind == Kind::Chunk), "a pack holds chunks");
        let ids: Vec<ChunkId> = frames.iter().map(|frame| ChunkId::from_bytes(frame.header().id)).collect();
        let known = self.inner.locate(&ids)?;
        let mut in_run = HashSet::new();
        let mut results = Vec::with_capacity(frames.len());
        let mut fresh = Vec::with_capacity(frames.len());
        for ((frame, id), place) in frames.iter().zip(ids).zip(known) {
            let present = place.is_some() || self.buffered_ids.contains(&id) || !in_run.insert(id);
            results.push(if present { Appended::Present } else { Appended::New });
            fresh.extend((!present).then_some(*frame));
        }
        self.store(&fresh)?;
        if lock(&self.inner.overlay).len() >= OVERLAY_ENTRIES_MAX {
            self.checkpoint()?;
        }
        Ok(results)
    }

    fn store(&mut self, frames: &[Verified<'_>]) -> Result<(), StoreError> {
        let mut rest = frames;
        while !rest.is_empty() {
            let mut end = self.open_end()?;
            let fits = |frame: &&Verified<'_>| {
                let room = end < FULL_AT;
                end += frame.bytes().len() as u64;
                room
            };
            let count = rest.iter().take_while(fits).count();
            let (now, later) = rest.split_at(count);
            self.gather(now)?;
            rest = later;
        }
        Ok(())
    }

    /// Where the next frame goes, in a pack that has room for it.
    fn open_end(&mut self) -> Result<u64, StoreError> {
        if let Some(pack) = &self.pack {
            let end = pack.written_to + self.buffer.len() as u64;
            if end < FULL_AT && pack.state == PackState::Open {
                return Ok(end);
            }
            self.checkpoint()?;
        }
        let pack = self.inner.take_pack()?;
        let end = pack.written_to;
        self.pack = Some(pack);
        Ok(end)
    }

    fn gather(&mut self, frames: &[Verified<'_>]) -> Result<(), StoreError> {
        let Some(pack) = &self.pack else { return Ok(()) };
        let mut end = pack.written_to + self.buffer.len() as u64;
        for frame in frames {
            let id = ChunkId::from_bytes(frame.header().id);
            let place = Location { pack: pack.number, offset: end, length: frame.bytes().len() as u32 };
            end = place.end();
            self.buffered.push((id, place));
            self.buffered_ids.insert(id);
        }
        if end - pack.written_to >= WRITE_BYTES as u64 {
            return self.write_out(frames);
        }
        frames.iter().for_each(|frame| self.buffer.extend_from_slice(frame.bytes()));
        Ok(())
    }

    /// Writes the buffer and `frames`, which are the last of what `buffered` says.
    fn write_out(&mut self, frames: &[Verified<'_>]) -> Result<(), StoreError> {
        let Some(pack) = &mut self.pack else { return Ok(()) };
        let mut parts = Vec::with_capacity(1 + frames.len());
        parts.push(self.buffer.as_slice());
        parts.extend(frames.iter().map(Verified::bytes));
        let result = self.inner.disk.write_all_at(&pack.file, &pack.path, &parts, pack.written_to);
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.buffer.clear();
        self.buffered_ids.clear();
        match result {
            Ok(()) => {
                pack.written_to += bytes as u64;
                lock(&self.inner.overlay).extend(self.buffered.iter().copied());
                self.written.append(&mut self.buffered);
                Ok(())
            }
            Err(error) => {
                self.buffered.clear();
                // Best effort: whatever stays there is overwritten, or found to be no frame.
                let _ = self.inner.disk.truncate(&pack.file, &pack.path, pack.written_to);
                let error = StoreError::io("write", &pack.path, error);
                if !matches!(error, StoreError::NoSpace { .. }) {
                    pack.state = PackState::Doubtful;
                }
                Err(error)
            }
        }
    }

    /// Writes what is buffered: readable here from now on, not durable.
    ///
    /// # Errors
    /// As [`PackWriter::append`].
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if self.buffer.is_empty() { Ok(()) } else { self.write_out(&[]) }
    }

    /// Makes everything appended durable and publishes it: from now on events may name it, and other processes see it.
    ///
    /// # Errors
    /// After a failed sync everything since the last checkpoint has to be appended anew. When only the index failed, the next checkpoint
    /// publishes it.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        self.publish()
    }

    /// The first half of a checkpoint: makes everything appended durable.
    ///
    /// # Errors
    /// As [`PackWriter::checkpoint`].
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        self.flush()?;
        let Some(pack) = &mut self.pack else { return Ok(()) };
        let durable = pack.make_durable(&self.inner);
        if durable.is_err() {
            self.give_up();
        }
        durable
    }

    /// The second half: tells the index of what is durable; nothing while something is not.
    ///
    /// # Errors
    /// When the index fails.
    pub(crate) fn publish(&mut self) -> Result<(), StoreError> {
        let Some(pack) = self.pack.as_ref().filter(|pack| pack.written_to == pack.durable_to) else { return Ok(()) };
        if !self.written.is_empty() {
            self.inner.index.publish(pack.number, pack.durable_to, &mut self.written)?;
        }
        if pack.state == PackState::Doubtful || pack.written_to >= FULL_AT {
            self.pack = None;
        }
        self.withdraw();
        Ok(())
    }

    /// Gives up the pack and everything in it that no checkpoint covered.
    fn give_up(&mut self) {
        if let Some(pack) = self.pack.take() {
            lock(&self.inner.closed_packs).insert(pack.number);
            let _ = self.inner.disk.truncate(&pack.file, &pack.path, pack.durable_to);
        }
        self.withdraw();
    }

    /// Takes what was written out of the overlay: it is published, or given up.
    fn withdraw(&mut self) {
        let mut overlay = lock(&self.inner.overlay);
        for (id, place) in self.written.drain(..) {
            // Another writer may have stored the same chunk meanwhile; its entry is its own.
            if overlay.get(&id) == Some(&place) {
                overlay.remove(&id);
            }
        }
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl OpenPack {
    fn make_durable(&mut self, inner: &Inner) -> Result<(), StoreError> {
        if self.written_to > self.durable_to {
            inner.disk.sync_data(&self.file, &self.path).map_err(|error| StoreError::io("sync", &self.path, error))?;
            if self.entry == Entry::New {
                let directory = inner.dir.join(SegmentKind::Pack.directory());
                inner.disk.sync_dir(&directory).map_err(|error| StoreError::io("sync", &directory, error))?;
                self.entry = Entry::Durable;
            }
            self.durable_to = self.written_to;
        }
        Ok(())
    }
}

impl Inner {
    /// A pack that nobody writes to, its tail checked; or a new one.
    fn take_pack(&self) -> Result<OpenPack, StoreError> {
        let rows = self.index.packs()?;
        let usable: Vec<u32> = rows.iter().rev().filter(|row| row.indexed_to < FULL_AT).map(|row| row.number).take(REUSE_TRIES).collect();
        for number in usable {
            if let Some(pack) = self.try_reuse(number)? {
                return Ok(pack);
            }
        }
        self.create_pack()
    }

    fn try_reuse(&self, number: u32) -> Result<Option<OpenPack>, StoreError> {
        let path = self.path(SegmentKind::Pack, number);
        if lock(&self.closed_packs).contains(&number) {
            return Ok(None);
        }
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { return Ok(None) };
        if !try_lock(&file, &path)? {
            return Ok(None);
        }
        // Its last writer may have been killed: what it wrote and did not publish is checked and adopted, or cut.
        let known = self.index.indexed_to(number)?;
        let tail = self.adopt_tail(number, &file, known, 0, &mut Vec::new())?;
        let written_to = match tail {
            Tail::Whole(end) if (FILE_HEADER_BYTES..FULL_AT).contains(&end) && end >= known => end,
            _ => return Ok(None),
        };
        Ok(Some(OpenPack { number, path, file, written_to, durable_to: written_to, entry: Entry::Durable, state: PackState::Open }))
    }

    fn create_pack(&self) -> Result<OpenPack, StoreError> {
        let mut number = SegmentKind::Pack.list(&self.dir)?.last().copied().unwrap_or(0);
        loop {
            number += 1;
            let path = self.path(SegmentKind::Pack, number);
            let file = match self.disk.create_new(&path, FILE_MODE) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(StoreError::io("create", &path, error)),
            };
            if !try_lock(&file, &path)? {
                continue;
            }
            let header = FileHeader { kind: SegmentKind::Pack, number, follows: 0, vault: self.vault }.to_bytes();
            if let Err(error) = self.disk.write_all_at(&file, &path, &[&header], 0) {
                // Nobody knows it yet, so it can go.
                let _ = std::fs::remove_file(&path);
                return Err(StoreError::io("write", &path, error));
            }
            let (written_to, state) = (FILE_HEADER_BYTES, PackState::Open);
            return Ok(OpenPack { number, path, file, written_to, durable_to: 0, entry: Entry::New, state });
        }
    }
}

/// Whether nobody else holds the lock of `file`; it is ours then, until the file is closed.
pub(super) fn try_lock(file: &File, path: &std::path::Path) -> Result<bool, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path, error)),
    }
}
