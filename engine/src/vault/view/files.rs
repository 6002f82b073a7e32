//! What files looked like when they were last read, so that `add` does not read those that have not changed.

use super::{View, ViewError, read};
use crate::{event::Key, id::EventId};
use rusqlite::{OptionalExtension, Row, params};

/// What the file system said of a file when it was read, and where its contents went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Time of the last change to the inode, nanoseconds since 1970: no program can set it back.
    pub changed_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Device number.
    pub device: u64,
    /// The key that its contents were put under.
    pub key: Key,
    /// The event that put them. Another event may stand for the key by now.
    pub event: EventId,
}

const COLUMNS: &str = "size, modified_ns, changed_ns, inode, device, key, event, path";

impl FileState {
    fn read(row: &Row<'_>) -> Result<Self, ViewError> {
        Ok(Self {
            size: row.get::<_, i64>(0)? as u64,
            modified_ns: row.get(1)?,
            changed_ns: row.get(2)?,
            inode: row.get::<_, i64>(3)? as u64,
            device: row.get::<_, i64>(4)? as u64,
            key: Key::new(row.get::<_, Vec<u8>>(5)?).map_err(|error| ViewError::Damaged(error.to_string()))?,
            event: EventId::from_bytes(row.get(6)?),
        })
    }
}

/// A file as it was read last, and the event that stands for its key now.
pub type StandingFile = (FileState, Option<EventId>);

impl View {
    /// For each absolute path, in order, what is known of the file: about two microseconds each when asked for many at once.
    ///
    /// # Errors
    /// [`ViewError`] when the file of the view cannot be read.
    pub fn file_states<P: AsRef<[u8]>>(&self, paths: &[P]) -> Result<Vec<Option<FileState>>, ViewError> {
        // One read transaction: taking the locks costs more than a query.
        let _read = self.connection.unchecked_transaction()?;
        let mut find = self.connection.prepare_cached(&format!("SELECT {COLUMNS} FROM file WHERE path = ?1"))?;
        let mut state = |path: &P| find.query_row([path.as_ref()], |row| Ok(FileState::read(row))).optional()?.transpose();
        paths.iter().map(&mut state).collect()
    }

    /// The files whose path begins with `prefix`, in byte order of paths, after `after`, at most `limit`: half a
    /// microsecond each, for who walks a whole tree.
    ///
    /// # Errors
    /// [`ViewError`] when the file of the view cannot be read.
    pub fn file_states_below(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, FileState)>, ViewError> {
        let sql = format!("SELECT {COLUMNS} FROM file WHERE path >= ?1 AND path < ?2 ORDER BY path LIMIT ?3");
        let mut scan = self.connection.prepare_cached(&sql)?;
        let (from, to) = read::bounds(prefix, after);
        let mut rows = scan.query(params![from, to, read::limit(limit)])?;
        let mut files = Vec::new();
        while let Some(row) = rows.next()? {
            files.push((row.get(7)?, FileState::read(row)?));
        }
        Ok(files)
    }

    /// For each absolute path what is known of the file, and the event that now stands for its key, none if that is deleted: one
    /// point query each.
    ///
    /// # Errors
    /// [`ViewError`] when the file of the view cannot be read.
    pub fn standing_files(&self, paths: &[&[u8]]) -> Result<Vec<Option<StandingFile>>, ViewError> {
        let sql = format!(
            "SELECT {COLUMNS}, (SELECT e.id FROM maximal v CROSS JOIN event e ON e.number = v.event
             WHERE v.key = file.key AND v.standing IN (1, 2) AND v.action = 0) FROM file WHERE path = ?1"
        );
        let _read = self.connection.unchecked_transaction()?;
        let mut find = self.connection.prepare_cached(&sql)?;
        let read = |row: &Row<'_>| Ok((FileState::read(row), row.get::<_, Option<[u8; 32]>>(8)?));
        let mut known = Vec::with_capacity(paths.len());
        for path in paths {
            known.push(match find.query_row([path], read).optional()? {
                Some((state, stands)) => Some((state?, stands.map(EventId::from_bytes))),
                None => None,
            });
        }
        Ok(known)
    }

    /// Remembers files, by absolute path, in one transaction.
    ///
    /// # Errors
    /// [`ViewError`] when the file of the view cannot be written.
    pub fn put_file_states(&mut self, files: &[(Vec<u8>, FileState)]) -> Result<(), ViewError> {
        let transaction = self.connection.transaction()?;
        let sql = format!("INSERT OR REPLACE INTO file({COLUMNS}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
        let mut put = transaction.prepare_cached(&sql)?;
        for (path, file) in files {
            put.execute(params![
                file.size as i64,
                file.modified_ns,
                file.changed_ns,
                file.inode as i64,
                file.device as i64,
                file.key.as_bytes(),
                file.event.as_bytes(),
                path
            ])?;
        }
        drop(put);
        Ok(transaction.commit()?)
    }
}
