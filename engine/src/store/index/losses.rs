//! Rows about losses: which chunk lists of the log name chunks that are gone.
//!
//! Forgetting a chunk that was durable raises `state.losses`; which lists that concerns is looked for later, and once
//! ([`Store::survey`](super::super::Store::survey)), and then `state.surveyed` says for how many losses it has been done.
//! So whoever asks whether anything is lost reads two numbers as long as nothing is.

use super::{ChunkRow, Index, chunks::Lookup, signed, unsigned};
use crate::{
    event::Dot,
    id::{ListId, ReplicaId},
    store::StoreError,
};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// A list that names chunks which were lost, and an event that names the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct LostRow {
    pub(in crate::store) list: ListId,
    pub(in crate::store) dot: Dot,
}

/// How often chunks were lost, and how many of these times the lists have been looked through since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Losses {
    pub(in crate::store) happened: u64,
    pub(in crate::store) surveyed: u64,
}

impl Index {
    /// Forgets that these chunks lie there, unless they lie elsewhere by now. Returns how many are missing because of it.
    pub(in crate::store) fn forget_places(&self, places: &[ChunkRow]) -> Result<u64, StoreError> {
        self.write(|transaction| {
            let mut forgotten = 0;
            for (id, place) in places {
                if Lookup::new(transaction)?.place(id)? != Some(*place) {
                    continue;
                }
                transaction.prepare_cached("DELETE FROM chunk WHERE id = ?")?.execute([id.as_bytes()])?;
                super::chunks::count(transaction, -1, -i64::from(place.length))?;
                forgotten += 1;
            }
            if forgotten > 0 {
                note_loss(transaction)?;
            }
            Ok(forgotten)
        })
    }

    /// What has been lost and looked for.
    pub(in crate::store) fn losses(&self) -> Result<Losses, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT losses, surveyed FROM state")?;
            let row = |row: &rusqlite::Row<'_>| Ok(Losses { happened: unsigned(row.get(0)?), surveyed: unsigned(row.get(1)?) });
            Ok(statement.query_row([], row)?)
        })
    }

    /// Adds what a survey after `happened` losses has found.
    pub(in crate::store) fn add_lost(&self, rows: &[LostRow], happened: u64) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO lost VALUES (?, ?, ?)")?;
            for LostRow { list, dot } in rows {
                insert.execute(params![list.as_bytes(), dot.author.as_bytes(), signed(dot.sequence)])?;
            }
            transaction.prepare_cached("UPDATE state SET surveyed = max(surveyed, ?)")?.execute([signed(happened)])?;
            Ok(())
        })
    }

    /// The first list after `after`, with every event that names it.
    pub(in crate::store) fn lost_after(&self, after: Option<ListId>) -> Result<Vec<LostRow>, StoreError> {
        let after: &[u8] = after.as_ref().map_or(&[], |id| id.as_bytes());
        self.read(|connection| match first_after(connection, after)? {
            Some(list) => events_of(connection, list),
            None => Ok(Vec::new()),
        })
    }

    /// All chunks of these lists are here again.
    pub(in crate::store) fn remove_lost(&self, lists: &[ListId]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut delete = transaction.prepare_cached("DELETE FROM lost WHERE list = ?")?;
            lists.iter().try_for_each(|list| delete.execute([list.as_bytes()]).map(drop))?;
            Ok(())
        })
    }
}

fn first_after(connection: &Connection, after: &[u8]) -> Result<Option<ListId>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT list FROM lost WHERE list > ? ORDER BY list LIMIT 1")?;
    Ok(statement.query_row([after], |row| Ok(ListId::from_bytes(row.get(0)?))).optional()?)
}

fn events_of(connection: &Connection, list: ListId) -> Result<Vec<LostRow>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT author, sequence FROM lost WHERE list = ?")?;
    let rows = statement.query_map([list.as_bytes()], |row| {
        let dot = Dot { author: ReplicaId::from_bytes(row.get(0)?), sequence: unsigned(row.get(1)?) };
        Ok(LostRow { list, dot })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Chunks that were durable are known no more.
pub(super) fn note_loss(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    transaction.prepare_cached("UPDATE state SET losses = losses + 1")?.execute([])?;
    Ok(())
}
