//! Out of the vault: what stands is written under its name, other versions of a conflict beside it.
//!
//! ```text
//!   written beside its place ─► synced ─► still nothing or what was known there? ─► renamed ─► directory synced ─► noted
//! ```
//! What lies on the disk is only ever replaced or removed if it is what was last taken in or written. Anything else is somebody's change: it is
//! looked at first, or, where nothing is taken in, stays and is named. A half file is never under a name, and what is noted is on the disk.

use super::{
    Folder,
    inward::is_untouched,
    look::Parents,
    naming::copy_key,
    state::{Digest, Row},
};
use crate::{
    event::{Key, Value, ValueKind},
    io::durable,
    limits::{FOLDER_PAGE, FOLDER_PAGE_BYTES},
    merge::Version,
    vault::{Failure, Judged, Scribe, Stamp, Target, VaultError, Watch},
};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Files that are synced one by one; of more, their file system is.
const SYNCED_SINGLY_MAX: usize = 8;

/// Permissions of a directory that nobody has said anything of, as `restore` makes it.
const TACIT_DIRECTORY_MODE: u32 = 0o700;

/// What is to lie under a key.
#[derive(Debug, Clone)]
struct Wanted {
    key: Key,
    value: Option<Value>,
    of: Option<Key>,
}

/// What to do about it.
enum Plan {
    /// It is so.
    Nothing,
    /// It is so, and not noted.
    Note(Row),
    Remove(Row),
    Write(Option<Row>),
    /// Somebody has changed what lies there.
    Changed(&'static str),
}

/// What could not be written out now.
#[derive(Debug, Default)]
pub(super) struct Undone {
    /// Paths that have to be taken in first.
    pub(super) changed: BTreeSet<PathBuf>,
    /// Directories that go once they are empty.
    pub(super) full: BTreeSet<Key>,
}

impl Undone {
    pub(super) fn join(&mut self, other: Self) {
        self.changed.extend(other.changed);
        self.full.extend(other.full);
    }
}

/// A value that lies beside its place.
struct Written {
    wanted: Wanted,
    temporary: PathBuf,
    path: PathBuf,
    before: Option<Row>,
}

impl Folder {
    /// Brings what lies under `keys` to what the vault says. Returns what has to wait.
    pub(super) fn write_out(&self, keys: &BTreeSet<Key>) -> Result<Undone, VaultError> {
        let mut wanted = BTreeMap::new();
        let in_the_way = self.in_the_way(keys)?;
        for key in keys.iter().chain(&in_the_way) {
            self.want(key, in_the_way.contains(key), &mut wanted)?;
        }
        let mut undone = Undone::default();
        let (mut removals, mut directories, mut files) = (Vec::new(), Vec::new(), Vec::new());
        let mut parents = Parents::default();
        for wanted in wanted.into_values() {
            match self.plan(&wanted, &mut parents) {
                Ok(Plan::Nothing) => {}
                Ok(Plan::Note(row)) => self.state.change(&[(wanted.key, row)], &[])?,
                Ok(Plan::Remove(row)) => removals.push((wanted.key, row)),
                Ok(Plan::Write(before)) => match wanted.value.as_ref().map(|value| &value.kind) {
                    Some(ValueKind::Directory(_)) => directories.push((wanted, before)),
                    _ => files.push((wanted, before)),
                },
                Ok(Plan::Changed(reason)) => self.keep(&wanted.key, reason, &mut undone),
                Err(Failure::All(error)) => return Err(error),
                Err(failure) => self.fail(&wanted.key, failure)?,
            }
        }
        // Deepest first, so that directories are empty; what is to be replaced by something else makes room, too.
        for (key, row) in removals.into_iter().rev() {
            self.remove(&key, &row, &mut undone)?;
        }
        let target = Target::existing(self.naming.root());
        for (wanted, before) in &directories {
            self.make_directory(&target, wanted, before.as_ref(), &mut undone)?;
        }
        for page in pages(files) {
            self.write_page(&target, page, &mut undone)?;
        }
        // Now that what is in them is there.
        for (wanted, _) in directories.iter().rev() {
            self.set_mode(wanted)?;
        }
        Ok(undone)
    }

    /// What is no directory although `keys` lie, or lay, in it.
    fn in_the_way(&self, keys: &BTreeSet<Key>) -> Result<BTreeSet<Key>, VaultError> {
        let above: BTreeSet<Key> = keys.iter().flat_map(|key| self.naming.above(key)).collect();
        let mut in_the_way = BTreeSet::new();
        for key in above {
            let maximal = self.vault.maximal(&key)?;
            let value = maximal.first().and_then(Version::value);
            if value.is_some_and(|value| !is_directory(value)) {
                in_the_way.insert(key);
            }
        }
        Ok(in_the_way)
    }

