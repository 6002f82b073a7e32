//! A served vault with one honest replica, to see after every attack that both still work.

use crate::peer::new_device;
use mirror_engine::{
    clock,
    event::Key,
    home::{Home, Peer, Role, Ticket},
    id::DeviceId,
    keys::DeviceKey,
    replicate::{self, Observer, Options, Progress, ReplicateError, Served, Server, Summary, Target, Unobserved},
    transport::{Choice, TransportKind},
    vault::{InitOptions, Unwatched, Vault},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Longer than every limit of the protocol on a handshake; an honest answer takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Tasks that panic are caught by the runtime, so they are counted here; a test that fails is not one of them.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some_and(|name| name.starts_with("tokio")) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}

#[derive(Default)]
struct Stop(AtomicBool);

impl Observer for Stop {
    fn progress(&self, _: Progress) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) struct World {
    dir: TempDir,
    pub(crate) vault: Arc<Vault>,
    pub(crate) addr: SocketAddr,
    served: mpsc::UnboundedReceiver<Served>,
    stop: Arc<Stop>,
    server: JoinHandle<()>,
    honest: Option<(Vault, Target)>,
    values: u8,
}

impl World {
    /// A server with one value and nobody else.
    pub(crate) async fn start() -> Self {
        count_panics();
        let dir = TempDir::new().unwrap();
        let home = Home::open(&dir.path().join("home")).unwrap();
        let options = InitOptions::for_this_device("vault", "first");
        let vault = Arc::new(Vault::init(&dir.path().join("vault"), &home, options).unwrap().vault);
        vault.put(&Key::new("first").unwrap(), &mut &b"value"[..], &Unwatched).unwrap();
        let server = Server::bind(vault.clone(), &[([127, 0, 0, 1], 0).into()], "server", &Options::default()).await.unwrap();
        let addr = server.local_addrs().1[0];
        assert_eq!(server.local_addrs().0[0], addr, "both transports share the port");
        let (report, served) = mpsc::unbounded_channel();
        let stop = Arc::new(Stop::default());
        let running = server.run(Options::default(), stop.clone(), Arc::new(move |done| drop(report.send(done))));
        Self { dir, vault, addr, served, stop, server: tokio::spawn(running), honest: None, values: 0 }
    }

    /// The same, and a device that it knows.
    pub(crate) async fn with_member() -> (Self, DeviceKey) {
        let (world, device) = (Self::start().await, new_device());
        world.admit(&device);
        (world, device)
    }

    /// Lets `device` in, and makes it known to the server.
    pub(crate) fn admit(&self, device: &DeviceKey) {
        self.admit_as(device, Role::Member);
    }

    pub(crate) fn admit_as(&self, device: &DeviceKey, role: Role) {
        let device = device.id();
        self.vault.admit(device, role, &device.short()).unwrap();
        let peer = Peer { name: device.short(), device, addresses: Vec::new(), role, added_ms: clock::wall_ms() };
        self.vault.home().add_peer(peer).unwrap();
    }

    pub(crate) fn server_device(&self) -> DeviceId {
        self.vault.device().id()
    }

    pub(crate) fn ticket(&self, lives: Duration) -> Ticket {
        replicate::invite(&self.vault, Role::Member, vec![self.addr.to_string()], lives).unwrap()
    }

    /// Redeems `ticket` on a device of its own.
    pub(crate) async fn redeem(&self, ticket: &Ticket, name: &str) -> Result<(Vault, Target), ReplicateError> {
        let home = Home::open(&self.dir.path().join(format!("home-{name}"))).unwrap();
        replicate::pair(ticket, &self.dir.path().join(name), &home, name, &Options::default()).await
    }

    /// How the next session or pairing that the server reports has ended.
    pub(crate) async fn next_served(&mut self) -> Served {
        timeout(PATIENCE, self.served.recv()).await.expect("the server reports in time").unwrap()
    }

    /// A session of the honest replica, once [`World::assert_sound`] has made it.
    pub(crate) async fn sync_honest(&self, options: &Options) -> Summary {
        let (replica, target) = self.honest.as_ref().unwrap();
        let synced = timeout(PATIENCE, replicate::sync(replica, target, options, Arc::new(Unobserved)));
        synced.await.expect("a session ends in time").unwrap()
    }

    /// The honest replica, likewise.
    pub(crate) fn honest(&self) -> &Vault {
        &self.honest.as_ref().unwrap().0
    }

    /// The error of the next session.
    pub(crate) async fn next_error(&mut self) -> ReplicateError {
        match self.next_served().await {
            Served::Session { result: Err(error), .. } | Served::Paired { result: Err(error), .. } => error,
            other => panic!("{other:?}"),
        }
    }

    /// An honest replica gets a new value over each transport, both vaults are clean, and nothing has panicked.
    pub(crate) async fn assert_sound(&mut self) {
        if self.honest.is_none() {
            let ticket = self.ticket(Duration::from_secs(60));
            self.honest = Some(self.redeem(&ticket, "honest").await.unwrap());
        }
        for kind in [TransportKind::Quic, TransportKind::Tcp] {
            self.values += 1;
            let key = Key::new(format!("new-{}", self.values)).unwrap();
            self.vault.put(&key, &mut &[self.values; 300_000][..], &Unwatched).unwrap();
            let (replica, target) = self.honest.as_ref().unwrap();
            let options = Options { choice: Choice::Only(kind), ..Options::default() };
            let synced = replicate::sync(replica, target, &options, Arc::new(Unobserved));
            let summary = timeout(PATIENCE, synced).await.expect("an honest replica is served in time").unwrap();
            assert!(summary.is_identical(), "{summary:?}");
            let mut value = Vec::new();
            replica.get(&key, &mut value).unwrap();
            assert_eq!(value, [self.values; 300_000]);
        }
        for vault in [&*self.vault, &self.honest.as_ref().unwrap().0] {
            let report = vault.verify(true, &Unwatched).unwrap();
            assert!(report.is_clean(), "{report:?}");
        }
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "something panicked");
    }

    /// [`World::assert_sound`], and the end.
    pub(crate) async fn end_sound(mut self) {
        self.assert_sound().await;
        self.end().await;
    }

    /// Serving ends when it is told to, whatever is still connected.
    pub(crate) async fn end(self) {
        self.stop.0.store(true, Ordering::SeqCst);
        timeout(PATIENCE, self.server).await.expect("the server ends in time").unwrap();
    }
}
