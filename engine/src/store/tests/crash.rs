//! Every point at which the power can go: the operations of a run are recorded, and every prefix of them is turned into the files that
//! could be left, opened, and held against what had been acknowledged by then.

use super::*;
use crate::{
    io::durable::{Observer, Operation, Permit},
    store::Depth,
};
use std::{
    collections::BTreeMap,
    fs, io,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A change, with what is needed to make it again.
#[derive(Debug, Clone)]
enum Change {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Sync(PathBuf),
    SyncDirectory(PathBuf),
    Truncate(PathBuf, u64),
    Rename(PathBuf, PathBuf),
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Change>>);

impl Observer for Recorder {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Permit> {
        let change = match *operation {
            Operation::Create(path) => Change::Create(path.into()),
            Operation::Write { path, offset, parts } => Change::Write(path.into(), offset, parts.concat()),
            Operation::Sync(path) => Change::Sync(path.into()),
            Operation::SyncDirectory(path) => Change::SyncDirectory(path.into()),
            Operation::Truncate(path, length) => Change::Truncate(path.into(), length),
            Operation::Rename(from, to) => Change::Rename(from.into(), to.into()),
        };
        self.0.lock().unwrap().push(change);
        Ok(Permit::Whole)
    }
}

/// A file as the system shows it, and as the disk has it for certain.
#[derive(Debug, Clone, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the last sync.
    unsynced: Vec<(u64, Vec<u8>)>,
}

/// A disk that forgets what was not synced.
#[derive(Debug, Clone, Default)]
struct Model {
    inodes: Vec<Inode>,
    entries: BTreeMap<PathBuf, usize>,
    durable_entries: BTreeMap<PathBuf, usize>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(path) => {
                self.entries.insert(path.clone(), self.inodes.len());
                self.inodes.push(Inode::default());
            }
            Change::Write(path, offset, bytes) => self.inode(path).write(*offset, bytes),
            Change::Sync(path) => self.inode(path).sync(),
            Change::SyncDirectory(directory) => {
                self.durable_entries.retain(|path, _| path.parent() != Some(directory));
                let synced = self.entries.iter().filter(|(path, _)| path.parent() == Some(directory));
                self.durable_entries.extend(synced.map(|(path, inode)| (path.clone(), *inode)));
            }
            Change::Truncate(path, length) => self.inode(path).now.truncate(*length as usize),
            Change::Rename(from, to) => {
                let inode = self.entries.remove(from).unwrap();
                self.entries.insert(to.clone(), inode);
            }
        }
    }

    fn inode(&mut self, path: &Path) -> &mut Inode {
        let at = self.entries[path];
        &mut self.inodes[at]
    }

    /// The files that a crash leaves: all that the system showed; or only what is certain, and of the rest what `keeps` lets through.
    fn image(&self, survives: Survives) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = if survives == Survives::Everything { &self.entries } else { &self.durable_entries };
        entries.iter().map(|(path, inode)| (path.clone(), self.inodes[*inode].after(survives))).collect()
    }
}

impl Inode {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        overlay(&mut self.now, offset, bytes);
        self.unsynced.push((offset, bytes.to_vec()));
    }

    fn sync(&mut self) {
        self.synced = self.now.clone();
        self.unsynced.clear();
    }

    fn after(&self, survives: Survives) -> Vec<u8> {
        match survives {
            Survives::Everything => self.now.clone(),
            Survives::Synced => self.synced.clone(),
            Survives::LastWriteOnly => {
                let mut bytes = self.synced.clone();
                if let Some((offset, last)) = self.unsynced.last() {
                    overlay(&mut bytes, *offset, last);
                }
                bytes
            }
        }
    }
}

fn overlay(bytes: &mut Vec<u8>, offset: u64, new: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + new.len());
    bytes.resize(bytes.len().max(to), 0);
    bytes[from..to].copy_from_slice(new);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Survives {
    /// The process was killed.
    Everything,
    /// The power went, and nothing that was not synced had been written.
    Synced,
    /// The power went, and of what was not synced only the last had been written: zeros before it.
    LastWriteOnly,
}

/// A run: what it changed, and after how many changes each event was acknowledged.
struct Run {
    start: Model,
    changes: Vec<Change>,
    acknowledged: Vec<(usize, Event, Vec<FrameBuf>)>,
}

/// In the last round two chunks of several blocks each, which are written behind the caller where the backend does that.
fn longer(round: u64, at: u64) -> usize {
    if round == 2 && at.is_multiple_of(2) { 40_000 } else { 0 }
}

fn recorded_run() -> Run {
    let dir = Dir::new();
    let mut start = Model::default();
    let heads = dir.path().join("heads");
    let bytes = fs::read(&heads).unwrap();
    start.apply(&Change::Create(heads.clone()));
    start.apply(&Change::Write(heads.clone(), 0, bytes));
    start.apply(&Change::Sync(heads));
    start.apply(&Change::SyncDirectory(dir.path().to_owned()));
    let recorder = Arc::new(Recorder::default());
    let store = dir.open_on(Disk::observed(Arc::<Recorder>::clone(&recorder)));
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let frames: Vec<_> = (0..4).map(|at| chunk(round * 4 + at, 200 + 90 * at as usize + longer(round, at))).collect();
        let mut writer = store.writer();
        for half in frames.chunks(2) {
            writer.append_run(&verified(half)).unwrap();
            writer.flush().unwrap();
        }
        writer.checkpoint().unwrap();
        let event = Author::new(1 + (round % 2) as u8).append(&store, &[list_of(&frames)]).unwrap();
        acknowledged.push((recorder.0.lock().unwrap().len(), event, frames));
    }
    let relative = |path: &Path| path.strip_prefix(dir.path()).unwrap().to_owned();
    let changes = recorder.0.lock().unwrap().iter().map(|change| rebase(change, &relative)).collect();
    let rebased = |entries: &BTreeMap<PathBuf, usize>| entries.iter().map(|(path, at)| (relative(path), *at)).collect();
    let start = Model { entries: rebased(&start.entries), durable_entries: rebased(&start.durable_entries), inodes: start.inodes };
    Run { start, changes, acknowledged }
}

