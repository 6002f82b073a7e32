//! How a session begins and ends over a link that says nothing at the right moment: what is sent unasked, and what nobody waits for.
//!
//! Times of small objects are round trips. None is measured here: a relay lets nothing more pass from some step on, so whatever
//! happens after that happened without another round trip.

use mirror_engine::{
    event::Key,
    home::{Home, Role},
    replicate::{self, Observer, Options, Progress, Served, Server, Target, Unobserved},
    session::Direction,
    transport::{Choice, TransportKind},
    vault::{InitOptions, Unlock, Unwatched, Vault},
};
use std::{
    io::Cursor,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

/// Far longer than anything here takes: a test that fails, fails in time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who waits for the peer to hang up waits this long.
const LINGER: Duration = Duration::from_secs(1);
/// So often is something tried that other load may delay.
const ATTEMPTS: usize = 8;
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// What a link does with the next bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    Open,
    /// They wait.
    Held,
    /// The link breaks.
    Cut,
}

/// A TCP link to a listener.
struct Link {
    addr: SocketAddr,
    to_listener: watch::Sender<Passage>,
    to_dialer: watch::Sender<Passage>,
}

impl Link {
    async fn to(listener: SocketAddr) -> Arc<Self> {
        let between = TcpListener::bind(LOOPBACK).await.unwrap();
        let ways = || watch::Sender::new(Passage::Open);
        let link = Arc::new(Self { addr: between.local_addr().unwrap(), to_listener: ways(), to_dialer: ways() });
        let (there, back) = (link.to_listener.subscribe(), link.to_dialer.subscribe());
        tokio::spawn(async move {
            while let Ok((dialer, _)) = between.accept().await {
                let (dialer_in, dialer_out) = dialer.into_split();
                let (listener_in, listener_out) = TcpStream::connect(listener).await.unwrap().into_split();
                tokio::spawn(carry(dialer_in, listener_out, there.clone()));
                tokio::spawn(carry(listener_in, dialer_out, back.clone()));
            }
        });
        link
    }

