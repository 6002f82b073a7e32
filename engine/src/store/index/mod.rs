//! `index.db`: where each chunk and event lies. A cache of packs and log, in SQLite.
//!
//! SQLite in WAL mode lets other processes read while one writes, and has been through more crashes than anything of ours. Rows are
//! written late, sorted and in large batches: random keys in small batches cost kilobytes of writes each.
//!
//! # Why `synchronous=NORMAL` is enough
//! Every row states something that is already durable elsewhere: chunks are published after their pack was synced, events after log
//! and heads were. In WAL mode with NORMAL a power cut can take the last transactions back but not tear one, and each transaction
//! carries, with its rows, how far they are true (`pack.indexed_to`, `segment.indexed_to`). So what is lost with a transaction is
//! exactly what the next open scans again. OFF would save one sync per WAL checkpoint and could leave a corrupt file; FULL would
//! sync every batch for something that can be rebuilt.
//!
//! # Invariants
//! - A row of `chunk` lies below `pack.indexed_to` of its pack; the counts in `state` change in the transaction that changes the rows,
//!   so that they never have to be counted.
//! - An event is in `event` only after all events that it depends on, and `head` holds each author's newest.
//! - A file of another schema, another vault, or none at all is thrown away and rebuilt; nothing is ever migrated.

mod chunks;
mod events;
mod journal;
mod losses;

pub(super) use chunks::{ChunkRow, PackRow};
pub(super) use events::{EventPlace, EventRow, KnownHead, ListRow};
pub(super) use journal::PendingRow;
pub(super) use losses::{Losses, LostRow};

use super::{Counts, StoreError};
use crate::{id::VaultId, io::descriptors};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Changes with every change of the tables.
const SCHEMA_VERSION: i32 = 3;
/// Page cache of the writing connection in KiB: the upper levels of the chunk table of a terabyte.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// Page cache of a reading connection in KiB.
const READER_CACHE_KIB: i64 = 8 * 1024;
/// Reading connections that are kept; more are opened when needed and closed after use.
const READERS_KEPT: usize = 2;
/// WAL pages (4 KiB) between checkpoints: fewer writes of the same page, a WAL of some 16 MiB.
const WAL_PAGES: i64 = 4_096;
const BUSY: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), vault BLOB NOT NULL,
    events INTEGER NOT NULL, chunks INTEGER NOT NULL, bytes INTEGER NOT NULL, losses INTEGER NOT NULL, surveyed INTEGER NOT NULL);
