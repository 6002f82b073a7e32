//! Replicas that follow each other over real sockets: what is written on one is on all, without anybody asking again.

use mirror_engine::{
    event::{Frontier, Key},
    home::{Home, Role},
    replicate::{self, Observer, Options, Progress, ReplicateError, Server, Summary, Target, Unobserved},
    transport::{Choice, TransportKind},
    vault::{InitOptions, Unlock, Unwatched, Vault},
};
use std::{
    io::Cursor,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// Far longer than anything here takes: a test that fails, fails in time.
const PATIENCE: Duration = Duration::from_secs(60);
const KINDS: [TransportKind; 2] = [TransportKind::Quic, TransportKind::Tcp];

fn first(dir: &Path) -> Arc<Vault> {
    let home = Home::open(&dir.join("home-first")).unwrap();
    let options = InitOptions::for_this_device("follow", "first");
    let vault = Vault::init(&dir.join("first"), &home, options).unwrap().vault;
    put(&vault, "first", b"one");
    Arc::new(vault)
}

fn put(vault: &Vault, key: &str, value: &[u8]) {
    vault.put(&Key::new(key).unwrap(), &mut Cursor::new(value), &Unwatched).unwrap();
}

/// A server that lets one more device in, which may let others in, too.
async fn serve(vault: &Arc<Vault>) -> (String, JoinHandle<()>) {
    let server = Server::bind(vault.clone(), &[SocketAddr::from(([127, 0, 0, 1], 0))], "server", &Options::default()).await.unwrap();
    let addresses = server.local_addrs().0.iter().map(ToString::to_string).collect();
    let ticket = replicate::invite(vault, Role::Owner, addresses, Duration::from_secs(60)).unwrap().to_string();
    (ticket, tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop))))
}

async fn join(dir: &Path, name: &str, ticket: &str, options: &Options) -> (Arc<Vault>, Target) {
    let home = Home::open(&dir.join(format!("home-{name}"))).unwrap();
    let (vault, target) = replicate::pair(&ticket.parse().unwrap(), &dir.join(name), &home, name, options).await.unwrap();
    (Arc::new(vault), target)
}

/// One that follows until it is told to stop.
struct Follower {
    watcher: Arc<Watcher>,
    following: JoinHandle<Result<Summary, ReplicateError>>,
}

#[derive(Default)]
struct Watcher {
    stop: AtomicBool,
    live: watch::Sender<bool>,
}

impl Observer for Watcher {
    fn progress(&self, progress: Progress) {
        if progress == Progress::Live {
            self.live.send_replace(true);
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Follower {
    fn start(vault: &Arc<Vault>, target: Target, options: &Options) -> Self {
        let watcher = Arc::new(Watcher::default());
        let (vault, options, observer) = (vault.clone(), options.clone(), watcher.clone());
        let following = tokio::spawn(async move { replicate::follow(&vault, &target, &options, observer).await });
        Self { watcher, following }
    }

    async fn stop(self) -> Result<Summary, ReplicateError> {
        self.watcher.stop.store(true, Ordering::Relaxed);
        timeout(PATIENCE, self.following).await.expect("it stops in time").unwrap()
    }
}

/// Waits until `vault` holds all of `frontier`, without looking at files.
async fn holds(vault: &Vault, frontier: &Frontier) {
    let mut changes = vault.store().changes();
    let held = async {
        while !vault.store().frontier().covers(frontier) {
            changes.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, held).await.expect("it comes in time");
}

fn value(vault: &Vault, key: &str) -> Vec<u8> {
    let mut value = Vec::new();
    vault.get(&Key::new(key).unwrap(), &mut value).unwrap();
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_anywhere_in_a_chain_is_everywhere() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { choice: Choice::Only(kind), ..Options::default() };
        let a = first(dir.path());
        let (ticket, serving_a) = serve(&a).await;
        let (b, at_a) = join(dir.path(), "b", &ticket, &options).await;
        replicate::sync(&b, &at_a, &options, Arc::new(Unobserved)).await.unwrap();
        let (ticket, serving_b) = serve(&b).await;
        let (c, at_b) = join(dir.path(), "c", &ticket, &options).await;
        let followers = [Follower::start(&b, at_a, &options), Follower::start(&c, at_b, &options)];
        holds(&c, &a.store().frontier()).await;

        let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        put(&a, "from a", b"small");
        put(&a, "large", &large);
        holds(&c, &a.store().frontier()).await;
        put(&c, "from c", b"back");
        holds(&a, &c.store().frontier()).await;
        assert_eq!((value(&c, "from a"), value(&a, "from c")), (b"small".to_vec(), b"back".to_vec()));
        assert!(value(&c, "large") == large && value(&b, "large") == large);
        assert_eq!(a.store().root(), c.store().root());

        for follower in followers {
            follower.stop().await.unwrap();
        }
        serving_a.abort();
        serving_b.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_writes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { choice: Choice::Only(TransportKind::Tcp), ..Options::default() };
    let a = first(dir.path());
    let (ticket, serving) = serve(&a).await;
    let (b, at_a) = join(dir.path(), "b", &ticket, &options).await;
    let follower = Follower::start(&b, at_a, &options);
    timeout(PATIENCE, follower.watcher.live.subscribe().wait_for(|live| *live)).await.unwrap().unwrap();
    // Stores that share nothing but the files, as two processes do.
    for (name, there) in [("first", &b), ("b", &a)] {
        let home = Home::open(&dir.path().join(format!("home-{name}"))).unwrap();
        let (beside, _) = Vault::open(&dir.path().join(name), &home, Unlock::Device).unwrap();
        put(&beside, &format!("beside {name}"), b"written by another process");
        holds(there, &beside.store().frontier()).await;
    }
    follower.stop().await.unwrap();
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_told_when_the_other_side_goes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::default();
    let a = first(dir.path());
    let (ticket, serving) = serve(&a).await;
    let (b, at_a) = join(dir.path(), "b", &ticket, &options).await;
    let follower = Follower::start(&b, at_a, &options);
    timeout(PATIENCE, follower.watcher.live.subscribe().wait_for(|live| *live)).await.unwrap().unwrap();
    serving.abort();
    let ended = timeout(PATIENCE, follower.following).await.expect("it is noticed in time").unwrap();
    assert!(matches!(ended, Err(ReplicateError::PeerStopped(_) | ReplicateError::Transport(_))), "{ended:?}");
}
