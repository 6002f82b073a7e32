//! The journal: events of others that wait for their chunks.
//!
//! It lies in the index: it survives the end of the process, and losing it costs only asking for the events again. What is still missing
//! of their lists is not written down but looked up, so it cannot be wrong.

use super::{Store, StoreError, index::PendingRow};
use crate::event::{ChunkList, Dot, Event};

impl Store {
    /// Keeps events that are not complete yet, with their lists: one transaction for all of them. Those that there is no room for are left
    /// out. Returns how many are kept.
    ///
    /// # Errors
    /// When the index fails.
    pub fn journal_put_each<'e>(&self, events: impl IntoIterator<Item = (&'e Event, &'e [ChunkList])>) -> Result<usize, StoreError> {
        let rows: Vec<PendingRow> = events.into_iter().map(|(event, lists)| row_of(event, lists)).collect();
        if rows.is_empty() { Ok(0) } else { self.inner.index.journal_put(&rows) }
    }

    /// Keeps an event that is not complete yet, with its lists.
    ///
    /// # Errors
    /// [`StoreError::JournalFull`] beyond [`PENDING_EVENTS_MAX`](crate::limits::PENDING_EVENTS_MAX) events or
    /// [`PENDING_EVENT_BYTES_MAX`](crate::limits::PENDING_EVENT_BYTES_MAX); one event always fits.
    pub fn journal_put(&self, event: &Event, lists: &[ChunkList]) -> Result<(), StoreError> {
        match self.journal_put_each([(event, lists)])? {
            0 => Err(StoreError::JournalFull),
            _ => Ok(()),
        }
    }

    /// What waits, in the order in which it was put. What cannot be read, is not valid, or is in the log by now, is dropped.
    ///
    /// # Errors
    /// When the index fails.
    pub fn journal_pending(&self) -> Result<Vec<(Event, Vec<ChunkList>)>, StoreError> {
        let held = self.frontier();
        let (mut pending, mut dropped) = (Vec::new(), Vec::new());
        for row in self.inner.index.journal_rows()? {
            match self.read_pending(&row).filter(|(event, _)| !held.contains(&event.dot())) {
                Some(waiting) => pending.push(waiting),
                None => dropped.push(row.dot),
            }
        }
        if !dropped.is_empty() {
            self.journal_remove(&dropped)?;
        }
        Ok(pending)
    }

    /// Forgets events that are complete or given up. Those that are not there are ignored.
    ///
    /// # Errors
    /// When the index fails.
    pub fn journal_remove(&self, dots: &[Dot]) -> Result<(), StoreError> {
        self.inner.index.journal_remove(dots)
    }

    /// The index is a cache that anybody may have changed: the event is checked as if it came from a peer.
    fn read_pending(&self, row: &PendingRow) -> Option<(Event, Vec<ChunkList>)> {
        let event = Event::check(row.record.clone(), &self.inner.vault).ok()?;
        let lists = row.lists.iter().map(|record| ChunkList::from_record(record)).collect::<Result<Vec<_>, _>>().ok()?;
        let named = event.header().lists.iter().copied().eq(lists.iter().map(ChunkList::reference));
        (named && event.dot() == row.dot).then_some((event, lists))
    }
}

fn row_of(event: &Event, lists: &[ChunkList]) -> PendingRow {
    PendingRow { dot: event.dot(), record: event.record().to_vec(), lists: lists.iter().map(ChunkList::record).collect() }
}
