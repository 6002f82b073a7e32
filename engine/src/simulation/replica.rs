//! One replica: a vault on a disk that fails, at a link that fails, and the sessions that it has.

use super::{
    dice::Dice,
    disk::{Crash, FaultyDisk},
    net::{Net, Nic},
    tell, template,
};
use crate::{
    event::Frontier,
    home::{Home, Peer},
    id::DeviceId,
    io::{backend::Choice as Backend, durable::Disk},
    members::Role,
    node::{Node, NodeOptions, Told},
    replicate::{Observer, Options, Progress, ReplicateError, Server, Target, keep_following, sync},
    transport::{Choice, Network, TransportKind},
    vault::Vault,
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinError, JoinSet, yield_now},
};

const PORT: u16 = 7_000;
/// Why a replica did not start that crashed meanwhile.
pub(super) const ENDED: &str = "the process ended while it opened the vault";

pub(super) struct Replica {
    pub(super) nic: Nic,
    pub(super) disk: FaultyDisk,
    pub(super) device: DeviceId,
    program: Program,
    dir: PathBuf,
    home: Home,
    dice: Dice,
    running: Option<Running>,
    /// An earlier `index.db`, to be put back.
    old_index: Option<Vec<(PathBuf, Vec<u8>)>>,
}

/// What runs on a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// A server, and sessions that whoever plays begins.
    Server,
    /// A node, which decides by itself whom to dial and when.
    Node,
}

/// A process.
struct Running {
    vault: Arc<Vault>,
    node: Option<Node>,
    tasks: JoinSet<Ended>,
    /// Sessions of the node that have ended.
    told: Arc<Mutex<Vec<Ended>>>,
}

impl Running {
    async fn end(self) {
        let Self { vault, node, mut tasks, .. } = self;
        let store = Arc::downgrade(vault.store());
        drop((vault, node));
        tasks.shutdown().await;
        // What was handed to tasks of their own ends when they next look.
        for _ in 0..1_000 {
            if store.strong_count() == 0 {
                return;
            }
            yield_now().await;
        }
    }
}

/// How a task of a process ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) what: String,
    pub(super) error: Option<ReplicateError>,
}

/// What a peer said that it holds, while it was followed.
pub(super) struct Heard {
    applied: Mutex<Frontier>,
    stop: watch::Sender<bool>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { applied: Mutex::default(), stop: watch::Sender::new(false) }
    }
}

impl Observer for Heard {
    fn progress(&self, progress: Progress) {
        if let Progress::PeerApplied { frontier, .. } = progress {
            self.applied.lock().unwrap().join(&frontier);
        }
    }

    fn cancelled(&self) -> bool {
        *self.stop.borrow()
    }

    fn stopping(&self) -> Option<watch::Receiver<bool>> {
        Some(self.stop.subscribe())
    }
}

impl Heard {
    /// All that was heard since this was last asked.
    pub(super) fn take(&self) -> Frontier {
        std::mem::take(&mut self.applied.lock().unwrap())
    }
}

impl Replica {
    pub(super) fn new(number: usize, program: Program, parent: &Path, net: &Net, dice: &mut Dice) -> Self {
        let (dir, home) = template::copy(number, parent);
        let device = home.device().unwrap().id();
        let nic = net.host();
        let disk = FaultyDisk::new(&dir, nic.clone(), dice.split());
        Self { nic, disk, device, program, dir, home, dice: dice.split(), running: None, old_index: None }
    }

    pub(super) fn vault(&self) -> Option<&Arc<Vault>> {
        self.running.as_ref().map(|running| &running.vault)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn options(&self) -> Options {
        Options { choice: Choice::Only(TransportKind::Quic), network: Network::Played(Arc::new(self.nic.clone())), ..Options::default() }
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.nic.address(), PORT)
    }

    /// Opens the vault and serves it. What was mended is returned when it is a loss.
    pub(super) async fn start(&mut self) -> Result<(), String> {
        let disk = Disk::observed(Arc::new(self.disk.clone())).through(Backend::Portable);
        let opened = Vault::open_on(&self.dir, &self.home, disk);
        if self.disk.is_dead() {
            drop(opened);
            self.find_after(Crash::PowerCut);
            return Err(ENDED.into());
        }
        let (vault, repairs) = opened.map_err(|error| format!("it does not open: {error}"))?;
        if let Some(loss) = repairs.iter().find(|repair| repair.loss && !repair.what.contains("are damaged")) {
            return Err(format!("a loss: {loss:?}"));
        }
        let vault = Arc::new(vault);
        let (mut tasks, told) = (JoinSet::new(), Arc::default());
        let node = match self.program {
            Program::Server => {
                self.serve(&vault, &mut tasks).await?;
                None
            }
            Program::Node => Some(self.node(&vault, &told).await?),
        };
        self.running = Some(Running { vault, node, tasks, told });
        Ok(())
    }

    async fn serve(&self, vault: &Arc<Vault>, tasks: &mut JoinSet<Ended>) -> Result<(), String> {
        let options = self.options();
        let server = Server::bind(vault.clone(), &[self.address()], "simulated", &options).await.map_err(|error| error.to_string())?;
        tasks.spawn(async move {
            server.run(options, Arc::new(Heard::default()), Arc::new(|_| {})).await;
            Ended { what: "serving".into(), error: None }
        });
        Ok(())
    }

