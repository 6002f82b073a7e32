//! The file: how it is opened, what its tables are, when it is thrown away.

use super::{Position, ViewError};
use crate::id::{ReplicaId, VaultId};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// Page cache of one open view, in KiB: what bounds its memory.
pub const CACHE_KIB: usize = 32 * 1024;
/// Changes with the tables, and when an event kind or operation becomes known that older programs passed over.
const SCHEMA: u32 = 5;
/// Longer than the largest batch takes to commit.
const BUSY: Duration = Duration::from_secs(10);
/// Rows hold a value with its chunk reference, some 200 bytes: pages of 8 KiB keep trees without row ids shallow.
const PAGE_BYTES: u32 = 8 * 1024;
/// The write-ahead log shrinks back to this after a large batch.
const WAL_BYTES: u32 = 64 << 20;

/// Unsigned numbers are stored as the signed ones with the same bits; only `resealed` orders by any, and those stay below 2^63.
const TABLES: &str = "
    CREATE TABLE meta(
        vault BLOB NOT NULL, replica BLOB NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
        keys INTEGER NOT NULL, conflicts INTEGER NOT NULL);
    CREATE TABLE removal(author BLOB NOT NULL, sequence INTEGER NOT NULL, PRIMARY KEY(author, sequence)) WITHOUT ROWID;
    CREATE TABLE unread(epoch BLOB PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE frontier(author BLOB PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE event(
        number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, author BLOB NOT NULL, sequence INTEGER NOT NULL,
        lamport INTEGER NOT NULL, wall_ms INTEGER NOT NULL);
    CREATE TABLE maximal(
        key BLOB NOT NULL, event INTEGER NOT NULL, idx INTEGER NOT NULL, standing INTEGER NOT NULL,
        action INTEGER NOT NULL, said BLOB NOT NULL, chosen BLOB, PRIMARY KEY(key, event, idx)) WITHOUT ROWID;
    CREATE INDEX conflict ON maximal(key) WHERE standing = 2;
    CREATE TABLE superseded(
        key BLOB NOT NULL, event INTEGER NOT NULL, idx INTEGER NOT NULL, standing INTEGER NOT NULL,
        action INTEGER NOT NULL, said BLOB NOT NULL, chosen BLOB, PRIMARY KEY(key, event, idx)) WITHOUT ROWID;
    CREATE TABLE plaintext(id BLOB PRIMARY KEY, chunk BLOB NOT NULL, length INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE resealed(
        plaintext BLOB PRIMARY KEY, chunk BLOB NOT NULL, epoch INTEGER NOT NULL, lamport INTEGER NOT NULL,
        author BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE file(
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL, device INTEGER NOT NULL, key BLOB NOT NULL, event BLOB NOT NULL) WITHOUT ROWID;
";

/// Whose log a view is of. Positions mean nothing in another replica's log.
pub(super) struct Owner {
    pub(super) vault: VaultId,
    pub(super) replica: ReplicaId,
}

/// Opens or makes the file under its lock, so that no process opens what another is just throwing away.
pub(super) fn open_file(path: &Path, owner: &Owner) -> Result<Connection, ViewError> {
    let _lock = lock(path)?;
    match open_as_it_is(path, owner) {
        Ok(Some(connection)) => return Ok(connection),
        Ok(None) | Err(ViewError::Damaged(_)) => {}
        Err(other) => return Err(other),
    }
    remove(path)?;
    create_private(path)?;
    let mut connection = connect(open_unshared(path)?)?;
    fill(&mut connection, owner)?;
    Ok(connection)
}

/// A view that ends with the process.
pub(super) fn open_memory(owner: &Owner) -> Result<Connection, ViewError> {
    let mut connection = connect(Connection::open_in_memory()?)?;
    fill(&mut connection, owner)?;
    Ok(connection)
}

/// The view that is there, if it is this replica's and of this schema.
fn open_as_it_is(path: &Path, owner: &Owner) -> Result<Option<Connection>, ViewError> {
    if !path.try_exists().map_err(|source| file_error(path, source))? {
        return Ok(None);
    }
    create_private(path)?;
    let connection = connect(open_unshared(path)?)?;
    let schema: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if schema != SCHEMA {
        return Ok(None);
    }
    let whose = "SELECT 1 FROM meta WHERE vault = ?1 AND replica = ?2";
    let ours = connection.query_row(whose, params![owner.vault.as_bytes(), owner.replica.as_bytes()], |_| Ok(())).optional()?;
    Ok(ours.map(|()| connection))
}

/// Without SQLite's own locks: a connection is only ever used by who holds it.
fn open_unshared(path: &Path) -> Result<Connection, ViewError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(path, flags)?)
}

fn connect(connection: Connection) -> Result<Connection, ViewError> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    connection.pragma_update(None, "cache_size", -(CACHE_KIB as i64))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn fill(connection: &mut Connection, owner: &Owner) -> Result<(), ViewError> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    let (segment, offset) = super::START;
    transaction.execute(
        "INSERT INTO meta VALUES(?1, ?2, ?3, ?4, 0, 0)",
        params![owner.vault.as_bytes(), owner.replica.as_bytes(), segment, offset as i64],
    )?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    Ok(transaction.commit()?)
}

/// The place in the log up to which the view is true.
pub(super) fn position(connection: &Connection) -> Result<Position, ViewError> {
    let mut statement = connection.prepare_cached("SELECT segment, offset FROM meta")?;
    Ok(statement.query_row([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?)
}

/// Held while the file is opened or removed, never while it is used.
pub(super) fn lock(path: &Path) -> Result<File, ViewError> {
    let path = with_suffix(path, ".lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let lock = lock.map_err(|source| file_error(&path, source))?;
    lock.lock().map_err(|source| file_error(&path, source))?;
    Ok(lock)
}

/// Removes the file and what SQLite keeps next to it. The caller holds the lock. The file goes first: should this stop half way, the
/// next to open finds no file and removes the rest, and a write-ahead log is never applied to a file that it does not belong to.
pub(super) fn remove(path: &Path) -> Result<(), ViewError> {
    for path in [path.to_owned(), with_suffix(path, "-wal"), with_suffix(path, "-shm")] {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(file_error(&path, source)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// SQLite gives its other files the permissions of this one.
fn create_private(path: &Path) -> Result<(), ViewError> {
    let private = |file: File| file.set_permissions(fs::Permissions::from_mode(0o600));
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    file.and_then(private).map_err(|source| file_error(path, source))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(suffix);
    name.into()
}

fn file_error(path: &Path, source: io::Error) -> ViewError {
    ViewError::File { path: path.to_owned(), source }
}
