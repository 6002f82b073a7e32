//! Where plaintexts lie under a later key epoch: the newest word on each, as events of the log say it.
//!
//! Unlike the table of known plaintexts, which only saves work, this one follows from the events alone: whatever order they come in, the
//! word of the highest (epoch, lamport, author) counts.

use super::{View, ViewError};
use crate::{
    event::ChunkRef,
    id::{ChunkId, PlaintextId, ReplicaId},
};
use rusqlite::{Connection, OptionalExtension, params};

/// What one event says of pieces that were sealed anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// The key epoch that the event is sealed under.
    pub epoch: u32,
    /// Its lamport time.
    pub lamport: u64,
    /// Its author.
    pub author: ReplicaId,
    /// Where each plaintext lies as well.
    pub pieces: Vec<ChunkRef>,
}

/// Takes in what an event says; twice is once.
pub(super) fn add(connection: &Connection, said: &Resealed) -> Result<(), ViewError> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO resealed VALUES(?1, ?2, ?3, ?4, ?5)
         ON CONFLICT(plaintext) DO UPDATE SET
             chunk = excluded.chunk, epoch = excluded.epoch, lamport = excluded.lamport, author = excluded.author
         WHERE (excluded.epoch, excluded.lamport, excluded.author, excluded.chunk) > (epoch, lamport, author, chunk)",
    )?;
    let mut pieces = said.pieces.clone();
    pieces.sort_unstable_by_key(|piece| piece.plaintext);
    for piece in pieces {
        // Lamport times are counted, not set: an event beyond 2^63 has no past that leads there, and is refused before it comes here.
        upsert.execute(params![
            piece.plaintext.as_bytes(),
            piece.chunk.as_bytes(),
            said.epoch,
            said.lamport as i64,
            said.author.as_bytes()
        ])?;
    }
    Ok(())
}

impl View {
    /// For each plaintext, in order, the chunk that holds it under a later key epoch than that of the chunk its values name, if it was
    /// resealed.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn resealed(&self, plaintexts: &[PlaintextId]) -> Result<Vec<Option<ChunkId>>, ViewError> {
        let _read = self.connection.unchecked_transaction()?;
        // In nearly every vault there are none.
        if !self.connection.prepare_cached("SELECT 1 FROM resealed LIMIT 1")?.exists([])? {
            return Ok(vec![None; plaintexts.len()]);
        }
        let mut find = self.connection.prepare_cached("SELECT chunk FROM resealed WHERE plaintext = ?1")?;
        let chunk = |id: &PlaintextId| find.query_row([id.as_bytes()], |row| row.get(0).map(ChunkId::from_bytes)).optional();
        Ok(plaintexts.iter().map(chunk).collect::<Result<_, _>>()?)
    }
}