    /// What `key` and its conflict, if there is one, are to look like. A file or link makes way for what lies below its key, and lies
    /// beside it then, like a version of a conflict.
    fn want(&self, key: &Key, in_the_way: bool, wanted: &mut BTreeMap<Key, Wanted>) -> Result<(), VaultError> {
        match self.naming.relative(key) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(reason) => {
                self.problem(key.to_text().into_owned(), reason);
                return Ok(());
            }
        }
        let maximal = self.vault.maximal(key)?;
        let mut value = maximal.first().and_then(Version::value).cloned();
        let mut copies = self.shown_beside(key, &maximal)?;
        let no_directory = value.as_ref().is_some_and(|value| !is_directory(value));
        if no_directory && (in_the_way || self.directory_mode(key).is_some()) && self.vault.has_below(key)? {
            let beside = maximal.first().and_then(|winner| copy_key(key, &winner.place.dot));
            copies.extend(beside.zip(value.take()));
            let directory = maximal.iter().filter_map(Version::value).find(|value| is_directory(value));
            value = Some(directory.cloned().unwrap_or_else(|| directory_value(TACIT_DIRECTORY_MODE)));
        }
        for (copy, _) in self.state.copies_of(key)? {
            if !copies.contains_key(&copy) && !self.is_live(&copy)? {
                wanted.entry(copy.clone()).or_insert(Wanted { key: copy, value: None, of: None });
            }
        }
        for (copy, value) in copies {
            wanted.insert(copy.clone(), Wanted { key: copy, value: Some(value), of: Some(key.clone()) });
        }
        // The place of a version of somebody else's conflict is not this key's to clear.
        let lent = value.is_none() && self.state.get(key)?.is_some_and(|row| row.of.is_some());
        if !lent {
            wanted.insert(key.clone(), Wanted { key: key.clone(), value, of: None });
        }
        Ok(())
    }

    fn plan(&self, wanted: &Wanted, parents: &mut Parents) -> Result<Plan, Failure> {
        let row = self.state.get(&wanted.key)?;
        let stamp = parents.stamp(&self.naming, &wanted.key).map_err(Failure::One)?;
        let (row, value, stamp) = match (row, &wanted.value, stamp) {
            (None, None, _) => return Ok(Plan::Nothing),
            (None, Some(_), None) => return Ok(Plan::Write(None)),
            (Some(row), None, None) => return Ok(Plan::Remove(row)),
            (Some(row), Some(value), None) => return Ok(self.plan_absent(row, value)),
            (Some(row), None, Some(stamp)) => {
                let as_known = self.is_as_known(&wanted.key, &row, &stamp);
                return Ok(if as_known { Plan::Remove(row) } else { Plan::Changed("it was changed here and deleted elsewhere") });
            }
            (row, Some(value), Some(stamp)) => (row, value, stamp),
        };
        let as_known = row.as_ref().filter(|row| self.is_as_known(&wanted.key, row, &stamp));
        let digest = Digest::of(value);
        let note = || Row { digest, stamp, settled: true, of: wanted.of.clone() };
        match as_known {
            Some(row) if row.digest == digest && row.of == wanted.of => Ok(Plan::Nothing),
            Some(row) if row.digest == digest => Ok(Plan::Note(Row { of: wanted.of.clone(), ..row.clone() })),
            Some(row) => Ok(Plan::Write(Some(row.clone()))),
            None if self.holds(&wanted.key, value)? => Ok(Plan::Note(note())),
            None => Ok(Plan::Changed("it was changed here and elsewhere")),
        }
    }

    /// A file that somebody removed stays removed until the vault says something new of it.
    fn plan_absent(&self, row: Row, value: &Value) -> Plan {
        match (self.flow.takes_in(), row.digest == Digest::of(value)) {
            (true, _) => Plan::Changed("it was removed here"),
            (false, true) => Plan::Nothing,
            (false, false) => Plan::Write(None),
        }
    }

    /// Whether nobody has changed what lies under `key` since it was noted.
    fn is_as_known(&self, key: &Key, row: &Row, stamp: &Stamp) -> bool {
        is_untouched(row, stamp) || self.directory_mode(key).is_some_and(|mode| row.digest == Digest::of(&directory_value(mode)))
    }

