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
    index::{LostRow, Losses},
    log_read::Reader,
};
use crate::{
    bitmap::Bitmap,
    event::{ChunkList, Frontier},
    id::{ChunkId, ListId},
    limits::{EVENTS_MESSAGE_BYTES_TARGET, LOST_LISTS_MAX},
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

impl Store {
    /// Whether every chunk that an event in the log names is durable here. Reads two numbers, unless something was lost.
    ///
    /// # Errors
    /// When the index fails.
    pub fn is_whole(&self) -> Result<bool, StoreError> {
        Ok(self.lost_lists(None, None, 1)?.is_empty())
    }

    /// Lists with lost chunks, by id: at most `count` of them that come after `after`, and with `within` only those that an event in that
    /// frontier names. Lists that have become whole are forgotten on the way.
    ///
    /// # Errors
    /// When the index fails.
    pub fn lost_lists(&self, within: Option<&Frontier>, mut after: Option<ListId>, count: usize) -> Result<Vec<LostList>, StoreError> {
        let inner = &*self.inner;
        inner.survey()?;
        let (mut lost, mut whole) = (Vec::new(), Vec::new());
        while lost.len() < count {
            let rows = inner.index.lost_after(after)?;
            let Some(LostRow { list, .. }) = rows.first() else { break };
            after = Some(*list);
            if within.is_some_and(|within| !rows.iter().any(|row| within.contains(&row.dot))) {
                continue;
            }
            // A list that cannot be read is the log's damage, and reported as such.
            let Ok(list) = Reader::new(inner).list(list) else { continue };
            match inner.lacking(&list)? {
                missing if missing.is_empty() => whole.push(list.id()),
                missing => lost.push(LostList { list, missing }),
            }
        }
        if !whole.is_empty() {
            inner.index.remove_lost(&whole)?;
        }
        Ok(lost)
    }

    /// Every chunk that is lost, once. Memory is that of their ids.
    ///
    /// # Errors
    /// When the index fails.
    pub fn lost_chunks(&self) -> Result<HashSet<ChunkId>, StoreError> {
        let (mut chunks, mut after) = (HashSet::new(), None);
        loop {
            let page = self.lost_lists(None, after, LOST_LISTS_MAX)?;
            let Some(last) = page.last() else { return Ok(chunks) };
            after = Some(last.list.id());
            for LostList { list, missing } in &page {
                chunks.extend(missing.iter().map(|position| list.entries()[position as usize].id));
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
            let (places, done) = self.page(at, EVENTS_MESSAGE_BYTES_TARGET, |_| true)?;
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
