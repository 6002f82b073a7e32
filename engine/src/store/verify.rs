//! Verification: does everything that was acknowledged lie where it should, and is it what it should be?
//!
//! ```text
//! packs   headers (or every byte) against the index: damaged, or gone
//! log     every record hashed; the segments complete; not behind `heads`
//! lists   every chunk that an event names is in some pack: or missing
//! ```
//! Changes nothing. Only what the index calls durable is looked at, so writers may go on meanwhile. Packs are checked in parallel, each
//! through its map, so memory is a few blocks of frames whatever the vault's size.

use super::{
    Inner, Location, Lost, Store, StoreError,
    index::{ChunkRow, PackRow},
    log_read::Reader,
    packs::is_chunk,
    segment::{FileHeader, Found, HeaderState, Scan, SegmentKind},
};
use crate::{
    frame::Kind,
    id::{ChunkId, ListId},
    io::map::Map,
};
use rayon::prelude::*;
use std::{
    collections::HashSet,
    fs::File,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// Frames that are compared with the index together.
const BLOCK_FRAMES: usize = 4_096;
/// Bytes after which a block ends too, so that progress moves and stopping works.
const BLOCK_BYTES: u64 = 16 << 20;
/// Lists that are read together.
const LISTS: u32 = 16;

/// How closely [`Store::verify`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Headers, places and completeness. Reads the log, and a page per chunk.
    Structure,
    /// Every byte as well.
    Data,
}

/// What [`Store::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// What was accepted and is not in the log.
    pub lost: Vec<Lost>,
    /// Chunks that are as they should be.
    pub chunks: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Chunks whose bytes are wrong, with where they lie.
    pub damaged: Vec<(ChunkId, String)>,
    /// Chunks that lists name and no pack holds.
    pub missing: Vec<ChunkId>,
    /// Files that are damaged or gone, relative to the vault, and how.
    pub files: Vec<(PathBuf, String)>,
}

impl StoreReport {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty() && self.files.is_empty() && self.lost.is_empty()
    }

    fn absorb(&mut self, other: Self) {
        self.chunks += other.chunks;
        self.bytes += other.bytes;
        self.damaged.extend(other.damaged);
        self.missing.extend(other.missing);
        self.files.extend(other.files);
        self.lost.extend(other.lost);
    }
}

/// Told how many more chunks and bytes are done; may stop the verification.
pub(super) type Progress<'a> = &'a (dyn Fn(u64, u64) -> ControlFlow<()> + Sync);

impl Store {
    /// Checks packs, log and index against each other; with [`Depth::Data`] every byte. Called back from several threads.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when `progress` says so; when the index fails or a file cannot be opened. Damage is no error.
    pub fn verify(&self, depth: Depth, progress: Progress<'_>) -> Result<StoreReport, StoreError> {
        let inner = &*self.inner;
        let mut report = StoreReport::default();
        let packs = inner.index.packs()?;
        let counts = inner.index.chunks_by_pack()?;
        let rows_in = |number| counts.binary_search_by_key(&number, |(number, _)| *number).map_or(0, |at| counts[at].1);
        let checks: Vec<StoreReport> =
            packs.par_iter().map(|row| inner.verify_pack(*row, rows_in(row.number), depth, progress)).collect::<Result<_, _>>()?;
        checks.into_iter().for_each(|check| report.absorb(check));
        inner.verify_log(&mut report)?;
        let mut known: HashSet<ChunkId> = report.missing.iter().copied().collect();
        let unnamed = inner.missing_chunks(&mut |_| progress(0, 0))?;
        report.missing.extend(unnamed.into_iter().filter(|id| known.insert(*id)));
        Ok(report)
    }
}

/// One pack under verification.
struct PackCheck<'a> {
    inner: &'a Inner,
    name: PathBuf,
    number: u32,
    report: StoreReport,
    /// Offsets of the frames that the index means, good or bad.
    accounted: HashSet<u64>,
    block: Vec<(ChunkRow, FrameState)>,
    block_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameState {
    Good,
    Damaged,
}

impl Inner {
    fn verify_pack(&self, row: PackRow, rows: u64, depth: Depth, progress: Progress<'_>) -> Result<StoreReport, StoreError> {
        let name = SegmentKind::Pack.file(row.number);
        let mut check = PackCheck {
            inner: self,
            name: name.clone(),
            number: row.number,
            report: StoreReport::default(),
            accounted: HashSet::new(),
            block: Vec::new(),
            block_bytes: 0,
        };
        if let Some(map) = check.open(row.indexed_to)? {
            map.advise_sequential();
            match FileHeader::read(map.bytes(), SegmentKind::Pack, &self.vault, &name)? {
                HeaderState::Whole(_) => {}
                HeaderState::Damaged | HeaderState::Short => check.report.files.push((name, "its header is damaged".to_owned())),
            }
            let hash_from = if depth == Depth::Data { 0 } else { u64::MAX };
            check.scan(&map, hash_from, progress)?;
        }
        if (check.accounted.len() as u64) < rows {
            check.look_for_the_rest()?;
        }
        Ok(check.report)
    }

    /// Damage and gaps of the log, and whether it is behind what was acknowledged.
    pub(super) fn verify_log(&self, report: &mut StoreReport) -> Result<(), StoreError> {
        for known in self.index.segments()? {
            let name = SegmentKind::Log.file(known.segment);
            match open_map(&self.dir.join(&name), known.offset)? {
                None => report.files.push((name, "it is gone".to_owned())),
                Some((_, length)) if length < known.offset => report.files.push((name, "it is shorter than it was".to_owned())),
                Some((map, _)) => self.verify_segment(&map, name, report)?,
            }
        }
        report.lost = self.log_snapshot().lost();
        Ok(())
    }