fn rebase(change: &Change, relative: &dyn Fn(&Path) -> PathBuf) -> Change {
    match change {
        Change::Create(path) => Change::Create(relative(path)),
        Change::Write(path, offset, bytes) => Change::Write(relative(path), *offset, bytes.clone()),
        Change::Sync(path) => Change::Sync(relative(path)),
        Change::SyncDirectory(path) => Change::SyncDirectory(relative(path)),
        Change::Truncate(path, length) => Change::Truncate(relative(path), *length),
        Change::Rename(from, to) => Change::Rename(relative(from), relative(to)),
    }
}

/// A directory with these files.
fn laid_out(image: &BTreeMap<PathBuf, Vec<u8>>) -> Dir {
    let dir = Dir::new();
    for (path, bytes) in image {
        fs::write(dir.path().join(path), bytes).unwrap();
    }
    dir
}

/// Opens `image` and checks that what `run` acknowledged within `count` changes is there, whole.
fn check_image(run: &Run, count: usize, image: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    check(run, count, &laid_out(image), what);
}

/// The same of what lies in `dir`.
fn check(run: &Run, count: usize, dir: &Dir, what: &str) {
    let (store, repairs) = dir.open_mending();
    assert!(!repairs.iter().any(|repair| repair.loss && !repair.what.contains("are damaged")), "{what}: {repairs:?}");
    for (_, event, frames) in run.acknowledged.iter().filter(|(at, ..)| *at <= count) {
        assert_eq!(store.event(&event.dot()).unwrap().as_ref(), Some(event), "{what}");
        for frame in frames {
            assert_eq!(store.read_frame(&id_of(frame)).unwrap().unwrap(), frame.verified().bytes(), "{what}");
        }
    }
    let report = store.verify(Depth::Data, &|_, _| ControlFlow::Continue(())).unwrap();
    assert!(report.damaged.is_empty() && report.missing.is_empty(), "{what}: {report:?}");
    let root = store.root();
    drop(store);
    assert_eq!(dir.open().root(), root, "{what}: opening again changes nothing");
    let store = dir.open();
    put(&store, &chunks(900..903));
    Author::new(7).append(&store, &[list_of(&chunks(900..903))]).unwrap();
}

#[test]
fn after_a_crash_at_any_point_everything_acknowledged_is_there() {
    let run = recorded_run();
    let mut model = run.start.clone();
    for count in 0..=run.changes.len() {
        if count > 0 {
            model.apply(&run.changes[count - 1]);
        }
        for survives in [Survives::Everything, Survives::Synced, Survives::LastWriteOnly] {
            check_image(&run, count, &model.image(survives), &format!("{survives:?} of {count} changes"));
        }
    }
}

#[test]
fn a_write_torn_anywhere_costs_nothing_acknowledged() {
    let run = recorded_run();
    let mut model = run.start.clone();
    for (count, change) in run.changes.iter().enumerate() {
        if let Change::Write(path, offset, bytes) = change {
            for cut in [1, 47, 48, 49, bytes.len() / 2, bytes.len() - 1].into_iter().filter(|cut| *cut < bytes.len()) {
                let mut torn = model.clone();
                torn.apply(&Change::Write(path.clone(), *offset, bytes[..cut].to_vec()));
                check_image(&run, count, &torn.image(Survives::Everything), &format!("change {count} torn at {cut}"));
            }
        }
        model.apply(change);
    }
}

/// Lets so many changes happen and none after.
struct CutOff(AtomicUsize);

impl Observer for CutOff {
    fn before(&self, _: &Operation<'_>) -> io::Result<Permit> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| Permit::Whole).map_err(|_| io::Error::other("the process is gone"))
    }
}

/// Opens what is there and is cut off after `changes`. Whether it was.
fn cut_off(dir: &Dir, changes: usize) -> bool {
    let observer = Arc::new(CutOff(AtomicUsize::new(changes)));
    drop(Store::open_on(dir.path(), &VAULT, Disk::observed(Arc::<CutOff>::clone(&observer))));
    observer.0.load(Ordering::SeqCst) == 0
}

#[test]
fn a_recovery_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let run = recorded_run();
    let mut model = run.start.clone();
    let mut cuts = 0;
    for (count, change) in run.changes.iter().enumerate() {
        if let Change::Write(path, offset, bytes) = change {
            let mut torn = model.clone();
            torn.apply(&Change::Write(path.clone(), *offset, bytes[..bytes.len() / 2].to_vec()));
            let image = torn.image(Survives::Everything);
            for changes in 0.. {
                let dir = laid_out(&image);
                if !cut_off(&dir, changes) {
                    break;
                }
                cuts += 1;
                cut_off(&dir, changes / 2);
                check(&run, count, &dir, &format!("change {count} torn, recovery cut off after {changes} changes"));
            }
        }
        model.apply(change);
    }
    assert!(cuts > run.changes.len(), "recoveries change files: {cuts}");
}
