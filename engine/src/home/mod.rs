//! A device's own directory, the one that `MIRROR_HOME` names: what must not lie in a vault, because a vault directory may be copied.
//!
//! ```text
//! HOME/                      0700
//!   device.key               who this device is
//!   lock                     held while one of the files is changed
//!   vaults/<vault id>/       one for each vault, however many directories it has here
//!     peers.toml             who we know
//!     founder                which device made the vault
//!     tickets/<id>.ticket    invitations that wait to be used
//!     contacts/<device>.contact  what a peer held when it was last talked with
//!     contacts/<device>.certificate  what both signed when they last held the same
//!     contacts/<device>.claims   what its replicas said that they hold
//!     replicas/<dir>.id      which author writes the log of this vault directory
//!     replicas/<dir>.head    how far that log has been acknowledged
//!     replicas/<dir>.seen    the newest event of every author that was ever accepted there
//!     scrubs/<dir>.scrub     the last scrub of that directory
//!     views/<dir>.db         plaintext cache of that directory (names!), made and owned by the vault
//!     folders/<dir>.db       what was last the same in a followed folder and in the vault (names!), made and owned by the folder
//! ```
//! `<dir>` is a hash of the directory's canonical path. Files are replaced whole and durably, but `.head` (see [`OwnReplica`]); whoever
//! changes one holds the lock, so two processes at once end with what one after the other would have left.

mod base32;
mod certificates;
mod claims;
mod contacts;
mod founder;
mod invitations;
mod peers;
mod replica;
mod scrubs;
mod seen;
mod ticket;

pub use crate::members::Role;
pub use claims::{Claims, Gone};
pub use contacts::Contact;
pub use invitations::{Invitation, TicketKey};
pub use peers::Peer;
pub use replica::{Continuity, OwnLog, OwnReplica, Predecessor, RenewalReason};
pub use scrubs::ScrubRecord;
pub use ticket::{Ticket, TicketError, TicketSecret};

use crate::{
    id::{DeviceId, VaultId},
    keys::{DeviceKey, KeyError, private_file},
    limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, NAME_BYTES_MAX},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

const DEVICE_MAGIC: &[u8] = b"mirror device key 1\n";
const SEED_BYTES: usize = 32;
const STICKY: u32 = 0o1000;

/// Why something about a device's own directory failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// The directory is another user's, or shared by design like `/tmp`: keys must not be kept there.
    #[error("{0} is not a directory of this user alone")]
    NotOurs(PathBuf),
    /// A file is not what its name says. It is left as it is: it may be the only copy of a key.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another device has this name already.
    #[error("the name {name} belongs to device {device}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        device: DeviceId,
    },
    /// No peer has this name.
    #[error("no peer is called {0}")]
    NoSuchPeer(String),
    /// The caller's argument is outside its bounds.
    #[error("{0}")]
    Invalid(&'static str),
    /// There are as many as there may be.
    #[error("there are too many {0}")]
    TooMany(&'static str),
    /// The ticket was used, swept after its expiry, or never issued here.
    #[error("this ticket is not open: it was used already, or never issued here")]
    TicketNotOpen,
    /// The ticket is too old.
    #[error("the ticket expired {0} s ago by this device's clock")]
    TicketExpired(u64),
    /// About a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done to what.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

/// Makes an [`HomeError::Io`] about `path`; `doing` is a gerund.
fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let what = format!("{doing} {}", path.display());
    move |source| HomeError::Io { what, source }
}

/// The directory that `MIRROR_HOME` names.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// Opens the directory, or makes it, and lets nobody else enter it.
    ///
    /// # Errors
    /// [`HomeError::NotOurs`] when it is another user's or a shared one, [`HomeError::Io`] when it can't be made.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        private_file::make_dir(dir).map_err(failed("making", dir))?;
        let metadata = fs::metadata(dir).map_err(failed("reading", dir))?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & STICKY != 0 {
            return Err(HomeError::NotOurs(dir.to_owned()));
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed("closing", dir))?;
        }
        let dir = dir.canonicalize().map_err(failed("finding", dir))?;
        Ok(Self { dir })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The device's key; made when there is none yet. Processes that ask at once get the same.
    ///
    /// # Errors
    /// [`HomeError::Damaged`] when the file is not a key. It is never replaced: a new key would be a new device that nobody knows.
    pub fn device(&self) -> Result<DeviceKey, HomeError> {
        let path = self.dir.join("device.key");
        if let Some(key) = read_device(&path)? {
            return Ok(key);
        }
        let _held = lock(&self.dir)?;
        if let Some(key) = read_device(&path)? {
            return Ok(key);
        }
        let key = DeviceKey::generate()?;
        let bytes = Zeroizing::new([DEVICE_MAGIC, key.seed().as_slice()].concat());
        private_file::write(&path, &bytes).map_err(failed("writing", &path))?;
        Ok(key)
    }

    /// What this device knows of `vault`; makes its directory.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub fn vault(&self, vault: &VaultId) -> Result<VaultHome, HomeError> {
        let dir = self.dir.join("vaults").join(vault.to_string());
        for part in ["tickets", "replicas", "views", "folders", "contacts", "scrubs"] {
            private_file::make_dir(&dir.join(part)).map_err(failed("making", &dir))?;
        }
        Ok(VaultHome { dir, vault: *vault })
    }
}

