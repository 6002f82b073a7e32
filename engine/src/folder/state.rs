//! What a folder and the vault last had in common, key by key: the base of every decision.
//!
//! ```text
//!   disk  ─ stamp differs from the row's? ──► changed here  ┐
//!   row (stamp, digest)                                     ├──► taken in, written out, or kept beside each other
//!   vault ─ digest differs from the row's? ─► changed there ┘
//! ```
//! A cache in a file of its own, with plaintext names, so it lies in the device's directory. It is written after what it speaks of is durable. One that is
//! behind only makes files be read again and compared; one that is lost makes all of them be; neither loses what a file or the vault holds.

use crate::{
    codec,
    event::{Content, Key, Value, ValueKind},
    keys::private_file,
    vault::{Stamp, VaultError},
};
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

const SCHEMA: u32 = 1;
const TABLES: &str = "
    CREATE TABLE known(
        key BLOB PRIMARY KEY, digest BLOB NOT NULL, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL, device INTEGER NOT NULL, settled INTEGER NOT NULL, of BLOB) WITHOUT ROWID;
    CREATE INDEX copies ON known(of) WHERE of IS NOT NULL;
";
const COLUMNS: &str = "digest, size, modified_ns, changed_ns, inode, device, settled, of, key";

/// What a value says, without where its chunks lie: equal digests are equal files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// The time of a directory is not part of it: it changes with every entry.
    pub(super) fn of(value: &Value) -> Self {
        let (modified_s, modified_ns) = match value.kind {
            ValueKind::Directory(_) => (0, 0),
            ValueKind::Blob | ValueKind::File(_) | ValueKind::Symlink(_) => (value.modified_s, value.modified_ns),
        };
        let content = Content { bytes: value.content.bytes, depth: value.content.depth, references: Vec::new() };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&codec::encode(&Value { kind: value.kind.clone(), modified_s, modified_ns, content }));
        for piece in &value.content.references {
            hasher.update(piece.plaintext.as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// What was on the disk under a key when it was last the same as in the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) digest: Digest,
    pub(super) stamp: Stamp,
    /// Whether a later change is sure to have changed the stamp.
    pub(super) settled: bool,
    /// The key of whose conflict the file shows a version; none for a file that stands for its own key.
    pub(super) of: Option<Key>,
}

impl Row {
    fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        let stamp = Stamp {
            size: row.get::<_, i64>(1)? as u64,
            modified_ns: row.get(2)?,
            changed_ns: row.get(3)?,
            inode: row.get::<_, i64>(4)? as u64,
            device: row.get::<_, i64>(5)? as u64,
        };
        let of = row.get::<_, Option<Vec<u8>>>(7)?.and_then(|of| Key::new(of).ok());
        Ok(Self { digest: Digest(row.get(0)?), stamp, settled: row.get(6)?, of })
    }
}

fn read_with_key(row: &SqlRow<'_>) -> rusqlite::Result<(Key, Row)> {
    let key = Key::new(row.get::<_, Vec<u8>>(8)?).map_err(|_| rusqlite::Error::QueryReturnedNoRows)?;
    Ok((key, Row::read(row)?))
}

/// The rows of one folder. One process at a time has it open.
#[derive(Debug)]
pub(super) struct State {
    connection: Mutex<Connection>,
    _lock: File,
}

