//! Rows about events, chunk lists and log segments.

use super::{Index, signed, unsigned};
use crate::{
    event::{Dot, Event, Frontier, KIND_MEMBERSHIP},
    id::{EventId, ListId, ReplicaId},
    store::{LogPosition, StoreError},
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::BTreeMap;

/// Where a frame of the log lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct EventPlace {
    pub(in crate::store) at: LogPosition,
    /// Bytes of the frame.
    pub(in crate::store) length: u32,
    /// What its record hashes to.
    pub(in crate::store) id: [u8; 32],
}

impl EventPlace {
    /// The place just after it.
    pub(in crate::store) fn next(&self) -> LogPosition {
        LogPosition { offset: self.at.offset + u64::from(self.length), ..self.at }
    }
}

/// A new row about an event.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct EventRow {
    pub(in crate::store) dot: Dot,
    pub(in crate::store) lamport: u64,
    pub(in crate::store) kind: u16,
    pub(in crate::store) place: EventPlace,
}

impl EventRow {
    pub(in crate::store) fn new(event: &Event, place: EventPlace) -> Self {
        Self { dot: event.dot(), lamport: event.header().lamport, kind: event.header().kind, place }
    }
}

/// A new row about a chunk list.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct ListRow(pub(in crate::store) EventPlace);

/// An author's newest event, with what the next one has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct KnownHead {
    pub(in crate::store) sequence: u64,
    pub(in crate::store) event: EventId,
    pub(in crate::store) lamport: u64,
}

const PLACE: &str = "segment, offset, length, id";

fn place(row: &Row<'_>) -> rusqlite::Result<EventPlace> {
    let at = LogPosition { segment: row.get(0)?, offset: unsigned(row.get(1)?) };
    Ok(EventPlace { at, length: row.get(2)?, id: row.get(3)? })
}