fn read_device(path: &Path) -> Result<Option<DeviceKey>, HomeError> {
    let bytes = match private_file::read(path, DEVICE_MAGIC.len() + SEED_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Zeroizing::default(),
        other => Zeroizing::new(other.map_err(failed("reading", path))?),
    };
    let seed = bytes.strip_prefix(DEVICE_MAGIC).and_then(|seed| <&[u8; SEED_BYTES]>::try_from(seed).ok());
    match seed {
        Some(seed) => Ok(Some(DeviceKey::from_seed(seed))),
        None => Err(HomeError::Damaged { file: path.to_owned(), reason: "it is not a device key of this format".into() }),
    }
}

/// What this device knows of one vault.
#[derive(Debug, Clone)]
pub struct VaultHome {
    dir: PathBuf,
    vault: VaultId,
}

impl VaultHome {
    /// Where the plaintext cache of `vault_dir` lies. The file itself is the vault's; its directory is there and private.
    ///
    /// # Errors
    /// [`HomeError::Io`] when `vault_dir` is not there.
    pub fn view_path(&self, vault_dir: &Path) -> Result<PathBuf, HomeError> {
        Ok(self.dir.join("views").join(format!("{}.db", directory_name(vault_dir)?)))
    }

    /// Where it is kept what `vault_dir` and the folder `dir`, followed under `prefix`, last had in common. The file itself is the folder's.
    ///
    /// # Errors
    /// [`HomeError::Io`] when one of the directories is not there.
    pub fn folder_path(&self, vault_dir: &Path, dir: &Path, prefix: &[u8]) -> Result<PathBuf, HomeError> {
        let names = [directory_name(vault_dir)?.as_bytes(), directory_name(dir)?.as_bytes(), prefix].concat();
        let hash = blake3::derive_key("mirror 2026-11 v1 followed folder", &names);
        let name: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(self.dir.join("folders").join(format!("{name}.db")))
    }
}

/// Name for what is kept about a directory: a hash of its canonical path, so that all ways to it are one.
fn directory_name(dir: &Path) -> Result<String, HomeError> {
    let canonical = dir.canonicalize().map_err(failed("finding", dir))?;
    let hash = blake3::derive_key("mirror 2026-11 v1 vault directory", canonical.as_os_str().as_encoded_bytes());
    Ok(hash[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Waits for the lock of `dir`; held until the file is dropped, also by a crash.
fn lock(dir: &Path) -> Result<File, HomeError> {
    let path = dir.join("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed("opening", &path))?;
    file.lock().map_err(failed("locking", &path))?;
    Ok(file)
}

/// Names are shown on terminals and compared: bounded, not empty, without control characters.
fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        _ if name.is_empty() || name.len() > NAME_BYTES_MAX => Err("a name has 1 to 255 bytes"),
        _ if name.chars().any(char::is_control) => Err("a name has no control characters"),
        _ => Ok(()),
    }
}

fn check_addresses(addresses: &[String]) -> Result<(), &'static str> {
    let printable = |address: &String| !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_graphic());
    match addresses {
        _ if addresses.len() > ADDRESSES_MAX => Err("there are too many addresses"),
        _ if addresses.iter().any(|address| address.len() > ADDRESS_BYTES_MAX) => Err("an address is too long"),
        _ if !addresses.iter().all(printable) => Err("an address is empty or has spaces or letters beyond ASCII"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
