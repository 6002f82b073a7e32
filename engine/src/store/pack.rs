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
//!   that the system failed to write look clean afterwards and would pass for durable), and never written again by this process. What of it
//!   another process finds all the same is written once more before it counts (see `mend_tails`).
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
    id::{ChunkId, IdSet},
    io::append::{AppendError, Appender},
    limits::{CHUNK_BYTES_MAX, KIB, SEGMENT_BYTES_MAX},
};
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions, TryLockError},
    io,
    sync::Arc,
};

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
    /// What was appended and is not in the file yet, in order.
    under_way: VecDeque<ChunkRow>,
    under_way_ids: IdSet<ChunkId>,
    /// What lies in the file and is not published yet.
    written: Vec<ChunkRow>,
    /// How often this writer has published.
    published: u64,
}

/// How far others had published chunks when some were looked up, see [`PackWriter::looks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked(u64);

/// A pack whose lock this writer holds.
#[derive(Debug)]
struct OpenPack {
    number: u32,
    file: Appender,
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
        Self { inner, pack: None, under_way: VecDeque::new(), under_way_ids: IdSet::default(), written: Vec::new(), published: 0 }
    }

    /// What [`PackWriter::append_missing`] needs to know of a look-up that comes after this call.
    pub fn looks(&self) -> Looked {
        Looked(self.inner.index.publications().wrapping_sub(self.published))
    }

    /// Appends one chunk unless it is here already. For many use [`PackWriter::append_run`]: it looks them up together.
    ///
    /// # Errors
    /// See the module: a failed write or sync, or the index. Nothing that a checkpoint covered is affected.
    pub fn append(&mut self, frame: Verified<'_>) -> Result<Appended, StoreError> {
        Ok(self.append_run(&[frame])?[0])
    }

    /// Appends a run of chunks, those that are not here already.
    ///
    /// # Errors
    /// As [`PackWriter::append`]; some of the run may have been written.
    ///
    /// # Panics
    /// If a frame is not a chunk's: events and lists belong in the log.
    pub fn append_run(&mut self, frames: &[Verified<'_>]) -> Result<Vec<Appended>, StoreError> {
        assert!(frames.iter().all(|frame| frame.header().kind == Kind::Chunk), "a pack holds chunks");
        let ids = ids_of(frames);
        let known: Vec<bool> = self.inner.locate(&ids)?.iter().map(Option::is_some).collect();
        self.append_unknown(frames, &ids, &known)
    }

    /// [`PackWriter::append_run`] of chunks that were missing in a look-up after `looked` and that this writer was not given since: as
    /// long as nobody else has published any meanwhile, the index need not be asked again, which is half the cost of a small chunk.
    ///
    /// Another process is noticed with the next checkpoint only: what both store until then lies here twice and counts once.
    ///
    /// # Errors
    /// As [`PackWriter::append`]; some of the run may have been written.
    ///
    /// # Panics
    /// As [`PackWriter::append_run`].
    pub fn append_missing(&mut self, frames: &[Verified<'_>], looked: Looked) -> Result<Vec<Appended>, StoreError> {
        if self.looks() != looked {
            return self.append_run(frames);
        }
        assert!(frames.iter().all(|frame| frame.header().kind == Kind::Chunk), "a pack holds chunks");
        let ids = ids_of(frames);
        let known: Vec<bool> = {
            let overlay = lock(&self.inner.overlay);
            ids.iter().map(|id| overlay.contains_key(id)).collect()
        };
        self.append_unknown(frames, &ids, &known)
    }

    /// Writes once more, for itself, what another writer has written of `ids` and not made durable: it may take its time, or never come to
    /// it. After a checkpoint events may name all of them, as far as they are here at all.
    ///
    /// # Errors
    /// As [`PackWriter::append`].
    pub fn take_over(&mut self, ids: &[ChunkId]) -> Result<(), StoreError> {
        let published = self.inner.index.locate(ids)?;
        for id in ids.iter().zip(published).filter_map(|(id, published)| published.is_none().then_some(id)) {
            let Some(place) = lock(&self.inner.overlay).get(id).copied() else { continue };
            let bytes = self.inner.read_frame(id, &place)?;
            let frame = Verified::check(&bytes).map_err(|error| StoreError::Damaged(error.to_string()))?;
            self.store(&[frame])?;
        }
        Ok(())
    }

    /// Appends the frames that are not `known`.
    fn append_unknown(&mut self, frames: &[Verified<'_>], ids: &[ChunkId], known: &[bool]) -> Result<Vec<Appended>, StoreError> {
        let mut in_run = IdSet::default();
        let mut results = Vec::with_capacity(frames.len());
        let mut fresh = Vec::with_capacity(frames.len());
        for ((frame, id), known) in frames.iter().zip(ids).zip(known) {
            let present = *known || self.under_way_ids.contains(id) || !in_run.insert(*id);
            results.push(if present { Appended::Present } else { Appended::New });
            fresh.extend((!present).then_some(*frame));
        }
        self.store(&fresh)?;
        if lock(&self.inner.overlay).len() + self.under_way.len() >= OVERLAY_ENTRIES_MAX {
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
            self.hand_on(now)?;
            rest = later;
        }
        Ok(())
    }

    /// Where the next frame goes, in a pack that has room for it.
    fn open_end(&mut self) -> Result<u64, StoreError> {
        if let Some(pack) = &self.pack {
            let end = pack.file.end();
            if end < FULL_AT && pack.state == PackState::Open {
                return Ok(end);
            }
            self.checkpoint()?;
        }
        let pack = self.inner.take_pack()?;
        let end = pack.file.end();
        self.pack = Some(pack);
        Ok(end)
    }

    fn hand_on(&mut self, frames: &[Verified<'_>]) -> Result<(), StoreError> {
        let Some(pack) = &mut self.pack else { return Ok(()) };
        let mut end = pack.file.end();
        for frame in frames {
            let id = ChunkId::from_bytes(frame.header().id);
            let place = Location { pack: pack.number, offset: end, length: frame.bytes().len() as u32 };
            end = place.end();
            self.under_way.push_back((id, place));
            self.under_way_ids.insert(id);
        }
        let parts: Vec<&[u8]> = frames.iter().map(Verified::bytes).collect();
        let appended = pack.file.append(&parts);
        self.arrive();
        appended.map_err(|error| self.write_failed(error))
    }

    /// Makes readable what has got into the file.
    fn arrive(&mut self) {
        let Some(pack) = &self.pack else { return };
        let count = self.under_way.partition_point(|(_, place)| place.end() <= pack.file.written_to());
        if count == 0 {
            return;
        }
        let arrived = self.under_way.drain(..count);
        let mut overlay = lock(&self.inner.overlay);
        for (id, place) in arrived {
            self.under_way_ids.remove(&id);
            overlay.insert(id, place);
            self.written.push((id, place));
        }
    }

    /// Gives up what is not in the file.
    fn write_failed(&mut self, error: io::Error) -> StoreError {
        self.under_way.clear();
        self.under_way_ids.clear();
        let Some(pack) = &mut self.pack else { return StoreError::io("write", &self.inner.dir, error) };
        let error = StoreError::io("write", pack.file.path(), error);
        if !matches!(error, StoreError::NoSpace { .. }) {
            pack.state = PackState::Doubtful;
        }
        error
    }

    /// Waits until everything appended is in the file: readable here from now on, not durable.
    ///
    /// # Errors
    /// As [`PackWriter::append`].
    pub fn flush(&mut self) -> Result<(), StoreError> {
        let Some(pack) = &mut self.pack else { return Ok(()) };
        let settled = pack.file.settle();
        self.arrive();
        settled.map_err(|error| self.write_failed(error))
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
        let Some(pack) = &mut self.pack else { return Ok(()) };
        let durable = pack.make_durable(&self.inner);
        self.arrive();
        match durable {
            Ok(()) => Ok(()),
            Err(NotDurable::Write(error)) => Err(self.write_failed(error)),
            Err(NotDurable::Sync(error)) => {
                self.give_up();
                Err(error)
            }
        }
    }

    /// The second half, right after the first: tells the index of what is durable.
    ///
    /// # Errors
    /// When the index fails.
    pub(crate) fn publish(&mut self) -> Result<(), StoreError> {
        let Some(pack) = &mut self.pack else { return Ok(()) };
        if !self.written.is_empty() {
            self.inner.index.publish(pack.number, pack.durable_to, &mut self.written)?;
            self.published += 1;
        }
        if pack.state == PackState::Doubtful || pack.file.end() >= FULL_AT {
            self.pack = None;
        }
        self.withdraw();
        Ok(())
    }

    /// Gives up the pack and everything in it that no checkpoint covered.
    fn give_up(&mut self) {
        if let Some(pack) = self.pack.take() {
            lock(&self.inner.closed_packs).insert(pack.number);
            let _ = pack.file.cut(pack.durable_to);
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

fn ids_of(frames: &[Verified<'_>]) -> Vec<ChunkId> {
    frames.iter().map(|frame| ChunkId::from_bytes(frame.header().id)).collect()
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Why a checkpoint failed.
enum NotDurable {
    Write(io::Error),
    Sync(StoreError),
}

impl OpenPack {
    fn make_durable(&mut self, inner: &Inner) -> Result<(), NotDurable> {
        if self.file.end() == self.durable_to {
            return Ok(());
        }
        self.file.sync().map_err(|error| match error {
            AppendError::Write(error) => NotDurable::Write(error),
            AppendError::Sync(error) => NotDurable::Sync(StoreError::io("sync", self.file.path(), error)),
        })?;
        if self.entry == Entry::New {
            let directory = inner.dir.join(SegmentKind::Pack.directory());
            inner.disk.sync_dir(&directory).map_err(|error| NotDurable::Sync(StoreError::io("sync", &directory, error)))?;
            self.entry = Entry::Durable;
        }
        self.durable_to = self.file.written_to();
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
        let tail = self.adopt_tail(number, &file, known)?;
        let written_to = match tail {
            Tail::Whole(end) if (FILE_HEADER_BYTES..FULL_AT).contains(&end) && end >= known => end,
            _ => return Ok(None),
        };
        let file = Appender::new(self.disk.clone(), file, path, written_to);
        Ok(Some(OpenPack { number, file, durable_to: written_to, entry: Entry::Durable, state: PackState::Open }))
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
            let file = Appender::new(self.disk.clone(), file, path, FILE_HEADER_BYTES);
            return Ok(OpenPack { number, file, durable_to: 0, entry: Entry::New, state: PackState::Open });
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
