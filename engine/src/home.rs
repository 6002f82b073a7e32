//! A device's own directory: its key, the peers and tickets of each vault, and plaintext caches. (being written)
#![allow(missing_docs)]

use crate::{
    id::{DeviceId, VaultId},
    keys::DeviceKey,
};
use std::path::{Path, PathBuf};

/// The directory that `MIRROR_HOME` names.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

#[derive(Debug, Clone)]
pub struct Peer {
    pub name: String,
    pub device: DeviceId,
    pub addresses: Vec<String>,
}

#[derive(Debug)]
pub struct VaultHome;

#[allow(unused_variables)]
impl Home {
    /// Opens (or makes, 0700) the directory.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        Ok(Self { dir: dir.to_owned() })
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    pub fn device(&self) -> Result<DeviceKey, HomeError> {
        Ok(DeviceKey)
    }
    pub fn vault(&self, id: &VaultId) -> Result<VaultHome, HomeError> {
        Ok(VaultHome)
    }
}

#[allow(unused_variables)]
impl VaultHome {
    pub fn peers(&self) -> Result<Vec<Peer>, HomeError> {
        Ok(vec![])
    }
    pub fn peer(&self, name: &str) -> Result<Option<Peer>, HomeError> {
        Ok(None)
    }
    pub fn add_peer(&self, peer: Peer) -> Result<(), HomeError> {
        Ok(())
    }
    pub fn remove_peer(&self, name: &str) -> Result<bool, HomeError> {
        Ok(false)
    }
}
