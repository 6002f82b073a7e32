//! One vault that is kept: opened, given to a node, opened again when that failed.

use super::{
    folders::Folders,
    plan::VaultPlan,
    state::{KeptState, PauseState, PeerState, VaultState},
};
use crate::{commands::pairing, failure::Failure, render};
use mirror_engine::{
    home::Home,
    node::{Dialled, Follow, Lag, Node, NodeOptions, NodeStatus, Path, Pause, PauseReason, PeerStatus, Report, State, Told},
    replicate::{Limits, Options, ReplicateError},
    transport::TransportError,
    vault::{Repair, Vault, VaultError},
};
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

/// What a node has told, and of which vault it speaks.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) dir: PathBuf,
    pub(super) told: Told,
}

/// A vault, and the node that keeps it while there is one.
pub(super) struct Keeper {
    pub(super) plan: VaultPlan,
    place: Mutex<Place>,
}

enum Place {
    Kept(Node, Folders),
    Trouble(Failure),
    /// Somebody else has its ports.
    PortsTaken(Failure),
    Stopped,
}

/// What all keepers of a daemon share.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) home: Home,
    pub(super) limits: Arc<Limits>,
    pub(super) heard: mpsc::Sender<Heard>,
}

impl Keeper {
    /// Opens the vault and begins to keep it; a failure stays with the keeper until a later try.
    pub(super) async fn start(plan: VaultPlan, ground: &Ground) -> Self {
        let place = open_and_start(&plan, ground).await;
        Self { plan, place: Mutex::new(place) }
    }

    /// Tries again if it is in trouble.
    pub(super) async fn try_again(&self, ground: &Ground) {
        if self.failure().is_some() {
            let place = open_and_start(&self.plan, ground).await;
            *self.place() = place;
        }
    }

    /// Why it does not keep its vault, if so.
    pub(super) fn failure(&self) -> Option<Failure> {
        match &*self.place() {
            Place::Trouble(failure) | Place::PortsTaken(failure) => Some(failure.clone()),
            Place::Kept(..) | Place::Stopped => None,
        }
    }

    /// Whether it does not keep its vault because somebody else has its ports.
    pub(super) fn lacks_ports(&self) -> bool {
        matches!(&*self.place(), Place::PortsTaken(_))
    }

    /// What `ask` says of the node, if there is one.
    pub(super) fn with_node<T>(&self, ask: impl FnOnce(&Node) -> T) -> Option<T> {
        match &*self.place() {
            Place::Kept(node, _) => Some(ask(node)),
            Place::Trouble(_) | Place::PortsTaken(_) | Place::Stopped => None,
        }
    }

