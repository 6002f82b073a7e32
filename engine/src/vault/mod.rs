//! A vault on this machine: what commands do with it. Above the store (bytes) it has the keys (meaning).

mod types;

pub use types::*;

use crate::{event::Key, home::Home};
use std::{
    io::{Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// A vault that is open. `Send + Sync`; several processes may have the same one open.
#[derive(Debug)]
pub struct Vault {
    dir: PathBuf,
}

#[allow(unused_variables, missing_docs)]
impl Vault {
    pub fn init(dir: &Path, home: &Home, options: InitOptions) -> Result<Initialised, VaultError> {
        Err(VaultError::NotYet)
    }
    pub fn open(dir: &Path, home: &Home, unlock: Unlock) -> Result<(Self, Vec<Repair>), VaultError> {
        if !dir.join("vault.toml").is_file() {
            return Err(VaultError::NoVault(dir.to_owned()));
        }
        Err(VaultError::NotYet)
    }
    /// The vault directory at or above `start`, as git finds its repository.
    pub fn find(start: &Path) -> Option<PathBuf> {
        start.ancestors().find(|dir| dir.join("vault.toml").is_file()).map(Path::to_owned)
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    pub fn home(&self) -> &crate::home::VaultHome {
        unreachable!()
    }
    pub fn info(&self) -> VaultInfo {
        unreachable!()
    }
    pub fn add(&self, options: &AddOptions, watch: &dyn Watch) -> Result<AddReport, VaultError> {
        Err(VaultError::NotYet)
    }
    pub fn put(&self, key: &Key, source: &mut dyn Read, watch: &dyn Watch) -> Result<AddReport, VaultError> {
        Err(VaultError::NotYet)
    }
    /// Streams the current value of `key`; every byte handed to `sink` has been verified. Returns its metadata.
    pub fn get(&self, key: &Key, sink: &mut dyn Write) -> Result<Entry, VaultError> {
        Err(VaultError::NotYet)
    }
    /// Current keys below `prefix` (all if empty), sorted by key. Deleted ones too if asked for.
    pub fn list(&self, prefix: &[u8], deleted: bool, each: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), VaultError> {
        Err(VaultError::NotYet)
    }
    /// Every change (of `key`), oldest first in this replica's order.
    pub fn log(&self, key: Option<&Key>, each: &mut dyn FnMut(LogEntry) -> ControlFlow<()>) -> Result<(), VaultError> {
        Err(VaultError::NotYet)
    }
    /// Deletes keys (or everything below a directory key). A key that is not there is reported, the others are deleted.
    pub fn remove(&self, keys: &[Key], reason: Option<&str>) -> Result<KeysReport, VaultError> {
        Err(VaultError::NotYet)
    }
    pub fn undelete(&self, keys: &[Key]) -> Result<KeysReport, VaultError> {
        Err(VaultError::NotYet)
    }
    pub fn restore(&self, destination: &Path, prefixes: &[Key], overwrite: bool, watch: &dyn Watch) -> Result<RestoreReport, VaultError> {
        Err(VaultError::NotYet)
    }
    pub fn status(&self) -> Result<Status, VaultError> {
        Err(VaultError::NotYet)
    }
    pub fn verify(&self, read_data: bool, watch: &dyn Watch) -> Result<VerifyReport, VaultError> {
        Err(VaultError::NotYet)
    }
    /// Rebuilds what can be rebuilt (index, torn tails, heads); with `dry_run` only says what it would do. Needs no key.
    pub fn recover(dir: &Path, dry_run: bool, watch: &dyn Watch) -> Result<Vec<Repair>, VaultError> {
        Err(VaultError::NotYet)
    }
}