    fn directory_mode(&self, key: &Key) -> Option<u32> {
        let metadata = fs::symlink_metadata(self.naming.path(key)?).ok()?;
        metadata.is_dir().then(|| metadata.permissions().mode() & 0o7777)
    }

    /// Whether the disk has under `key` just what `value` says.
    fn holds(&self, key: &Key, value: &Value) -> Result<bool, Failure> {
        let Some(path) = self.naming.path(key) else { return Ok(false) };
        match &value.kind {
            ValueKind::Directory(mode) => Ok(self.directory_mode(key) == Some(*mode)),
            ValueKind::Symlink(_) => Ok(false),
            ValueKind::Blob | ValueKind::File(_) => match open_regular(&path) {
                Ok(file) if is_as_stated(&file, value)? => Ok(self.vault.has_bytes_of(file, value)?),
                Ok(_) | Err(_) => Ok(false),
            },
        }
    }

    /// Somebody's change is in the way: it is taken in, or stays.
    fn keep(&self, key: &Key, reason: &'static str, undone: &mut Undone) {
        match self.naming.path(key) {
            Some(path) if self.flow.takes_in() => _ = undone.changed.insert(path),
            Some(path) => self.problem(path.display().to_string(), format!("{reason}: it stays as it is here")),
            None => {}
        }
    }

    fn fail(&self, key: &Key, failure: Failure) -> Result<(), VaultError> {
        match failure.judged(self.naming.root()) {
            Judged::One(reason) => self.problem(key.to_text().into_owned(), reason),
            Judged::All(error) => return Err(error),
        }
        Ok(())
    }

