//! Quarantine: records that proved damaged are kept aside, and never served or found again.
//!
//! ```text
//! VAULT/quarantine/<chunk>.<pack>.<offset>.bad   what lay at the place of that chunk, as it was read; for whoever wants to look
//! ```
//! The pack itself is left as it is; the index forgets the place, so the chunk is missing and a good copy may be stored. The file's
//! name outlives the index: when that is rebuilt from headers alone, a record that lies in quarantine is stepped over. One that has
//! proved good again (`recover` hashes everything) is taken back.

use super::{Inner, Location, Store, StoreError, index::ChunkRow, packs::is_chunk, segment::SegmentKind};
use crate::{id::ChunkId, io::durable, limits::QUARANTINE_BYTES_MAX};
use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
};

const DIRECTORY: &str = "quarantine";
const SUFFIX: &str = "bad";

/// A place in a pack, and the chunk that should lie there.
pub(super) type Cell = (u32, u64, ChunkId);

impl Store {
    /// Puts chunks aside whose bytes at these places are wrong: keeps what lies there, and forgets the places. What can be read after all,
    /// or lies in a file that is gone, is left alone: a disk that is not there must not cost the index. Returns how many are
    /// missing because of it.
    ///
    /// # Errors
    /// When the index fails.
    pub fn quarantine(&self, places: &[ChunkRow]) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let bad: Vec<ChunkRow> = places.iter().filter(|(id, place)| inner.is_bad(id, place)).copied().collect();
        if bad.is_empty() {
            return Ok(0);
        }
        bad.iter().for_each(|row| inner.keep_aside(row));
        let forgotten = inner.index.forget_places(&bad)?;
        tracing::warn!(chunks = forgotten, "damaged chunks were put into quarantine; mirror scrub fetches good copies");
        Ok(forgotten)
    }
}

impl Inner {
    fn is_bad(&self, id: &ChunkId, place: &Location) -> bool {
        let Ok(file) = File::open(self.path(SegmentKind::Pack, place.pack)) else { return false };
        file.metadata().is_ok_and(|metadata| metadata.len() >= place.end())
            && self.read_without_map(place).is_ok_and(|frame| frame.is_none_or(|frame| !is_chunk(&frame, id)))
    }

    /// Best effort: the bytes stay in the pack, too.
    fn keep_aside(&self, (id, place): &ChunkRow) {
        let kept = self.make_quarantine().and_then(|(directory, held)| {
            let frame = self.read_without_map(place).ok().flatten().filter(|frame| held + frame.len() as u64 <= QUARANTINE_BYTES_MAX);
            let path = directory.join(name_of(&(place.pack, place.offset, *id)));
            durable::write_atomic(&path, &frame.unwrap_or_default(), super::FILE_MODE)
        });
        if let Err(error) = kept {
            tracing::warn!(%error, chunk = %id, "a damaged chunk could not be kept aside");
        }
    }

    /// The directory, and how much it holds.
    fn make_quarantine(&self) -> io::Result<(PathBuf, u64)> {
        let directory = self.dir.join(DIRECTORY);
        DirBuilder::new().recursive(true).mode(super::DIRECTORY_MODE).create(&directory)?;
        let held = fs::read_dir(&directory)?.map(|entry| Ok(entry?.metadata()?.len())).sum::<io::Result<u64>>()?;
        Ok((directory, held))
    }

    /// What of pack `number` lies in quarantine.
    pub(super) fn quarantined(&self, number: u32) -> HashSet<Cell> {
        let entries = fs::read_dir(self.dir.join(DIRECTORY)).into_iter().flatten().flatten();
        entries.filter_map(|entry| cell_of(entry.file_name().to_str()?)).filter(|(pack, ..)| *pack == number).collect()
    }
}

fn name_of((pack, offset, id): &Cell) -> String {
    format!("{id}.{pack:08}.{offset}.{SUFFIX}")
}

fn cell_of(name: &str) -> Option<Cell> {
    let mut parts = name.split('.');
    let (id, pack, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (parts.next() == Some(SUFFIX) && parts.next().is_none()).then_some((pack, offset, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_name_says_which_record_it_is_and_others_say_nothing() {
        let cell = (7, 4_711, ChunkId::from_bytes([0xAB; 32]));
        assert_eq!(cell_of(&name_of(&cell)), Some(cell));
        for name in ["", "x.bad", "00000007.4711.bad", &format!("{}.1", name_of(&cell)), &name_of(&cell).replace("bad", "tmp")] {
            assert_eq!(cell_of(name), None, "{name}");
        }
    }
}
