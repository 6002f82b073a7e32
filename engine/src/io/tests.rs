//! The same behaviour on each backend.

use super::{
    append::{AppendError, Appender, BLOCK_BYTES},
    backend::{self, Choice},
    durable::{Disk, Observer, Operation, Permit},
};
use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// `MIRROR_IO`, which the scripts set to run the suites on a certain backend.
pub(super) fn asked() -> Choice {
    match std::env::var("MIRROR_IO").as_deref() {
        Ok("uring") => Choice::Uring,
        Ok("portable") => Choice::Portable,
        Ok(other) if other != "auto" => panic!("MIRROR_IO={other}"),
        _ => Choice::Auto,
    }
}

/// Those that this machine has.
fn choices() -> Vec<Choice> {
    let mut choices = vec![Choice::Portable];
    choices.extend(super::uring::usable().is_ok().then_some(Choice::Uring));
    choices
}

/// What becomes of the operation with this number.
type Verdict = dyn Fn(usize, &Seen) -> io::Result<Permit> + Send + Sync;

/// What the disk was asked, and what it is to refuse.
struct Watch {
    seen: Mutex<Vec<Seen>>,
    rule: Box<Verdict>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Write(u64, Vec<u8>),
    Sync,
    Truncate(u64),
    Other,
}

impl Observer for Watch {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Permit> {
        let seen = match *operation {
            Operation::Write { offset, parts, .. } => Seen::Write(offset, parts.concat()),
            Operation::Sync(_) => Seen::Sync,
            Operation::Truncate(_, length) => Seen::Truncate(length),
            _ => Seen::Other,
        };
        let mut all = self.seen.lock().unwrap();
        let answer = (self.rule)(all.len(), &seen);
        all.push(seen);
        answer
    }
}

fn watched(rule: impl Fn(usize, &Seen) -> io::Result<Permit> + Send + Sync + 'static) -> Arc<Watch> {
    Arc::new(Watch { seen: Mutex::default(), rule: Box::new(rule) })
}

/// A file in a directory that goes away, and what appends to it.
struct Fixture {
    dir: tempfile::TempDir,
    watch: Arc<Watch>,
}

impl Fixture {
    fn new(watch: Arc<Watch>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), watch }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("file")
    }

    fn appender(&self, choice: Choice) -> Appender {
        let (path, disk) = (self.path(), Disk::observed(Arc::<Watch>::clone(&self.watch)).through(choice));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let end = file.metadata().unwrap().len();
        Appender::new(disk, file, path, end)
    }
}

fn bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn yes(_: usize, _: &Seen) -> io::Result<Permit> {
    Ok(Permit::Whole)
}

#[test]
fn what_is_appended_is_in_the_file_whatever_its_lengths() {
    // Around a page and around a block, which is where pieces are cut.
    let lengths = [1, 64, 4_031, 1, 4_096, 8_191, BLOCK_BYTES - 1, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 777, 5];
    let data = bytes(lengths.iter().sum());
    for choice in choices() {
        for settle_every in [1, 2, 5, usize::MAX] {
            let fixture = Fixture::new(watched(yes));
            let mut appender = fixture.appender(choice);
            let mut at = 0;
            for (step, length) in lengths.into_iter().enumerate() {
                let (left, right) = data[at..at + length].split_at(length / 3);
                appender.append(&[left, &[], right]).unwrap();
                at += length;
                assert_eq!(appender.end(), at as u64);
                if step % settle_every == settle_every - 1 {
                    appender.settle().unwrap();
                    assert_eq!(appender.written_to(), at as u64);
                    assert!(read(&fixture.path()) == data[..at], "{choice:?}, settled at {at}");
                }
            }
            appender.sync().unwrap();
            assert!(read(&fixture.path()) == data, "{choice:?}");
        }
    }
}

#[test]
fn another_appender_goes_on_where_the_first_ended() {
    let data = bytes(10 * BLOCK_BYTES + 99);
    for choice in choices() {
        for first in [1, 4_095, 4_096, BLOCK_BYTES + 5, 2 * BLOCK_BYTES] {
            let fixture = Fixture::new(watched(yes));
            let mut appender = fixture.appender(choice);
            appender.append(&[&data[..first]]).unwrap();
            appender.sync().unwrap();
            drop(appender);
            let mut appender = fixture.appender(choice);
            appender.append(&[&data[first..]]).unwrap();
            appender.sync().unwrap();
            assert!(read(&fixture.path()) == data, "{choice:?} {first}");
        }
    }
}

#[test]
fn every_byte_is_written_once_in_order_and_the_sync_comes_after() {
    let data = bytes(5 * BLOCK_BYTES + 4_097);
    for choice in choices() {
        let fixture = Fixture::new(watched(yes));
        let mut appender = fixture.appender(choice);
        data.chunks(3_000).for_each(|part| appender.append(&[part]).unwrap());
        appender.sync().unwrap();
        let mut seen = fixture.watch.seen.lock().unwrap().clone();
        assert_eq!(seen.pop(), Some(Seen::Sync));
        let mut written = Vec::new();
        for operation in seen {
            let Seen::Write(offset, bytes) = operation else { panic!("{choice:?}: {operation:?}") };
            assert_eq!(offset, written.len() as u64);
            written.extend_from_slice(&bytes);
        }
        assert!(written == data, "{choice:?}");
    }
}

#[test]
fn short_writes_are_completed() {
    let data = bytes(4 * BLOCK_BYTES + 1_234);
    for choice in choices() {
        for most in [1_000, 4_096, 5_000, BLOCK_BYTES - 1] {
            let fixture = Fixture::new(watched(move |_, _| Ok(Permit::First(most))));
            let mut appender = fixture.appender(choice);
            appender.append(&[&data]).unwrap();
            appender.sync().unwrap();
            assert!(read(&fixture.path()) == data, "{choice:?} {most}");
        }
    }
}

