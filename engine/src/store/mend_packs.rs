//! Making the index agree with the packs.

use super::{
    Inner, Location, StoreError,
    index::{ChunkRow, PackRow, lock},
    mend::{Changes, Knowledge, Repair, unsynced_from},
    pack::try_lock,
    segment::{FILE_HEADER_BYTES, FileHeader, Found, HeaderState, Scan, SegmentKind},
};
use crate::{frame::Kind, id::ChunkId, io::map::Map};
use rayon::prelude::*;
use std::{
    fs::{self, File, OpenOptions},
    path::Path,
};

/// Rows that are published together while a pack is scanned.
const ROWS_MAX: usize = 65_536;

/// How a pack is scanned.
#[derive(Debug, Clone, Copy)]
struct Scanned {
    from: u64,
    /// From where on records are hashed.
    hash_from: u64,
    /// What lies behind is not called durable yet, see [`Inner::settle_tails`].
    hold: u64,
}

/// What became of the end of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// The pack holds good frames up to here, all published, and nothing else.
    Whole(u64),
    /// It may be read, not written to.
    Closed,
}

impl Inner {
    pub(super) fn mend_packs(&self, knowledge: Knowledge, changes: Changes, repairs: &mut Vec<Repair>) -> Result<(), StoreError> {
        let rows = self.index.packs()?;
        let numbers = SegmentKind::Pack.list(&self.dir)?;
        for row in rows.iter().filter(|row| numbers.binary_search(&row.number).is_err()) {
            let change = self.index.forget_pack(row.number)?;
            if change.chunks > 0 {
                let what = format!("it is gone; its {} chunks have to come from a peer", change.chunks);
                repairs.push(Repair::loss(SegmentKind::Pack.file(row.number), what));
            }
        }
        let known = |number: &u32| rows.binary_search_by_key(number, |row| row.number).map_or(0, |at| rows[at].indexed_to);
        let mended: Vec<Vec<Repair>> = numbers
            .par_iter()
            .map(|number| self.mend_pack(PackRow { number: *number, indexed_to: known(number) }, knowledge, changes))
            .collect::<Result<_, _>>()?;
        repairs.extend(mended.into_iter().flatten());
        Ok(())
    }