    fn remove(&self, key: &Key, row: &Row, undone: &mut Undone) -> Result<(), VaultError> {
        let Some(path) = self.naming.path(key) else { return Ok(()) };
        let stamp = Parents::default().stamp(&self.naming, key);
        let removed = match stamp {
            Ok(None) => Ok(()),
            Ok(Some(stamp)) if !self.is_as_known(key, row, &stamp) => {
                self.keep(key, "it was changed here and deleted elsewhere", undone);
                return Ok(());
            }
            Ok(Some(_)) if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) => fs::remove_dir(&path),
            Ok(Some(_)) => fs::remove_file(&path),
            Err(reason) => return self.fail(key, Failure::One(reason)),
        };
        match removed {
            Ok(()) => {}
            // What is in it may go with what the log says next, or it is not the vault's.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                undone.full.insert(key.clone());
                return Ok(());
            }
            Err(error) => return self.fail(key, Failure::System(error)),
        }
        sync_parent(&path)?;
        self.state.change(&[], std::slice::from_ref(key))?;
        self.settled(key);
        self.update(|status| status.removed += 1);
        Ok(())
    }

    fn make_directory(&self, target: &Target, wanted: &Wanted, before: Option<&Row>, undone: &mut Undone) -> Result<(), VaultError> {
        let (Ok(Some(relative)), Some(path)) = (self.naming.relative(&wanted.key), self.naming.path(&wanted.key)) else { return Ok(()) };
        if before.is_some() && path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir()) {
            // A file or link that nobody has changed gives way.
            let stamp = Parents::default().stamp(&self.naming, &wanted.key);
            match (stamp, before) {
                (Ok(Some(stamp)), Some(before)) if is_untouched(before, &stamp) => drop(fs::remove_file(&path)),
                _ => {
                    self.keep(&wanted.key, "it was changed here and elsewhere", undone);
                    return Ok(());
                }
            }
        }
        match target.directory(&relative).and_then(|()| open_up(&path)) {
            Ok(()) => Ok(()),
            Err(error) => self.fail(&wanted.key, Failure::System(error)),
        }
    }

    /// Gives a directory its permissions, and notes it.
    fn set_mode(&self, wanted: &Wanted) -> Result<(), VaultError> {
        let (Some(path), Some(value)) = (self.naming.path(&wanted.key), &wanted.value) else { return Ok(()) };
        let ValueKind::Directory(mode) = value.kind else { return Ok(()) };
        let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        if !is_directory {
            return Ok(());
        }
        let stamp = fs::set_permissions(&path, fs::Permissions::from_mode(mode)).and_then(|()| fs::symlink_metadata(&path));
        match stamp {
            Ok(metadata) => {
                sync_parent(&path)?;
                let row = Row { digest: Digest::of(value), stamp: Stamp::of(&metadata), settled: true, of: None };
                self.note(vec![(wanted.key.clone(), row)])
            }
            Err(error) => self.fail(&wanted.key, Failure::System(error)),
        }
    }

    /// Writes a page of files and links beside their places, makes them durable, and lets them take their places.
    fn write_page(&self, target: &Target, page: Vec<(Wanted, Option<Row>)>, undone: &mut Undone) -> Result<(), VaultError> {
        let outcomes: Vec<(Key, Result<Written, Failure>)> =
            page.into_par_iter().map(|(wanted, before)| (wanted.key.clone(), self.write(target, wanted, before))).collect();
        let mut written = Vec::with_capacity(outcomes.len());
        let mut stopped = None;
        for (key, outcome) in outcomes {
            match outcome {
                Ok(file) => written.push(file),
                Err(failure) => stopped = self.fail(&key, failure).err().or(stopped),
            }
        }
        match stopped.map_or_else(|| self.sync(&written), Err) {
            Ok(()) => {}
            Err(error) => {
                written.iter().for_each(|file| drop(fs::remove_file(&file.temporary)));
                return Err(error);
            }
        }
        let directories: BTreeSet<PathBuf> = written.iter().filter_map(|file| file.path.parent().map(Path::to_owned)).collect();
        let mut rows = Vec::with_capacity(written.len());
        for file in written {
            match self.place(&file) {
                Ok(Some(row)) => rows.push((file.wanted.key, row)),
                Ok(None) => {
                    drop(fs::remove_file(&file.temporary));
                    self.keep(&file.wanted.key, "it was changed here and elsewhere", undone);
                }
                Err(error) => {
                    drop(fs::remove_file(&file.temporary));
                    self.fail(&file.wanted.key, Failure::System(error))?;
                }
            }
        }
        self.sync_directories(&directories)?;
        self.note_tacit(&rows)?;
        self.note(rows)
    }

    /// Notes the directories that were made only because something lies in them: they are nobody's to put.
    fn note_tacit(&self, rows: &[(Key, Row)]) -> Result<(), VaultError> {
        let above: BTreeSet<Key> = rows.iter().flat_map(|(key, _)| self.naming.above(key)).collect();
        let mut tacit = Vec::new();
        for key in above {
            let made = self.directory_mode(&key) == Some(TACIT_DIRECTORY_MODE) && self.state.get(&key)?.is_none();
            let stamp = Parents::default().stamp(&self.naming, &key).ok().flatten();
            if let Some(stamp) = stamp.filter(|_| made) {
                let digest = Digest::of(&directory_value(TACIT_DIRECTORY_MODE));
                tacit.push((key, Row { digest, stamp, settled: true, of: None }));
            }
        }
        self.state.change(&tacit, &[])
    }

    fn write(&self, target: &Target, wanted: Wanted, before: Option<Row>) -> Result<Written, Failure> {
        if self.cancelled() {
            return Err(Failure::All(VaultError::Cancelled));
        }
        let relative = self.naming.relative(&wanted.key).map_err(Failure::One)?;
        let (Some(relative), Some(value)) = (relative, &wanted.value) else { return Err(Failure::One("it has no place".into())) };
        let path = target.place(&relative)?;
        let scribe = Scribe::new(&self.vault, self);
        let temporary = scribe.temporary_beside(&path);
        if let Err(failure) = self.vault.write_out(&scribe, &temporary, value) {
            drop(fs::remove_file(&temporary));
            return Err(failure);
        }
        Ok(Written { wanted, temporary, path, before })
    }

    /// Lets a file take its place, if what lies there is what was known. The row for it, then.
    fn place(&self, file: &Written) -> io::Result<Option<Row>> {
        let key = &file.wanted.key;
        let there = Parents::default().stamp(&self.naming, key).map_err(io::Error::other)?;
        match (&file.before, there) {
            (None, Some(_)) => return Ok(None),
            (Some(before), Some(stamp)) if !self.is_as_known(key, before, &stamp) => return Ok(None),
            // It was there a moment ago.
            (Some(_), None) if self.flow.takes_in() => return Ok(None),
            (Some(_), Some(_)) if file.path.symlink_metadata()?.is_dir() => fs::remove_dir(&file.path)?,
            _ => {}
        }
        let written = Stamp::of(&fs::symlink_metadata(&file.temporary)?);
        if file.before.is_none() {
            match durable::rename_to_new(&file.temporary, &file.path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                renamed => renamed?,
            }
        } else {
            fs::rename(&file.temporary, &file.path)?;
        }
        let Some(value) = &file.wanted.value else { return Ok(None) };
        let stamp = stamp_of_placed(written, Stamp::of(&fs::symlink_metadata(&file.path)?));
        Ok(Some(Row { digest: Digest::of(value), stamp, settled: true, of: file.wanted.of.clone() }))
    }

    fn sync(&self, written: &[Written]) -> Result<(), VaultError> {
        let failed = |error| VaultError::at("syncing", self.naming.root(), error);
        if written.len() > SYNCED_SINGLY_MAX {
            return durable::sync_file_system(self.naming.root()).map_err(failed);
        }
        for file in written {
            match file.wanted.value.as_ref().map(|value| &value.kind) {
                Some(ValueKind::Symlink(_)) | None => {}
                Some(_) => open_regular(&file.temporary).and_then(|file| file.sync_all()).map_err(failed)?,
            }
        }
        Ok(())
    }

    fn sync_directories(&self, directories: &BTreeSet<PathBuf>) -> Result<(), VaultError> {
        if directories.len() > SYNCED_SINGLY_MAX {
            let failed = |error| VaultError::at("syncing", self.naming.root(), error);
            return durable::sync_file_system(self.naming.root()).map_err(failed);
        }
        directories.iter().try_for_each(|directory| sync(directory))
    }

    /// Notes what was written.
    fn note(&self, rows: Vec<(Key, Row)>) -> Result<(), VaultError> {
        self.state.change(&rows, &[])?;
        let beside = rows.iter().filter(|(_, row)| row.of.is_some()).count() as u64;
        rows.iter().for_each(|(key, _)| self.settled(key));
        self.update(|status| {
            status.written_out += rows.len() as u64 - beside;
            status.kept_beside += beside;
        });
        Ok(())
    }
}

