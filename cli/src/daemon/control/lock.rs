//! `mirord.lock`: one daemon for a device. The lock is the system's, so it is gone with the process, however that ends.

use crate::failure::{Code, Failure};
use std::{
    fs::{File, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

const FILE: &str = "mirord.lock";
/// What is read of it at most.
const BYTES_MAX: u64 = 64;

/// Held until it is dropped.
#[derive(Debug)]
pub(in crate::daemon) struct DaemonLock(#[expect(dead_code, reason = "closing the file frees the lock")] File);

impl DaemonLock {
    /// Takes the lock in `home`.
    ///
    /// # Errors
    /// [`Code::Temporary`] with the process that holds it.
    pub(in crate::daemon) fn take(home: &Path) -> Result<Self, Failure> {
        let path = home.join(FILE);
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|error| Failure::writing(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(runs_already(&mut file)),
            Err(TryLockError::Error(error)) => return Err(Failure::io(format!("cannot lock {}", path.display()), &error)),
        }
        let signed = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| writeln!(file, "{}", std::process::id()));
        signed.map_err(|error| Failure::writing(&path, &error))?;
        Ok(Self(file))
    }
}

fn runs_already(file: &mut File) -> Failure {
    let mut text = String::new();
    drop(file.take(BYTES_MAX).read_to_string(&mut text));
    let pid = text.trim().parse::<u32>().map_or_else(|_| "its pid is not known".to_owned(), |pid| format!("pid {pid}"));
    Failure::new(Code::Temporary, format!("mirord runs already for this device ({pid})"))
        .hint("mirror daemon status says what it does, mirror daemon stop ends it; another MIRROR_HOME is another device")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_the_first_and_a_stale_file_hinders_nobody() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE), "4242\nlonger than what comes after it").unwrap();
        let held = DaemonLock::take(home.path()).unwrap();
        let refused = DaemonLock::take(home.path()).unwrap_err();
        assert_eq!(refused.code, Code::Temporary);
        assert!(refused.message.contains(&format!("(pid {})", std::process::id())), "{}", refused.message);
        drop(held);
        DaemonLock::take(home.path()).unwrap();
    }
}
