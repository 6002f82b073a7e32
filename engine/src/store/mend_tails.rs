//! Making certain: what an earlier process left behind its last sync is written once more before it counts.
//!
//! A sync alone would not do. After one that failed the system calls the pages clean (see [`crate::io::durable`]): the process that was told is
//! gone, the next one reads the bytes, syncs, hears no error, and the disk does not have them. An event that named such a chunk would be
//! acknowledged and lose it in the next power cut; so would an event that followed one in the log. Written again, the pages are dirty,
//! and the sync answers for them. The entry of a new file may be in the same state: its directory is synced too.
//!
//! # What is in doubt
//! ```text
//! index usable   packs: behind `indexed_to`     log: behind the last indexed event, in the last segment
//! no index       packs: of the last 128 MiB, what lies behind the last chunk that the log names     log: the last segment
//! ```
//! A list is in the log only if its chunks were durable, and a sync covers everything before it: so a pack is certain up to the last of
//! them. The index calls a pack durable up to 128 MiB before its end until that was found out, so that an interruption forgets no doubt.
//! A vault that was closed in order has nothing in doubt.

use super::{Inner, StoreError, log_read::Reader, mend::Changes, mend_packs::open_for_mending, pack::try_lock, segment::SegmentKind};
use crate::{
    id::{ChunkId, ListId},
    io::durable::directory_of,
};
use std::{collections::BTreeMap, fs::File, ops::Range, path::Path};

/// Lists that are read together.
const LISTS: u32 = 16;

impl Inner {
    /// Makes what `file` shows durable, and its entry; what lies in `doubtful` by writing it once more. The caller holds the file's lock.
    pub(super) fn make_certain(&self, file: &File, path: &Path, doubtful: Range<u64>, changes: Changes) -> Result<(), StoreError> {
        self.disk.write_again(file, path, doubtful).map_err(|error| StoreError::io("write", path, error))?;
        self.disk.sync_data(file, path).map_err(|error| StoreError::io("sync", path, error))?;
        let directory = directory_of(path);
        match changes {
            Changes::Make => self.disk.sync_dir(directory).map_err(|error| StoreError::io("sync", directory, error)),
            Changes::Describe => Ok(()),
        }
    }

    /// After packs and log were read without an index: makes certain what of each pack nothing vouches for, and calls it durable.
    pub(super) fn settle_tails(&self) -> Result<(), StoreError> {
        let named = self.named_ends()?;
        for row in self.index.packs()? {
            let path = self.path(SegmentKind::Pack, row.number);
            // One that is written to at the moment is its writer's, which makes certain what it takes over.
            let Ok(file) = open_for_mending(&path) else { continue };
            let length = file.metadata().map_err(|error| StoreError::io("read", &path, error))?.len();
            if length > row.indexed_to && try_lock(&file, &path)? {
                let certain = named.get(&row.number).copied().unwrap_or(0).max(row.indexed_to);
                self.adopt_tail(row.number, &file, certain)?;
            }
        }
        Ok(())
    }

    /// Where, in each pack, the last chunk ends that a list in the log names.
    fn named_ends(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let (mut ends, mut reader, mut after) = (BTreeMap::new(), Reader::new(self), None);
        loop {
            let places = self.index.lists_after(after, LISTS)?;
            let Some(last) = places.last() else { return Ok(ends) };
            after = Some(ListId::from_bytes(last.id));
            for place in &places {
                // A damaged list vouches for nothing.
                let Ok(list) = reader.list_at(place) else { continue };
                let ids: Vec<ChunkId> = list.entries().iter().map(|entry| entry.id).collect();
                for place in self.index.locate(&ids)?.into_iter().flatten() {
                    let end: &mut u64 = ends.entry(place.pack).or_default();
                    *end = place.end().max(*end);
                }
            }
        }
    }
}
