//! Which plaintext is already sealed in which chunk: what de-duplication asks before it seals.

use super::{View, ViewError};
use crate::id::{ChunkId, PlaintextId};
use rusqlite::{CachedStatement, Connection, params};

/// A piece is written with others, sorted: neighbours share pages, and memory stays small.
const BUFFERED_MAX: usize = 65_536;

/// Plaintext, the chunk that holds it, length of the plaintext.
type Piece = (PlaintextId, ChunkId, u32);

/// Writes pieces in sorted runs.
pub(super) struct Plaintexts<'c> {
    upsert: CachedStatement<'c>,
    buffered: Vec<Piece>,
}

impl<'c> Plaintexts<'c> {
    pub(super) fn new(connection: &'c Connection) -> Result<Self, ViewError> {
        // Two chunks of one plaintext come from two versions of the codec: every replica settles on the lower id.
        let upsert = connection.prepare_cached(
            "INSERT INTO plaintext VALUES(?1, ?2, ?3)
             ON CONFLICT(id) DO UPDATE SET chunk = excluded.chunk, length = excluded.length WHERE excluded.chunk < chunk",
        )?;
        Ok(Self { upsert, buffered: Vec::new() })
    }

    pub(super) fn add(&mut self, pieces: impl IntoIterator<Item = Piece>) -> Result<(), ViewError> {
        self.buffered.extend(pieces);
        if self.buffered.len() >= BUFFERED_MAX { self.flush() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> Result<(), ViewError> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), ViewError> {
        self.buffered.sort_unstable();
        for (plaintext, chunk, length) in self.buffered.drain(..) {
            self.upsert.execute(params![plaintext.as_bytes(), chunk.as_bytes(), length])?;
        }
        Ok(())
    }
}

impl View {
    /// For each plaintext, in order, the chunk that holds it, if there is one: the one under the latest key epoch.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn known_plaintexts(&self, plaintexts: &[PlaintextId]) -> Result<Vec<Option<ChunkId>>, ViewError> {
        // One read transaction: taking the locks costs more than a query.
        let _read = self.connection.unchecked_transaction()?;
        let mut find = self.connection.prepare_cached(
            "SELECT coalesce((SELECT chunk FROM resealed WHERE plaintext = ?1), (SELECT chunk FROM plaintext WHERE id = ?1))",
        )?;
        let chunk =
            |id: &PlaintextId| find.query_row([id.as_bytes()], |row| Ok(row.get::<_, Option<[u8; 32]>>(0)?.map(ChunkId::from_bytes)));
        Ok(plaintexts.iter().map(chunk).collect::<Result<_, _>>()?)
    }

    /// Remembers which chunk holds which plaintext of which length: the pieces below node chunks, which events do not name.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be written.
    pub fn add_plaintexts(&mut self, pieces: &[(PlaintextId, ChunkId, u32)]) -> Result<(), ViewError> {
        let transaction = self.connection.transaction()?;
        let mut plaintexts = Plaintexts::new(&transaction)?;
        plaintexts.add(pieces.iter().copied())?;
        plaintexts.finish()?;
        Ok(transaction.commit()?)
    }

    /// Forgets plaintexts whose chunks are damaged or gone, so that they are sealed anew.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be written.
    pub fn forget_plaintexts(&mut self, plaintexts: &[PlaintextId]) -> Result<(), ViewError> {
        let transaction = self.connection.transaction()?;
        let mut forget = transaction.prepare_cached("DELETE FROM plaintext WHERE id = ?1")?;
        for plaintext in plaintexts {
            forget.execute([plaintext.as_bytes()])?;
        }
        drop(forget);
        Ok(transaction.commit()?)
    }

    /// Forgets all plaintexts.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be written.
    pub fn clear_plaintexts(&mut self) -> Result<(), ViewError> {
        self.connection.execute("DELETE FROM plaintext", [])?;
        Ok(())
    }
}