pub(super) fn is_directory(value: &Value) -> bool {
    matches!(value.kind, ValueKind::Directory(_))
}

/// Files are synced together, but not so many that nothing is seen of them for long.
fn pages(files: Vec<(Wanted, Option<Row>)>) -> Vec<Vec<(Wanted, Option<Row>)>> {
    let mut pages: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        let more = file.0.value.as_ref().map_or(0, |value| value.content.bytes);
        bytes += more;
        match pages.last_mut() {
            Some(page) if page.len() < FOLDER_PAGE && bytes <= FOLDER_PAGE_BYTES => page.push(file),
            _ => {
                bytes = more;
                pages.push(vec![file]);
            }
        }
    }
    pages
}

/// A directory that is written into, whatever its permissions are to be.
fn open_up(path: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(path)?.permissions().mode();
    if mode & 0o700 == 0o700 { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700)) }
}

fn directory_value(mode: u32) -> Value {
    Value { kind: ValueKind::Directory(mode), modified_s: 0, modified_ns: 0, content: Default::default() }
}

/// Opens a file without following a link that has taken its place and without waiting for a pipe's other end.
fn open_regular(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

/// Whether permissions and time are as `value` says.
fn is_as_stated(file: &File, value: &Value) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    let time = (metadata.mtime(), metadata.mtime_nsec()) == (value.modified_s, i64::from(value.modified_ns));
    let mode = match value.kind {
        ValueKind::File(mode) => metadata.mode() & 0o7777 == mode,
        _ => true,
    };
    Ok(metadata.is_file() && time && mode)
}

fn sync_parent(path: &Path) -> Result<(), VaultError> {
    path.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> Result<(), VaultError> {
    match durable::sync_dir(directory) {
        // It was removed meanwhile, with what was written there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(|error| VaultError::at("syncing", directory, error)),
    }
}

/// What to note of a file that was `written` and is now under its name. Renaming changes nothing but the time of change; a file that differs
/// otherwise was saved by somebody who was quicker than this look, so what is noted must not fit it: it is taken in.
fn stamp_of_placed(written: Stamp, now: Stamp) -> Stamp {
    if (Stamp { changed_ns: written.changed_ns, ..now }) == written { now } else { written }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_saved_right_after_it_was_written_out_is_not_taken_for_what_was_written() {
        let written = Stamp { size: 6, modified_ns: 1, changed_ns: 10, inode: 7, device: 1 };
        let renamed = Stamp { changed_ns: 11, ..written };
        assert_eq!(stamp_of_placed(written, renamed), renamed);
        for saved in [Stamp { size: 5, ..renamed }, Stamp { modified_ns: 12, ..renamed }, Stamp { inode: 8, ..renamed }] {
            assert_ne!(stamp_of_placed(written, saved), saved);
        }
    }
}