impl Index {
    /// Adds events in log order and lists; the log is known up to `end` now.
    pub(in crate::store) fn add_log(&self, events: &[EventRow], lists: &[ListRow], end: LogPosition) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut added = 0;
            for event in events {
                added += add_event(transaction, event)?;
            }
            let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO list VALUES (?, ?, ?, ?)")?;
            for ListRow(list) in lists {
                insert.execute(params![list.id, list.at.segment, signed(list.at.offset), list.length])?;
            }
            transaction
                .prepare_cached("INSERT OR REPLACE INTO segment VALUES (?, ?)")?
                .execute(params![end.segment, signed(end.offset)])?;
            transaction.prepare_cached("UPDATE state SET events = events + ?")?.execute([added as i64])?;
            Ok(())
        })
    }

    /// Forgets all that the log told, so that it is read again.
    pub(in crate::store) fn forget_log(&self) -> Result<(), StoreError> {
        let all = "DELETE FROM event; DELETE FROM membership; DELETE FROM head; DELETE FROM list; DELETE FROM segment; UPDATE state SET events = 0;";
        self.write(|transaction| Ok(transaction.execute_batch(all)?))
    }

    /// How far each segment of the log is known, by number.
    pub(in crate::store) fn segments(&self) -> Result<Vec<LogPosition>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT number, indexed_to FROM segment ORDER BY number")?;
            let rows = statement.query_map([], |row| Ok(LogPosition { segment: row.get(0)?, offset: unsigned(row.get(1)?) }))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Every author's newest event, and how far the log is known.
    pub(in crate::store) fn heads(&self) -> Result<(BTreeMap<ReplicaId, KnownHead>, LogPosition), StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT author, sequence, id, lamport FROM head")?;
            let rows = statement.query_map([], |row| {
                let (sequence, lamport) = (unsigned(row.get(1)?), unsigned(row.get(3)?));
                Ok((ReplicaId::from_bytes(row.get(0)?), KnownHead { sequence, event: EventId::from_bytes(row.get(2)?), lamport }))
            })?;
            Ok((rows.collect::<Result<_, _>>()?, log_end(connection)?))
        })
    }

    /// How far the log is known.
    pub(in crate::store) fn log_end(&self) -> Result<LogPosition, StoreError> {
        self.read(log_end)
    }

    /// Identifier and lamport of the event at `dot`.
    pub(in crate::store) fn known(&self, dot: &Dot) -> Result<Option<(EventId, u64)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT id, lamport FROM event WHERE author = ? AND sequence = ?")?;
            let row = |row: &Row<'_>| Ok((EventId::from_bytes(row.get(0)?), unsigned(row.get(1)?)));
            Ok(statement.query_row(params![dot.author.as_bytes(), signed(dot.sequence)], row).optional()?)
        })
    }

    /// Place of the event at `dot`.
    pub(in crate::store) fn event_at(&self, dot: &Dot) -> Result<Option<EventPlace>, StoreError> {
        self.read(|connection| event_at(connection, &dot.author, dot.sequence))
    }

    /// Place of an event.
    pub(in crate::store) fn event_with(&self, id: &EventId) -> Result<Option<EventPlace>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("SELECT {PLACE} FROM event WHERE id = ?"))?;
            Ok(statement.query_row([id.as_bytes()], place).optional()?)
        })
    }

    /// Place of a list.
    pub(in crate::store) fn list(&self, id: &ListId) -> Result<Option<EventPlace>, StoreError> {
        Ok(self.lists([id])?.pop().flatten())
    }

    /// Places of lists, in their order.
    pub(in crate::store) fn lists<'i>(&self, ids: impl IntoIterator<Item = &'i ListId>) -> Result<Vec<Option<EventPlace>>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT segment, offset, length, id FROM list WHERE id = ?")?;
            ids.into_iter().map(|id| Ok(statement.query_row([id.as_bytes()], place).optional()?)).collect()
        })
    }

    /// Places of at most `count` lists that come after `after` in the order of their ids.
    pub(in crate::store) fn lists_after(&self, after: Option<ListId>, count: u32) -> Result<Vec<EventPlace>, StoreError> {
        self.read(|connection| {
            let query = "SELECT segment, offset, length, id FROM list WHERE id > ? ORDER BY id LIMIT ?";
            let mut statement = connection.prepare_cached(query)?;
            let after: &[u8] = after.as_ref().map_or(&[], |id| id.as_bytes());
            Ok(statement.query_map(params![after, count], place)?.collect::<Result<_, _>>()?)
        })
    }

    /// Places of the membership events from `from` on, in log order.
    pub(in crate::store) fn membership_from(&self, from: LogPosition) -> Result<Vec<EventPlace>, StoreError> {
        self.read(|connection| {
            let query = "SELECT segment, offset, length, id FROM membership WHERE (segment, offset) >= (?, ?) ORDER BY segment, offset";
            let mut statement = connection.prepare_cached(query)?;
            Ok(statement.query_map(params![from.segment, signed(from.offset)], place)?.collect::<Result<_, _>>()?)
        })
    }

    /// Places of events from `from` on in log order that `each` accepts, until it has had enough.
    pub(in crate::store) fn walk(
        &self,
        from: LogPosition,
        mut each: impl FnMut(Dot, EventPlace) -> std::ops::ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.read(|connection| {
            let query = "SELECT segment, offset, length, id, author, sequence FROM event
                WHERE (segment, offset) >= (?, ?) ORDER BY segment, offset";
            let mut statement = connection.prepare_cached(query)?;
            let mut rows = statement.query(params![from.segment, signed(from.offset)])?;
            while let Some(row) = rows.next()? {
                let dot = Dot { author: ReplicaId::from_bytes(row.get(4)?), sequence: unsigned(row.get(5)?) };
                if each(dot, place(row)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Where the first event lies that is beyond `frontier`; none if nothing is. One look-up an author, whatever the log's length.
    pub(in crate::store) fn first_beyond(&self, frontier: &Frontier, authors: &Frontier) -> Result<Option<LogPosition>, StoreError> {
        self.read(|connection| {
            let mut first: Option<LogPosition> = None;
            for (author, held) in authors.iter() {
                let next = frontier.sequence_of(author).saturating_add(1);
                if next <= held
                    && let Some(place) = event_at(connection, author, next)?
                {
                    first = Some(first.map_or(place.at, |first| first.min(place.at)));
                }
            }
            Ok(first)
        })
    }
}

fn log_end(connection: &Connection) -> Result<LogPosition, StoreError> {
    let mut statement = connection.prepare_cached("SELECT number, indexed_to FROM segment ORDER BY number DESC LIMIT 1")?;
    let row = |row: &Row<'_>| Ok(LogPosition { segment: row.get(0)?, offset: unsigned(row.get(1)?) });
    Ok(statement.query_row([], row).optional()?.unwrap_or(LogPosition::START))
}

fn event_at(connection: &Connection, author: &ReplicaId, sequence: u64) -> Result<Option<EventPlace>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT segment, offset, length, id FROM event WHERE author = ? AND sequence = ?")?;
    Ok(statement.query_row(params![author.as_bytes(), signed(sequence)], place).optional()?)
}

fn add_event(transaction: &Transaction<'_>, event: &EventRow) -> Result<usize, StoreError> {
    let (author, sequence, lamport) = (event.dot.author.as_bytes(), signed(event.dot.sequence), signed(event.lamport));
    let EventPlace { at, length, id } = event.place;
    let added = transaction.prepare_cached("INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?, ?, ?, ?)")?.execute(params![
        author,
        sequence,
        at.segment,
        signed(at.offset),
        length,
        id,
        lamport
    ])?;
    if added > 0 {
        transaction.prepare_cached("INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?)")?.execute(params![author, sequence, id, lamport])?;
        if event.kind == KIND_MEMBERSHIP {
            let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO membership VALUES (?, ?, ?, ?)")?;
            insert.execute(params![at.segment, signed(at.offset), length, id])?;
        }
    }
    Ok(added)
}
