//! `VAULT/daemon.lock`: one node a vault directory.
//!
//! The lock is the system's (flock), so it is gone with the process, however that ends; what the file says is for people. A directory in
//! which no file can be made, because its file system is read-only, is served without.

use crate::{clock, vault::VaultError};
use std::{
    fs::{File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// Name of the file.
const FILE: &str = "daemon.lock";
/// What is read of it at most.
const BYTES_MAX: u64 = 512;

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct DaemonLock(#[expect(dead_code, reason = "closing the file frees the lock")] Option<File>);

impl DaemonLock {
    /// Takes the lock of the vault in `dir`.
    ///
    /// # Errors
    /// [`VaultError::Busy`] with the process and the host that hold it.
    pub(super) fn take(dir: &Path) -> Result<Self, VaultError> {
        let path = dir.join(FILE);
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(Self(None)),
            Err(error) => return Err(VaultError::at("opening", &path, error)),
        };
        match file.try_lock() {
            Ok(()) => sign(&mut file).unwrap_or_else(|error| tracing::info!(%error, "the lock does not say whose it is")),
            Err(TryLockError::WouldBlock) => return Err(VaultError::Busy(holder(&mut file, dir))),
            Err(TryLockError::Error(error)) => tracing::warn!(%error, "the file system has no locks: nothing keeps a second daemon away"),
        }
        Ok(Self(Some(file)))
    }
}

fn sign(file: &mut File) -> io::Result<()> {
    let host = rustix::system::uname();
    let text = format!("pid {}\nhost {}\nsince {}\n", std::process::id(), host.nodename().to_string_lossy(), clock::wall_ms());
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())
}

fn holder(file: &mut File, dir: &Path) -> String {
    let mut text = String::new();
    // It may be about to be signed.
    let _ = file.take(BYTES_MAX).read_to_string(&mut text);
    let said = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("unknown").to_owned();
    format!("a daemon runs on {}: process {} on {}", dir.display(), said("pid"), said("host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is_and_a_lock_that_nobody_holds_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "pid 1\nhost elsewhere, and a long time ago\n").unwrap();
        let first = DaemonLock::take(dir.path()).unwrap();
        let VaultError::Busy(by) = DaemonLock::take(dir.path()).unwrap_err() else { panic!("another error") };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert!(by.contains(&format!("process {} on {host}", std::process::id())), "{by}");
        drop(first);
        DaemonLock::take(dir.path()).unwrap();
    }
}
