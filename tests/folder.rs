//! Followed folders on replicas that follow each other over real sockets: what is saved in one is in the other.

use mirror_engine::{
    folder::{Flow, Folder, FolderOptions, FolderState, Unseen},
    home::{Home, Role},
    replicate::{self, Observer, Options, Progress, Server, Target, Unobserved},
    vault::{InitOptions, Vault},
};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Far longer than anything here takes, and shorter than the pause between two looks at everything: what is found only then, fails.
const PATIENCE: Duration = Duration::from_secs(45);
/// Between two looks: who looks all the time takes the processor from what it waits for.
const LOOK: Duration = Duration::from_millis(2);

#[track_caller]
fn until(done: impl FnMut() -> bool) {
    until_within(PATIENCE, done);
}

#[track_caller]
fn until_within(patience: Duration, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < patience, "it did not come to that");
        thread::sleep(LOOK);
    }
}

/// A replica whose folder is followed.
struct Side {
    vault: Arc<Vault>,
    dir: PathBuf,
    running: Option<(Arc<Folder>, JoinHandle<()>)>,
}

impl Side {
    fn new(vault: Arc<Vault>, dir: PathBuf) -> Self {
        fs::create_dir(&dir).unwrap();
        let mut side = Self { vault, dir, running: None };
        side.start();
        side
    }

    fn start(&mut self) {
        let folder = Arc::new(Folder::open(self.vault.clone(), &self.dir, FolderOptions::new(Flow::Both)).unwrap());
        let runs = folder.clone();
        let thread = thread::spawn(move || runs.run(&Unseen).unwrap());
        self.running = Some((folder, thread));
        until(|| self.folder().status().state == FolderState::Followed);
    }

    fn stop(&mut self) {
        if let Some((folder, thread)) = self.running.take() {
            folder.stop();
            thread.join().unwrap();
        }
    }

    fn folder(&self) -> &Folder {
        &self.running.as_ref().unwrap().0
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// In one step: what is found empty in between would be a version of its own.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let (path, whole) = (self.path(name), self.dir.with_extension("whole"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&whole, bytes).unwrap();
        fs::rename(whole, path).unwrap();
    }

    fn has(&self, name: &str, bytes: &str) -> bool {
        fs::read(self.path(name)).is_ok_and(|read| read == bytes.as_bytes())
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut directories = vec![self.dir.clone()];
        while let Some(directory) = directories.pop() {
            // It may change while it is read.
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    directories.push(path);
                } else if let Ok(bytes) = fs::read(&path) {
                    files.insert(path.strip_prefix(&self.dir).unwrap().to_owned(), bytes);
                }
            }
        }
        files
    }

    fn events(&self) -> u64 {
        self.vault.store().counts().unwrap().events
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Some((folder, _)) = &self.running {
            folder.stop();
        }
    }
}

#[derive(Default)]
struct Stop(AtomicBool);

impl Observer for Stop {
    fn progress(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Two replicas in a live session.
struct Pair {
    a: Side,
    b: Side,
    target: Target,
    stop: Option<Arc<Stop>>,
    runtime: Runtime,
    _dir: TempDir,
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let home = |name: &str| Home::open(&dir.path().join(format!("home-{name}"))).unwrap();
        let options = InitOptions::for_this_device("v", "a");
        let a = Arc::new(Vault::init(&dir.path().join("a"), &home("a"), options).unwrap().vault);
        let (b, target) = runtime.block_on(join(&a, &dir.path().join("b"), &home("b")));
        let mut pair = Self {
            a: Side::new(a, dir.path().join("folder-a")),
            b: Side::new(b, dir.path().join("folder-b")),
            target,
            stop: None,
            runtime,
            _dir: dir,
        };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        let stop = Arc::new(Stop::default());
        let (vault, target, observer) = (self.b.vault.clone(), self.target.clone(), stop.clone());
        self.runtime.spawn(async move { replicate::follow(&vault, &target, &Options::default(), observer).await });
        self.stop = Some(stop);
        self.equal();
    }

    /// Nothing goes from one to the other any more.
    fn cut(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.0.store(true, Ordering::Relaxed);
            // The session has ended when nobody waits for changes but the folder.
            until(|| Arc::strong_count(&stop) == 1);
        }
    }

    #[track_caller]
    fn equal(&self) {
        until(|| self.a.vault.store().root() == self.b.vault.store().root() && self.a.files() == self.b.files());
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(stop) = &self.stop {
            stop.0.store(true, Ordering::Relaxed);
        }
    }
}

async fn join(a: &Arc<Vault>, dir: &Path, home: &Home) -> (Arc<Vault>, Target) {
    let server = Server::bind(a.clone(), &[SocketAddr::from(([127, 0, 0, 1], 0))], "a", &Options::default()).await.unwrap();
    let addresses = server.local_addrs().0.iter().map(ToString::to_string).collect();
    let ticket = replicate::invite(a, Role::Member, addresses, Duration::from_secs(60)).unwrap();
    tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop)));
    let (b, target) = replicate::pair(&ticket, dir, home, "b", &Options::default()).await.unwrap();
    replicate::sync(&b, &target, &Options::default(), Arc::new(Unobserved)).await.unwrap();
    (Arc::new(b), target)
}

#[test]
fn what_is_saved_renamed_or_deleted_in_one_folder_is_so_in_the_other() {
    let pair = Pair::new();
    pair.a.write("d/one", "one");
    until(|| pair.b.has("d/one", "one"));
    // As editors save: beside the file, then in its place.
    pair.b.write("d/.one.swp", "one, edited");
    fs::rename(pair.b.path("d/.one.swp"), pair.b.path("d/one")).unwrap();
    until(|| pair.a.has("d/one", "one, edited"));
    fs::rename(pair.a.path("d"), pair.a.path("e")).unwrap();
    until(|| pair.b.has("e/one", "one, edited") && !pair.b.path("d").exists());
    fs::remove_file(pair.b.path("e/one")).unwrap();
    until(|| !pair.a.path("e/one").exists());
    pair.equal();
}

