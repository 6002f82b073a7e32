//! Writing a value beside the place where it belongs, so that a half one is never seen under its name.
//!
//! Whoever asks renames what is whole. A temporary file carries the number of the process that writes it, so that one which a crash
//! left is told from one that somebody is writing.

use super::{Vault, VaultError, Watch, content::Placed};
use crate::event::{Value, ValueKind};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// How the names of files begin and end that are being written.
const TEMPORARY_PREFIX: &str = ".mirror-";
const TEMPORARY_SUFFIX: &str = ".part";
/// Permissions of a file that was put without any.
const BLOB_MODE: u32 = 0o600;

/// Why one value was not written.
pub(crate) enum Failure {
    /// Only this key.
    One(String),
    /// The system refused to write: only this key, unless there is no space.
    System(io::Error),
    /// Everything stops: no space, or the user.
    All(VaultError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Damaged(_) => Self::One(error.to_string()),
            other => Self::All(other),
        }
    }
}

/// What a failure means for the rest.
pub(crate) enum Judged {
    One(String),
    All(VaultError),
}

impl Failure {
    pub(crate) fn judged(self, root: &Path) -> Judged {
        match self {
            Self::One(reason) => Judged::One(reason),
            Self::All(error) => Judged::All(error),
            Self::System(error) => match VaultError::at("writing below", root, error) {
                VaultError::Io { source, .. } => Judged::One(source.to_string()),
                all => Judged::All(all),
            },
        }
    }
}

/// Writes values of one vault as files.
pub(crate) struct Scribe<'a> {
    vault: &'a Vault,
    watch: &'a dyn Watch,
    umask: u32,
}

/// Numbers temporary files of this process.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

impl<'a> Scribe<'a> {
    pub(crate) fn new(vault: &'a Vault, watch: &'a dyn Watch) -> Self {
        Self { vault, watch, umask: umask() }
    }

    /// A name beside `path` that nothing else has.
    pub(crate) fn temporary_beside(&self, path: &Path) -> PathBuf {
        let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
        path.with_file_name(format!("{TEMPORARY_PREFIX}{}-{number}{TEMPORARY_SUFFIX}", std::process::id()))
    }

    /// Makes the file `path` with the bytes of `pieces` and the mode and time of `value`.
    pub(super) fn write_file(&self, path: &Path, value: &Value, pieces: &[Placed]) -> Result<(), Failure> {
        let mode = mode_of(value);
        let file = File::options().write(true).create_new(true).mode(mode & 0o777).open(path)?;
        let end = match pieces {
            [] => 0,
            [piece] => self.write_piece(&file, piece)?,
            many => many.par_iter().map(|piece| self.write_piece(&file, piece)).try_reduce(|| 0, |a, b| Ok(a.max(b)))?,
        };
        // A hole at the end of a sparse file is only its length.
        if end != value.content.bytes {
            file.set_len(value.content.bytes)?;
        }
        if mode & !0o777 != 0 || mode & self.umask != 0 {
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        rustix::fs::futimens(&file, &times(value)).map_err(io::Error::from)?;
        Ok(())
    }

    /// Writes one piece; returns where it ends, 0 if it is a hole.
    fn write_piece(&self, file: &File, piece: &Placed) -> Result<u64, Failure> {
        if self.watch.cancelled() {
            return Err(Failure::All(VaultError::Cancelled));
        }
        BUFFER.with_borrow_mut(|plaintext| {
            self.vault.open_placed(piece, plaintext)?;
            if plaintext.iter().all(|byte| *byte == 0) {
                return Ok(0);
            }
            file.write_all_at(plaintext, piece.offset)?;
            Ok(piece.offset + plaintext.len() as u64)
        })
    }

    /// Makes the link `path`.
    pub(crate) fn write_link(&self, path: &Path, value: &Value, target: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)?;
        Ok(utimensat(CWD, path, &times(value), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// The process that writes, or wrote, the temporary file called `name`; none if it is no such file.
pub(crate) fn writer_of(name: &OsStr) -> Option<u32> {
    let name = name.as_bytes().strip_prefix(TEMPORARY_PREFIX.as_bytes())?.strip_suffix(TEMPORARY_SUFFIX.as_bytes())?;
    let (process, number) = std::str::from_utf8(name).ok()?.split_once('-')?;
    number.parse::<u64>().ok().and_then(|_| process.parse().ok())
}

/// The permissions that the file of `value` gets.
pub(crate) fn mode_of(value: &Value) -> u32 {
    if let ValueKind::File(mode) = value.kind { mode } else { BLOB_MODE }
}

thread_local! {
    /// One plaintext buffer a thread, at most a chunk long.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Bits that new files don't get.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| told_umask().unwrap_or_else(tried_umask))
}

/// Linux tells it.
fn told_umask() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let octal = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(octal.trim(), 8).ok()
}

/// Elsewhere the only way to ask is to set it. What other threads create in that moment, others of this machine cannot read.
fn tried_umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::umask(mask);
    // Of 16 bits on macOS.
    #[allow(clippy::useless_conversion)]
    u32::from(mask.bits())
}

/// What the times of the file of `value` are set to.
pub(super) fn times(value: &Value) -> Timestamps {
    let modified = Timespec { tv_sec: value.modified_s, tv_nsec: i64::from(value.modified_ns) };
    Timestamps { last_access: modified, last_modification: modified }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_tells_which_bits_new_files_do_not_get() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::options().write(true).create_new(true).mode(0o777).open(dir.path().join("file")).unwrap();
        assert_eq!(told_umask().map(|mask| 0o777 & !mask), Some(file.metadata().unwrap().permissions().mode() & 0o777));
    }

    #[test]
    fn a_temporary_file_tells_who_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = crate::home::Home::open(&dir.path().join("home")).unwrap();
        let options = crate::vault::InitOptions::for_this_device("v", "first");
        let vault = Vault::init(&dir.path().join("vault"), &home, options).unwrap().vault;
        let scribe = Scribe::new(&vault, &crate::vault::Unwatched);
        let beside = scribe.temporary_beside(Path::new("/d/name"));
        assert_eq!(beside.parent(), Some(Path::new("/d")));
        assert_eq!(writer_of(beside.file_name().unwrap()), Some(std::process::id()));
        for other in ["name", ".mirror-1.part", ".mirror-1-x.part", ".mirror-1-2.parts"] {
            assert_eq!(writer_of(OsStr::new(other)), None, "{other}");
        }
    }
}
