//! Changing files so that what was promised is on the disk, and so that a test can make the disk fail.
//!
//! Every change the store makes to packs, log and heads goes through a [`Disk`]: write, sync, truncate, rename. Its observer, none
//! outside tests, sees each operation first and may record it, shorten it or refuse it. Reading needs no such gate.
//!
//! # After a failed sync
//! Linux reports a failed write-back once and then calls the pages clean (fsyncgate, 2018): a second fsync succeeds and means
//! nothing. Callers therefore never sync, write or trust a file again after [`Disk::sync_data`] failed on it. Another process does not know
//! of the failure, and reads the bytes as if the disk had them: whoever takes over what another process left writes it once more before
//! the sync ([`Disk::write_again`]).

use super::backend::{self, Backend, Choice};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, Seek, SeekFrom, Write},
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// Bytes that are written once more at a time.
const AGAIN_BYTES: usize = 1 << 20;

/// A change to a file or directory that is about to be made.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// A new file comes to be.
    Create(&'a Path),
    /// Bytes are written.
    Write {
        /// The file.
        path: &'a Path,
        /// Where in it.
        offset: u64,
        /// What, one part after the other.
        parts: &'a [&'a [u8]],
    },
    /// A file's data is made durable.
    Sync(&'a Path),
    /// A directory's entries are made durable.
    SyncDirectory(&'a Path),
    /// A file gets this length.
    Truncate(&'a Path, u64),
    /// A file takes the place of another.
    Rename(&'a Path, &'a Path),
}

/// How much of a write may happen in this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// All of it.
    Whole,
    /// At most this many bytes (at least one); the rest is a further write.
    First(usize),
}

/// Sees every change before it is made.
pub trait Observer: Send + Sync {
    /// Lets `operation` happen, shortens it, or makes it fail.
    ///
    /// # Errors
    /// What the operation is to fail with.
    fn before(&self, operation: &Operation<'_>) -> io::Result<Permit>;

    /// Lets a ring be made, or fail.
    ///
    /// # Errors
    /// What making it is to fail with.
    fn before_ring(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The way to change files. Cheap to clone.
#[derive(Clone, Default)]
pub struct Disk {
    observer: Option<Arc<dyn Observer>>,
    /// None: as the process does.
    choice: Option<Choice>,
    /// What writes files that grow, once one has grown.
    backend: Arc<OnceLock<Backend>>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.observer.is_some() { "Disk(observed)" } else { "Disk" })
    }
}

impl Disk {
    /// A disk that asks `observer` first.
    pub fn observed(observer: Arc<dyn Observer>) -> Self {
        Self { observer: Some(observer), ..Self::default() }
    }

    /// The same disk, written to as `choice` says instead of as the process does.
    #[must_use]
    pub fn through(self, choice: Choice) -> Self {
        Self { choice: Some(choice), backend: Arc::default(), ..self }
    }

    /// What writes files in `directory` that grow; one directory a disk.
    pub(super) fn backend(&self, directory: &Path) -> Backend {
        *self.backend.get_or_init(|| backend::decide(self.choice(), directory))
    }

    /// What was asked for.
    pub(super) fn choice(&self) -> Choice {
        self.choice.unwrap_or_else(backend::chosen)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn ask_for_ring(&self) -> io::Result<()> {
        self.observer.as_ref().map_or(Ok(()), |observer| observer.before_ring())
    }

    pub(super) fn ask(&self, operation: Operation<'_>) -> io::Result<Permit> {
        self.observer.as_ref().map_or(Ok(Permit::Whole), |observer| observer.before(&operation))
    }

    /// Creates a file that must not exist, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system says.
    pub fn create_new(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.ask(Operation::Create(path))?;
        OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
    }

    /// Writes `parts`, one after the other, at `offset`, without gathering them. Interrupted and short writes are completed.
    /// Moves the file's position: only for a file that no one else writes through the same handle.
    ///
    /// # Errors
    /// What the system says; part may have been written.
    pub fn write_all_at(&self, file: &File, path: &Path, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut file: &File = file;
        let mut position = file.seek(SeekFrom::Start(offset))?;
        let mut slices: Vec<IoSlice<'_>> = parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        while let Some(first) = rest.first() {
            let written = match self.permit_write(path, position, rest)? {
                Permit::Whole => file.write_vectored(rest),
                Permit::First(bytes) => file.write(&first[..bytes.clamp(1, first.len())]),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    position += bytes as u64;
                    IoSlice::advance_slices(&mut rest, bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn permit_write(&self, path: &Path, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<Permit> {
        if self.observer.is_none() {
            return Ok(Permit::Whole);
        }
        let parts: Vec<&[u8]> = slices.iter().map(|slice| &slice[..]).collect();
        self.ask(Operation::Write { path, offset, parts: &parts })
    }

    /// Writes what `file` shows in `range` once more, in its place: the next sync then answers for it, also where an earlier one failed and
    /// left pages that look clean. What cannot be read is left as it is, and so is a file that is open for reading only. For who holds
    /// the file's lock.
    ///
    /// # Errors
    /// What the system says. The file must not be trusted afterwards.
    pub fn write_again(&self, file: &File, path: &Path, range: Range<u64>) -> io::Result<()> {
        if !rustix::fs::fcntl_getfl(file)?.contains(rustix::fs::OFlags::RDWR) {
            return Ok(());
        }
        let mut block = Vec::new();
        let mut at = range.start;
        while at < range.end {
            block.resize((range.end - at).min(AGAIN_BYTES as u64) as usize, 0);
            if file.read_exact_at(&mut block, at).is_ok() {
                self.write_all_at(file, path, &[&block], at)?;
            }
            at += block.len() as u64;
        }
        Ok(())
    }

    /// Makes the data of `file` and its length durable (`fdatasync`; `F_FULLFSYNC` on macOS).
    ///
    /// # Errors
    /// What the system says. The file must not be trusted afterwards.
    pub fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        self.ask(Operation::Sync(path))?;
        sync_data(file)
    }

    /// Makes the entries of `directory` durable: a new file is not there for certain before.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.ask(Operation::SyncDirectory(directory))?;
        sync_dir(directory)
    }

    /// Gives `file` this length.
    ///
    /// # Errors
    /// What the system says.
    pub fn truncate(&self, file: &File, path: &Path, length: u64) -> io::Result<()> {
        self.ask(Operation::Truncate(path, length))?;
        file.set_len(length)
    }

    /// Replaces the file at `path` by one with `bytes`: after a crash it is the old one or the new one, whole. Durable on return.
    ///
    /// # Errors
    /// What the system says; the old file is still there then, and nothing else is left.
    pub fn write_atomic(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let temporary = temporary_beside(path);
        let directory = directory_of(path);
        let written = self.write_temporary(&temporary, bytes, mode).and_then(|()| {
            self.ask(Operation::Rename(&temporary, path))?;
            fs::rename(&temporary, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.and_then(|()| self.sync_dir(directory))
    }

    fn write_temporary(&self, temporary: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        // Its name is ours alone (process and counter), so what lies there is left from a process of that number that died.
        let _ = fs::remove_file(temporary);
        let file = self.create_new(temporary, mode)?;
        self.write_all_at(&file, temporary, &[bytes], 0)?;
        self.ask(Operation::Sync(temporary))?;
        file.sync_all()
    }
}

/// The directory that `path` is in; a bare name is in the working directory.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary_beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

/// [`Disk::write_atomic`] on the real disk.
///
/// # Errors
/// As there.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    Disk::default().write_atomic(path, bytes, mode)
}

/// Replaces the file at `path` by one with `bytes` for every reader at once, and waits for no disk: after a power cut it may be the old
/// one, the new one, empty or garbage. For what may be lost and is checked when it is read.
///
/// # Errors
/// What the system says; the old file is still there then, and nothing else is left.
pub fn replace_unsynced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let _ = fs::remove_file(&temporary);
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
    let replaced = file.and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&temporary, path));
    replaced.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Makes the data of `file` durable. The standard library uses `fdatasync`, and `F_FULLFSYNC` on Apple systems, where `fsync` only
/// reaches the drive's cache.
///
/// # Errors
/// What the system says. The file must not be trusted afterwards.
pub fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Makes the entries of `directory` durable.
///
/// # Errors
/// What the system says.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes everything on the file system of `directory` durable: one call after many files, instead of one a file.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub fn sync_file_system(directory: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(directory)?)?)
}

/// Schedules everything to be written: this system has no call that waits for one file system.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn sync_file_system(_directory: &Path) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Gives `from` the name `to`, which nothing may have.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`], or what the system says. On a file system that cannot rename so, what has taken the name in the last
/// moment is replaced.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if fs::symlink_metadata(to).is_err() => fs::rename(from, to),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Err(io::ErrorKind::AlreadyExists.into()),
        renamed => Ok(renamed?),
    }
}

/// What a failed change of a file means to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing fits any more, and what there is too little of.
    NoSpace(&'static str),
    /// The file system does not allow changes (any more).
    ReadOnly,
    /// Anything else.
    Other,
}

/// Tells a full disk, a used-up quota and used-up inodes apart; `path` is what was being changed.
pub fn classify(error: &io::Error, path: &Path) -> Failure {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => Failure::NoSpace("quota"),
        io::ErrorKind::StorageFull if inodes_are_used_up(path) => Failure::NoSpace("no free inodes (df -i)"),
        io::ErrorKind::StorageFull => Failure::NoSpace("no space"),
        io::ErrorKind::ReadOnlyFilesystem => Failure::ReadOnly,
        _ => Failure::Other,
    }
}

/// Bytes that this user may still write to the file system of `path`.
///
/// # Errors
/// What the system says.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let statistics = rustix::fs::statvfs(path)?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

/// File systems without a table of inodes report zero of zero and are never out of them.
fn inodes_are_used_up(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    existing.and_then(|place| rustix::fs::statvfs(place).ok()).is_some_and(|statistics| statistics.f_files > 0 && statistics.f_favail == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Scripted(Mutex<Vec<io::Result<Permit>>>);

    impl Observer for Scripted {
        fn before(&self, _: &Operation<'_>) -> io::Result<Permit> {
            self.0.lock().unwrap().pop().unwrap_or(Ok(Permit::Whole))
        }
    }

    fn scripted(answers: Vec<io::Result<Permit>>) -> Disk {
        Disk::observed(Arc::new(Scripted(Mutex::new(answers))))
    }

    #[test]
    fn a_file_is_replaced_whole_and_no_temporary_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_need_not_be_durable_is_replaced_whole_too_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contact");
        replace_unsynced(&path, b"one", 0o600).unwrap();
        replace_unsynced(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let directory = dir.path().join("directory");
        fs::create_dir(&directory).unwrap();
        replace_unsynced(&directory, b"three", 0o600).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary stays");
    }

    #[test]
    fn a_failure_at_any_step_leaves_the_old_file() {
        for step in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("heads");
            write_atomic(&path, b"old", 0o600).unwrap();
            let mut answers = vec![Err(io::ErrorKind::StorageFull.into())];
            answers.extend((0..step).map(|_| Ok(Permit::Whole)));
            let error = scripted(answers).write_atomic(&path, b"new", 0o600).unwrap_err();
            assert_eq!(classify(&error, &path), Failure::NoSpace("no space"));
            assert_eq!((fs::read(&path).unwrap().as_slice(), fs::read_dir(dir.path()).unwrap().count()), (b"old".as_slice(), 1));
        }
    }

    #[test]
    fn what_is_written_again_is_the_same_and_a_file_for_reading_is_left_alone() {
        #[derive(Default)]
        struct Seen(Mutex<Vec<(u64, usize)>>);
        impl Observer for Seen {
            fn before(&self, operation: &Operation<'_>) -> io::Result<Permit> {
                if let Operation::Write { offset, parts, .. } = operation {
                    self.0.lock().unwrap().push((*offset, parts.iter().map(|part| part.len()).sum()));
                }
                Ok(Permit::Whole)
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..AGAIN_BYTES + 9).map(|at| at as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let seen = Arc::new(Seen::default());
        let disk = Disk::observed(Arc::<Seen>::clone(&seen));
        disk.write_again(&File::open(&path).unwrap(), &path, 5..9).unwrap();
        assert!(seen.0.lock().unwrap().is_empty());
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        disk.write_again(&file, &path, 5..bytes.len() as u64).unwrap();
        assert_eq!(*seen.0.lock().unwrap(), [(5, AGAIN_BYTES), (5 + AGAIN_BYTES as u64, 4)]);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn short_writes_are_completed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let disk = scripted((0..5).map(|_| Ok(Permit::First(3))).collect());
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap();
        disk.write_all_at(&file, &path, &[b"hello", b"", b", ", b"world, and more"], 2).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\0\0hello, world, and more");
    }
}
