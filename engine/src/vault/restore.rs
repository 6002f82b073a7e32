//! Back to files: bytes, mode, modification time, links.
//!
//! In order: refuse to clobber, directories, files in parallel (each written beside its place and renamed, so that a half one is
//! never seen), links, and last the modes and times of directories, deepest first, because writing into them changes those.

use super::{
    RestoreReport, Vault, VaultError, Watch,
    content::Placed,
    history::is_at_or_below,
    target::{Target, relative_path},
    view::VersionRow,
};
use crate::{
    event::{Key, Value, ValueKind},
    io::durable,
    limits::WHOLE_VALUE_BYTES_MAX,
};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    ops::ControlFlow,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Rows restored by one parallel pass.
const PAGE_ROWS: usize = 4_096;
/// Existing files named when clobbering is refused.
const NAMED_MAX: usize = 3;

struct Restore<'a> {
    vault: &'a Vault,
    target: Target,
    clobber: Clobber,
    watch: &'a dyn Watch,
    report: Mutex<RestoreReport>,
    temporary: AtomicU64,
    process: u32,
    umask: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clobber {
    Refuse,
    Overwrite,
}

/// Why one key was not restored.
enum Failure {
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
enum Judged {
    One(String),
    All(VaultError),
}

impl Failure {
    fn judged(self, root: &Path) -> Judged {
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

/// Restores what lies at or below `prefixes` (everything if there are none).
pub(super) fn restore(
    vault: &Vault,
    destination: &Path,
    prefixes: &[Key],
    overwrite: bool,
    watch: &dyn Watch,
) -> Result<RestoreReport, VaultError> {
    refuse_inside_vault(vault, destination)?;
    vault.catch_up()?;
    let clobber = if overwrite { Clobber::Overwrite } else { Clobber::Refuse };
    let existed = fs::read_dir(destination).is_ok_and(|mut entries| entries.next().is_some());
    if clobber == Clobber::Refuse && existed {
        refuse_to_clobber(vault, destination, prefixes)?;
    }
    let target = Target::open(destination).map_err(|error| VaultError::io(format!("opening {}", destination.display()), error))?;
    let (process, umask) = (std::process::id(), umask());
    let restore = Restore { vault, target, clobber, watch, report: Mutex::default(), temporary: AtomicU64::new(0), process, umask };
    restore.all(prefixes)?;
    sync_file_system(restore.target.root())?;
    Ok(restore.report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// DEST need not be there yet: the nearest directory above it that is tells where it would be.
fn refuse_inside_vault(vault: &Vault, destination: &Path) -> Result<(), VaultError> {
    let absolute = std::path::absolute(destination).map_err(|error| VaultError::at("resolving", destination, error))?;
    let nearest = absolute.ancestors().find_map(|path| fs::canonicalize(path).ok());
    match (nearest, fs::canonicalize(vault.dir())) {
        (Some(nearest), Ok(dir)) if nearest.starts_with(&dir) => {
            Err(VaultError::Nested { inner: destination.to_owned(), outer: vault.dir().to_owned() })
        }
        _ => Ok(()),
    }
}

fn rows_below(
    vault: &Vault,
    prefixes: &[Key],
    each: &mut dyn FnMut(VersionRow) -> Result<ControlFlow<()>, VaultError>,
) -> Result<(), VaultError> {
    if prefixes.is_empty() {
        return vault.scan(b"", false, each);
    }
    for prefix in prefixes {
        let mut found = false;
        vault.scan(prefix.as_bytes(), false, &mut |row| {
            if !is_at_or_below(&row.key, prefix) {
                return Ok(ControlFlow::Continue(()));
            }
            found = true;
            each(row)
        })?;
        if !found {
            return Err(vault.no_such_key(prefix));
        }
    }
    Ok(())
}

fn refuse_to_clobber(vault: &Vault, destination: &Path, prefixes: &[Key]) -> Result<(), VaultError> {
    let mut existing = Vec::new();
    rows_below(vault, prefixes, &mut |row| {
        let directory = row.version.value().is_some_and(|value| matches!(value.kind, ValueKind::Directory(_)));
        if let Ok(path) = relative_path(&row.key)
            && !directory
            && fs::symlink_metadata(destination.join(&path)).is_ok()
        {
            existing.push(path.display().to_string());
        }
        Ok(if existing.len() > NAMED_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if existing.is_empty() {
        return Ok(());
    }
    let more = if existing.len() > NAMED_MAX { ", and more" } else { "" };
    existing.truncate(NAMED_MAX);
    Err(VaultError::WouldClobber(format!("{}: {}{more}", destination.display(), existing.join(", "))))
}

impl Restore<'_> {
    fn all(&self, prefixes: &[Key]) -> Result<(), VaultError> {
        let mut links = Vec::new();
        let mut directories = Vec::new();
        let mut page = Vec::with_capacity(PAGE_ROWS);
        rows_below(self.vault, prefixes, &mut |row| {
            let Some(value) = row.version.value().cloned() else { return Ok(ControlFlow::Continue(())) };
            self.watch.expect(1, value.content.bytes);
            match value.kind {
                ValueKind::Directory(_) => directories.push((row.key, value)),
                ValueKind::Symlink(_) => links.push((row.key, value)),
                ValueKind::Blob | ValueKind::File(_) => page.push((row.key, value)),
            }
            if page.len() == PAGE_ROWS {
                self.files(std::mem::take(&mut page))?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.files(page)?;
        for (key, value) in &links {
            self.take(key, &value.clone(), self.link(key, value))?;
        }
        for (key, value) in directories.iter().rev() {
            self.take(key, value, self.directory(key, value))?;
        }
        Ok(())
    }

    fn files(&self, page: Vec<(Key, Value)>) -> Result<(), VaultError> {
        let (small, large): (Vec<_>, Vec<_>) = page.into_iter().partition(|(_, value)| value.content.bytes <= WHOLE_VALUE_BYTES_MAX as u64);
        let mut pieces = small.iter().map(|(_, value)| self.vault.pieces(&value.content)).collect::<Vec<_>>();
        self.vault.locate(&mut pieces.iter_mut().flatten().flatten().collect::<Vec<_>>())?;
        let restore = |((key, value), pieces): (&(Key, Value), Result<Vec<Placed>, VaultError>)| {
            let outcome = pieces.map_err(Failure::from).and_then(|pieces| self.file(key, value, &pieces));
            self.take(key, value, outcome)
        };
        small.par_iter().zip(pieces).with_min_len(16).try_for_each(restore)?;
        large.iter().try_for_each(|(key, value)| {
            let mut pieces = self.vault.pieces(&value.content);
            self.vault.locate(&mut pieces.iter_mut().flatten().collect::<Vec<_>>())?;
            restore((&(key.clone(), value.clone()), pieces))
        })
    }

    fn take(&self, key: &Key, value: &Value, result: Result<Outcome, Failure>) -> Result<(), VaultError> {
        if self.watch.cancelled() {
            return Err(VaultError::Cancelled);
        }
        let result = result.map_err(|failure| failure.judged(self.target.root()));
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(Outcome::Written) => {
                report.restored += 1;
                report.bytes += value.content.bytes;
            }
            Ok(Outcome::Unchanged) => report.unchanged += 1,
            Err(Judged::One(reason)) => report.failed.push((key.clone(), reason)),
            Err(Judged::All(error)) => return Err(error),
        }
        drop(report);
        self.watch.advance(1, value.content.bytes);
        Ok(())
    }

    fn place(&self, key: &Key) -> Result<PathBuf, Failure> {
        let relative = relative_path(key).map_err(|error| Failure::One(error.to_string()))?;
        Ok(self.target.place(&relative)?)
    }

    fn file(&self, key: &Key, value: &Value, pieces: &[Placed]) -> Result<Outcome, Failure> {
        let path = self.place(key)?;
        let mode = if let ValueKind::File(mode) = value.kind { mode } else { 0o600 };
        if self.clobber == Clobber::Overwrite && is_as_wanted(&path, value, mode) {
            return Ok(Outcome::Unchanged);
        }
        let temporary = self.temporary_beside(&path);
        let written = self.write_file(&temporary, value, mode, pieces).and_then(|()| Ok(fs::rename(&temporary, &path)?));
        if written.is_err() {
            // The error that matters is the one above.
            let _ = fs::remove_file(&temporary);
        }
        written.map(|()| Outcome::Written)
    }

    fn temporary_beside(&self, path: &Path) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        path.with_file_name(format!(".mirror-{}-{number}.part", self.process))
    }

    fn write_file(&self, path: &Path, value: &Value, mode: u32, pieces: &[Placed]) -> Result<(), Failure> {
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

    fn link(&self, key: &Key, value: &Value) -> Result<Outcome, Failure> {
        let ValueKind::Symlink(target) = &value.kind else { return Ok(Outcome::Unchanged) };
        let path = self.place(key)?;
        let target = Path::new(OsStr::from_bytes(target));
        if self.clobber == Clobber::Overwrite && fs::read_link(&path).is_ok_and(|existing| existing == target) {
            return Ok(Outcome::Unchanged);
        }
        let temporary = self.temporary_beside(&path);
        std::os::unix::fs::symlink(target, &temporary)?;
        utimensat(CWD, &temporary, &times(value), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
        fs::rename(&temporary, &path).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        Ok(Outcome::Written)
    }

    fn directory(&self, key: &Key, value: &Value) -> Result<Outcome, Failure> {
        let ValueKind::Directory(mode) = value.kind else { return Ok(Outcome::Unchanged) };
        let relative = relative_path(key).map_err(|error| Failure::One(error.to_string()))?;
        self.target.directory(&relative)?;
        let path = self.target.root().join(relative);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        utimensat(CWD, &path, &times(value), AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
        Ok(Outcome::Written)
    }
}

thread_local! {
    /// One plaintext buffer a thread, at most a chunk long.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

enum Outcome {
    Written,
    Unchanged,
}

/// Bits that new files don't get. The only way to ask is to set it, so it is asked once, before other threads make files.
fn umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::umask(mask);
    // Of 16 bits on macOS.
    #[allow(clippy::useless_conversion)]
    u32::from(mask.bits())
}

/// Same kind, size, mode and time: an interrupted restore goes on where it stopped.
fn is_as_wanted(path: &Path, value: &Value, mode: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| {
        metadata.is_file()
            && metadata.len() == value.content.bytes
            && metadata.mode() & 0o7777 == mode
            && (metadata.mtime(), metadata.mtime_nsec()) == (value.modified_s, i64::from(value.modified_ns))
    })
}

fn times(value: &Value) -> Timestamps {
    let modified = Timespec { tv_sec: value.modified_s, tv_nsec: i64::from(value.modified_ns) };
    Timestamps { last_access: modified, last_modification: modified }
}

/// One sync for everything that was written, instead of one a file.
fn sync_file_system(root: &Path) -> Result<(), VaultError> {
    durable::sync_file_system(root).map_err(|error| VaultError::io(format!("syncing {}", root.display()), error))
}
