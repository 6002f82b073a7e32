//! A device's own directory: its key, the peers and tickets of each vault, and plaintext caches. (being written)

use std::path::{Path, PathBuf};

/// The directory that `MIRROR_HOME` names.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// Opens (or makes, 0700) the directory.
    ///
    /// # Errors
    /// When it cannot be made or is not the user's.
    pub fn open(dir: &Path) -> std::io::Result<Self> {
        Ok(Self { dir: dir.to_owned() })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