#[test]
fn a_thousand_small_files_come_over_and_none_is_echoed() {
    let pair = Pair::new();
    (0..1_000).for_each(|n| pair.a.write(&format!("d{}/{n}", n % 10), format!("{n}")));
    // The directories last: what is in them is there by then.
    until_within(4 * PATIENCE, || pair.b.folder().status().written_out >= 1_010);
    pair.equal();
    let status = pair.b.folder().status();
    assert_eq!((pair.b.files().len(), status.written_out, status.taken_in), (1_000, 1_010, 0));
}

#[test]
fn edits_on_both_sides_while_they_are_apart_are_both_kept_on_both() {
    let mut pair = Pair::new();
    pair.a.write("notes.txt", "old");
    until(|| pair.b.has("notes.txt", "old"));
    pair.equal();
    pair.cut();
    let taken_in = [&pair.a, &pair.b].map(|side| side.folder().status().taken_in);
    pair.a.write("notes.txt", "by a");
    pair.b.write("notes.txt", "by b");
    until(|| [&pair.a, &pair.b].map(|side| side.folder().status().taken_in) == taken_in.map(|count| count + 1));
    pair.connect();
    until(|| pair.a.files().len() == 2);
    pair.equal();
    let mut versions: Vec<Vec<u8>> = pair.a.files().into_values().collect();
    versions.sort();
    assert_eq!(versions, [b"by a", b"by b"]);
}

#[test]
fn edits_at_the_same_moment_over_a_live_session_lose_neither() {
    let pair = Pair::new();
    for round in 0..5 {
        let name = format!("{round}.txt");
        let texts = ["by a", "by b"].map(|by| format!("{by} {round}"));
        pair.a.write(&name, &texts[0]);
        pair.b.write(&name, &texts[1]);
        until(|| {
            let mut held: Vec<Vec<u8>> =
                pair.a.files().into_values().filter(|bytes| bytes.ends_with(format!(" {round}").as_bytes())).collect();
            held.sort();
            held == texts.each_ref().map(|text| text.as_bytes().to_vec())
        });
        pair.equal();
    }
}

#[test]
fn a_folder_that_goes_away_is_left_alone_until_it_is_back() {
    let pair = Pair::new();
    (0..20).for_each(|n| pair.a.write(&format!("{n}"), "x"));
    until(|| pair.b.files().len() == 20);
    let away = pair.b.dir.with_extension("away");
    fs::rename(&pair.b.dir, &away).unwrap();
    until(|| matches!(pair.b.folder().status().state, FolderState::Paused(_)));
    pair.a.write("meanwhile", "y");
    until(|| pair.a.vault.store().root() == pair.b.vault.store().root());
    assert!(!pair.b.dir.exists());
    fs::rename(&away, &pair.b.dir).unwrap();
    until(|| pair.b.has("meanwhile", "y"));
    pair.b.write("after", "z");
    until(|| pair.a.has("after", "z"));
    assert_eq!(pair.a.files().len(), 22);
}

#[test]
fn what_happened_while_nobody_followed_is_seen_at_the_next_start_and_nothing_is_said_twice() {
    let mut pair = Pair::new();
    pair.a.write("kept", "old");
    pair.a.write("deleted", "old");
    until(|| pair.b.files().len() == 2);
    pair.equal();
    pair.b.stop();
    fs::remove_file(pair.b.path("deleted")).unwrap();
    pair.b.write("new", "new");
    pair.a.write("kept", "newer");
    until(|| pair.a.folder().status().taken_in == 3);
    pair.b.start();
    until(|| pair.a.has("new", "new") && pair.b.has("kept", "newer") && !pair.a.path("deleted").exists());
    pair.equal();
    let events = pair.b.events();
    pair.b.stop();
    pair.b.start();
    assert_eq!(pair.b.events(), events);
}

#[test]
fn a_file_that_is_being_written_comes_over_whole() {
    use std::io::Write;
    let pair = Pair::new();
    let mut file = fs::File::create(pair.a.path("log")).unwrap();
    let mut whole = String::new();
    for line in 0..200 {
        let line = format!("line {line}\n");
        file.write_all(line.as_bytes()).unwrap();
        whole.push_str(&line);
        // Whatever has come over is the file as it once was.
        if let Ok(seen) = fs::read(pair.b.path("log")) {
            assert!(whole.as_bytes().starts_with(&seen));
        }
    }
    drop(file);
    until(|| pair.b.has("log", &whole));
}

/// How long a save takes until the vault holds it durably, and until the other folder has it. Prints what it measured.
#[test]
fn a_save_is_durable_soon() {
    let pair = Pair::new();
    let mut durable_ms = Vec::new();
    let mut there_ms = Vec::new();
    for round in 0..20 {
        let (events, name) = (pair.a.events(), format!("{round}"));
        let begun = Instant::now();
        pair.a.write(&name, "x");
        until(|| pair.a.events() > events);
        durable_ms.push(begun.elapsed().as_millis());
        until(|| pair.b.has(&name, "x"));
        there_ms.push(begun.elapsed().as_millis());
    }
    durable_ms.sort_unstable();
    there_ms.sort_unstable();
    println!(
        "durable: median {} ms, worst {} ms; in the other folder: median {} ms, worst {} ms",
        durable_ms[10], durable_ms[19], there_ms[10], there_ms[19]
    );
    assert!(durable_ms[10] < 5_000, "{durable_ms:?}");
}
