//! Replicas on loopback, and disks that can be made to refuse.

use crate::{
    event::Key,
    home::{Home, Peer, Role},
    io::durable::{Disk, Observer, Operation, Permit},
    node::{Node, NodeOptions, NodeStatus, Report},
    replicate::{self, Options, Server, Unobserved},
    vault::{InitOptions, Unwatched, Vault},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

/// Far longer than anything here takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A disk with faults.
#[derive(Default)]
pub(super) struct Faulty {
    /// Refuses to write.
    pub(super) full: AtomicBool,
    /// Was mounted anew, for reading only.
    pub(super) read_only: AtomicBool,
    /// Whoever writes next panics.
    pub(super) breaks: AtomicBool,
}

impl Observer for Faulty {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Permit> {
        match operation {
            Operation::Write { .. } if self.breaks.swap(false, SeqCst) => panic!("a fault of this program, as a test"),
            Operation::Write { .. } if self.read_only.load(SeqCst) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Operation::Write { .. } if self.full.load(SeqCst) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(Permit::Whole),
        }
    }
}

/// Two replicas of one vault.
pub(super) struct World {
    dir: TempDir,
    pub(super) first: Arc<Vault>,
    pub(super) second: Arc<Vault>,
    pub(super) disk: Arc<Faulty>,
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let home = |name: &str| Home::open(&dir.path().join(format!("home-{name}"))).unwrap();
        let options = InitOptions { name: "v".into(), passphrase: None, recovery: false, device_slot: true, device_name: "a".into() };
        let first = Arc::new(Vault::init(&dir.path().join("a"), &home("a"), options).unwrap().vault);
        let server = Server::bind(first.clone(), &[LOOPBACK], "a", &Options::default()).await.unwrap();
        let addresses = server.local_addrs().1.iter().map(ToString::to_string).collect();
        let ticket = replicate::invite(&first, Role::Owner, addresses, PATIENCE).unwrap().to_string();
        let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop)));
        let path = dir.path().join("b");
        let paired = replicate::pair(&ticket.parse().unwrap(), &path, &home("b"), "b", &Options::default()).await;
        let (joined, target) = paired.unwrap();
        replicate::sync(&joined, &target, &Options::default(), Arc::new(Unobserved)).await.unwrap();
        serving.abort();
        drop(joined);
        let disk = Arc::new(Faulty::default());
        let (second, _) = Vault::open_on(&path, &home("b"), Disk::observed(disk.clone())).unwrap();
        Self { first, second: Arc::new(second), disk, dir }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn home(&self, name: &str) -> Home {
        Home::open(&self.dir.path().join(format!("home-{name}"))).unwrap()
    }

    /// A node on the first replica, and one on the second that follows it.
    pub(super) async fn nodes(&self, options: NodeOptions) -> (Watched, Watched) {
        let first = Watched::start(&self.first, NodeOptions { listen: vec![LOOPBACK], ..NodeOptions::default() }).await;
        let addresses = first.node.local_addrs().1.iter().map(ToString::to_string).collect();
        let device = self.first.device().id();
        let peer = Peer { name: "a".into(), device, addresses, role: Role::Owner, added_ms: 1 };
        self.second.home().add_peer(peer).unwrap();
        (first, Watched::start(&self.second, options).await)
    }
}

pub(super) fn put(vault: &Vault, key: &str, bytes: usize) {
    let value: Vec<u8> = (0..bytes as u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    vault.put(&Key::new(key).unwrap(), &mut &value[..], &Unwatched).unwrap();
}

/// A node, and a notice each time that it tells something.
pub(super) struct Watched {
    pub(super) node: Node,
    news: watch::Receiver<u64>,
}

impl Watched {
    pub(super) async fn start(vault: &Arc<Vault>, options: NodeOptions) -> Self {
        let (count, news) = watch::channel(0);
        let report: Report = Arc::new(move |_| count.send_modify(|count| *count += 1));
        Self { node: Node::start(vault.clone(), options, report).await.unwrap(), news }
    }

    pub(super) async fn until(&mut self, what: &str, is: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let found = async {
            loop {
                self.news.borrow_and_update();
                let status = self.node.status();
                if is(&status) {
                    return status;
                }
                let _ = timeout(Duration::from_millis(50), self.news.changed()).await;
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(status) => status,
            Err(_) => panic!("not {what}: {:#?}", self.node.status()),
        }
    }

    /// Waits until it holds all that `other` holds.
    pub(super) async fn equals(&mut self, other: &Vault) {
        self.until("equal", |status| status.root == other.store().root()).await;
    }
}
