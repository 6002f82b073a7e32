//! The last scrub of each vault directory here: how far it has come, and what it came to.
//!
//! One small file a directory. A lost or damaged one is as good as none: the next scrub begins from the start.

use super::{HomeError, VaultHome, directory_name, failed};
use crate::{codec, keys::private_file, limits::KIB};
use minicbor::{Decode, Encode};
use std::path::{Path, PathBuf};

/// A scrub, at its end or where it was interrupted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct ScrubRecord {
    /// When it began: milliseconds since 1970, by this device's clock.
    #[n(0)]
    pub began_ms: u64,
    /// When it ended; none as long as it is to be continued.
    #[n(1)]
    pub ended_ms: Option<u64>,
    /// The pack in which reading goes on; none once everything has been read.
    #[n(2)]
    pub pack: Option<u32>,
    /// Where in that pack.
    #[n(3)]
    pub offset: u64,
    /// Chunks read.
    #[n(4)]
    pub chunks: u64,
    /// Bytes of their frames.
    #[n(5)]
    pub bytes: u64,
    /// Chunks that were damaged or missing.
    #[n(6)]
    pub found: u64,
    /// Chunks of those that have come from peers.
    #[n(7)]
    pub healed: u64,
    /// Chunks that were still missing at its end.
    #[n(8)]
    pub lost: u64,
}

impl VaultHome {
    /// Notes how far the scrub of `vault_dir` is.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub fn record_scrub(&self, vault_dir: &Path, record: &ScrubRecord) -> Result<(), HomeError> {
        let path = self.scrub_path(vault_dir)?;
        private_file::write(&path, &private_file::with_check(codec::encode(record))).map_err(failed("writing", &path))
    }

    /// The last scrub of `vault_dir`; none if there was none, or if its file cannot be read.
    pub fn scrub(&self, vault_dir: &Path) -> Option<ScrubRecord> {
        let bytes = private_file::read(&self.scrub_path(vault_dir).ok()?, KIB).ok()?;
        codec::decode("scrub", private_file::checked(&bytes)?).ok()
    }

    fn scrub_path(&self, vault_dir: &Path) -> Result<PathBuf, HomeError> {
        Ok(self.dir.join("scrubs").join(format!("{}.scrub", directory_name(vault_dir)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{home::Home, id::VaultId};

    #[test]
    fn each_directory_has_its_last_scrub_and_a_damaged_record_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Home::open(&dir.path().join("home")).unwrap().vault(&VaultId::from_bytes([1; 32])).unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        [&a, &b].into_iter().for_each(|path| std::fs::create_dir(path).unwrap());
        let record = ScrubRecord { began_ms: 7, pack: Some(3), offset: 64, ..ScrubRecord::default() };
        vault.record_scrub(&a, &record).unwrap();
        assert_eq!((vault.scrub(&a), vault.scrub(&b)), (Some(record), None));
        let path = vault.scrub_path(&a).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            assert_eq!(vault.scrub(&a), None, "it would go on from another place: {at}");
        }
        std::fs::write(&path, b"garbage").unwrap();
        assert_eq!(vault.scrub(&a), None);
    }
}
