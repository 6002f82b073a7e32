//! Back to files: bytes, mode, modification time, links.
//!
//! In order: refuse to clobber, directories, files in parallel (each written beside its place and renamed, so that a half one is
//! never seen), links, and last the modes and times of directories, deepest first, because writing into them changes those.

use super::{
    RestoreReport, Vault, VaultError, Watch,
    content::Placed,
    history::is_at_or_below,
    scribe::{Failure, Judged, Scribe, mode_of, times},
    target::{Target, relative_path},
    view::VersionRow,
};
use crate::{
    event::{Key, Value, ValueKind},
    io::durable,
    limits::WHOLE_VALUE_BYTES_MAX,
};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, utimensat};
use std::{
    ffi::OsStr,
    fs, io,
    ops::ControlFlow,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
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
    scribe: Scribe<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clobber {
    Refuse,
    Overwrite,
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
    let restore = Restore { vault, target, clobber, watch, report: Mutex::default(), scribe: Scribe::new(vault, watch) };
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
        if self.clobber == Clobber::Overwrite && is_as_wanted(&path, value) {
            return Ok(Outcome::Unchanged);
        }
        let temporary = self.scribe.temporary_beside(&path);
        let written = self.scribe.write_file(&temporary, value, pieces).and_then(|()| Ok(fs::rename(&temporary, &path)?));
        if written.is_err() {
            // The error that matters is the one above.
            let _ = fs::remove_file(&temporary);
        }
        written.map(|()| Outcome::Written)
    }

    fn link(&self, key: &Key, value: &Value) -> Result<Outcome, Failure> {
        let ValueKind::Symlink(target) = &value.kind else { return Ok(Outcome::Unchanged) };
        let path = self.place(key)?;
        let target = Path::new(OsStr::from_bytes(target));
        if self.clobber == Clobber::Overwrite && fs::read_link(&path).is_ok_and(|existing| existing == target) {
            return Ok(Outcome::Unchanged);
        }
        let temporary = self.scribe.temporary_beside(&path);
        self.scribe.write_link(&temporary, value, target)?;
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

enum Outcome {
    Written,
    Unchanged,
}

/// Same kind, size, mode and time: an interrupted restore goes on where it stopped.
fn is_as_wanted(path: &Path, value: &Value) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| {
        metadata.is_file()
            && metadata.len() == value.content.bytes
            && metadata.mode() & 0o7777 == mode_of(value)
            && (metadata.mtime(), metadata.mtime_nsec()) == (value.modified_s, i64::from(value.modified_ns))
    })
}

/// One sync for everything that was written, instead of one a file.
fn sync_file_system(root: &Path) -> Result<(), VaultError> {
    durable::sync_file_system(root).map_err(|error| VaultError::io(format!("syncing {}", root.display()), error))
}
