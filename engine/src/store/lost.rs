//! What was lost: chunks that events in the log name and that no pack holds any more.
//!
//! An event becomes visible only when all its chunks are durable, so a chunk can be missing only because it was lost: its pack was
//! deleted or cut, or it was found damaged and put aside. The event stays visible, reading the value says which chunk is gone, and a
//! session with any replica that holds the same event asks for it.
//!
//! ```text
//! loss noted (index) ─► survey, once: lists with gaps, events that name them ─► `lost` rows ─► asked for ─► whole again: row goes
//! ```

use super::{
    Inner, LogPosition, Store, StoreError,
    index::{Losses, LostRow},
    log_read::Reader,
};
use crate::{
    bitmap::Bitmap,
    event::{ChunkList, Frontier},
    id::{ChunkId, ListId},
    limits::{EVENTS_MESSAGE_BYTES_TARGET, LOST_LISTS_MAX, WANTED_CHUNKS_MAX},
};
use std::collections::HashSet;

/// Lists that are looked through together.
const LISTS: u32 = 16;

/// A chunk list of an event in the log, and which of its chunks are gone.
#[derive(Debug, Clone, PartialEq)]
pub struct LostList {
    /// The list.
    pub list: ChunkList,
    /// Positions in it.
    pub missing: Bitmap,
}

/// Some of the lists with lost chunks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LostPage {
    /// In the order of their ids.
    pub lists: Vec<LostList>,
    /// After which list to go on; none if that was all.
    pub next: Option<ListId>,
}

impl LostPage {
    fn is_full(&self, count: usize) -> bool {
        let entries: usize = self.lists.iter().map(|lost| lost.list.entries().len()).sum();
        self.lists.len() >= count || entries >= WANTED_CHUNKS_MAX
    }
}

impl Store {
    /// Whether every chunk that an event in the log names is durable here. Reads two numbers, unless something was lost.
    ///
    /// # Errors
    /// When the index fails.
    pub fn is_whole(&self) -> Result<bool, StoreError> {
        Ok(self.lost_lists(None, None, 1)?.lists.is_empty())
    }

    /// Lists with lost chunks that come after `after`: at most `count`, and fewer if they are long. With `within` only those that an
    /// event in that frontier names. Lists that have become whole are forgotten on the way.
    ///
    /// # Errors
    /// When the index fails.
    pub fn lost_lists(&self, within: Option<&Frontier>, mut after: Option<ListId>, count: usize) -> Result<LostPage, StoreError> {
        let inner = &*self.inner;
        inner.survey()?;
        let (mut page, mut whole) = (LostPage::default(), Vec::new());
        while !page.is_full(count) {
            let rows = inner.index.lost_after(after)?;
            after = rows.first().map(|row| row.list);
            let Some(id) = after else { break };
            if within.is_some_and(|within| !rows.iter().any(|row| within.contains(&row.dot))) {
                continue;
            }
            // A list that cannot be read is the log's damage, and reported as such.
            let place = inner.index.list(&id)?;
            let Ok(list) = Reader::new(inner).list(&id, place) else { continue };
            match inner.lacking(&list)? {
                missing if missing.is_empty() => whole.push(id),
                missing => page.lists.push(LostList { list, missing }),
            }
        }
        if !whole.is_empty() {
            inner.index.remove_lost(&whole)?;
        }
        Ok(LostPage { next: after, ..page })
    }

    /// Every chunk that is lost, once. Memory is that of their ids.
    ///
    /// # Errors
    /// When the index fails.
    pub fn lost_chunks(&self) -> Result<HashSet<ChunkId>, StoreError> {
        let (mut chunks, mut after) = (HashSet::new(), None);
        loop {
            let page = self.lost_lists(None, after, LOST_LISTS_MAX)?;
            for LostList { list, missing } in &page.lists {
                chunks.extend(missing.iter().map(|position| list.entries()[position as usize].id));
            }
            after = page.next;
            if after.is_none() {
                return Ok(chunks);
            }
        }
    }
}

impl Inner {
    /// Finds out which lists the losses concern that were noted since the last survey.
    pub(super) fn survey(&self) -> Result<(), StoreError> {
        let Losses { happened, surveyed } = self.index.losses()?;
        if happened == surveyed {
            return Ok(());
        }
        let gaps = self.lists_with_gaps()?;
        let rows = if gaps.is_empty() { Vec::new() } else { self.events_naming(&gaps)? };
        self.index.add_lost(&rows, happened)
    }

    fn lists_with_gaps(&self) -> Result<HashSet<ListId>, StoreError> {
        let (mut gaps, mut reader, mut after) = (HashSet::new(), Reader::new(self), None);
        loop {
            let places = self.index.lists_after(after, LISTS)?;
            let Some(last) = places.last() else { return Ok(gaps) };
            after = Some(ListId::from_bytes(last.id));
            for place in &places {
                let Ok(list) = reader.list_at(place) else { continue };
                if !self.lacking(&list)?.is_empty() {
                    gaps.insert(list.id());
                }
            }
        }
    }

    fn events_naming(&self, lists: &HashSet<ListId>) -> Result<Vec<LostRow>, StoreError> {
        let (mut rows, mut reader, mut at) = (Vec::new(), Reader::new(self), LogPosition::START);
        loop {
            let (places, done) = self.page(at, EVENTS_MESSAGE_BYTES_TARGET, usize::MAX, |_| true)?;
            for place in &places {
                at = place.next();
                let Ok(event) = reader.event(place) else { continue };
                let named = event.header().lists.iter().filter(|list| lists.contains(&list.id));
                rows.extend(named.map(|list| LostRow { list: list.id, dot: event.dot() }));
            }
            if done {
                return Ok(rows);
            }
        }
    }

    /// Which entries of `list` are not durable here.
    fn lacking(&self, list: &ChunkList) -> Result<Bitmap, StoreError> {
        let ids: Vec<ChunkId> = list.entries().iter().map(|entry| entry.id).collect();
        let places = self.index.locate(&ids)?;
        Ok(Bitmap::from_positions(ids.len(), (0..ids.len() as u32).filter(|position| places[*position as usize].is_none())))
    }
}