    fn verify_segment(&self, map: &Map, name: PathBuf, report: &mut StoreReport) -> Result<(), StoreError> {
        if !matches!(FileHeader::read(map.bytes(), SegmentKind::Log, &self.vault, &name)?, HeaderState::Whole(_)) {
            report.files.push((name.clone(), "its header is damaged".to_owned()));
        }
        for found in Scan::new(map.bytes(), 0, 0) {
            if let Found::Damage { offset, .. } | Found::Torn { offset } = found {
                report.files.push((name.clone(), format!("it is damaged at {offset}")));
            }
        }
        Ok(())
    }

    /// Chunks that lists name and that are not here. `each` is told the entries of every list.
    pub(super) fn missing_chunks(&self, each: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<Vec<ChunkId>, StoreError> {
        let mut missing = Vec::new();
        let mut seen = HashSet::new();
        let mut reader = Reader::new(self);
        let mut after: Option<ListId> = None;
        loop {
            let places = self.index.lists_after(after, LISTS)?;
            let Some(last) = places.last() else { return Ok(missing) };
            after = Some(ListId::from_bytes(last.id));
            for place in &places {
                // A damaged list is reported with its segment; which chunks it named, nobody here knows.
                let Ok(list) = reader.list_at(place) else { continue };
                let ids: Vec<ChunkId> = list.entries().iter().map(|entry| entry.id).collect();
                let absent = self.locate(&ids)?.into_iter().zip(&ids).filter(|(place, _)| place.is_none()).map(|(_, id)| *id);
                missing.extend(absent.filter(|id| seen.insert(*id)));
                if each(ids.len() as u64).is_break() {
                    return Err(StoreError::Stopped);
                }
            }
        }
    }
}

impl PackCheck<'_> {
    fn open(&mut self, indexed_to: u64) -> Result<Option<Map>, StoreError> {
        match open_map(&self.inner.dir.join(&self.name), indexed_to)? {
            None => self.report.files.push((self.name.clone(), "it is gone".to_owned())),
            Some((map, length)) => {
                if length < indexed_to {
                    self.report.files.push((self.name.clone(), "it is shorter than it was".to_owned()));
                }
                return Ok(Some(map));
            }
        }
        Ok(None)
    }

    fn scan(&mut self, map: &Map, hash_from: u64, progress: Progress<'_>) -> Result<(), StoreError> {
        for found in Scan::new(map.bytes(), 0, hash_from) {
            let (header, offset, state) = match found {
                Found::Frame { header, offset } => (header, offset, FrameState::Good),
                Found::Damage { header: Some(header), offset, .. } => (header, offset, FrameState::Damaged),
                // Which chunk lies there only the index can say.
                Found::Damage { header: None, .. } | Found::Torn { .. } => continue,
            };
            if header.kind == Kind::Chunk {
                let place = Location { pack: self.number, offset, length: header.frame_bytes() as u32 };
                self.block.push(((ChunkId::from_bytes(header.id), place), state));
                self.block_bytes += u64::from(place.length);
            }
            map.touched(header.frame_bytes() as u64);
            if self.block.len() >= BLOCK_FRAMES || self.block_bytes >= BLOCK_BYTES {
                self.close_block(progress)?;
            }
        }
        self.close_block(progress)
    }

    /// Compares what was scanned with the index. A frame that the index does not mean is a second copy, and none of its business.
    fn close_block(&mut self, progress: Progress<'_>) -> Result<(), StoreError> {
        let ids: Vec<ChunkId> = self.block.iter().map(|((id, _), _)| *id).collect();
        let places = self.inner.index.locate(&ids)?;
        for (((id, place), state), known) in self.block.drain(..).zip(places) {
            if known != Some(place) {
                continue;
            }
            self.accounted.insert(place.offset);
            match state {
                FrameState::Good => {
                    self.report.chunks += 1;
                    self.report.bytes += u64::from(place.length);
                }
                FrameState::Damaged => self.report.damaged.push((id, describe(&self.name, place.offset))),
            }
        }
        let bytes = std::mem::take(&mut self.block_bytes);
        if progress(ids.len() as u64, bytes).is_break() { Err(StoreError::Stopped) } else { Ok(()) }
    }

    /// Rows that no frame was found for: their bytes are wrong down to the header, or not there at all.
    fn look_for_the_rest(&mut self) -> Result<(), StoreError> {
        let length = std::fs::metadata(self.inner.dir.join(&self.name)).map_or(0, |metadata| metadata.len());
        for (id, place) in self.inner.index.chunks_of_pack(self.number)? {
            if self.accounted.contains(&place.offset) {
                continue;
            }
            if place.end() > length {
                self.report.missing.push(id);
            } else if !self.inner.view(place.pack, place.end())?.is_some_and(|view| is_chunk(&view.slice(place.offset, place.end()), &id)) {
                self.report.damaged.push((id, describe(&self.name, place.offset)));
            }
        }
        Ok(())
    }
}

fn describe(name: &Path, offset: u64) -> String {
    format!("{} at {offset}", name.display())
}

/// The first `wanted` bytes of a file, or all of a shorter one, and its length; none if it is not there.
fn open_map(path: &Path, wanted: u64) -> Result<Option<(Map, u64)>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    let mapped = file.metadata().and_then(|metadata| {
        let map = Map::open(&file, metadata.len().min(wanted) as usize)?;
        Ok(Some((map, metadata.len())))
    });
    mapped.map_err(|error| StoreError::io("map", path, error))
}