#[test]
fn after_a_failed_write_the_file_holds_what_was_written_before_and_takes_the_rest_anew() {
    let data = bytes(6 * BLOCK_BYTES + 100);
    for choice in choices() {
        for failing in 0..8 {
            let fail = move |at: usize, seen: &Seen| match seen {
                Seen::Write(..) if at == failing => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(Permit::Whole),
            };
            let fixture = Fixture::new(watched(fail));
            let mut appender = fixture.appender(choice);
            let parts: Vec<&[u8]> = data.chunks(BLOCK_BYTES / 3).collect();
            let failed = parts.iter().try_for_each(|part| appender.append(&[part])).map_err(AppendError::Write);
            let failed = failed.and_then(|()| appender.sync());
            let written = appender.written_to() as usize;
            match failed {
                Ok(()) => assert_eq!(written, data.len(), "{choice:?} {failing}: fewer writes than that"),
                Err(AppendError::Write(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
                Err(AppendError::Sync(error)) => panic!("{choice:?}: {error}"),
            }
            assert!(read(&fixture.path()) == data[..written], "{choice:?} {failing}");
            appender.append(&[&data[written..]]).unwrap();
            appender.sync().unwrap();
            assert!(read(&fixture.path()) == data, "{choice:?} {failing}");
        }
    }
}

#[test]
fn a_failed_sync_is_told_from_a_failed_write() {
    for choice in choices() {
        for length in [10, 3 * BLOCK_BYTES] {
            let rule = |_: usize, seen: &Seen| if *seen == Seen::Sync { Err(io::Error::from_raw_os_error(5)) } else { Ok(Permit::Whole) };
            let fixture = Fixture::new(watched(rule));
            let mut appender = fixture.appender(choice);
            appender.append(&[&bytes(length)]).unwrap();
            assert!(matches!(appender.sync(), Err(AppendError::Sync(_))), "{choice:?}");
            assert_eq!(appender.written_to(), length as u64);
        }
    }
}

#[test]
fn a_writer_dropped_in_the_middle_leaves_a_beginning() {
    let data = bytes(20 * BLOCK_BYTES);
    for choice in choices() {
        let fixture = Fixture::new(watched(yes));
        let mut appender = fixture.appender(choice);
        appender.append(&[&data]).unwrap();
        drop(appender);
        assert!(data.starts_with(&read(&fixture.path())), "{choice:?}");
    }
}

#[test]
fn a_map_made_while_it_grows_stays_true() {
    let data = bytes(12 * BLOCK_BYTES);
    for choice in choices() {
        let fixture = Fixture::new(watched(yes));
        let mut appender = fixture.appender(choice);
        let mut maps = Vec::new();
        for part in data.chunks(10_007) {
            appender.append(&[part]).unwrap();
            appender.settle().unwrap();
            let file = fs::File::open(fixture.path()).unwrap();
            maps.push(super::map::Map::open(&file, appender.written_to() as usize).unwrap());
            assert!(maps.iter().all(|map| data.starts_with(map.bytes())), "{choice:?}");
        }
    }
}

/// A system that has no ring to give, and how often it was asked for one.
#[derive(Default)]
struct Ringless(AtomicUsize);

impl Observer for Ringless {
    fn before(&self, _: &Operation<'_>) -> io::Result<Permit> {
        Ok(Permit::Whole)
    }

    fn before_ring(&self) -> io::Result<()> {
        self.0.fetch_add(1, Relaxed);
        Err(io::Error::from_raw_os_error(libc::EMFILE))
    }
}

#[test]
fn without_a_ring_auto_writes_by_portable_calls_and_asks_again_for_the_next_file() {
    let (dir, observer) = (tempfile::tempdir().unwrap(), Arc::new(Ringless::default()));
    let disk = Disk::observed(Arc::<Ringless>::clone(&observer)).through(Choice::Auto);
    let data = bytes(3 * BLOCK_BYTES + 99);
    for name in ["first", "second"] {
        let path = dir.path().join(name);
        let mut appender = Appender::new(disk.clone(), fs::File::create_new(&path).unwrap(), path.clone(), 0);
        data.chunks(5_000).for_each(|part| appender.append(&[part]).unwrap());
        appender.sync().unwrap();
        assert!(read(&path) == data, "{name}");
    }
    let wanted = if backend::decide(Choice::Auto, dir.path()) == backend::Backend::Uring { 2 } else { 0 };
    assert_eq!(observer.0.load(Relaxed), wanted);
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_ring_uring_fails_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let disk = Disk::observed(Arc::new(Ringless::default())).through(Choice::Uring);
    let mut appender = Appender::new(disk, fs::File::create_new(&path).unwrap(), path.clone(), 0);
    let error = appender.append(&[&bytes(2 * BLOCK_BYTES)]).unwrap_err();
    assert!(backend::Unavailable::behind(&error).is_some(), "{error:?}");
    assert!(error.to_string().contains("io_uring cannot be used here: Too many open files"), "{error}");
    assert_eq!((appender.written_to(), read(&path)), (0, Vec::new()));
}

#[test]
fn an_explicit_choice_is_what_writes() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(backend::decide(Choice::Portable, dir.path()), backend::Backend::Portable);
    assert_eq!(backend::decide(Choice::Uring, dir.path()), backend::Backend::Uring);
    assert_eq!(backend::decide(Choice::Auto, Path::new("/nowhere/at/all")), backend::Backend::Portable);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the probe leaves nothing");
}