    fn both(&self, passage: Passage) {
        self.to_dialer.send_replace(passage);
        self.to_listener.send_replace(passage);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut passage: watch::Receiver<Passage>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let now = passage.wait_for(|passage| *passage != Passage::Held).await.map(|passage| *passage);
        if now.ok() != Some(Passage::Open) || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

/// Calls something at a step of a session.
struct At<F>(F);

impl<F: Fn(&Progress) + Send + Sync> Observer for At<F> {
    fn progress(&self, progress: Progress) {
        (self.0)(&progress);
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// A replica that is served, and one that has talked with it over a link.
struct Two {
    dir: tempfile::TempDir,
    listener: Arc<Vault>,
    target: Target,
    link: Arc<Link>,
    options: Options,
    served: mpsc::UnboundedReceiver<Served>,
    serving: JoinHandle<()>,
}

impl Two {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("home-listener")).unwrap();
        let options = InitOptions::for_this_device("goodbye", "a");
        let listener = Arc::new(Vault::init(&dir.path().join("listener"), &home, options).unwrap().vault);
        put(&listener, "first");
        let server = Server::bind(listener.clone(), &[LOOPBACK], "listener", &Options::default()).await.unwrap();
        let link = Link::to(server.local_addrs().1[0]).await;
        let ticket = replicate::invite(&listener, Role::Member, vec![link.addr.to_string()], Duration::from_secs(60)).unwrap();
        let (report, served) = mpsc::unbounded_channel();
        let report = Arc::new(move |ended| drop(report.send(ended)));
        let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), report));
        let options = Options { choice: Choice::Only(TransportKind::Tcp), direction: Direction::Push, ..Options::default() };
        let home = Home::open(&dir.path().join("home-dialer")).unwrap();
        let (dialer, target) = replicate::pair(&ticket, &dir.path().join("dialer"), &home, "dialer", &options).await.unwrap();
        let both_ways = Options { direction: Direction::Both, ..options.clone() };
        replicate::sync(&dialer, &target, &both_ways, Arc::new(Unobserved)).await.unwrap();
        Self { dir, listener, target, link, options, served, serving }
    }

    /// The dialer's replica as a process finds it that has just begun.
    fn dialer(&self) -> Vault {
        opened(self.dir.path())
    }

    /// How the next session ended for the listener, pairing and the first one left out.
    async fn heard(&mut self) -> Served {
        loop {
            let ended = timeout(PATIENCE, self.served.recv()).await.expect("it ends in time").unwrap();
            if !matches!(&ended, Served::Paired { .. }) {
                return ended;
            }
        }
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn opened(dir: &Path) -> Vault {
    let home = Home::open(&dir.join("home-dialer")).unwrap();
    Vault::open(&dir.join("dialer"), &home, Unlock::Device).unwrap().0
}

fn put(vault: &Vault, key: &str) {
    vault.put(&Key::new(key).unwrap(), &mut Cursor::new(b"a small object"), &Unwatched).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_just_begun_sends_a_small_object_before_it_has_heard_anything() {
    let two = Two::new().await;
    let dialer = two.dialer();
    put(&dialer, "more");
    let link = two.link.clone();
    let deaf = Arc::new(At(move |progress: &Progress| {
        if matches!(progress, Progress::Connected { .. }) {
            link.to_dialer.send_replace(Passage::Held);
        }
    }));
    let pushing = replicate::sync(&dialer, &two.target, &two.options, deaf);
    let arrived = async {
        let (mut changes, wanted) = (two.listener.store().changes(), dialer.store().frontier());
        while !two.listener.store().frontier().covers(&wanted) {
            changes.changed().await.unwrap();
        }
        two.link.both(Passage::Open);
    };
    let (pushed, ()) = timeout(PATIENCE, async { tokio::join!(pushing, arrived) }).await.expect("it arrives in time");
    assert_eq!(pushed.unwrap().events_sent, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_over_when_the_peer_has_applied_it_whatever_becomes_of_the_goodbye() {
    for after in [Passage::Held, Passage::Cut] {
        let is_over = |(waited, heard): &(Duration, Served)| *waited < LINGER && matches!(heard, Served::Session { result: Ok(_), .. });
        let mut ends = Vec::new();
        // Other load lengthens some, and has what the dialer says last come late, so that it is cut off; waiting for a goodbye lengthens all.
        while ends.len() < ATTEMPTS && !ends.last().is_some_and(is_over) {
            ends.push(push_without_goodbye(after).await);
        }
        assert!(ends.last().is_some_and(is_over), "{after:?}: it waited for a goodbye, or the peer did: {ends:?}");
    }
}

/// How long a push goes on after the peer has applied it, when nothing passes from then on, and how it ends for the peer.
async fn push_without_goodbye(after: Passage) -> (Duration, Served) {
    let mut two = Two::new().await;
    assert!(matches!(two.heard().await, Served::Session { result: Ok(_), .. }));
    let dialer = two.dialer();
    put(&dialer, "more");
    let (link, applied) = (two.link.clone(), Arc::new(std::sync::OnceLock::new()));
    let began = applied.clone();
    let interrupted = Arc::new(At(move |progress: &Progress| {
        if matches!(progress, Progress::PeerApplied { .. }) {
            link.both(after);
            began.get_or_init(Instant::now);
        }
    }));
    let summary = timeout(PATIENCE, replicate::sync(&dialer, &two.target, &two.options, interrupted)).await.unwrap().unwrap();
    let waited = applied.get().expect("the peer has applied it").elapsed();
    assert_eq!(summary.peer_root, Some(two.listener.store().root()));
    two.link.both(if after == Passage::Held { Passage::Open } else { after });
    (waited, two.heard().await)
}