    fn mend_pack(&self, row: PackRow, knowledge: Knowledge, changes: Changes) -> Result<Vec<Repair>, StoreError> {
        let (number, name) = (row.number, SegmentKind::Pack.file(row.number));
        let path = self.dir.join(&name);
        let mut repairs = Vec::new();
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) => return Ok(vec![Repair::loss(name, format!("it cannot be read: {error}"))]),
        };
        if length == row.indexed_to {
            return Ok(repairs);
        }
        let mut known = row.indexed_to;
        if length < known {
            let (change, end) = self.index.forget_beyond(number, length)?;
            known = end;
            let what = format!("it is shorter than it was; {} chunks have to come from a peer", change.chunks);
            repairs.push(Repair::loss(name.clone(), what));
        }
        let file = match open_for_mending(&path) {
            Ok(file) => file,
            Err(error) => return Ok(vec![Repair::loss(name, format!("it cannot be opened: {error}"))]),
        };
        if !try_lock(&file, &path)? {
            // Somebody is writing to it and will publish it: to this index, unless it is new.
            if knowledge != Knowledge::Index {
                self.adopt(number, &file, known, (Knowledge::Distrust, Changes::Describe), &mut Vec::new())?;
            }
            return Ok(repairs);
        }
        let from = if repairs.is_empty() { self.index.indexed_to(number)? } else { known };
        self.adopt(number, &file, from, (knowledge, changes), &mut repairs)?;
        Ok(repairs)
    }

    /// Checks what lies in a pack behind `from`, writes it once more and publishes it; a torn tail is cut. The caller holds the pack's lock.
    pub(super) fn adopt_tail(&self, number: u32, file: &File, from: u64) -> Result<Tail, StoreError> {
        self.adopt(number, file, from, (Knowledge::Index, Changes::Make), &mut Vec::new())
    }

    fn adopt(
        &self,
        number: u32,
        file: &File,
        from: u64,
        (knowledge, changes): (Knowledge, Changes),
        repairs: &mut Vec<Repair>,
    ) -> Result<Tail, StoreError> {
        let name = SegmentKind::Pack.file(number);
        let path = self.dir.join(&name);
        let length = file.metadata().map_err(|error| StoreError::io("read", &path, error))?.len();
        if length < from {
            return Ok(Tail::Closed);
        }
        let map = Map::open(file, length as usize).map_err(|error| StoreError::io("map", &path, error))?;
        map.advise_sequential();
        let mut header = FileHeader::read(map.bytes(), SegmentKind::Pack, &self.vault, &name)?;
        if header == HeaderState::Damaged && changes == Changes::Make {
            header = self.restore_torn_header(number, file, map.bytes(), repairs)?;
        }
        if header == HeaderState::Damaged {
            lock(&self.closed_packs).insert(number);
            repairs.push(Repair::harmless(name.clone(), "its header is damaged; its chunks are read all the same, and none is added"));
        }
        if header == HeaderState::Short {
            // Made and never used: nothing is in it, and nobody writes to it again.
            lock(&self.closed_packs).insert(number);
            return Ok(Tail::Closed);
        }
        if length > from {
            // Published rows say that what they name is durable, and nobody has made sure of this yet.
            let doubtful = if (knowledge, changes) == (Knowledge::Index, Changes::Make) { from..length } else { length..length };
            self.make_certain(file, &path, doubtful, changes)?;
        }
        let hold = if knowledge != Knowledge::Index && changes == Changes::Make { unsynced_from(length) } else { u64::MAX };
        let end = self.publish_scanned(number, &map, Scanned { from, hash_from: knowledge.hash_from(length), hold }, repairs)?;
        if end < length && changes == Changes::Make {
            self.cut(file, &path, end);
        }
        Ok(if header == HeaderState::Damaged { Tail::Closed } else { Tail::Whole(end) })
    }

    /// Writes the header of a pack anew of which a power cut left only the beginning, or nothing, although something behind it was written.
    fn restore_torn_header(&self, number: u32, file: &File, bytes: &[u8], repairs: &mut Vec<Repair>) -> Result<HeaderState, StoreError> {
        let whole = FileHeader { kind: SegmentKind::Pack, number, follows: 0, vault: self.vault };
        let written = bytes.iter().zip(whole.to_bytes()).take_while(|(found, wanted)| **found == *wanted).count();
        if bytes.iter().take(FILE_HEADER_BYTES as usize).skip(written).any(|byte| *byte != 0) {
            return Ok(HeaderState::Damaged);
        }
        let path = self.path(SegmentKind::Pack, number);
        self.disk.write_all_at(file, &path, &[&whole.to_bytes()], 0).map_err(|error| StoreError::io("write", &path, error))?;
        repairs.push(Repair::harmless(SegmentKind::Pack.file(number), "its header was torn by a crash and is written anew"));
        Ok(HeaderState::Whole(whole))
    }

    /// Publishes what a scan finds; returns where the last good frame ends.
    fn publish_scanned(&self, number: u32, map: &Map, scanned: Scanned, repairs: &mut Vec<Repair>) -> Result<u64, StoreError> {
        let Scanned { from, hash_from, hold } = scanned;
        let scan = Scan::new(map.bytes(), from, hash_from);
        let name = SegmentKind::Pack.file(number);
        let aside = self.quarantined(number);
        let mut rows: Vec<ChunkRow> = Vec::new();
        let mut end = scan.position();
        for found in scan {
            match found {
                Found::Frame { header, offset } => {
                    let place = Location { pack: number, offset, length: header.frame_bytes() as u32 };
                    map.touched(u64::from(place.length));
                    end = place.end();
                    let id = ChunkId::from_bytes(header.id);
                    let is_aside = || offset < hash_from && aside.contains(&(number, offset, id));
                    if header.kind == Kind::Chunk && !is_aside() {
                        rows.push((id, place));
                    }
                }
                // Known, and told when it was found.
                Found::Damage { offset, length, .. } if aside.iter().any(|(_, at, _)| *at == offset) => end = offset + length,
                Found::Damage { offset, length, header } => {
                    let which = header.map_or(String::new(), |header| format!(" (chunk {})", ChunkId::from_bytes(header.id)));
                    repairs.push(Repair::loss(name.clone(), format!("{length} bytes at {offset} are damaged{which} and were left out")));
                    end = offset + length;
                }
                Found::Torn { offset } => {
                    repairs.push(Repair::harmless(name.clone(), format!("its end, from {offset} on, was torn by a crash and is cut off")));
                }
            }
            if rows.len() >= ROWS_MAX {
                self.index.publish(number, end.min(hold), &mut rows)?;
                rows.clear();
            }
        }
        self.index.publish(number, end.min(hold), &mut rows)?;
        Ok(end)
    }

    /// Best effort: on a read-only file system the tail stays, and is ignored.
    fn cut(&self, file: &File, path: &Path, end: u64) {
        if let Err(error) = self.disk.truncate(file, path, end.max(FILE_HEADER_BYTES)) {
            tracing::warn!(file = %path.display(), "the torn end stays: {error}");
        }
    }
}

pub(super) fn open_for_mending(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path).or_else(|_| File::open(path))
}
