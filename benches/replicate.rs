//! End to end: from one vault to an empty replica of it, over loopback, verified and durable. `files` have one event together, `events`
//! are puts with an event each: a signature and a place in the log.

use crate::support::{KIB, MIB, random, runtime, sized};
use criterion::{BatchSize, Criterion, Throughput};
use mirror_engine::{
    event::Key,
    home::{Home, Role},
    replicate::{self, Options, Server, Target, Unobserved},
    session::Direction,
    transport::{Choice, TransportKind},
    vault::{AddOptions, InitOptions, Unwatched, Vault},
};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinHandle};

const TICKET_LIFE: Duration = Duration::from_secs(60);

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replicate");
    group.sample_size(10).warm_up_time(Duration::from_secs(1));
    let runtime = runtime();
    let files = |count: usize, bytes: usize| move |vault: &Vault, dir: &Path| add_files(vault, dir, count, bytes);
    let large = sized(MIB, 256 * MIB);
    let (small, events) = (sized(20, 10_000), sized(20, 5_000));
    let mut measure = |name: &str, fill: &dyn Fn(&Vault, &Path), throughput: Throughput| {
        let source = Source::new(&runtime, fill);
        group.throughput(throughput);
        for kind in [TransportKind::Quic, TransportKind::Tcp] {
            let replica = || Replica::of(&runtime, &source, kind);
            let pull = |replica: Replica| replica.pull(&runtime);
            group.bench_function(format!("{name} {kind}"), |bencher| bencher.iter_batched(replica, pull, BatchSize::PerIteration));
        }
    };
    measure("large", &files(1, large), Throughput::Bytes(large as u64));
    measure("small", &files(small, 4 * KIB), Throughput::Elements(small as u64));
    measure("events", &|vault, _| put_each(vault, events), Throughput::Elements(events as u64));
    group.finish();
}

/// A vault with files in it, that is served.
struct Source {
    vault: Arc<Vault>,
    address: SocketAddr,
    serving: JoinHandle<()>,
    _dir: TempDir,
}

impl Source {
    fn new(runtime: &Runtime, fill: &dyn Fn(&Vault, &Path)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let vault = Arc::new(new_vault(dir.path()));
        fill(&vault, dir.path());
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = runtime
            .block_on(Server::bind(Arc::clone(&vault), &[loopback], "source", &Options::default()))
            .expect("a free port on loopback");
        let address = server.local_addrs().0[0];
        let serving = runtime.spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(|_| {})));
        Self { vault, address, serving, _dir: dir }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn new_vault(dir: &Path) -> Vault {
    let home = Home::open(&dir.join("home")).expect("a new home");
    let options = InitOptions::for_this_device("bench", "first");
    Vault::init(&dir.join("vault"), &home, options).expect("a new vault").vault
}

fn add_files(vault: &Vault, dir: &Path, files: usize, bytes: usize) {
    let tree = dir.join("tree");
    fs::create_dir(&tree).expect("an empty directory");
    for n in 0..files {
        fs::write(tree.join(format!("file-{n:06}")), random(n as u64, bytes)).expect("the disk takes files");
    }
    vault.add(&AddOptions { paths: vec![tree], ..AddOptions::default() }, &Unwatched).expect("the vault takes files");
}

fn put_each(vault: &Vault, events: usize) {
    for n in 0..events {
        let key = Key::new(format!("key-{n:06}")).expect("a short key");
        vault.put(&key, &mut random(n as u64, 100).as_slice(), &Unwatched).expect("the vault takes values");
    }
}

/// A replica that has paired and holds nothing yet.
struct Replica {
    vault: Vault,
    origin: Target,
    options: Options,
    _dir: TempDir,
}

impl Replica {
    fn of(runtime: &Runtime, source: &Source, kind: TransportKind) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = Home::open(&dir.path().join("home")).expect("a new home");
        let ticket = replicate::invite(&source.vault, Role::Keyless, vec![source.address.to_string()], TICKET_LIFE).expect("a ticket");
        let options = Options { direction: Direction::Pull, choice: Choice::Only(kind), ..Options::default() };
        let paired = runtime.block_on(replicate::pair(&ticket, &dir.path().join("vault"), &home, "replica", &options));
        let (vault, origin) = paired.expect("a good ticket");
        Self { vault, origin, options, _dir: dir }
    }

    /// Returned, so that it is taken down outside the measurement.
    fn pull(self, runtime: &Runtime) -> Self {
        let summary = runtime.block_on(replicate::sync(&self.vault, &self.origin, &self.options, Arc::new(Unobserved)));
        assert!(summary.expect("nothing in the way").is_identical());
        self
    }
}
