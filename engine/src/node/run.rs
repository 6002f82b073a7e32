//! A node at work on one open vault: listener, followers, and what both have to know of each other.

use super::{
    Dialled, PauseReason, Told,
    follower::{self, DRAIN},
    leash::Leash,
    link::{Link, Plan},
    shared::{Shared, Standing, locked},
};
use crate::{
    clock,
    home::{Contact, Peer},
    id::DeviceId,
    members::{Admittance, Roster},
    replicate::{self, Caller, Options, ReplicateError, Served, Server},
    session::{Direction, Stay},
    transport::Protocol,
    vault::{Vault, VaultError},
};
use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

/// How often it is looked whether the vault is still there, whether the list of peers has changed, and whether time has jumped.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// The wall clock running ahead of the monotonic one by this much in a housekeeping interval: the machine has slept.
const SLEPT: Duration = Duration::from_secs(4);

/// Why a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The node is to end.
    Stopped,
    /// The vault's directory is gone.
    Gone,
}

/// One open vault, served and followed.
pub(super) struct Run {
    pub(super) shared: Arc<Shared>,
    pub(super) vault: Arc<Vault>,
    /// Who was in when the log last grew: kept, so that another one is another allocation.
    roster: Mutex<Option<Arc<Roster>>>,
}

/// Followers by device. Aborted when this is dropped.
#[derive(Default)]
struct Followers {
    tasks: JoinSet<()>,
    of: HashMap<DeviceId, AbortHandle>,
}

