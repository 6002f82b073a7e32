//! Rows of the journal: events that wait for their chunks.

use super::{Index, signed, unsigned};
use crate::{
    event::Dot,
    id::ReplicaId,
    limits::{PENDING_EVENT_BYTES_MAX, PENDING_EVENTS_MAX},
    store::StoreError,
};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// An event's record and those of its lists, as they were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct PendingRow {
    pub(in crate::store) dot: Dot,
    pub(in crate::store) record: Vec<u8>,
    pub(in crate::store) lists: Vec<Vec<u8>>,
}

impl PendingRow {
    fn bytes(&self) -> usize {
        self.record.len() + self.lists.iter().map(Vec::len).sum::<usize>()
    }
}

/// How full the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    events: usize,
    bytes: usize,
}

impl Level {
    fn of(transaction: &Transaction<'_>) -> Result<Self, StoreError> {
        let mut statement = transaction.prepare_cached("SELECT count(*), ifnull(sum(bytes), 0) FROM pending")?;
        let row = |row: &rusqlite::Row<'_>| Ok(Self { events: unsigned(row.get(0)?) as usize, bytes: unsigned(row.get(1)?) as usize });
        Ok(statement.query_row([], row)?)
    }

    /// The same, not counting the event at `dot`, if there is one.
    fn without(self, transaction: &Transaction<'_>, dot: &Dot) -> Result<Self, StoreError> {
        let mut statement = transaction.prepare_cached("SELECT bytes FROM pending WHERE author = ? AND sequence = ?")?;
        let held: Option<i64> = statement.query_row(params![dot.author.as_bytes(), signed(dot.sequence)], |row| row.get(0)).optional()?;
        Ok(held.map_or(self, |bytes| Self {
            events: self.events.saturating_sub(1),
            bytes: self.bytes.saturating_sub(unsigned(bytes) as usize),
        }))
    }

    /// With one more event, if there is room for it.
    fn with(self, bytes: usize) -> Option<Self> {
        let more = Self { events: self.events + 1, bytes: self.bytes + bytes };
        (self.events == 0 || (more.events <= PENDING_EVENTS_MAX && more.bytes <= PENDING_EVENT_BYTES_MAX)).then_some(more)
    }
}

impl Index {
    /// Keeps events in one transaction, each if there is room for it; one of the same author and number is replaced. An event of any size
    /// fits an empty journal. Returns how many are kept.
    pub(in crate::store) fn journal_put(&self, rows: &[PendingRow]) -> Result<usize, StoreError> {
        self.write(|transaction| {
            let mut level = Level::of(transaction)?;
            let mut kept = 0;
            for row in rows {
                let others = level.without(transaction, &row.dot)?;
                let Some(with) = others.with(row.bytes()) else { continue };
                if others != level {
                    remove(transaction, &row.dot)?;
                }
                insert(transaction, row)?;
                (level, kept) = (with, kept + 1);
            }
            Ok(kept)
        })
    }

    /// Everything in the journal, in the order in which it was put.
    pub(in crate::store) fn journal_rows(&self) -> Result<Vec<PendingRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT author, sequence, record FROM pending ORDER BY rowid")?;
            let mut rows = statement.query([])?;
            let mut pending = Vec::new();
            while let Some(row) = rows.next()? {
                let dot = Dot { author: ReplicaId::from_bytes(row.get(0)?), sequence: unsigned(row.get(1)?) };
                pending.push(PendingRow { dot, record: row.get(2)?, lists: lists(connection, &dot)? });
            }
            Ok(pending)
        })
    }

    /// Drops events that are done or given up.
    pub(in crate::store) fn journal_remove(&self, dots: &[Dot]) -> Result<(), StoreError> {
        self.write(|transaction| dots.iter().try_for_each(|dot| remove(transaction, dot)))
    }
}

fn insert(transaction: &Transaction<'_>, row: &PendingRow) -> Result<(), StoreError> {
    let (author, sequence) = (row.dot.author.as_bytes(), signed(row.dot.sequence));
    transaction.prepare_cached("INSERT INTO pending VALUES (?, ?, ?, ?)")?.execute(params![
        author,
        sequence,
        row.record,
        signed(row.bytes() as u64)
    ])?;
    let mut insert = transaction.prepare_cached("INSERT INTO pending_list VALUES (?, ?, ?, ?)")?;
    for (position, list) in row.lists.iter().enumerate() {
        insert.execute(params![author, sequence, position as u32, list])?;
    }
    Ok(())
}

fn lists(connection: &Connection, dot: &Dot) -> Result<Vec<Vec<u8>>, StoreError> {
    let query = "SELECT record FROM pending_list WHERE author = ? AND sequence = ? ORDER BY position";
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map(params![dot.author.as_bytes(), signed(dot.sequence)], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn remove(transaction: &Transaction<'_>, dot: &Dot) -> Result<(), StoreError> {
    for query in ["DELETE FROM pending WHERE author = ? AND sequence = ?", "DELETE FROM pending_list WHERE author = ? AND sequence = ?"] {
        transaction.prepare_cached(query)?.execute(params![dot.author.as_bytes(), signed(dot.sequence)])?;
    }
    Ok(())
}
