//! How long a small object takes until it is durable at the peer: cold (a session of its own) and warm (in a session that stays).
//!
//! ```text
//! latency here  quic|tcp SAMPLES DIR                 both replicas in this process, over loopback; also until the peer sees it
//! latency serve ADDR DIR                             prints a ticket, serves until its standard input ends
//! latency dial  quic|tcp SAMPLES DIR TICKET          the other end
//! ```
//! `DIR` must not exist. On tmpfs it shows the network's and the program's share, on a disk the disk's as well.

use hdrhistogram::Histogram;
use mirror_engine::{
    event::{Dot, Frontier, Key},
    home::{Home, Role},
    replicate::{self, Observer, Options, Progress, Server, Target, Unobserved},
    session::Direction,
    transport::{Choice, TransportKind},
    vault::{InitOptions, Unwatched, Vault},
};
use std::{
    error::Error,
    io::{Cursor, Read},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

type Outcome<T> = Result<T, Box<dyn Error>>;

const OBJECT_BYTES: usize = 1_024;
/// Before anything counts: caches fill, files are made.
const WARM_UP: usize = 20;
const TICKET_LIFE: Duration = Duration::from_secs(600);
/// More than this for one object means that something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.as_slice() {
        ["here", kind, samples, dir] => runtime.block_on(here(transport(kind)?, samples.parse()?, Path::new(dir))),
        ["serve", address, dir] => runtime.block_on(serve(address.parse()?, Path::new(dir))),
        ["dial", kind, samples, dir, ticket] => runtime.block_on(dial(transport(kind)?, samples.parse()?, Path::new(dir), ticket)),
        _ => Err("latency here|serve|dial; its source says more".into()),
    }
}

fn transport(name: &str) -> Outcome<TransportKind> {
    match name {
        "quic" => Ok(TransportKind::Quic),
        "tcp" => Ok(TransportKind::Tcp),
        other => Err(format!("{other} is neither quic nor tcp").into()),
    }
}

async fn here(kind: TransportKind, samples: usize, dir: &Path) -> Outcome<()> {
    let (server, vault) = server(([127, 0, 0, 1], 0).into(), dir).await?;
    let ticket = ticket(&server, &vault)?;
    let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop)));
    let peer = Some(vault);
    let result = measure(kind, samples, dir, &ticket, peer).await;
    serving.abort();
    result
}

async fn serve(address: SocketAddr, dir: &Path) -> Outcome<()> {
    let (server, vault) = server(address, dir).await?;
    println!("{}", ticket(&server, &vault)?);
    let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop)));
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    serving.abort();
    Ok(())
}

async fn dial(kind: TransportKind, samples: usize, dir: &Path, ticket: &str) -> Outcome<()> {
    std::fs::create_dir_all(dir)?;
    measure(kind, samples, dir, ticket, None).await
}

async fn server(address: SocketAddr, dir: &Path) -> Outcome<(Server, Arc<Vault>)> {
    std::fs::create_dir_all(dir)?;
    let home = Home::open(&dir.join("first-home"))?;
    let options = InitOptions { name: "latency".into(), passphrase: None, recovery: false, device_slot: true, device_name: "first".into() };
    let vault = Arc::new(Vault::init(&dir.join("first"), &home, options)?.vault);
    vault.put(&Key::new("greeting")?, &mut Cursor::new(b"hello"), &Unwatched)?;
    Ok((Server::bind(vault.clone(), &[address], "first", &Options::default()).await?, vault))
}

fn ticket(server: &Server, vault: &Vault) -> Outcome<String> {
    let addresses = server.local_addrs().0.iter().map(ToString::to_string).collect();
    Ok(replicate::invite(vault, Role::Member, addresses, TICKET_LIFE)?.to_string())
}

/// The dialing replica, and how to reach the other one.
struct Here {
    vault: Arc<Vault>,
    target: Target,
    options: Options,
}

impl Here {
    /// Writes an object, and tells which event that made.
    fn put(&self, nth: usize) -> Outcome<Dot> {
        let mut object = vec![0; OBJECT_BYTES];
        object[..8].copy_from_slice(&nth.to_le_bytes());
        self.vault.put(&Key::new(format!("object {nth}"))?, &mut Cursor::new(object), &Unwatched)?;
        let author = self.vault.info().replica;
        Ok(Dot { author, sequence: self.vault.store().frontier().sequence_of(&author) })
    }
}

/// Waits until a frontier holds `dot`.
async fn holds(frontiers: &mut watch::Receiver<Frontier>, dot: Dot) -> Outcome<()> {
    tokio::time::timeout(PATIENCE, frontiers.wait_for(|frontier| frontier.contains(&dot))).await??;
    Ok(())
}