impl Run {
    pub(super) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let vault = shared.vault();
        let roster = Mutex::new(vault.store().roster());
        Arc::new(Self { shared: shared.clone(), vault, roster })
    }

    /// Opens the ports, if there are any to open.
    pub(super) async fn bind(&self, addresses: &[SocketAddr]) -> Result<Option<Server>, ReplicateError> {
        if addresses.is_empty() {
            return Ok(None);
        }
        let options = &self.shared.options;
        let server = Server::bind(self.vault.clone(), addresses, &options.name, &options.sync).await?;
        *locked(&self.shared.ports) = server.local_addrs();
        Ok(Some(server))
    }

    /// Serves and follows until there is a reason to end.
    pub(super) async fn work(self: &Arc<Self>, server: Option<Server>) -> End {
        let mut sessions = JoinSet::new();
        let mut followers = Followers::default();
        let mut housekeeping = interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut clocks = Clocks::now();
        let mut stop = self.shared.stop.subscribe();
        let mut changes = self.vault.store().changes();
        let mut watching = std::pin::pin!(replicate::watch(self.vault.store()));
        let mut network = std::pin::pin!(self.follow_network());
        let end = loop {
            select! {
                _ = stop.wait_for(|stop| *stop) => break End::Stopped,
                Some(caller) = accept(server.as_ref()) => self.answer(caller, &mut sessions),
                Some(_) = sessions.join_next() => {}
                Ok(()) = changes.changed() => self.grown(),
                () = self.shared.look.notified() => self.look_for_peers(&mut followers),
                () = self.retry_due() => self.shared.try_again(),
                never = &mut watching => match never {},
                never = &mut network => match never {},
                _ = housekeeping.tick() => {
                    if !self.vault.is_there() {
                        break End::Gone;
                    }
                    self.look_for_peers(&mut followers);
                    self.wake_after_sleep(&mut clocks);
                }
            }
        };
        if let Some(server) = &server {
            server.close();
        }
        self.finish(followers, sessions).await;
        end
    }

    /// Everybody is dialled when the network is another one. Where nothing tells that, whoever runs the node may.
    async fn follow_network(&self) -> Infallible {
        let heard = async {
            let mut changes = self.shared.options.sync.network.changes()?;
            loop {
                changes.next().await?;
                self.shared.wake();
            }
        };
        let ended: io::Result<Infallible> = heard.await;
        tracing::info!(?ended, "changes of the network are not heard of");
        std::future::pending().await
    }

    /// Whoever has slept dials everybody, without the rest of the pauses.
    fn wake_after_sleep(&self, clocks: &mut Clocks) {
        if clocks.have_jumped() {
            self.shared.wake();
        }
    }

    /// Sessions come to their commit points; what takes too long is cut.
    async fn finish(&self, mut followers: Followers, mut sessions: JoinSet<()>) {
        let links = self.shared.links();
        links.iter().for_each(|link| link.stop(|_| true));
        let done = async {
            for link in &links {
                let _ = link.up().wait_for(|up| up.ours == 0 && up.theirs == 0).await;
            }
            while sessions.join_next().await.is_some() {}
        };
        let _ = timeout(DRAIN, done).await;
        followers.tasks.shutdown().await;
        sessions.shutdown().await;
    }

    fn answer(self: &Arc<Self>, caller: Caller, sessions: &mut JoinSet<()>) {
        let run = self.clone();
        let link = self.shared.link(caller.peer());
        let (presence, stop) = link.begin(self.shared.number(), Dialled::ByThem);
        if self.is_paused() && caller.protocol() == Protocol::Session {
            return caller.turn_away();
        }
        sessions.spawn(async move {
            let leash = Leash::new(&run.shared, &run.vault, &link, presence.number, stop);
            let served = match run.session_options() {
                Ok(options) => caller.answer(&options, &run.shared.options.name, leash).await,
                Err(error) => return tracing::warn!(%error, "nobody can be answered"),
            };
            drop(presence);
            run.served(served, &link);
        });
    }

    fn served(&self, served: Served, link: &Link) {
        if let Served::Session { result, .. } = &served {
            self.judge(result.as_ref().err());
            if let Err(error) = result {
                link.failed(Some(error.to_string()));
            }
        }
        self.shared.tell_news(link);
        (self.shared.report)(Told::Served(served));
    }

    /// How each session runs now.
    pub(super) fn session_options(&self) -> Result<Options, VaultError> {
        let options = &self.shared.options;
        let fuse = match options.max_delete {
            Some(limit) => self.vault.lasting_fuse(limit)?,
            None => None,
        };
        let direction = match self.shared.standing.borrow().as_ref() {
            // What is here is there for others.
            Some(_) => Direction::Push,
            None => options.sync.direction,
        };
        Ok(Options { direction, fuse, stay: Stay::Live, dry_run: false, ..options.sync.clone() })
    }

    /// What an error of a session means for the whole vault.
    pub(super) fn judge(&self, error: Option<&ReplicateError>) {
        match error {
            Some(ReplicateError::Vault(VaultError::NoSpace(text))) => self.shared.stand_still(PauseReason::NoSpace, text.clone()),
            Some(ReplicateError::Vault(VaultError::Io { what, source })) if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                self.shared.stand_still(PauseReason::Disk, format!("{what}: {source}"));
            }
            _ => {}
        }
    }

    /// Waits while the user wants `link` to be left alone.
    pub(super) async fn permitted(&self, link: &Link) {
        let mut standing = self.shared.standing.subscribe();
        if is_users(&standing.borrow_and_update()) {
            link.plan(Plan::Pause { reason: PauseReason::User, text: "paused by the user".into(), until: None });
            self.shared.tell_news(link);
        }
        let _ = standing.wait_for(|standing| !is_users(standing)).await;
    }

    /// Whether a session with `link` is or was live since it was last asked.
    pub(super) fn was_live(&self, link: &Link) -> bool {
        link.take_lived()
    }

    /// Whether the user wants no session to begin. Asked once a session can be told to end, it misses no pause.
    pub(super) fn is_paused(&self) -> bool {
        is_users(&self.shared.standing.borrow())
    }

    async fn retry_due(&self) {
        let mut standing = self.shared.standing.subscribe();
        loop {
            let until: Option<Instant> = standing.borrow_and_update().as_ref().and_then(|standing| standing.until);
            select! {
                () = sleep_until(until) => return,
                _ = standing.changed() => {}
            }
        }
    }

    fn grown(&self) {
        self.ask_again();
        let (heads, now) = (self.vault.store().heads(), clock::now());
        let (frontier, root) = (heads.frontier(), heads.root());
        for link in self.shared.links() {
            link.grown(root, now);
            if link.is_freed_by(&frontier) {
                link.wake.notify_one();
            }
        }
    }

    /// Who is in has changed here: peers that did not know this device may have heard the same.
    fn ask_again(&self) {
        let roster = self.vault.store().roster();
        let before = std::mem::replace(&mut *locked(&self.roster), roster.clone());
        if before.as_ref().map(Arc::as_ptr) != roster.as_ref().map(Arc::as_ptr) {
            self.shared.links().iter().filter(|link| link.is_refused()).for_each(|link| link.wake.notify_one());
        }
    }

    /// Follows who is known now, and nobody else.
    fn look_for_peers(self: &Arc<Self>, followers: &mut Followers) {
        let known = match self.vault.home().peers() {
            Ok(known) => known,
            Err(error) => return tracing::warn!(%error, "the peers cannot be read; those that were known stay"),
        };
        let peers: Vec<Peer> = self.found_in_the_log(&known).chain(known.iter().cloned()).collect();
        while followers.tasks.try_join_next().is_some() {}
        followers.of.retain(|_, task| !task.is_finished());
        let wanted: Vec<&Peer> = peers.iter().filter(|peer| self.is_wanted(peer)).collect();
        for peer in &peers {
            let link = self.meet(peer);
            if wanted.iter().any(|wanted| wanted.device == peer.device) && !followers.of.contains_key(&peer.device) {
                let task = followers.tasks.spawn(follower::follow(self.clone(), link));
                followers.of.insert(peer.device, task);
            }
        }
        let is_wanted = |device: &DeviceId| wanted.iter().any(|wanted| wanted.device == *device);
        followers.of.retain(|device, task| {
            let keep = is_wanted(device);
            if !keep {
                task.abort();
            }
            keep
        });
        self.shared.forget(|link| peers.iter().any(|peer| peer.device == link.device) || link.is_busy());
    }

    /// Devices that the log says are in, that this device was never told of, and that were found.
    fn found_in_the_log(&self, known: &[Peer]) -> impl Iterator<Item = Peer> {
        let found = self.shared.links().into_iter().filter(|link| link.is_found());
        let unknown: Vec<_> = found.filter(|link| known.iter().all(|peer| peer.device != link.device)).collect();
        let roster = self.vault.store().roster();
        unknown.into_iter().filter_map(move |link| {
            let Admittance::In(role) = roster.as_ref()?.admittance(&link.device) else { return None };
            Some(Peer { name: link.name(), device: link.device, addresses: Vec::new(), role, added_ms: 0 })
        })
    }

    fn is_wanted(&self, peer: &Peer) -> bool {
        let removed = || self.vault.store().roster().is_some_and(|roster| roster.admittance(&peer.device) == Admittance::Removed);
        self.shared.options.follow.takes(&peer.name) && !removed()
    }

    /// What is known of `peer`, brought up to date.
    fn meet(&self, peer: &Peer) -> Arc<Link> {
        let link = self.shared.link(peer.device);
        if link.set_known(&peer.name, &peer.addresses) {
            if let Some(Contact { at_ms, frontier, root, .. }) = self.vault.home().contact(&peer.device) {
                let ago = Duration::from_millis(clock::wall_ms().saturating_sub(at_ms));
                link.recall(frontier, root, self.vault.store().root(), ago, clock::now());
            }
            link.wake.notify_one();
        }
        link
    }
}

