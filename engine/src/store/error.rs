//! Why the store could not do what it was asked.

use crate::{
    event::Dot,
    id::{ChunkId, EventId, ReplicaId},
    io::{
        descriptors,
        durable::{Failure, classify},
    },
    members::Refusal,
};
use std::{io, path::Path};

/// An error of the store. Each variant says who is at fault: the machine, the files, the caller or the author of an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused something. Trying again may help, in a new file.
    #[error("{what}: {source}")]
    Io {
        /// What was being done to what.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// Nothing fits any more. What was acknowledged is safe; retry once there is room.
    #[error("{what}: {lacking}")]
    NoSpace {
        /// What was being done to what.
        what: String,
        /// `no space`, `quota` or `no free inodes (df -i)`.
        lacking: &'static str,
    },
    /// The file system does not allow changes.
    #[error("{what}: the file system is read-only")]
    ReadOnly {
        /// What was being done to what.
        what: String,
    },
    /// A file or directory of the vault is damaged or gone.
    #[error("{0}")]
    Damaged(String),
    /// The bytes at a chunk's place are not the chunk. Another replica can give it back.
    #[error("chunk {id} is damaged in pack {pack} at {offset}")]
    DamagedChunk {
        /// The chunk.
        id: ChunkId,
        /// Number of the pack.
        pack: u32,
        /// Where in it.
        offset: u64,
    },
    /// An event names chunks that are not durable here: the caller has to store them first.
    #[error("event {} of replica {} needs {missing} chunks that are not here, {first} for one", event.sequence, event.author.short())]
    MissingChunks {
        /// The event.
        event: Dot,
        /// How many of its chunks are missing.
        missing: u64,
        /// One of them.
        first: ChunkId,
    },
    /// The author signed two events with one sequence number.
    #[error("replica {} has signed two events with number {}: {ours} and {theirs}", dot.author.short(), dot.sequence)]
    Fork {
        /// Their place.
        dot: Dot,
        /// The one that is here.
        ours: EventId,
        /// The one that was offered.
        theirs: EventId,
    },
    /// The author broke a rule that needs the log to see.
    #[error("event {} of replica {} is invalid: {reason}", dot.sequence, dot.author.short())]
    InvalidEvent {
        /// Its place.
        dot: Dot,
        /// The rule.
        reason: &'static str,
    },
    /// The author's device may not write that: it is not in the vault, or not as what it takes.
    #[error("event {} of replica {} is refused: {refusal}", dot.sequence, dot.author.short())]
    NotAllowed {
        /// Its place.
        dot: Dot,
        /// Why.
        refusal: Refusal,
    },
    /// An event that has to come first is not here.
    #[error("event {} of replica {} has to come first", .0.sequence, .0.author.short())]
    MissingDependency(Dot),
    /// The log of `author` here ends before events of it that were already acknowledged: writing on would fork it.
    #[error("the log of replica {} ends at event {held}, but {accepted} was acknowledged before", author.short())]
    Rollback {
        /// The author.
        author: ReplicaId,
        /// Highest sequence number in the log.
        held: u64,
        /// Highest sequence number ever accepted.
        accepted: u64,
    },
    /// A file of another vault.
    #[error("{0} belongs to another vault")]
    WrongVault(String),
    /// Written by a newer version.
    #[error("{what} has format {found}, this program reads up to {known}")]
    TooNew {
        /// The file.
        what: String,
        /// Its format.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// Another process is using what this needs.
    #[error("in use by {by}")]
    Locked {
        /// Who.
        by: String,
    },
    /// More events wait for their chunks than the journal may hold.
    #[error("too many events wait for their chunks")]
    JournalFull,
    /// The caller stopped it.
    #[error("stopped")]
    Stopped,
    /// The index failed. It is a cache: `recover` rebuilds it.
    #[error("the index failed: {0}")]
    Index(#[source] rusqlite::Error),
}

impl StoreError {
    /// What a failed operation on `path` means; `verb` is what was being done, as in "write".
    pub(super) fn io(verb: &str, path: &Path, source: io::Error) -> Self {
        let what = format!("cannot {verb} {}", path.display());
        match classify(&source, path) {
            Failure::NoSpace(lacking) => Self::NoSpace { what, lacking },
            Failure::ReadOnly => Self::ReadOnly { what },
            Failure::Other => Self::Io { what, source },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let what = "cannot write index.db".to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::NoSpace { what, lacking: "no space" },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { what },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { by: "another process (index.db)".to_owned() },
            Some(ErrorCode::CannotOpen) => {
                let source = descriptors::lacking().unwrap_or_else(|| io::Error::other(error.to_string()));
                Self::Io { what: "cannot open index.db".to_owned(), source }
            }
            // The disk refused; what the file holds is not known to be wrong.
            Some(ErrorCode::SystemIoFailure) => {
                Self::Io { what: "cannot use index.db".to_owned(), source: io::Error::other(error.to_string()) }
            }
            _ => Self::Index(error),
        }
    }
}
