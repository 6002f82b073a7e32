use super::*;
use crate::io::durable::{Observer, Operation, Permit};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

type Rule = dyn Fn(&Operation<'_>) -> Option<io::Error> + Send + Sync;

/// Fails what a rule picks, and remembers what was changed.
struct Faulty {
    rule: Box<Rule>,
    written: Mutex<Vec<PathBuf>>,
}

impl Observer for Faulty {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Permit> {
        if let Operation::Write { path, .. } = operation {
            self.written.lock().unwrap().push(path.to_path_buf());
        }
        match (self.rule)(operation) {
            Some(error) => Err(error),
            None => Ok(Permit::First(1_000_000)),
        }
    }
}

fn faulty(rule: impl Fn(&Operation<'_>) -> Option<io::Error> + Send + Sync + 'static) -> (Arc<Faulty>, Disk) {
    let observer = Arc::new(Faulty { rule: Box::new(rule), written: Mutex::default() });
    (Arc::clone(&observer), Disk::observed(observer))
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// True once `count` comes to zero, for as long as it is there.
fn strike(count: &AtomicI64) -> bool {
    count.fetch_sub(1, Ordering::SeqCst) == 0
}

#[test]
fn after_a_failed_sync_the_pack_is_given_up_and_a_retry_goes_to_a_new_one() {
    let dir = Dir::new();
    let frames = chunks(0..6);
    put(&dir.open(), &frames[..3]);
    let count = AtomicI64::new(0);
    let (observer, disk) = faulty(move |operation| {
        (matches!(operation, Operation::Sync(path) if path.ends_with("00000001.pack")) && strike(&count)).then(eio)
    });
    let store = dir.open_on(disk);
    let mut writer = store.writer();
    writer.append_run(&verified(&frames[3..])).unwrap();
    assert!(matches!(writer.checkpoint(), Err(StoreError::Io { .. })));
    assert_eq!(store.missing(&list_of(&frames)).unwrap().iter().collect::<Vec<_>>(), [3, 4, 5], "nothing of it counts");
    observer.written.lock().unwrap().clear();
    writer.append_run(&verified(&frames[3..])).unwrap();
    writer.checkpoint().unwrap();
    assert!(observer.written.lock().unwrap().iter().all(|path| path.ends_with("00000002.pack")), "never written again");
    assert!(store.missing(&list_of(&frames)).unwrap().is_empty());
    drop((writer, store));
    assert_eq!(dir.open().counts().unwrap().chunks, 6);
}

#[test]
fn a_new_pack_whose_directory_entry_is_not_durable_does_not_count() {
    let dir = Dir::new();
    let count = AtomicI64::new(0);
    let (_, disk) = faulty(move |operation| (matches!(operation, Operation::SyncDirectory(_)) && strike(&count)).then(eio));
    let store = dir.open_on(disk);
    let mut writer = store.writer();
    writer.append_run(&verified(&chunks(0..3))).unwrap();
    writer.checkpoint().unwrap_err();
    assert_eq!(store.counts().unwrap().chunks, 0);
    writer.append_run(&verified(&chunks(0..3))).unwrap();
    writer.checkpoint().unwrap();
    assert_eq!(store.locate(&[id_of(&chunks(0..1)[0])]).unwrap()[0].unwrap().pack, 2);
}

/// Fails syncs of the vault's own directory, in which `heads` is replaced, from the first to the given one.
fn append_with_failing_directory(failures: i64) {
    let dir = Dir::new();
    Author::new(1).append(&dir.open(), &[]).unwrap();
    let count = AtomicI64::new(failures);
    let (_, disk) = faulty(move |operation| match operation {
        Operation::SyncDirectory(path) if !path.ends_with("log") => (count.fetch_sub(1, Ordering::SeqCst) > 0).then(eio),
        _ => None,
    });
    let store = dir.open_on(disk);
    Author::new(1).append(&store, &[]).unwrap_err();
    let (again, repairs) = dir.open_mending();
    assert!(!repairs.iter().any(|repair| repair.loss), "{repairs:?}");
    Author::new(1).append(&store, &[]).unwrap();
    again.refresh().unwrap();
    assert_eq!(again.root(), store.root());
}

#[test]
fn heads_that_were_replaced_and_not_synced_are_no_loss() {
    append_with_failing_directory(1);
    append_with_failing_directory(2);
}

#[test]
fn a_failed_append_acknowledges_nothing_and_the_next_one_does_not_fork() {
    for (failing, at) in [("log", 0), ("log", 1), ("log", 2), ("heads", 0), ("heads", 1), ("heads", 2)] {
        let dir = Dir::new();
        let first = Author::new(1).append(&dir.open(), &[]).unwrap();
        let count = AtomicI64::new(at);
        let (_, disk) = faulty(move |operation| {
            let hit = match operation {
                Operation::Write { path, .. } | Operation::Sync(path) | Operation::Truncate(path, _) => {
                    path.to_str().unwrap().contains(failing)
                }
                Operation::Rename(..) => failing == "heads",
                _ => false,
            };
            (hit && strike(&count)).then(eio)
        });
        let store = dir.open_on(disk);
        let failed =
            store.append_own(&Author::new(1).id(), &mut |slot| Ok::<_, StoreError>((Author::new(1).sign(&slot, &[], b"failed"), vec![])));
        if failed.is_ok() {
            continue;
        }
        assert_eq!(store.frontier().sequence_of(&first.author()), 1);
        let second = Author::new(1).append(&store, &[]).unwrap();
        assert_eq!(second.header().sequence, 2);
        let third = Author::new(1).append(&dir.open(), &[]).unwrap();
        store.refresh().unwrap();
        assert_eq!(store.root(), dir.open().root(), "{failing} {at}");
        dir.remove_index();
        let (again, repairs) = dir.open_mending();
        assert!(!repairs.iter().any(|repair| repair.loss), "{repairs:?}");
        assert_eq!(again.event(&second.dot()).unwrap().unwrap().id(), second.id());
        assert_eq!(again.event(&third.dot()).unwrap().unwrap().id(), third.id());
    }
}

#[test]
fn an_event_that_failed_and_could_not_be_cut_never_comes_back() {
    let dir = Dir::new();
    let author = Author::new(1);
    author.append(&dir.open(), &[]).unwrap();
    let count = AtomicI64::new(0);
    let (_, disk) = faulty(move |operation| match operation {
        Operation::Sync(path) if path.ends_with("00000001.seg") && strike(&count) => Some(eio()),
        Operation::Truncate(..) => Some(eio()),
        _ => None,
    });
    let store = dir.open_on(disk);
    let mut ghost = None;
    let failed = store.append_own(&author.id(), &mut |slot| {
        let event = author.sign(&slot, &[], b"ghost");
        ghost = Some(event.id());
        Ok::<_, StoreError>((event, vec![]))
    });
    failed.unwrap_err();
    let real = author.append(&store, &[]).unwrap();
    assert_ne!(Some(real.id()), ghost);
    author.append(&store, &[]).unwrap();
    for with_index in [true, false] {
        if !with_index {
            dir.remove_index();
        }
        let again = dir.open_mending().0;
        assert_eq!(again.event(&real.dot()).unwrap().unwrap().id(), real.id());
        assert_eq!(again.root(), store.root());
    }
}

/// Two rounds of chunks and an event; gives up at the first error, and says what was acknowledged.
fn work(store: &Store, frames: &[FrameBuf]) -> (u64, Option<StoreError>) {
    let mut acknowledged = 0;
    for run in frames.chunks(4) {
        let mut writer = store.writer();
        let done = writer.append_run(&verified(run)).and_then(|_| writer.checkpoint());
        let done = done.and_then(|()| Author::new(1).append(store, &[list_of(run)]));
        if let Err(error) = done {
            return (acknowledged, Some(error));
        }
        acknowledged += 1;
    }
    (acknowledged, None)
}

#[test]
fn no_space_at_any_write_loses_nothing_and_a_retry_completes() {
    let frames: Vec<_> = (0..8).map(|seed| chunk(seed, 300_000)).collect();
    for at in 0.. {
        let dir = Dir::new();
        let count = AtomicI64::new(at);
        let (_, disk) = faulty(move |operation| {
            let grows = matches!(operation, Operation::Create(_) | Operation::Write { .. });
            (grows && strike(&count)).then(|| io::ErrorKind::StorageFull.into())
        });
        let store = dir.open_on(disk);
        let (acknowledged, error) = work(&store, &frames);
        assert_eq!(store.frontier().sequence_of(&Author::new(1).id()), acknowledged);
        drop(store);
        let Some(error) = error else { break };
        assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
        let (store, repairs) = dir.open_mending();
        assert!(!repairs.iter().any(|repair| repair.loss), "{repairs:?}");
        assert_eq!(store.frontier().sequence_of(&Author::new(1).id()), acknowledged, "write {at}");
        put(&store, &frames);
        assert!(store.missing(&list_of(&frames)).unwrap().is_empty());
    }
}
