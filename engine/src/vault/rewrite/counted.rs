//! Which plaintexts were counted: a set that may be larger than memory.
//!
//! A file of SQLite's own without a name, gone with the connection; what stays in memory is its page cache.

use crate::{id::PlaintextId, vault::VaultError};
use rusqlite::{Connection, params};

const CACHE_KIB: i64 = 16 * 1024;

pub(super) struct Counted(Connection);

impl Counted {
    pub(super) fn new() -> Result<Self, VaultError> {
        let open = || -> Result<_, rusqlite::Error> {
            // The empty name is a file that only this connection has.
            let connection = Connection::open("")?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            connection.pragma_update(None, "synchronous", "OFF")?;
            connection.execute_batch("CREATE TABLE counted(plaintext BLOB PRIMARY KEY) WITHOUT ROWID")?;
            Ok(connection)
        };
        open().map(Self).map_err(failed)
    }

    /// For each plaintext whether it had not been counted.
    pub(super) fn add(&mut self, plaintexts: &[PlaintextId]) -> Result<Vec<bool>, VaultError> {
        let mut add = || -> Result<_, rusqlite::Error> {
            let transaction = self.0.transaction()?;
            let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO counted VALUES(?1)")?;
            let news = plaintexts
                .iter()
                .map(|id| Ok::<_, rusqlite::Error>(insert.execute(params![id.as_bytes()])? == 1))
                .collect::<Result<_, _>>()?;
            drop(insert);
            transaction.commit()?;
            Ok(news)
        };
        add().map_err(failed)
    }
}

fn failed(error: rusqlite::Error) -> VaultError {
    crate::vault::view::ViewError::from(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plaintext_is_new_once() {
        let id = |byte| PlaintextId::from_bytes([byte; 32]);
        let mut counted = Counted::new().unwrap();
        assert_eq!(counted.add(&[id(1), id(2), id(1)]).unwrap(), [true, true, false]);
        assert_eq!(counted.add(&[id(2), id(3)]).unwrap(), [false, true]);
    }
}
