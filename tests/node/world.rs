//! Replicas on loopback, each with a home of its own, and nodes on them. The node's unit tests use this file, too.

use mirror_engine::{
    event::{Frontier, Key},
    home::{Home, Peer, Role},
    node::{Node, NodeOptions, NodeStatus, PeerStatus, Report, State, Told},
    replicate::{self, Options, ReplicateError, Server, Unobserved},
    transport::TransportError,
    vault::{InitOptions, Unwatched, Vault, VaultError},
};
use std::{
    io::Cursor,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

/// Far longer than anything here takes: a test that fails, fails in time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A directory of replicas of one vault.
pub(crate) struct World {
    dir: TempDir,
}

/// A node and what it has told.
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) told: Arc<Mutex<Vec<String>>>,
    news: watch::Receiver<u64>,
}

impl World {
    pub(crate) fn new() -> (Self, Arc<Vault>) {
        let dir = TempDir::new().unwrap();
        let world = Self { dir };
        let options = InitOptions::for_this_device("v", "a");
        let vault = Vault::init(&world.path("a"), &world.home("a"), options).unwrap().vault;
        (world, Arc::new(vault))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn home(&self, name: &str) -> Home {
        Home::open(&self.dir.path().join(format!("home-{name}"))).unwrap()
    }

    /// A replica that `of` lets in; the two know each other, without addresses.
    pub(crate) async fn join(&self, of: &Arc<Vault>, name: &str, role: Role) -> Arc<Vault> {
        let server = Server::bind(of.clone(), &[LOOPBACK], "server", &Options::default()).await.unwrap();
        let addresses = server.local_addrs().1.iter().map(ToString::to_string).collect();
        let ticket = replicate::invite(of, role, addresses, Duration::from_secs(60)).unwrap().to_string();
        let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop)));
        let paired = replicate::pair(&ticket.parse().unwrap(), &self.path(name), &self.home(name), name, &Options::default()).await;
        let (vault, target) = paired.unwrap();
        replicate::sync(&vault, &target, &Options::default(), Arc::new(Unobserved)).await.unwrap();
        serving.abort();
        let vault = Arc::new(vault);
        knows(&vault, of, &[]);
        vault
    }
}

/// Writes into `vault`'s peers that `other` is at `addresses`.
pub(crate) fn knows(vault: &Vault, other: &Vault, addresses: &[SocketAddr]) {
    let device = other.device().id();
    let before = vault.home().peer_of(&device).unwrap();
    let (name, role) = before.map_or((device.short(), Role::Owner), |peer| (peer.name, peer.role));
    let addresses = addresses.iter().map(ToString::to_string).collect();
    vault.home().add_peer(Peer { name, device, addresses, role, added_ms: 1 }).unwrap();
}

pub(crate) fn put(vault: &Vault, key: &str, value: &[u8]) {
    vault.put(&Key::new(key).unwrap(), &mut Cursor::new(value), &Unwatched).unwrap();
}

pub(crate) fn value(vault: &Vault, key: &str) -> Vec<u8> {
    let mut value = Vec::new();
    vault.get(&Key::new(key).unwrap(), &mut value).unwrap();
    value
}

/// Waits until `vault` holds all of `frontier`.
pub(crate) async fn holds(vault: &Vault, frontier: &Frontier) {
    let mut changes = vault.store().changes();
    let held = async {
        while !vault.store().frontier().covers(frontier) {
            changes.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, held).await.expect("it comes in time");
}

pub(crate) fn listening() -> NodeOptions {
    NodeOptions { listen: vec![LOOPBACK], ..NodeOptions::default() }
}

pub(crate) fn word(told: &Told) -> String {
    match told {
        Told::Followed { result: Ok(_), .. } => "followed".into(),
        Told::Followed { result: Err(error), .. } => format!("not followed: {error}"),
        Told::Served(served) => format!("{served:?}"),
        Told::Changed { state, .. } => format!("{state:?}"),
        Told::Paused(pause) => format!("{pause:?}"),
    }
}

impl Running {
    pub(crate) async fn start(vault: &Arc<Vault>, options: NodeOptions) -> Self {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let (count, news) = watch::channel(0);
        let lines = told.clone();
        let report: Report = Arc::new(move |news| {
            lines.lock().unwrap().push(word(&news));
            count.send_modify(|count| *count += 1);
        });
        let started = async {
            loop {
                // A node that was dropped before this one has its ports until the goodbyes of its connections have
                // been heard, and its lock until its tasks have ended.
                match Node::start(vault.clone(), options.clone(), report.clone()).await {
                    Err(ReplicateError::Transport(TransportError::Io { .. }) | ReplicateError::Vault(VaultError::Busy(_))) => {
                        tokio::task::yield_now().await;
                    }
                    started => return started.unwrap(),
                }
            }
        };
        let node = timeout(PATIENCE, started).await.expect("its ports are free in time");
        Self { node, told, news }
    }

    pub(crate) fn at(&self) -> Vec<SocketAddr> {
        self.node.local_addrs().1
    }

    /// Waits for a status that `is` so; looks each time that something was told.
    pub(crate) async fn until(&mut self, what: &str, is: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let found = async {
            loop {
                self.news.borrow_and_update();
                let status = self.node.status();
                if is(&status) {
                    return status;
                }
                // What is told of a state is told when it changes; lags change without.
                let _ = timeout(Duration::from_millis(100), self.news.changed()).await;
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(status) => status,
            Err(_) => panic!("not {what}: {:#?}\n{:#?}", self.node.status().peers, self.told.lock().unwrap()),
        }
    }

    pub(crate) async fn live(&mut self) -> NodeStatus {
        self.until("live", |status| !status.peers.is_empty() && status.peers.iter().all(is_live)).await
    }
}

pub(crate) fn is_live(peer: &PeerStatus) -> bool {
    matches!(peer.state, State::Live(_) | State::Transferring(_))
}
