//! A disk that crashes, tears, refuses and forgets.
//!
//! Files lie on a real file system, so that reading needs no model; this remembers beside it what of them was made durable. When the
//! power goes, the files are rewritten: what was synced is there, and of everything else as much as the dice let through, in pieces.
//!
//! After a failed sync what was written before stays in doubt for good: a later sync that succeeds says nothing about it (fsyncgate).

use super::{dice::Dice, net::Nic, tell};
use crate::io::durable::{Observer, Operation, Permit};
use std::{
    collections::BTreeMap,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// What the store writes through the disk; other files of a vault directory are left alone.
const PLACES: [&str; 4] = ["packs", "log", "log/forks", "quarantine"];
const HEADS: &str = "heads";
const LOCK: &str = "lock";

/// How a replica ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// The process is killed: the system still writes what it was given.
    Kill,
    /// The power goes.
    PowerCut,
}

/// What the next operations meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process ends in the operation after so many.
    CrashAfter(u64),
    /// The sync after so many fails.
    SyncFailsAfter(u64),
    /// The sync after so many fails, of a file or of a directory, and the process ends in the operation after `operations` more.
    SyncFailsAndEnds { after: u64, operations: u64 },
    /// Nothing fits any more.
    Full,
}

/// One replica's disk. Cheap to clone.
#[derive(Clone)]
pub(super) struct FaultyDisk(Arc<Mutex<Shadow>>);

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl Change {
    /// The bytes that it is about.
    fn range(&self) -> Range<u64> {
        match self {
            Self::Write(offset, bytes) => *offset..*offset + bytes.len() as u64,
            Self::Truncate(length) => *length..u64::MAX,
        }
    }

    fn touches(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.range(), other.range());
        ours.start < theirs.end && theirs.start < ours.end
    }
}

/// A change that no sync has made durable.
#[derive(Debug, Clone)]
struct Pending {
    change: Change,
    /// A sync has failed since: it is in doubt, whatever syncs follow.
    doubtful: bool,
}

#[derive(Debug, Clone, Default)]
struct File {
    synced: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
enum EntryChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
}

impl EntryChange {
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Create(path, _) | Self::Rename(_, path) => path.parent(),
        }
    }

    fn apply(self, entries: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, file) => {
                entries.insert(path, file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = entries.remove(&from) {
                    entries.insert(to, file);
                }
            }
        }
    }
}

struct Shadow {
    dir: PathBuf,
    /// Of a process that ends here nothing is heard any more.
    nic: Nic,
    dice: Dice,
    files: Vec<File>,
    entries: BTreeMap<PathBuf, usize>,
    synced_entries: BTreeMap<PathBuf, usize>,
    pending_entries: Vec<EntryChange>,
    fault: Option<Fault>,
    /// Since when nothing is written any more: the process has ended.
    dead: bool,
    /// It does as it is asked, and nothing is kept in mind for a power cut.
    dependable: bool,
}

impl FaultyDisk {
    /// Of the vault in `dir`, all of which is durable, in the host with `nic`.
    pub(super) fn new(dir: &Path, nic: Nic, dice: Dice) -> Self {
        let mut shadow = Shadow {
            dir: dir.to_owned(),
            nic,
            dice,
            files: Vec::new(),
            entries: BTreeMap::new(),
            synced_entries: BTreeMap::new(),
            pending_entries: Vec::new(),
            fault: None,
            dead: false,
            dependable: false,
        };
        shadow.load();
        Self(Arc::new(Mutex::new(shadow)))
    }

    fn shadow(&self) -> MutexGuard<'_, Shadow> {
        self.0.lock().unwrap()
    }

    /// From now on it never fails, and takes no memory. No power may be cut.
    pub(super) fn make_dependable(&self) {
        let mut shadow = self.shadow();
        shadow.dependable = true;
        (shadow.files, shadow.entries, shadow.synced_entries, shadow.pending_entries) = Default::default();
    }

    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.shadow().fault = fault;
    }

    /// Whether it does not do all that it is asked.
    pub(super) fn fails(&self) -> bool {
        let shadow = self.shadow();
        shadow.dead || shadow.fault.is_some()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.shadow().dead
    }

    /// From now on nothing is written.
    pub(super) fn die(&self) {
        self.shadow().end();
    }

    /// Makes the files what the crash left of them. The process must have ended.
    pub(super) fn restart(&self, crash: Crash) {
        let mut shadow = self.shadow();
        tell(|| format!("{crash:?} of {}", shadow.dir.display()));
        assert!(!shadow.dependable || crash == Crash::Kill);
        match crash {
            Crash::Kill if shadow.dependable => {}
            Crash::Kill => shadow.reconcile(),
            Crash::PowerCut => shadow.cut_power(),
        }
        (shadow.dead, shadow.fault) = (false, None);
    }
}

