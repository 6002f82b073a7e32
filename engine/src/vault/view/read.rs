//! What the view answers.

use super::{
    View, ViewError,
    row::{COLUMNS, Standing, VersionRow},
};
use crate::{
    event::Key,
    limits::KEY_BYTES_MAX,
    merge::{Action, Resolved},
};
use rusqlite::{Params, params};

/// Whether a listing holds keys whose winner is a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// Only keys that have a value.
    Hidden,
    /// All keys.
    Shown,
}

/// How much the view holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Keys that have a value.
    pub keys: u64,
    /// Keys whose maximal versions differ, deleted ones too.
    pub conflicts: u64,
}

impl View {
    /// All versions of `key` by (lamport, author), so that every version comes after those that its author had seen: newest last.
    /// Maximal ones are marked by their [`Standing`].
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn versions(&self, key: &Key) -> Result<Vec<VersionRow>, ViewError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM maximal v CROSS JOIN event e ON e.number = v.event WHERE v.key = ?1
             UNION ALL SELECT {COLUMNS} FROM superseded v CROSS JOIN event e ON e.number = v.event WHERE v.key = ?1"
        );
        let mut versions = self.rows(&sql, [key.as_bytes()])?;
        versions.sort_by_key(|row| row.version.place);
        Ok(versions)
    }

    /// The version of `key` that stands, a deletion too.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn current(&self, key: &Key) -> Result<Option<VersionRow>, ViewError> {
        Ok(self.maximal(key)?.into_iter().next())
    }

    /// Which of `keys` have any version, a deletion too: a point query each.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn hold<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Result<Vec<bool>, ViewError> {
        let _read = self.connection.unchecked_transaction()?;
        let mut find = self.connection.prepare_cached("SELECT 1 FROM maximal WHERE key = ?1 LIMIT 1")?;
        keys.into_iter().map(|key| Ok(find.exists([key.as_bytes()])?)).collect()
    }

    /// How many of `keys` have a value that stands: a point query each.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn standing<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Result<u64, ViewError> {
        let _read = self.connection.unchecked_transaction()?;
        let mut count = 0;
        for key in keys {
            count += u64::from(self.current(key)?.is_some_and(|row| matches!(row.version.action, Action::Put(_))));
        }
        Ok(count)
    }

    /// The keys that begin with `prefix`, in byte order, after `after`, at most `limit`, each with the version that stands.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn scan(&self, prefix: &[u8], after: Option<&Key>, deleted: Deleted, limit: usize) -> Result<Vec<VersionRow>, ViewError> {
        let live = match deleted {
            Deleted::Hidden => "AND v.action = 0",
            Deleted::Shown => "",
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM maximal v CROSS JOIN event e ON e.number = v.event
             WHERE v.key >= ?1 AND v.key < ?2 AND v.standing BETWEEN {} AND {} {live} ORDER BY v.key LIMIT ?3",
            Standing::LISTED.start(),
            Standing::LISTED.end()
        );
        let (from, to) = bounds(prefix, after.map(Key::as_bytes));
        self.rows(&sql, params![from, to, self::limit(limit)])
    }

    /// The keys in conflict that begin with `prefix`, in byte order, after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn conflicts(&self, prefix: &[u8], after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Resolved)>, ViewError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM maximal v INDEXED BY conflict CROSS JOIN event e ON e.number = v.event
             WHERE v.standing = 2 AND v.key >= ?1 AND v.key < ?2 ORDER BY v.key LIMIT ?3"
        );
        let (from, to) = bounds(prefix, after.map(Key::as_bytes));
        // One read transaction: a batch of another process must not end a conflict between its winner and its losers.
        let _read = self.connection.unchecked_transaction()?;
        let winners = self.rows(&sql, params![from, to, self::limit(limit)])?;
        let conflict = |winner: VersionRow| {
            let losers = self.maximal(&winner.key)?.into_iter().skip(1).map(|row| row.version).collect();
            Ok((winner.key, Resolved { winner: winner.version, losers }))
        };
        winners.into_iter().map(conflict).collect()
    }

    /// Keys and conflicts, counted as events are applied.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn counts(&self) -> Result<Counts, ViewError> {
        let mut statement = self.connection.prepare_cached("SELECT keys, conflicts FROM meta")?;
        let counts = statement
            .query_row([], |row| Ok(Counts { keys: row.get::<_, i64>(0)?.max(0) as u64, conflicts: row.get::<_, i64>(1)?.max(0) as u64 }));
        Ok(counts?)
    }

    /// The maximal versions of `key`, winner first.
    ///
    /// # Errors
    /// [`ViewError`] when the file cannot be read.
    pub fn maximal(&self, key: &Key) -> Result<Vec<VersionRow>, ViewError> {
        let sql = format!("SELECT {COLUMNS} FROM maximal v CROSS JOIN event e ON e.number = v.event WHERE v.key = ?1");
        let mut maximal = self.rows(&sql, [key.as_bytes()])?;
        maximal.sort_by_key(|row| std::cmp::Reverse(row.version.place.rank()));
        Ok(maximal)
    }

    fn rows(&self, sql: &str, params: impl Params) -> Result<Vec<VersionRow>, ViewError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut versions = Vec::new();
        while let Some(row) = rows.next()? {
            versions.push(VersionRow::read(row)?);
        }
        Ok(versions)
    }
}

/// The least byte string to look at, and the least one beyond `prefix`.
pub(super) fn bounds(prefix: &[u8], after: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let next = after.map(|after| [after, &[0]].concat()).unwrap_or_default();
    (next.max(prefix.to_vec()), end_of(prefix))
}

/// The least byte string above all that begin with `prefix`; above all keys and paths if there is no such.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return end;
        }
        end.pop();
    }
    vec![u8::MAX; KEY_BYTES_MAX + 1]
}

pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