async fn measure(kind: TransportKind, samples: usize, dir: &Path, ticket: &str, peer: Option<Arc<Vault>>) -> Outcome<()> {
    let home = Home::open(&dir.join("second-home"))?;
    let options = Options { choice: Choice::Only(kind), ..Options::default() };
    let (vault, target) = replicate::pair(&ticket.parse()?, &dir.join("second"), &home, "second", &options).await?;
    replicate::sync(&vault, &target, &options, Arc::new(Unobserved)).await?;
    let here = Here { vault: Arc::new(vault), target, options };
    println!("{kind}, {OBJECT_BYTES} bytes, {samples} samples, milliseconds");
    cold(&here, samples).await?;
    warm(&here, samples, peer).await
}

/// Remembers what the peer has applied, and when the connection stood.
struct Watcher {
    applied: watch::Sender<Frontier>,
    live: watch::Sender<bool>,
    stop: AtomicBool,
    began: Instant,
    connected: std::sync::OnceLock<Duration>,
    durable: std::sync::OnceLock<Duration>,
}

impl Watcher {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            applied: watch::Sender::new(Frontier::new()),
            live: watch::Sender::new(false),
            stop: AtomicBool::new(false),
            began: Instant::now(),
            connected: Default::default(),
            durable: Default::default(),
        })
    }
}

impl Observer for Watcher {
    fn progress(&self, progress: Progress) {
        match progress {
            Progress::Connected { .. } => drop(self.connected.set(self.began.elapsed())),
            Progress::PeerApplied { frontier } => {
                let _ = self.durable.set(self.began.elapsed());
                drop(self.applied.send_replace(frontier));
            }
            Progress::Live => drop(self.live.send_replace(true)),
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Each object in a session of its own, dialled for it.
async fn cold(here: &Here, samples: usize) -> Outcome<()> {
    let options = Options { direction: Direction::Push, ..here.options.clone() };
    let [mut connected, mut durable, mut returned] = [Times::new()?, Times::new()?, Times::new()?];
    for nth in 0..samples + WARM_UP {
        here.put(nth)?;
        let watcher = Watcher::new();
        replicate::sync(&here.vault, &here.target, &options, watcher.clone()).await?;
        if nth >= WARM_UP {
            returned.add(watcher.began.elapsed())?;
            connected.add(*watcher.connected.get().ok_or("it never connected")?)?;
            durable.add(*watcher.durable.get().ok_or("it was never applied")?)?;
        }
    }
    connected.print("cold: connected");
    durable.print("cold: durable at the peer");
    returned.print("cold: session over");
    Ok(())
}

/// All objects in one session that stays.
async fn warm(here: &Here, samples: usize, peer: Option<Arc<Vault>>) -> Outcome<()> {
    let watcher = Watcher::new();
    let (vault, target, options, observer) = (here.vault.clone(), here.target.clone(), here.options.clone(), watcher.clone());
    let following = tokio::spawn(async move { replicate::follow(&vault, &target, &options, observer).await });
    tokio::time::timeout(PATIENCE, watcher.live.subscribe().wait_for(|live| *live)).await??;
    let mut applied = watcher.applied.subscribe();
    let [mut put, mut durable, mut visible] = [Times::new()?, Times::new()?, Times::new()?];
    for nth in 0..samples + WARM_UP {
        let began = Instant::now();
        let dot = here.put(1_000_000 + nth)?;
        let written = Instant::now();
        let seen = peer.clone().map(|peer| tokio::spawn(visible_at(peer, dot, written)));
        holds(&mut applied, dot).await?;
        let took = written.elapsed();
        let seen = match seen {
            Some(seen) => Some(seen.await??),
            None => None,
        };
        if nth >= WARM_UP {
            put.add(written - began)?;
            durable.add(took)?;
            seen.map_or(Ok(()), |seen| visible.add(seen))?;
        }
    }
    watcher.stop.store(true, Ordering::Relaxed);
    following.await??;
    put.print("warm: put, durable here");
    durable.print("warm: then durable at the peer");
    visible.print("warm: then visible at the peer");
    Ok(())
}

async fn visible_at(peer: Arc<Vault>, dot: Dot, since: Instant) -> Result<Duration, String> {
    let mut changes = peer.store().changes();
    while !peer.store().frontier().contains(&dot) {
        changes.changed().await.map_err(|error| error.to_string())?;
    }
    Ok(since.elapsed())
}

/// Times of one kind, in microseconds.
struct Times(Histogram<u64>);

impl Times {
    fn new() -> Outcome<Self> {
        Ok(Self(Histogram::new_with_max(PATIENCE.as_micros() as u64, 3)?))
    }

    fn add(&mut self, time: Duration) -> Outcome<()> {
        Ok(self.0.record(time.as_micros() as u64)?)
    }

    fn print(&self, what: &str) {
        if self.0.is_empty() {
            return;
        }
        let [p50, p90, p99, most] = [0.5, 0.9, 0.99, 1.0].map(|quantile| self.0.value_at_quantile(quantile) as f64 / 1e3);
        println!("{what:32} p50 {p50:8.3}  p90 {p90:8.3}  p99 {p99:8.3}  max {most:8.3}");
    }
}