impl Observer for FaultyDisk {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Permit> {
        self.shadow().before(operation)
    }
}

fn described(operation: &Operation<'_>) -> String {
    match operation {
        Operation::Write { path, offset, parts } => {
            let bytes: usize = parts.iter().map(|part| part.len()).sum();
            format!("write {bytes} bytes at {offset} of {}", path.display())
        }
        other => format!("{other:?}"),
    }
}

/// What a process that has ended is told.
fn gone() -> io::Error {
    io::Error::other("the process has ended")
}

impl Shadow {
    fn before(&mut self, operation: &Operation<'_>) -> io::Result<Permit> {
        if self.dead {
            return Err(gone());
        }
        if self.dependable {
            return Ok(Permit::Whole);
        }
        tell(|| format!("{:?}: {}", self.fault, described(operation)));
        match (self.fault, operation) {
            (Some(Fault::CrashAfter(0)), _) => return self.crash(operation),
            (Some(Fault::CrashAfter(left)), _) => self.fault = Some(Fault::CrashAfter(left - 1)),
            (Some(Fault::Full), Operation::Create(_) | Operation::Write { .. }) => return Err(io::ErrorKind::StorageFull.into()),
            (Some(Fault::SyncFailsAfter(0)), Operation::Sync(_)) => {
                self.fault = None;
                return Err(self.fail_sync(operation));
            }
            (Some(Fault::SyncFailsAfter(left)), Operation::Sync(_)) => self.fault = Some(Fault::SyncFailsAfter(left - 1)),
            (Some(Fault::SyncFailsAndEnds { after, operations }), Operation::Sync(_) | Operation::SyncDirectory(_)) => {
                if after == 0 {
                    self.fault = Some(Fault::CrashAfter(operations));
                    return Err(self.fail_sync(operation));
                }
                self.fault = Some(Fault::SyncFailsAndEnds { after: after - 1, operations });
            }
            _ => {}
        }
        self.record(operation);
        Ok(Permit::Whole)
    }

    /// What was written to the file is in doubt from now on; entries of a directory wait for its next sync.
    fn fail_sync(&mut self, operation: &Operation<'_>) -> io::Error {
        if let Operation::Sync(path) = operation {
            self.file(path).pending.iter_mut().for_each(|pending| pending.doubtful = true);
        }
        io::Error::from_raw_os_error(5)
    }

    /// The process ends in `operation`: of a write some bytes may still go through, of everything else nothing.
    fn crash(&mut self, operation: &Operation<'_>) -> io::Result<Permit> {
        self.end();
        if let Operation::Write { path, offset, parts } = operation
            && let Some(first) = parts.first().filter(|first| !first.is_empty())
            && self.dice.hits(700_000)
        {
            let bytes = 1 + self.dice.index(first.len());
            self.record(&Operation::Write { path, offset: *offset, parts: &[&first[..bytes]] });
            return Ok(Permit::First(bytes));
        }
        Err(gone())
    }

    fn end(&mut self) {
        self.dead = true;
        self.nic.close_sockets();
    }

    fn file(&mut self, path: &Path) -> &mut File {
        let next = self.files.len();
        let at = *self.entries.entry(path.to_owned()).or_insert(next);
        if at == next {
            let synced = fs::read(path).unwrap_or_default();
            self.files.push(File { synced, pending: Vec::new() });
            self.synced_entries.insert(path.to_owned(), at);
        }
        &mut self.files[at]
    }

    fn record(&mut self, operation: &Operation<'_>) {
        match operation {
            Operation::Create(path) => {
                let change = EntryChange::Create(path.to_path_buf(), self.files.len());
                self.files.push(File::default());
                change.clone().apply(&mut self.entries);
                self.pending_entries.push(change);
            }
            Operation::Rename(from, to) => {
                let change = EntryChange::Rename(from.to_path_buf(), to.to_path_buf());
                change.clone().apply(&mut self.entries);
                self.pending_entries.push(change);
            }
            Operation::SyncDirectory(directory) => {
                for change in std::mem::take(&mut self.pending_entries) {
                    match change.directory() == Some(directory) {
                        true => change.apply(&mut self.synced_entries),
                        false => self.pending_entries.push(change),
                    }
                }
            }
            Operation::Write { path, offset, parts } => self.pend(path, Change::Write(*offset, parts.concat())),
            Operation::Truncate(path, length) => self.pend(path, Change::Truncate(*length)),
            Operation::Sync(path) => self.file(path).sync(),
        }
    }