CREATE TABLE chunk (id BLOB PRIMARY KEY, pack INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pack (number INTEGER PRIMARY KEY, indexed_to INTEGER NOT NULL);
CREATE TABLE segment (number INTEGER PRIMARY KEY, indexed_to INTEGER NOT NULL);
CREATE TABLE event (author BLOB NOT NULL, sequence INTEGER NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
    length INTEGER NOT NULL, id BLOB NOT NULL, lamport INTEGER NOT NULL, PRIMARY KEY (author, sequence)) WITHOUT ROWID;
CREATE UNIQUE INDEX event_position ON event (segment, offset);
CREATE INDEX event_id ON event (id);
CREATE TABLE membership (segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, id BLOB NOT NULL,
    PRIMARY KEY (segment, offset)) WITHOUT ROWID;
CREATE TABLE head (author BLOB PRIMARY KEY, sequence INTEGER NOT NULL, id BLOB NOT NULL, lamport INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE list (id BLOB PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE lost (list BLOB NOT NULL, author BLOB NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY (list, author, sequence)) WITHOUT ROWID;
CREATE TABLE pending (author BLOB NOT NULL, sequence INTEGER NOT NULL, record BLOB NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (author, sequence));
CREATE TABLE pending_list (author BLOB NOT NULL, sequence INTEGER NOT NULL, position INTEGER NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (author, sequence, position));
";

/// The index of one vault: one connection that writes, a few that read.
#[derive(Debug)]
pub(super) struct Index {
    /// None for a private one, which has the writing connection alone.
    path: Option<PathBuf>,
    writer: Mutex<Connection>,
    readers: Mutex<Readers>,
    publications: Publications,
}

/// How often chunks were published, by this process or, as far as it has noticed, another.
#[derive(Debug)]
struct Publications {
    count: AtomicU64,
    /// SQLite's `data_version` of the writing connection: changes when another process has written.
    others: AtomicI64,
}

impl Publications {
    /// None yet. What others wrote before is not news; not to know it costs look-ups only.
    fn since(writer: &Connection) -> Self {
        let version = writer.pragma_query_value(None, "data_version", |row| row.get(0)).unwrap_or_default();
        Self { count: AtomicU64::new(0), others: AtomicI64::new(version) }
    }
}

/// Reading connections at rest, and which file they are to.
#[derive(Debug, Default)]
struct Readers {
    idle: Vec<Connection>,
    file: FileIdentity,
}

/// Device and inode: differs when the file was replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct FileIdentity(u64, u64);

impl FileIdentity {
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self(metadata.dev(), metadata.ino()))
    }
}

/// What opening found.
#[derive(Debug)]
pub(super) enum Opened {
    /// An index of this vault.
    Usable(Box<Index>),
    /// Nothing, or something else: to be thrown away.
    Unusable,
    /// The place allows no writing, so SQLite cannot share its file here.
    Unwritable,
}

impl Index {
    /// Opens the file at `path` if it is an index of `vault` with today's schema.
    pub(super) fn open(path: &Path, vault: &VaultId) -> Result<Opened, StoreError> {
        if !path.exists() {
            return Ok(Opened::Unusable);
        }
        match Self::connect(path).and_then(|connection| is_usable(&connection, vault).map(|usable| usable.then_some(connection))) {
            Ok(Some(connection)) => Ok(Opened::Usable(Box::new(Self::with(Some(path), connection)))),
            Ok(None) => Ok(Opened::Unusable),
            Err(error) => after_failure(error),
        }
    }

    /// Replaces whatever lies at `path` by an empty index.
    pub(super) fn create(path: &Path, vault: &VaultId) -> Result<Opened, StoreError> {
        if remove(path).is_err() {
            return Ok(Opened::Unwritable);
        }
        match Self::connect(path).and_then(|mut connection| initialise(&mut connection, vault).map(|()| connection)) {
            Ok(connection) => Ok(Opened::Usable(Box::new(Self::with(Some(path), connection)))),
            Err(error) => after_failure(error),
        }
    }

    /// An index of its own that nobody else sees, on temporary storage that SQLite chooses: for a read-only vault and for dry runs.
    pub(super) fn private(vault: &VaultId) -> Result<Self, StoreError> {
        let mut connection = Connection::open("")?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        initialise(&mut connection, vault)?;
        Ok(Self::with(None, connection))
    }

    fn with(path: Option<&Path>, writer: Connection) -> Self {
        writer.set_prepared_statement_cache_capacity(64);
        let file = path.and_then(FileIdentity::of).unwrap_or_default();
        let readers = Mutex::new(Readers { idle: Vec::new(), file });
        let publications = Publications::since(&writer);
        Self { path: path.map(Path::to_owned), writer: Mutex::new(writer), readers, publications }
    }

    fn connect(path: &Path) -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", 4 * WAL_PAGES * 4_096)?;
        Ok(connection)
    }

    fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        Ok(connection)
    }

    /// Runs `work` on one consistent state of the index.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let Some(path) = &self.path else { return work(&lock(&self.writer)) };
        let (idle, file) = {
            let mut readers = lock(&self.readers);
            (readers.idle.pop(), readers.file)
        };
        let connection = idle.map_or_else(|| Self::connect_reader(path), Ok)?;
        let result = snapshot(&connection, work);
        let mut readers = lock(&self.readers);
        if readers.idle.len() < READERS_KEPT && readers.file == file {
            readers.idle.push(connection);
        }
        result
    }

    /// Goes over to the file that another process has put in the place of ours, once that is an index of `vault`.
    pub(super) fn follow_replacement(&self, vault: &VaultId) -> Result<(), StoreError> {
        let Some((path, file)) = self.path.as_deref().and_then(|path| Some((path, FileIdentity::of(path)?))) else { return Ok(()) };
        if lock(&self.readers).file == file {
            return Ok(());
        }
        let connection = Self::connect(path)?;
        if is_usable(&connection, vault).unwrap_or(false) {
            *lock(&self.writer) = connection;
            *lock(&self.readers) = Readers { idle: Vec::new(), file };
            self.publications.count.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Lets go of cached pages: the next ones who ask have SQLite read its file again.
    pub(super) fn give_back(&self) -> Result<(), StoreError> {
        shrink(&lock(&self.writer))?;
        Ok(lock(&self.readers).idle.iter().try_for_each(shrink)?)
    }

    /// Runs `work` in one transaction: all of it happens, or nothing.
    pub(super) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = lock(&self.writer);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Numbers of events and chunks, and bytes of the chunks' frames.
    pub(super) fn counts(&self) -> Result<Counts, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT events, chunks, bytes FROM state")?;
            let row = |row: &rusqlite::Row<'_>| {
                Ok(Counts { events: unsigned(row.get(0)?), chunks: unsigned(row.get(1)?), bytes: unsigned(row.get(2)?) })
            };
            Ok(statement.query_row([], row)?)
        })
    }
}

/// Begins a read transaction around `work`, so that SQLite takes its lock once and not at every statement.
fn snapshot<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let transaction = connection.unchecked_transaction()?;
    let result = work(&transaction);
    transaction.finish()?;
    result
}

fn shrink(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA shrink_memory")
}

fn is_usable(connection: &Connection, vault: &VaultId) -> rusqlite::Result<bool> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != SCHEMA_VERSION {
        return Ok(false);
    }
    let owner: Vec<u8> = connection.query_row("SELECT vault FROM state", [], |row| row.get(0))?;
    Ok(owner == vault.as_bytes())
}

/// What an index that is made anew does not know may have been lost, so one loss is noted.
fn initialise(connection: &mut Connection, vault: &VaultId) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute("INSERT INTO state VALUES (1, ?, 0, 0, 0, 1, 0)", [vault.as_bytes()])?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// A file that SQLite cannot read is replaced; a place where it cannot write is worked around; the rest is an error.
fn after_failure(error: rusqlite::Error) -> Result<Opened, StoreError> {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase, PermissionDenied, ReadOnly,
    };
    match error.sqlite_error_code() {
        Some(CannotOpen) if descriptors::lacking().is_some() => Err(error.into()),
        Some(ReadOnly | CannotOpen | DiskFull | PermissionDenied) => Ok(Opened::Unwritable),
        Some(DatabaseBusy | DatabaseLocked) => Err(error.into()),
        Some(NotADatabase | DatabaseCorrupt) => Ok(Opened::Unusable),
        // A missing table or column, or no row: not ours.
        _ => Ok(Opened::Unusable),
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// SQLite's integers are signed; ours are not, and their bits survive the way there and back.
pub(super) fn signed(value: u64) -> i64 {
    value.cast_signed()
}

/// The way back of [`signed`].
pub(super) fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

/// A lock whose holder panicked protects plain data that is still consistent: every change is one step.
pub(in crate::store) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