    async fn node(&self, vault: &Arc<Vault>, told: &Arc<Mutex<Vec<Ended>>>) -> Result<Node, String> {
        let sync = Options { choice: Choice::Auto, ..self.options() };
        let options = NodeOptions { listen: vec![self.address()], sync, ..NodeOptions::default() };
        let (nic, told) = (self.nic.clone(), told.clone());
        let report = move |news| {
            tell(|| format!("{} is told {news:?}", nic.address()));
            if let Told::Followed { peer, result: Err(error) } = news {
                told.lock().unwrap().push(Ended { what: format!("following {}", peer.short()), error: Some(error) });
            }
        };
        Node::start(vault.clone(), options, Arc::new(report)).await.map_err(|error| error.to_string())
    }

    /// Somebody else, who is at `address` at first, becomes known to this device.
    pub(super) fn know(&self, name: String, device: DeviceId, role: Role, address: SocketAddr) {
        let Some(vault) = self.vault() else { return };
        vault.home().add_peer(Peer { name, device, addresses: vec![address.to_string()], role, added_ms: 1 }).unwrap();
    }

    /// It is heard on this device's network where another one is.
    pub(super) fn hear_of(&self, device: DeviceId, address: SocketAddr) {
        if let Some(node) = self.running.as_ref().and_then(|running| running.node.as_ref()) {
            node.addresses(device, vec![address]);
        }
    }

    /// Ends the process, as a crash does, and makes of the files what the crash left.
    pub(super) async fn crash(&mut self, crash: Crash) {
        let Some(running) = self.running.take() else { return };
        self.disk.die();
        running.end().await;
        self.find_after(crash);
    }

    /// What the next process finds.
    fn find_after(&mut self, crash: Crash) {
        self.disk.restart(crash);
        self.lose_caches();
    }

    /// Nothing depends on what SQLite keeps: it may be there, gone, or older.
    fn lose_caches(&mut self) {
        match self.dice.below(6) {
            0 => self.remove_index(),
            2 => self.remove_view(),
            1 => {
                if let Some(files) = self.old_index.take() {
                    self.remove_index();
                    files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
                }
            }
            _ => {}
        }
        self.old_index = self.dice.hits(500_000).then(|| self.read_index());
    }

    fn index_files(&self) -> impl Iterator<Item = PathBuf> {
        ["index.db", "index.db-wal"].map(|name| self.dir.join(name)).into_iter()
    }

    fn read_index(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.index_files().filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
    }

    fn remove_index(&self) {
        for path in self.index_files().chain([self.dir.join("index.db-shm")]) {
            let _ = fs::remove_file(path);
        }
    }

    fn remove_view(&self) {
        let Ok(directories) = fs::read_dir(self.home.dir().join("vaults")) else { return };
        let views = directories.filter_map(Result::ok).map(|vault| vault.path().join("views"));
        views
            .filter_map(|views| fs::read_dir(views).ok())
            .flatten()
            .filter_map(Result::ok)
            .for_each(|file| fs::remove_file(file.path()).unwrap());
    }

    /// One session with `peer`.
    pub(super) fn sync_with(&mut self, name: String, device: DeviceId, address: SocketAddr, heard: Arc<Heard>) {
        let options = self.options();
        let Some(running) = &mut self.running else { return };
        let vault = running.vault.clone();
        running.tasks.spawn(async move {
            let target = Target { name: name.clone(), device, addresses: vec![address] };
            let ended = sync(&vault, &target, &options, heard).await;
            Ended { what: format!("a session with {name}"), error: ended.err() }
        });
    }

    /// Follows `peer`, wherever `find` says that it is.
    pub(super) fn follow(
        &mut self,
        name: String,
        device: DeviceId,
        find: impl Fn() -> SocketAddr + Send + Sync + 'static,
        heard: Arc<Heard>,
    ) -> Option<AbortHandle> {
        let options = Options { choice: Choice::Auto, ..self.options() };
        let running = self.running.as_mut()?;
        let vault = running.vault.clone();
        Some(running.tasks.spawn(async move {
            let find = || Ok(Target { name: name.clone(), device, addresses: vec![find()] });
            let ended = keep_following(&vault, &find, &options, heard).await;
            Ended { what: format!("following {name}"), error: ended.err() }
        }))
    }

    /// Tasks that have ended since this was last asked.
    pub(super) fn ended(&mut self) -> Vec<Ended> {
        let Some(running) = &mut self.running else { return Vec::new() };
        let told = std::mem::take(&mut *running.told.lock().unwrap());
        std::iter::from_fn(|| running.tasks.try_join_next()).filter_map(ended_by_itself).chain(told).collect()
    }
}

/// None of a task that was told to end.
fn ended_by_itself(ended: Result<Ended, JoinError>) -> Option<Ended> {
    match ended {
        Ok(ended) => Some(ended),
        Err(error) if error.is_cancelled() => None,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
