//! Looking at the disk: what is not as it was when folder and vault were last the same.

use super::{
    naming::Naming,
    state::{Digest, Row, State},
};
use crate::{
    event::{Key, ValueKind},
    limits::FOLDER_PAGE,
    vault::{Found, Stamp, VaultError, found, writer_of},
};
use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};
use walkdir::WalkDir;

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everywhere.
    Whole,
    /// At these paths and below them.
    Paths(Vec<PathBuf>),
}

impl Scope {
    /// What to walk: never through a link.
    fn paths(&self, naming: &Naming) -> Vec<PathBuf> {
        match self {
            Self::Whole => vec![naming.root().to_owned()],
            Self::Paths(paths) => paths.iter().map(|path| anchored(naming.root(), path)).collect(),
        }
    }
}

/// `path`, or the first on the way to it from `root` that is no directory.
fn anchored(root: &Path, path: &Path) -> PathBuf {
    let Ok(relative) = path.strip_prefix(root) else { return root.to_owned() };
    let mut reached = root.to_owned();
    for component in relative.components() {
        reached.push(component);
        if !fs::symlink_metadata(&reached).is_ok_and(|metadata| metadata.is_dir()) {
            break;
        }
    }
    reached
}

/// Something that cannot be taken in, with its reason.
pub(super) type Unread = (PathBuf, String);

/// Hands what is new or changed within `scope` to `page`, some at a time. Returns what cannot be read.
pub(super) fn changed(
    naming: &Naming,
    state: &State,
    scope: &Scope,
    page: &mut dyn FnMut(Vec<Found>) -> Result<(), VaultError>,
) -> Result<Vec<Unread>, VaultError> {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    for path in scope.paths(naming) {
        for entry in WalkDir::new(&path).sort_by_file_name() {
            match look_at(naming, state, entry)? {
                Look::Same => {}
                Look::Changed(changed) => found.push(*changed),
                Look::Unread(reason) => unread.push(reason),
            }
            if found.len() >= FOLDER_PAGE {
                page(std::mem::take(&mut found))?;
            }
        }
    }
    page(found)?;
    Ok(unread)
}

enum Look {
    Same,
    Changed(Box<Found>),
    Unread(Unread),
}

fn look_at(naming: &Naming, state: &State, entry: walkdir::Result<walkdir::DirEntry>) -> Result<Look, VaultError> {
    let entry = match entry {
        Ok(entry) => entry,
        // What has gone is looked for elsewhere.
        Err(error) if error.io_error().is_some_and(is_absent) => return Ok(Look::Same),
        Err(error) => {
            let path = error.path().unwrap_or(naming.root()).to_owned();
            return Ok(Look::Unread((path, error.to_string())));
        }
    };
    if let Some(process) = writer_of(entry.file_name()) {
        remove_left_over(entry.path(), process);
        return Ok(Look::Same);
    }
    let Some(key) = naming.key(entry.path()) else { return Ok(Look::Same) };
    let found = match found(&entry, key.as_bytes().to_vec()) {
        Ok(found) => found,
        Err(unread) => return Ok(Look::Unread(unread)),
    };
    let row = state.get(&found.key)?;
    Ok(if row.is_some_and(|row| is_as(&found, &row)) { Look::Same } else { Look::Changed(Box::new(found)) })
}

/// A file that a crash left half written.
fn remove_left_over(path: &Path, process: u32) {
    let pid = rustix::process::Pid::from_raw(process as i32);
    let gone = pid.is_none_or(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH));
    if gone {
        // Should this fail, it is tried again the next time.
        let _ = fs::remove_file(path);
    }
}

/// Whether what was found is what it was.
fn is_as(found: &Found, row: &Row) -> bool {
    match found.value.kind {
        ValueKind::Directory(_) => Digest::of(&found.value) == row.digest,
        ValueKind::Blob | ValueKind::File(_) | ValueKind::Symlink(_) => row.settled && row.stamp == found.stamp,
    }
}

/// What was known within `scope` and is not on the disk any more.
pub(super) fn gone(naming: &Naming, state: &State, scope: &Scope) -> Result<Vec<(Key, Row)>, VaultError> {
    let (mut gone, mut parents) = (Vec::new(), Parents::default());
    for path in scope.paths(naming) {
        let ranges = match naming.key(&path) {
            // The thing itself, then what is in it: other names come between the two in byte order.
            Some(key) => {
                let [at, below, beyond] = [&b""[..], b"/", b"0"].map(|end| [key.as_bytes(), end].concat());
                vec![(at.clone(), [at.as_slice(), b"\0"].concat()), (below, beyond)]
            }
            None if path == *naming.root() => vec![(naming.prefix().to_vec(), beyond_all(naming.prefix()))],
            None => Vec::new(),
        };
        for (from, to) in ranges {
            gone.extend(gone_between((naming, &mut parents), state, from, &to)?);
        }
    }
    gone.sort_by(|(one, _), (other, _)| one.cmp(other));
    gone.dedup_by(|(one, _), (other, _)| one == other);
    Ok(gone)
}

fn gone_between(
    (naming, parents): (&Naming, &mut Parents),
    state: &State,
    mut from: Vec<u8>,
    to: &[u8],
) -> Result<Vec<(Key, Row)>, VaultError> {
    let mut gone = Vec::new();
    loop {
        let rows = state.between(&from, to, FOLDER_PAGE)?;
        let Some((last, _)) = rows.last() else { return Ok(gone) };
        from = [last.as_bytes(), b"\0"].concat();
        gone.extend(rows.into_iter().filter(|(key, _)| parents.stamp(naming, key) == Ok(None)));
    }
}

/// Above every key that begins with `prefix`, which is empty or ends with `/`.
fn beyond_all(prefix: &[u8]) -> Vec<u8> {
    match prefix.strip_suffix(b"/") {
        Some(directory) => [directory, b"0"].concat(),
        None => vec![u8::MAX; crate::limits::KEY_BYTES_MAX + 1],
    }
}

/// Directories that were seen to be some, not links: what lies in them lies in the folder.
#[derive(Debug, Default)]
pub(super) struct Parents(HashSet<PathBuf>);

impl Parents {
    /// What identifies what lies under `key`; none if nothing does, an error if nobody can tell.
    pub(super) fn stamp(&mut self, naming: &Naming, key: &Key) -> Result<Option<Stamp>, String> {
        let Some(path) = naming.path(key) else { return Ok(None) };
        if path.parent().is_some_and(|parent| !self.is_real(naming.root(), parent)) {
            return Ok(None);
        }
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(Stamp::of(&metadata))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether `directory` is not known to be anything but a directory reached through directories.
    fn is_real(&mut self, root: &Path, directory: &Path) -> bool {
        if directory == root || self.0.contains(directory) {
            return true;
        }
        let real = directory.parent().is_none_or(|parent| self.is_real(root, parent))
            && fs::symlink_metadata(directory).map_or_else(|error| !is_absent(&error), |metadata| metadata.is_dir());
        if real {
            self.0.insert(directory.to_owned());
        }
        real
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