    fn pend(&mut self, path: &Path, change: Change) {
        self.file(path).pending.push(Pending { change, doubtful: false });
    }

    /// Takes what lies in the directory for durable.
    fn load(&mut self) {
        self.files.clear();
        self.entries.clear();
        self.pending_entries.clear();
        for path in self.paths() {
            let synced = fs::read(&path).unwrap();
            self.entries.insert(path, self.files.len());
            self.files.push(File { synced, pending: Vec::new() });
        }
        self.synced_entries.clone_from(&self.entries);
    }

    fn paths(&self) -> Vec<PathBuf> {
        let files = PLACES.iter().filter_map(|place| fs::read_dir(self.dir.join(place)).ok()).flatten().filter_map(Result::ok);
        let files = files.map(|entry| entry.path()).filter(|path| path.is_file() && path.file_name().is_some_and(|name| name != LOCK));
        let heads = self.dir.join(HEADS);
        let temporary = fs::read_dir(&self.dir).unwrap().filter_map(Result::ok).map(|entry| entry.path());
        let temporary = temporary.filter(|path| path.extension().is_some_and(|extension| extension == "tmp"));
        let mut paths: Vec<PathBuf> = files.chain(temporary).chain(heads.exists().then_some(heads)).collect();
        paths.sort();
        paths
    }

    /// Files that were removed are gone; those that came to be otherwise are there.
    fn reconcile(&mut self) {
        let paths = self.paths();
        self.entries.retain(|path, _| paths.binary_search(path).is_ok());
        let removed: Vec<PathBuf> = self.synced_entries.keys().filter(|path| paths.binary_search(path).is_err()).cloned().collect();
        removed.iter().for_each(|path| {
            self.synced_entries.remove(path);
        });
        let gone = |change: &EntryChange| match change {
            EntryChange::Create(path, _) | EntryChange::Rename(_, path) => paths.binary_search(path).is_err(),
        };
        self.pending_entries.retain(|change| !gone(change));
        for path in paths {
            if !self.entries.contains_key(&path) {
                let synced = fs::read(&path).unwrap();
                self.entries.insert(path.clone(), self.files.len());
                self.synced_entries.insert(path, self.files.len());
                self.files.push(File { synced, pending: Vec::new() });
            }
        }
    }

    fn cut_power(&mut self) {
        let survivors = self.dice.index(self.pending_entries.len() + 1);
        let mut entries = self.synced_entries.clone();
        self.pending_entries.drain(..).take(survivors).for_each(|change| change.apply(&mut entries));
        let images: Vec<(PathBuf, Vec<u8>)> =
            entries.into_iter().map(|(path, file)| (path, self.files[file].clone().after_power_cut(&mut self.dice))).collect();
        for path in self.paths() {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in images {
            fs::write(path, bytes).unwrap();
        }
        self.load();
    }
}

impl File {
    fn sync(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for Pending { change, doubtful } in pending {
            if doubtful {
                self.pending.push(Pending { change, doubtful });
            } else {
                // What it replaces is in doubt no more.
                self.pending.retain(|before| !change.touches(&before.change));
                apply(&mut self.synced, &change);
            }
        }
    }

    /// Of what was not synced, any part may have been written, and any part of a part.
    fn after_power_cut(self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.synced;
        let luck = [0, 300_000, 700_000, 1_000_000][dice.index(4)];
        for Pending { mut change, .. } in self.pending {
            if !dice.hits(luck) {
                continue;
            }
            if let Change::Write(_, written) = &mut change
                && dice.hits(300_000)
            {
                written.truncate(dice.index(written.len() + 1));
            }
            apply(&mut bytes, &change);
        }
        bytes
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, new) => {
            let (from, to) = (*offset as usize, *offset as usize + new.len());
            bytes.resize(bytes.len().max(to), 0);
            bytes[from..to].copy_from_slice(new);
        }
        Change::Truncate(length) => bytes.truncate(*length as usize),
    }
}
