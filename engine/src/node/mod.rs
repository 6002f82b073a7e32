//! A node: a vault kept equal with its peers, for as long as it runs.
//!
//! ```text
//!               ┌ listener ── one session for each caller ──┐
//! Node ── Run ──┤                                           ├── Link, one a device: state, lag, traffic, which sessions are up
//!   (a vault)   └ followers ── one session at a time each ──┘
//! ```
//! A change goes out by whichever sessions are up, and what comes in from one goes on to all others, so a chain of nodes is enough for all
//! to be equal; what does it is `replicate`. Here is decided who is dialled and when, which of two sessions stays ([`rule`](self)), what
//! is waited for and what is said of it.
//!
//! # Invariants
//! - Nothing ends a node but [`Node::stop`] and its drop. What fails is shown, and tried again.
//! - A session is a task of its own: a panic ends that session and no other.
//! - A vault that has no room takes nothing and still gives.
//! - One node a vault directory: [`VaultError::Busy`] for the second.
//! - Memory does not grow with the number of sessions that there were.

mod flow;
mod follower;
mod leash;
mod link;
mod lock;
mod refusal;
mod rule;
mod run;
mod shared;
#[cfg(test)]
mod tests;
mod types;

pub use types::{
    Dialled, Follow, Lag, Limits, NodeOptions, NodeStatus, Path, Pause, PauseReason, PeerStatus, Reopen, Report, State, Told, Traffic,
};

use crate::{
    id::DeviceId,
    replicate::{ReplicateError, Server},
    vault::{CONFIG_FILE, Vault, VaultError},
};
use lock::DaemonLock;
use run::{End, Run};
use shared::{Shared, locked};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::sleep};

/// How often it is looked for a vault directory that is gone.
const GONE_LOOK: Duration = Duration::from_secs(1);

/// A vault that is served and followed. Dropped, it ends at once: what was committed stays.
pub struct Node {
    shared: Arc<Shared>,
    task: JoinSet<()>,
}

impl Node {
    /// Begins to listen and to follow.
    ///
    /// # Errors
    /// [`VaultError::Busy`] when another node runs on the same directory; when an address cannot be bound.
    pub async fn start(vault: Arc<Vault>, options: NodeOptions, report: Report) -> Result<Self, ReplicateError> {
        let lock = DaemonLock::take(vault.dir())?;
        let shared = Arc::new(Shared::new(vault, options, report));
        let run = Run::new(&shared);
        let server = run.bind(&shared.options.listen).await?;
        let mut task = JoinSet::new();
        task.spawn(supervise(shared.clone(), run, server, lock));
        Ok(Self { shared, task })
    }

    /// The vault as it is open now.
    pub fn vault(&self) -> Arc<Vault> {
        self.shared.vault()
    }

    /// What is going on. Cheap: reads the log only where a peer lags, and no more of it than a few MiB.
    pub fn status(&self) -> NodeStatus {
        let vault = self.shared.vault();
        let root = vault.store().root();
        let (quic, tcp) = locked(&self.shared.ports).clone();
        let mut peers: Vec<PeerStatus> = self.shared.links().iter().map(|link| link.status(vault.store(), root)).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name).then(a.device.cmp(&b.device)));
        NodeStatus {
            vault: vault.info(),
            since_ms: self.shared.since_ms,
            quic,
            tcp,
            root,
            paused: self.shared.standing.borrow().as_ref().map(shared::Standing::shown),
            limits: (self.shared.limits.send.get(), self.shared.limits.receive.get()),
            peers,
        }
    }

    /// Rates that hold for all sessions together, and can be changed at any time.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.shared.limits
    }

    /// Open ports: QUIC's, TCP's.
    pub fn local_addrs(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        locked(&self.shared.ports).clone()
    }

    /// Ends all sessions and begins none until [`Node::resume`].
    pub fn pause(&self) {
        self.shared.stand_still(PauseReason::User, "paused by the user".into());
        self.shared.links().iter().for_each(|link| link.stop(|_| true));
    }

    /// Goes on at once, whatever it stood still for.
    pub fn resume(&self) {
        self.shared.try_again();
    }

    /// The network is another one, or is back: everybody who is waited for is dialled now.
    pub fn network_changed(&self) {
        self.shared.wake();
    }

    /// Where a device was found, beside what `peers.toml` says. Who is not known is not dialled.
    pub fn addresses(&self, device: DeviceId, addresses: Vec<SocketAddr>) {
        let link = self.shared.link(device);
        if link.set_found(addresses) {
            link.wake.notify_one();
            self.shared.look.notify_one();
        }
    }

    /// Ends in order: sessions get to their commit points, and a few seconds for it.
    pub async fn stop(mut self) {
        self.shared.stop.send_replace(true);
        while self.task.join_next().await.is_some() {}
    }
}

/// Runs on the vault for as long as its directory is there, and again when it is back.
async fn supervise(shared: Arc<Shared>, mut run: Arc<Run>, mut server: Option<Server>, lock: DaemonLock) {
    let mut lock = Some(lock);
    while run.work(server.take()).await == End::Gone {
        let dir = run.vault.dir().to_owned();
        shared.stand_still(PauseReason::Gone, format!("{} is not there", dir.display()));
        drop((run, lock.take()));
        (run, server, lock) = loop {
            let mut stop = shared.stop.subscribe();
            select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(GONE_LOOK) => {}
            }
            if !dir.join(CONFIG_FILE).exists() {
                continue;
            }
            match again(&shared).await {
                Ok((run, server, lock)) => break (run, server, Some(lock)),
                Err(error) => shared.stand_still(PauseReason::Gone, error.to_string()),
            }
        };
        shared.try_again();
    }
}

/// The vault and its ports, open again.
async fn again(shared: &Arc<Shared>) -> Result<(Arc<Run>, Option<Server>, DaemonLock), ReplicateError> {
    if let Some(reopen) = shared.options.reopen.clone() {
        let vault = tokio::task::spawn_blocking(move || reopen()).await.map_err(VaultError::internal)??;
        shared.replace_vault(Arc::new(vault));
    }
    let lock = DaemonLock::take(shared.vault().dir())?;
    let run = Run::new(shared);
    let ports = locked(&shared.ports).0.clone();
    let server = run.bind(&ports).await?;
    Ok((run, server, lock))
}
