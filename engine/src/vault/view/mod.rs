//! The view: key -> versions, derived from the log and kept in one SQLite file, so that listing, reading and adding do not walk
//! the history.
//!
//! ```text
//!   log ──► opened events ──► apply (one transaction a batch) ──► maximal · superseded · plaintext · resealed      position in the log
//!   add ──► what files looked like when they were read ─────────► file
//! ```
//! It holds plaintext names, so it lies outside the vault directory, readable by its owner only, or in memory for a vault that
//! this device may not open by itself. It is a cache of the log: [`View::open`] throws away a file that is damaged, of another
//! schema or of another replica, and the caller applies the log again from [`START`].
//!
//! Invariants
//! - What it says is [`merge`](crate::merge::merge) of the events up to [`View::position`], all in one transaction: a crash or a
//!   second process leaves it at an earlier position, never in between.
//! - An event is applied once, after everything in its past. A batch that does not begin at the position, an event seen before and
//!   an event whose past is missing are all told apart.
//! - A key with one version takes one row in one tree. History lies in a tree of its own: its length costs nothing to who lists
//!   current keys.
//! - Memory is SQLite's page cache, [`CACHE_KIB`], whatever the number of keys, and one batch.
//!
//! Several processes may have it open: readers do not wait, writers take turns.

mod apply;
mod files;
mod plaintexts;
mod read;
mod resealed;
mod row;
mod schema;
#[cfg(test)]
pub(crate) mod tests;

pub use apply::Outcome;
pub use files::{FileState, StandingFile};
pub use read::{Counts, Deleted};
pub use resealed::Resealed;
pub use row::{Standing, VersionRow};
pub use schema::CACHE_KIB;

use crate::{
    event::{Dot, Frontier},
    id::{EpochId, EventId, ReplicaId, VaultId},
};
use rusqlite::{Connection, ErrorCode};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// A place in a replica's log: segment and byte offset in it.
pub type Position = (u32, u64);

/// Before the whole log.
pub const START: Position = (0, 0);

/// Why the view could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The disk's or another program's fault: close the view, [`View::discard`] it and apply the log again.
    #[error("the view is damaged: {0}")]
    Damaged(String),
    /// Another process has been writing for longer than anyone waits: try again.
    #[error("the view is busy in another process")]
    Busy,
    /// The caller's fault: an event came before one that happened before it.
    #[error("event {event} came before event {} of {} that it depends on", missing.sequence, missing.author)]
    OutOfOrder {
        /// The event that cannot be applied yet.
        event: EventId,
        /// The first event that is missing.
        missing: Dot,
    },
    /// The environment's fault: no permission, no space.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// What was to be opened or removed.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The environment's fault, as SQLite tells it: no space, a failing disk.
    #[error("the view cannot be used: {0}")]
    Sqlite(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for ViewError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows};
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => Self::Damaged(error.to_string()),
            Some(_) => Self::Sqlite(error),
            None => match error {
                FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | QueryReturnedNoRows => {
                    Self::Damaged(error.to_string())
                }
                other => Self::Sqlite(other),
            },
        }
    }
}

/// An open view of one replica's log.
#[derive(Debug)]
pub struct View {
    connection: Connection,
}

impl View {
    /// Opens the view at `path`, or one in memory. A file that is damaged, of another schema or of another replica is replaced by an
    /// empty view, which stands at [`START`]. The file and what lies next to it (`-wal`, `-shm`, `.lock`) are readable by their owner
    /// only; their directory must exist.
    ///
    /// # Errors
    /// [`ViewError::File`], [`ViewError::Busy`] or [`ViewError::Sqlite`]; never because of what the file contains.
    pub fn open(path: Option<&Path>, vault: &VaultId, replica: &ReplicaId) -> Result<Self, ViewError> {
        let owner = schema::Owner { vault: *vault, replica: *replica };
        let connection = match path {
            Some(path) => schema::open_file(path, &owner)?,
            None => schema::open_memory(&owner)?,
        };
        Ok(Self { connection })
    }

    /// Removes the view at `path`, if there is one. Processes that have it open go on with their own copy.
    ///
    /// # Errors
    /// [`ViewError::File`].
    pub fn discard(path: &Path) -> Result<(), ViewError> {
        let _lock = schema::lock(path)?;
        schema::remove(path)
    }

    /// Lets go of cached pages: the next ones who ask have SQLite read its file again.
    ///
    /// # Errors
    /// SQLite's.
    pub fn give_back(&self) -> Result<(), ViewError> {
        Ok(self.connection.execute_batch("PRAGMA shrink_memory")?)
    }

    /// The events that it has seen.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn frontier(&self) -> Result<Frontier, ViewError> {
        apply::frontier(&self.connection)
    }

    /// The membership events whose removals it heeds.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn removals(&self) -> Result<BTreeSet<Dot>, ViewError> {
        apply::removals(&self.connection)
    }

    /// Notes that what it says is true by `removals`, too.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be written.
    pub fn heed_removals(&mut self, removals: &BTreeSet<Dot>) -> Result<(), ViewError> {
        apply::heed_removals(&mut self.connection, removals)
    }

    /// The key epochs that it was made without the keys of: what lies under them is not in it.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn unread(&self) -> Result<BTreeSet<EpochId>, ViewError> {
        apply::unread(&self.connection)
    }

    /// Notes that from now on it is made without the keys of `epochs`.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be written.
    pub fn leave_unread(&mut self, epochs: &BTreeSet<EpochId>) -> Result<(), ViewError> {
        apply::leave_unread(&mut self.connection, epochs)
    }

    /// The place in the log up to which the view is true. Should the log end before it, the log was put back to an older state
    /// behind the view's back: [`View::discard`] it.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn position(&self) -> Result<Position, ViewError> {
        schema::position(&self.connection)
    }
}