impl State {
    /// Opens the file at `path`, or an empty one where it is not there, damaged or of another kind.
    ///
    /// # Errors
    /// [`VaultError::Busy`] when another process has it open, or the system's.
    pub(super) fn open(path: &Path, dir: &Path) -> Result<Self, VaultError> {
        let lock_path = path.with_extension("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|error| VaultError::at("opening", &lock_path, error))?;
        lock.try_lock().map_err(|_| VaultError::Busy(format!("{} is being followed already", dir.display())))?;
        let connection = connect(path).or_else(|_| {
            discard(path).map_err(|error| VaultError::at("removing", path, error))?;
            connect(path)
        })?;
        Ok(Self { connection: Mutex::new(connection), _lock: lock })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row of `key`.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Row>, VaultError> {
        let connection = self.connection();
        let mut find = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM known WHERE key = ?1")).map_err(failed)?;
        find.query_row([key.as_bytes()], Row::read).optional().map_err(failed)
    }

    /// The rows from `from` on and before `to`, in byte order, at most `limit`.
    pub(super) fn between(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Row)>, VaultError> {
        let connection = self.connection();
        let sql = format!("SELECT {COLUMNS} FROM known WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3");
        let mut scan = connection.prepare_cached(&sql).map_err(failed)?;
        let rows = scan.query_map(params![from, to, limit as i64], read_with_key).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    /// The versions of `key`'s conflict that lie beside it.
    pub(super) fn copies_of(&self, key: &Key) -> Result<Vec<(Key, Row)>, VaultError> {
        let connection = self.connection();
        let mut find = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM known WHERE of = ?1")).map_err(failed)?;
        let rows = find.query_map([key.as_bytes()], read_with_key).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    /// How many rows there are.
    pub(super) fn count(&self) -> Result<u64, VaultError> {
        let connection = self.connection();
        let count = connection.query_row("SELECT count(*) FROM known", [], |row| row.get::<_, i64>(0));
        Ok(count.map_err(failed)?.max(0) as u64)
    }

    /// The device that one of the files lies on.
    pub(super) fn device(&self) -> Result<Option<u64>, VaultError> {
        let connection = self.connection();
        let device = connection.query_row("SELECT device FROM known LIMIT 1", [], |row| row.get::<_, i64>(0)).optional();
        Ok(device.map_err(failed)?.map(|device| device as u64))
    }

    /// Notes and forgets, all or nothing.
    pub(super) fn change(&self, put: &[(Key, Row)], gone: &[Key]) -> Result<(), VaultError> {
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(failed)?;
        {
            let sql = format!("INSERT OR REPLACE INTO known({COLUMNS}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
            let mut insert = transaction.prepare_cached(&sql).map_err(failed)?;
            for (key, Row { digest, stamp, settled, of }) in put {
                let Stamp { size, modified_ns, changed_ns, inode, device } = *stamp;
                let of = of.as_ref().map(Key::as_bytes);
                let row = params![digest.0, size as i64, modified_ns, changed_ns, inode as i64, device as i64, settled, of, key.as_bytes()];
                insert.execute(row).map_err(failed)?;
            }
            let mut delete = transaction.prepare_cached("DELETE FROM known WHERE key = ?1").map_err(failed)?;
            for key in gone {
                delete.execute([key.as_bytes()]).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)
    }
}

fn connect(path: &Path) -> Result<Connection, VaultError> {
    private_file::create(path).map_err(|error| VaultError::at("making", path, error))?;
    let connection = Connection::open(path).map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    let schema: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    match schema {
        SCHEMA => connection.query_row("SELECT count(*) FROM (SELECT 1 FROM known LIMIT 1)", [], |_| Ok(())).map_err(failed)?,
        0 => {
            connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")).map_err(failed)?;
        }
        other => return Err(VaultError::TooNew { what: path.display().to_string(), found: other, known: SCHEMA }),
    }
    Ok(connection)
}

/// Removes the file and what SQLite keeps next to it.
fn discard(path: &Path) -> io::Result<()> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    for path in ["", "-wal", "-shm"].map(beside) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn failed(error: rusqlite::Error) -> VaultError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => VaultError::NoSpace("what is known of a folder: no space".into()),
        _ => VaultError::io("what is known of a folder cannot be used", io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str) -> Key {
        Key::new(key).unwrap()
    }

    fn row(size: u64, of: Option<Key>) -> Row {
        let value = Value { kind: ValueKind::File(0o644), modified_s: size as i64, modified_ns: 0, content: Content::default() };
        let stamp = Stamp { size, modified_ns: -1, changed_ns: 2, inode: u64::MAX, device: 4 };
        Row { digest: Digest::of(&value), stamp, settled: true, of }
    }

    #[test]
    fn rows_stay_and_are_found_by_key_range_and_conflict() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let state = State::open(&path, dir.path()).unwrap();
        let rows = [(key("a"), row(1, None)), (key("a.conflict"), row(2, Some(key("a")))), (key("b"), row(3, None))];
        state.change(&rows, &[]).unwrap();
        assert!(matches!(State::open(&path, dir.path()), Err(VaultError::Busy(_))));
        drop(state);
        let state = State::open(&path, dir.path()).unwrap();
        assert_eq!(state.get(&key("b")).unwrap(), Some(row(3, None)));
        assert_eq!(state.between(b"a", b"b", 9).unwrap(), rows[..2]);
        assert_eq!(state.copies_of(&key("a")).unwrap(), rows[1..2]);
        state.change(&[], &[key("a")]).unwrap();
        assert_eq!((state.count().unwrap(), state.device().unwrap()), (2, Some(4)));
    }

    #[test]
    fn a_damaged_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        std::fs::write(&path, [7; 9_000]).unwrap();
        assert_eq!(State::open(&path, dir.path()).unwrap().count().unwrap(), 0);
    }

    #[test]
    fn the_time_of_a_directory_is_not_what_it_is() {
        let value = |kind: ValueKind, modified_s| Digest::of(&Value { kind, modified_s, modified_ns: 0, content: Content::default() });
        assert_eq!(value(ValueKind::Directory(0o755), 1), value(ValueKind::Directory(0o755), 2));
        assert_ne!(value(ValueKind::Directory(0o755), 1), value(ValueKind::Directory(0o700), 1));
        assert_ne!(value(ValueKind::File(0o644), 1), value(ValueKind::File(0o644), 2));
    }
}