fn is_users(standing: &Option<Standing>) -> bool {
    standing.as_ref().is_some_and(|standing| standing.reason == PauseReason::User)
}

async fn accept(server: Option<&Server>) -> Option<Caller> {
    match server {
        Some(server) => server.accept().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Two clocks, of which one stands still while the machine sleeps. A wall clock that somebody sets looks the same, and costs a dial.
struct Clocks {
    wall_ms: u64,
    monotonic: Instant,
}

impl Clocks {
    fn now() -> Self {
        Self { wall_ms: clock::wall_ms(), monotonic: clock::now() }
    }

    /// Whether the wall clock has run ahead since this was last asked.
    fn have_jumped(&mut self) -> bool {
        let before = std::mem::replace(self, Self::now());
        let monotonic = self.monotonic.duration_since(before.monotonic);
        Duration::from_millis(self.wall_ms.saturating_sub(before.wall_ms)) > monotonic + SLEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_has_slept_is_told_from_one_that_has_not_and_from_a_clock_that_is_set_back() {
        let hours_8 = 8 * 3_600_000;
        let mut clocks = Clocks::now();
        assert!(!clocks.have_jumped());
        clock::wrong_by(hours_8, || {
            assert!(clocks.have_jumped());
            assert!(!clocks.have_jumped(), "once");
        });
        assert!(!clocks.have_jumped());
        assert!(!clock::wrong_by(1_000, || clocks.have_jumped()));
    }

    #[tokio::test]
    async fn who_has_slept_dials_everybody_and_who_has_not_leaves_them_to_their_pauses() {
        let dir = tempfile::tempdir().unwrap();
        let home = crate::home::Home::open(&dir.path().join("home")).unwrap();
        let options = crate::vault::InitOptions::for_this_device("v", "a");
        let vault = Vault::init(&dir.path().join("vault"), &home, options).unwrap().vault;
        let shared = Arc::new(Shared::new(Arc::new(vault), super::super::NodeOptions::default(), Arc::new(drop)));
        let run = Run::new(&shared);
        let links: Vec<_> = [1, 2].map(|n| shared.link(DeviceId::from_bytes([n; 32]))).into();
        let mut clocks = Clocks::now();
        let mut woken = async |hours: i64| {
            clock::wrong_by(hours * 3_600_000, || run.wake_after_sleep(&mut clocks));
            let mut count = 0;
            for link in &links {
                count += u32::from(timeout(Duration::ZERO, link.wake.notified()).await.is_ok());
            }
            count
        };
        assert_eq!([woken(0).await, woken(8).await, woken(8).await], [0, 2, 0]);
    }
}
