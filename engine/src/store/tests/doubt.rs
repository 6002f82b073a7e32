//! What a failed sync leaves: the system shows the bytes, calls their pages clean, and the disk does not have them. Whoever opens the vault
//! next must not count them before they were written once more.

use super::*;
use crate::io::durable::{Observer, Operation, Permit};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

/// A disk under a system that forgets what it failed to write.
#[derive(Default)]
struct Forgetful(Mutex<Shadow>);

#[derive(Default)]
struct Shadow {
    files: BTreeMap<PathBuf, File>,
    /// New files whose entries no sync of their directory has made durable.
    without_entry: BTreeSet<PathBuf>,
    /// Which sync fails next, by the end of what it is of: the process ends with it.
    failing: Option<&'static str>,
    ended: bool,
    /// The files at that moment: what the code does to them after an error, a process that has ended does not.
    left: BTreeMap<PathBuf, Vec<u8>>,
    written: Vec<PathBuf>,
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    dirty: Vec<(u64, Vec<u8>)>,
}

impl File {
    fn write_back(&mut self) {
        for (offset, bytes) in self.dirty.drain(..) {
            let (from, to) = (offset as usize, offset as usize + bytes.len());
            self.durable.resize(self.durable.len().max(to), 0);
            self.durable[from..to].copy_from_slice(&bytes);
        }
    }
}

impl Shadow {
    fn file(&mut self, path: &Path) -> &mut File {
        let on_disk = || File { durable: fs::read(path).unwrap_or_default(), dirty: Vec::new() };
        self.files.entry(path.to_owned()).or_insert_with(on_disk)
    }

    fn fails(&mut self, path: &Path) -> bool {
        let fails = self.failing.is_some_and(|end| path.ends_with(end));
        if fails {
            self.ended = true;
            self.left = self.files.keys().filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect();
        }
        fails
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        let fails = self.fails(path);
        let file = self.file(path);
        if fails {
            file.dirty.clear();
            return Err(io::Error::from_raw_os_error(5));
        }
        file.write_back();
        Ok(())
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        if self.fails(directory) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.without_entry.retain(|path| path.parent() != Some(directory));
        Ok(())
    }
}

impl Observer for Forgetful {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Permit> {
        let mut shadow = self.shadow();
        if shadow.ended {
            return Err(io::Error::other("the process has ended"));
        }
        match *operation {
            Operation::Create(path) => {
                shadow.files.insert(path.to_owned(), File::default());
                shadow.without_entry.insert(path.to_owned());
            }
            Operation::Write { path, offset, parts } => {
                shadow.written.push(path.to_owned());
                shadow.file(path).dirty.push((offset, parts.concat()));
            }
            Operation::Sync(path) => shadow.sync(path)?,
            Operation::SyncDirectory(directory) => shadow.sync_directory(directory)?,
            Operation::Truncate(path, length) => shadow.file(path).durable.truncate(length as usize),
            Operation::Rename(from, to) => {
                let file = shadow.files.remove(from).unwrap_or_default();
                shadow.without_entry.remove(from);
                shadow.files.insert(to.to_owned(), file);
            }
        }
        Ok(Permit::Whole)
    }
}

impl Forgetful {
    fn shadow(&self) -> MutexGuard<'_, Shadow> {
        self.0.lock().unwrap()
    }

    /// Another process.
    fn open(self: &Arc<Self>, dir: &Dir) -> Store {
        let mut shadow = self.shadow();
        (shadow.ended, shadow.failing) = (false, None);
        std::mem::take(&mut shadow.left).iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        drop(shadow);
        dir.open_on(Disk::observed(Arc::<Self>::clone(self)))
    }

    fn fail(&self, end: &'static str) {
        self.shadow().failing = Some(end);
    }

    fn cut_power(&self) {
        let mut shadow = self.shadow();
        let Shadow { files, without_entry, .. } = &mut *shadow;
        for (path, file) in files.iter_mut() {
            if without_entry.contains(path) {
                fs::remove_file(path).unwrap();
            } else {
                fs::write(path, &file.durable).unwrap();
            }
        }
        (shadow.files, shadow.without_entry) = Default::default();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    Stays,
    /// Somebody deletes it before the vault is opened again.
    Gone,
}

