//! Rows of the journal: events that wait for their chunks.

use super::{Index, signed, unsigned};
use crate::{
    event::Dot,
    id::ReplicaId,
    limits::{PENDING_EVENT_BYTES_MAX, PENDING_EVENTS_MAX},
    store::StoreError,
};
use rusqlite::{Connection, Transaction, params};

/// An event's record and those of its lists, as they were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct PendingRow {
    pub(in crate::store) dot: Dot,
    pub(in crate::store) record: Vec<u8>,
    pub(in crate::store) lists: Vec<Vec<u8>>,
}

impl Index {
    /// Keeps an event; one of the same author and number is replaced. An event of any size fits an empty journal.
    pub(in crate::store) fn journal_put(&self, row: &PendingRow) -> Result<(), StoreError> {
        self.write(|transaction| {
            remove(transaction, &row.dot)?;
            let bytes = row.record.len() + row.lists.iter().map(Vec::len).sum::<usize>();
            let query = "SELECT count(*), ifnull(sum(bytes), 0) FROM pending";
            let (count, held): (i64, i64) = transaction.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let fits = unsigned(held) as usize + bytes <= PENDING_EVENT_BYTES_MAX && (count as usize) < PENDING_EVENTS_MAX;
            if count > 0 && !fits {
                return Err(StoreError::JournalFull);
            }
            insert(transaction, row, bytes)
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

fn insert(transaction: &Transaction<'_>, row: &PendingRow, bytes: usize) -> Result<(), StoreError> {
    let (author, sequence) = (row.dot.author.as_bytes(), signed(row.dot.sequence));
    transaction.prepare_cached("INSERT INTO pending VALUES (?, ?, ?, ?)")?.execute(params![
        author,
        sequence,
        row.record,
        signed(bytes as u64)
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