    /// Has the folders follow the vault as it is open now: it was opened again if its directory was gone.
    pub(super) fn look_after_folders(&self) {
        if let Place::Kept(node, folders) = &mut *self.place() {
            folders.follow(&node.vault());
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> VaultState {
        let (status, folders) = match &*self.place() {
            Place::Kept(node, folders) => (Some(node.status()), folders.states()),
            Place::Trouble(_) | Place::PortsTaken(_) | Place::Stopped => (None, Vec::new()),
        };
        let kept = status.map(|status| KeptState { folders, ..kept_state(&status) });
        VaultState { dir: self.plan.dir.clone(), trouble: self.failure().map(|failure| failure.message), kept }
    }

    /// Ends in order: what is under way gets to its commit point.
    pub(super) async fn stop(&self) {
        let place = std::mem::replace(&mut *self.place(), Place::Stopped);
        if let Place::Kept(node, folders) = place {
            // What was saved a moment ago may still leave.
            folders.stop().await;
            node.stop().await;
        }
    }
}

async fn open_and_start(plan: &VaultPlan, ground: &Ground) -> Place {
    let (opened, home) = (plan.clone(), ground.home.clone());
    let opened = tokio::task::spawn_blocking(move || open(&opened, &home)).await;
    let vault = match opened {
        Ok(Ok(vault)) => vault,
        Ok(Err(failure)) => return Place::Trouble(failure),
        Err(error) => {
            return Place::Trouble(Failure::new(crate::failure::Code::Failed, "opening the vault ended early").cause(error.to_string()));
        }
    };
    match Node::start(Arc::new(vault), node_options(plan, ground), report(plan, ground)).await {
        Ok(node) => {
            let folders = Folders::start(&plan.folders, &node.vault());
            Place::Kept(node, folders)
        }
        Err(error) if is_port_taken(&error) => Place::PortsTaken(error.into()),
        Err(error) => Place::Trouble(error.into()),
    }
}

fn is_port_taken(error: &ReplicateError) -> bool {
    matches!(error, ReplicateError::Transport(TransportError::Io { source, .. }) if source.kind() == io::ErrorKind::AddrInUse)
}

/// With what was named for this run, else with this device's slot, else with what the settings name.
fn open(plan: &VaultPlan, home: &Home) -> Result<Vault, Failure> {
    let (mut vault, repairs) = match Vault::open(&plan.dir, home, plan.secrets.first()?) {
        Err(VaultError::Locked) => Vault::open(&plan.dir, home, plan.secrets.unlock()?)?,
        other => other?,
    };
    repairs.iter().for_each(|repair: &Repair| tracing::warn!(vault = %plan.dir.display(), "{}", render::repair_text(repair)));
    vault.limit_memory(plan.memory_bytes);
    if let Follow::Only(names) = &plan.follow {
        say_unknown(plan, &vault, names);
    }
    Ok(vault)
}

/// A name that no peer has is no mistake yet: it counts as soon as a peer is called so.
fn say_unknown(plan: &VaultPlan, vault: &Vault, names: &[String]) {
    let known = vault.acquaintances().unwrap_or_default();
    for name in names.iter().filter(|name| known.iter().all(|known| known.peer.name != **name)) {
        tracing::warn!(vault = %plan.dir.display(), peer = name, "no peer is called so: mirror peer list shows who is known, mirror peer add makes one known");
    }
}

fn node_options(plan: &VaultPlan, ground: &Ground) -> NodeOptions {
    let reopen = {
        let (plan, home) = (plan.clone(), ground.home.clone());
        move || open(&plan, &home).map_err(|failure| VaultError::Usage(failure.message))
    };
    NodeOptions {
        listen: plan.listen.clone(),
        name: pairing::own_name(),
        follow: plan.follow.clone(),
        max_delete: plan.max_delete,
        sync: Options { limits: ground.limits.clone(), ..plan.options() },
        reopen: Some(Arc::new(reopen)),
    }
}

/// Whoever listens is slower than a node may be: what finds the queue full is not said.
fn report(plan: &VaultPlan, ground: &Ground) -> Report {
    let (dir, heard) = (plan.dir.clone(), ground.heard.clone());
    Arc::new(move |told| drop(heard.try_send(Heard { dir: dir.clone(), told })))
}

fn kept_state(status: &NodeStatus) -> KeptState {
    KeptState {
        vault: status.vault.id.to_string(),
        name: status.vault.name.clone(),
        device: status.vault.device.to_string(),
        replica: status.vault.replica.to_string(),
        keyless: status.vault.keyless,
        root: status.root.to_string(),
        since_ms: status.since_ms,
        quic: status.quic.iter().map(ToString::to_string).collect(),
        tcp: status.tcp.iter().map(ToString::to_string).collect(),
        paused: status.paused.as_ref().map(pause_state),
        peers: status.peers.iter().map(peer_state).collect(),
        folders: Vec::new(),
    }
}

fn pause_state(pause: &Pause) -> PauseState {
    let kind = match pause.reason {
        PauseReason::User => "user",
        PauseReason::NoSpace => "no_space",
        PauseReason::Fuse => "fuse",
        PauseReason::Gone => "gone",
        PauseReason::Disk => "disk",
    };
    PauseState { kind: kind.to_owned(), reason: pause.text.clone(), since_ms: pause.since_ms, next_in_ms: pause.next_in.map(ms) }
}

fn peer_state(status: &PeerStatus) -> PeerState {
    let Lag { events_out, events_in, bytes_out, bytes_in, age } = status.lag;
    let known = PeerState {
        name: status.name.clone(),
        device: status.device.to_string(),
        addresses: status.addresses.iter().map(ToString::to_string).collect(),
        lag_events: events_out,
        lag_events_in: events_in,
        lag_bytes: bytes_out,
        lag_bytes_in: bytes_in,
        lag_ms: age.map(ms),
        identical: age.map(|age| age.is_zero()),
        limiting_stage: status.limiting.map(|stage| stage.name().to_owned()),
        bytes_sent: status.traffic.bytes_sent,
        bytes_received: status.traffic.bytes_received,
        sent_bytes_per_s: status.traffic.sent_per_s,
        received_bytes_per_s: status.traffic.received_per_s,
        sessions: status.sessions,
        last_error: status.last_error.clone(),
        ..PeerState::default()
    };
    with_state(known, &status.state)
}

/// What becomes of the connection.
pub(super) fn with_state(peer: PeerState, state: &State) -> PeerState {
    let on = |name: &str, path: &Path| PeerState {
        state: name.to_owned(),
        connected: true,
        since_ms: Some(path.since_ms),
        transport: Some(path.transport.to_string()),
        address: path.address.map(|address| address.to_string()),
        dialled_by: Some(if path.dialled == Dialled::ByUs { "us" } else { "them" }.to_owned()),
        ..peer.clone()
    };
    let off = |name: &str, reason: Option<&String>, since_ms: u64, next_in: Option<Duration>| PeerState {
        state: name.to_owned(),
        reason: reason.cloned(),
        since_ms: Some(since_ms),
        next_in_ms: next_in.map(ms),
        ..peer.clone()
    };
    match state {
        State::Connecting { since_ms } => off("connecting", None, *since_ms, None),
        State::Live(path) => on("live", path),
        State::Transferring(path) => on("transferring", path),
        State::Waiting { reason, since_ms, next_in } => off("waiting", Some(reason), *since_ms, *next_in),
        State::Refused { reason, since_ms, next_in } => off("refused", Some(reason), *since_ms, *next_in),
        State::Paused(pause) => off("paused", Some(&pause.text), pause.since_ms, pause.next_in),
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
