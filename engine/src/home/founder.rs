//! Which device founded a vault, as this device was told first: a vault directory that says otherwise later is not believed.

use super::{HomeError, VaultHome, failed};
use crate::{id::DeviceId, keys::private_file};
use std::{io, path::PathBuf};

const FILE_BYTES_MAX: usize = 128;

impl VaultHome {
    /// The founder on record.
    ///
    /// # Errors
    /// [`HomeError::Damaged`] when the file names no device, [`HomeError::Io`].
    pub fn founder(&self) -> Result<Option<DeviceId>, HomeError> {
        let path = self.founder_path();
        let bytes = match private_file::read(&path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("reading", &path))?,
        };
        let device = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        device.map(Some).ok_or_else(|| HomeError::Damaged { file: path, reason: "it names no device".into() })
    }

    /// Puts the founder on record, once and for all.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub fn pin_founder(&self, founder: &DeviceId) -> Result<(), HomeError> {
        let path = self.founder_path();
        private_file::write(&path, format!("{founder}\n").as_bytes()).map_err(failed("writing", &path))
    }

    fn founder_path(&self) -> PathBuf {
        self.dir.join("founder")
    }
}