/// A process ends with the sync of `failing`, while it stores chunks in a vault that holds `before` packs; the next one finds the chunks
/// and has an event name them; the power goes.
fn store_end_open_acknowledge_cut(failing: &'static str, before: u64, index: Index) {
    let (dir, disk) = (Dir::new(), Arc::<Forgetful>::default());
    let first = disk.open(&dir);
    let durable = chunks(0..3 * before);
    if before > 0 {
        let list = put(&first, &durable);
        Author::new(1).append(&first, &[list]).unwrap();
    }
    disk.fail(failing);
    let doubtful = chunks(10..14);
    let mut writer = first.writer();
    writer.append_run(&verified(&doubtful)).unwrap();
    writer.checkpoint().unwrap_err();
    drop((writer, first));
    if index == Index::Gone {
        dir.remove_index();
    }
    let next = disk.open(&dir);
    assert!(next.missing(&list_of(&doubtful)).unwrap().is_empty(), "what can be read is not thrown away");
    let event = Author::new(1).append(&next, &[list_of(&doubtful)]).unwrap();
    drop(next);
    disk.cut_power();
    let (store, repairs) = dir.open_mending();
    assert!(!repairs.iter().any(|repair| repair.loss), "{failing} {before} {index:?}: {repairs:?}");
    assert_eq!(store.event(&event.dot()).unwrap(), Some(event));
    for frame in durable.iter().chain(&doubtful) {
        assert_eq!(store.read_frame(&id_of(frame)).unwrap().unwrap(), frame.verified().bytes(), "{failing} {before} {index:?}");
    }
}

#[test]
fn chunks_whose_sync_failed_are_written_once_more_before_they_count() {
    store_end_open_acknowledge_cut("00000001.pack", 1, Index::Stays);
    store_end_open_acknowledge_cut("00000001.pack", 0, Index::Stays);
}

#[test]
fn without_the_index_chunks_that_no_event_names_are_written_once_more_before_they_count() {
    store_end_open_acknowledge_cut("00000001.pack", 1, Index::Gone);
    store_end_open_acknowledge_cut("00000001.pack", 0, Index::Gone);
}

#[test]
fn the_entry_of_a_new_pack_is_made_durable_before_its_chunks_count() {
    store_end_open_acknowledge_cut("packs", 0, Index::Stays);
    store_end_open_acknowledge_cut("packs", 0, Index::Gone);
}

/// The same with an event: the next process finds it and appends another.
fn append_end_open_append_cut(failing: &'static str, before: u64, index: Index) {
    let (dir, disk, author) = (Dir::new(), Arc::<Forgetful>::default(), Author::new(1));
    let first = disk.open(&dir);
    for _ in 0..before {
        author.append(&first, &[]).unwrap();
    }
    disk.fail(failing);
    author.append(&first, &[]).unwrap_err();
    drop(first);
    if index == Index::Gone {
        dir.remove_index();
    }
    let next = disk.open(&dir);
    let event = author.append(&next, &[]).unwrap();
    let held = next.frontier();
    drop(next);
    disk.cut_power();
    // It would answer for what the log has lost.
    dir.remove_index();
    let (store, repairs) = dir.open_mending();
    assert!(!repairs.iter().any(|repair| repair.loss), "{failing} {before} {index:?}: {repairs:?}");
    assert_eq!(store.event(&event.dot()).unwrap(), Some(event));
    assert_eq!(store.frontier(), held);
}

#[test]
fn an_event_whose_sync_failed_is_written_once_more_before_another_follows_it() {
    for (before, index) in [(0, Index::Stays), (2, Index::Stays), (0, Index::Gone), (2, Index::Gone)] {
        append_end_open_append_cut("00000001.seg", before, index);
    }
}

#[test]
fn the_entry_of_a_new_log_segment_is_made_durable_before_an_event_in_it_counts() {
    append_end_open_append_cut("log", 0, Index::Stays);
    append_end_open_append_cut("log", 0, Index::Gone);
}

#[test]
fn what_an_index_covers_or_an_event_names_is_not_written_again() {
    let (dir, disk) = (Dir::new(), Arc::<Forgetful>::default());
    let store = disk.open(&dir);
    let list = put(&store, &chunks(0..9));
    Author::new(1).append(&store, &[list]).unwrap();
    drop(store);
    for index in [Index::Stays, Index::Gone] {
        if index == Index::Gone {
            dir.remove_index();
        }
        disk.shadow().written.clear();
        drop(disk.open(&dir));
        let wrote = disk.shadow().written.iter().any(|path| path.ends_with("00000001.pack"));
        assert!(!wrote, "{index:?}");
    }
}
