//! Rows about chunks and packs.

use super::{Index, losses::note_loss, signed, unsigned};
use crate::{
    id::ChunkId,
    store::{Location, StoreError},
};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::sync::atomic::Ordering;

/// A chunk and its place.
pub(in crate::store) type ChunkRow = (ChunkId, Location);

/// How far the index knows a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct PackRow {
    pub(in crate::store) number: u32,
    pub(in crate::store) indexed_to: u64,
}

/// Chunks and bytes that came or went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Change {
    pub(in crate::store) chunks: u64,
    pub(in crate::store) bytes: u64,
}

impl Index {
    /// Places of `ids`, in their order. Looked up in the order of the tree, so that each of its pages is visited once.
    pub(in crate::store) fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>, StoreError> {
        let mut order: Vec<u32> = (0..ids.len() as u32).collect();
        order.sort_unstable_by_key(|position| ids[*position as usize]);
        let mut places = vec![None; ids.len()];
        self.read(|connection| {
            let mut lookup = Lookup::new(connection)?;
            for position in order {
                places[position as usize] = lookup.place(&ids[position as usize])?;
            }
            Ok(places)
        })
    }

    /// Adds `rows`, all in pack `number`, which is true up to `indexed_to` now. Chunks that are known already keep their place.
    pub(in crate::store) fn publish(&self, number: u32, indexed_to: u64, rows: &mut [ChunkRow]) -> Result<Change, StoreError> {
        rows.sort_unstable_by_key(|(id, _)| *id);
        let change = self.write(|transaction| {
            self.notice_others(transaction)?;
            let mut change = Change::default();
            let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?)")?;
            for (id, place) in rows.iter() {
                if insert.execute(params![id.as_bytes(), place.pack, signed(place.offset), place.length])? > 0 {
                    change.chunks += 1;
                    change.bytes += u64::from(place.length);
                }
            }
            set_pack(transaction, number, indexed_to)?;
            count(transaction, signed(change.chunks), signed(change.bytes))?;
            Ok(change)
        })?;
        self.publications.count.fetch_add(1, Ordering::AcqRel);
        Ok(change)
    }

    /// Grows whenever chunks were published: once for each [`Index::publish`], and at such a time once more if another process has
    /// written meanwhile.
    pub(in crate::store) fn publications(&self) -> u64 {
        self.publications.count.load(Ordering::Acquire)
    }

    fn notice_others(&self, transaction: &Transaction<'_>) -> Result<(), StoreError> {
        let mut statement = transaction.prepare_cached("PRAGMA data_version")?;
        let version: i64 = statement.query_row([], |row| row.get(0))?;
        if self.publications.others.swap(version, Ordering::AcqRel) != version {
            self.publications.count.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// What is known of every pack, by number.
    pub(in crate::store) fn packs(&self) -> Result<Vec<PackRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT number, indexed_to FROM pack ORDER BY number")?;
            let rows = statement.query_map([], |row| Ok(PackRow { number: row.get(0)?, indexed_to: unsigned(row.get(1)?) }))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How far the index knows pack `number`; 0 if not at all.
    pub(in crate::store) fn indexed_to(&self, number: u32) -> Result<u64, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT indexed_to FROM pack WHERE number = ?")?;
            Ok(statement.query_row([number], |row| row.get(0)).optional()?.map_or(0, unsigned))
        })
    }

    /// Forgets the chunks of pack `number` that do not end by `length`, and that it is known any further than its last other chunk.
    /// Returns that place too.
    pub(in crate::store) fn forget_beyond(&self, number: u32, length: u64) -> Result<(Change, u64), StoreError> {
        self.write(|transaction| {
            let sum = "SELECT count(*), ifnull(sum(length), 0) FROM chunk WHERE pack = ?1 AND offset + length > ?2";
            let row = |row: &rusqlite::Row<'_>| Ok(Change { chunks: unsigned(row.get(0)?), bytes: unsigned(row.get(1)?) });
            let change = transaction.query_row(sum, params![number, signed(length)], row)?;
            transaction.execute("DELETE FROM chunk WHERE pack = ?1 AND offset + length > ?2", params![number, signed(length)])?;
            let end: i64 =
                transaction.query_row("SELECT ifnull(max(offset + length), 0) FROM chunk WHERE pack = ?", [number], |row| row.get(0))?;
            set_pack(transaction, number, unsigned(end))?;
            count(transaction, -signed(change.chunks), -signed(change.bytes))?;
            if change.chunks > 0 {
                note_loss(transaction)?;
            }
            Ok((change, unsigned(end)))
        })
    }

    /// Forgets pack `number` and its chunks.
    pub(in crate::store) fn forget_pack(&self, number: u32) -> Result<Change, StoreError> {
        let (change, _) = self.forget_beyond(number, 0)?;
        self.write(|transaction| Ok(transaction.execute("DELETE FROM pack WHERE number = ?", [number])?))?;
        Ok(change)
    }

    /// Number of chunks in each pack. Reads the whole table.
    pub(in crate::store) fn chunks_by_pack(&self) -> Result<Vec<(u32, u64)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT pack, count(*) FROM chunk GROUP BY pack ORDER BY pack")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Chunks of pack `number` that begin at `from` or later, and before `to`, by offset. Reads the whole table.
    pub(in crate::store) fn chunks_between(&self, number: u32, from: u64, to: u64) -> Result<Vec<ChunkRow>, StoreError> {
        self.read(|connection| {
            let query = "SELECT id, offset, length FROM chunk WHERE pack = ? AND offset >= ? AND offset < ? ORDER BY offset";
            let mut statement = connection.prepare(query)?;
            let rows = statement.query_map(params![number, signed(from), signed(to)], |row| {
                let place = Location { pack: number, offset: unsigned(row.get(1)?), length: row.get(2)? };
                Ok((ChunkId::from_bytes(row.get(0)?), place))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Every chunk of pack `number`. Reads the whole table; memory is that of one pack.
    pub(in crate::store) fn chunks_of_pack(&self, number: u32) -> Result<Vec<ChunkRow>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT id, offset, length FROM chunk WHERE pack = ?")?;
            let rows = statement.query_map([number], |row| {
                let place = Location { pack: number, offset: unsigned(row.get(1)?), length: row.get(2)? };
                Ok((ChunkId::from_bytes(row.get(0)?), place))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// A prepared look-up of chunks.
pub(in crate::store) struct Lookup<'c>(rusqlite::CachedStatement<'c>);

impl<'c> Lookup<'c> {
    pub(in crate::store) fn new(connection: &'c Connection) -> Result<Self, StoreError> {
        Ok(Self(connection.prepare_cached("SELECT pack, offset, length FROM chunk WHERE id = ?")?))
    }

    pub(in crate::store) fn place(&mut self, id: &ChunkId) -> Result<Option<Location>, StoreError> {
        let row = |row: &rusqlite::Row<'_>| Ok(Location { pack: row.get(0)?, offset: unsigned(row.get(1)?), length: row.get(2)? });
        Ok(self.0.query_row([id.as_bytes()], row).optional()?)
    }
}

fn set_pack(transaction: &Transaction<'_>, number: u32, indexed_to: u64) -> Result<(), StoreError> {
    transaction.prepare_cached("INSERT OR REPLACE INTO pack VALUES (?, ?)")?.execute(params![number, signed(indexed_to)])?;
    Ok(())
}

pub(super) fn count(transaction: &Transaction<'_>, chunks: i64, bytes: i64) -> Result<(), StoreError> {
    transaction.prepare_cached("UPDATE state SET chunks = chunks + ?, bytes = bytes + ?")?.execute([chunks, bytes])?;
    Ok(())
}
