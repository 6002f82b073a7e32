//! What a node is told, and what it tells.

use crate::{
    id::{DeviceId, Root},
    meter::Stage,
    replicate::{self, Options, ReplicateError, Served, Summary},
    transport::TransportKind,
    vault::{DeleteLimit, Vault, VaultError, VaultInfo},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Opens the vault anew: after its directory was gone, what was open of it leads nowhere.
pub type Reopen = Arc<dyn Fn() -> Result<Vault, VaultError> + Send + Sync>;

/// Who hears what happens. Called from many threads; must return at once.
pub type Report = Arc<dyn Fn(Told) + Send + Sync>;

/// How a node is to run.
#[derive(Clone)]
pub struct NodeOptions {
    /// Where to listen, with UDP and TCP each; nowhere if empty.
    pub listen: Vec<SocketAddr>,
    /// What new replicas call this one.
    pub name: String,
    /// Which peers to dial.
    pub follow: Follow,
    /// How many keys a peer may delete here at once; all if none.
    pub max_delete: Option<DeleteLimit>,
    /// How each session runs. Its limits are those of [`Node::limits`](super::Node::limits); `stay`, `fuse` and `dry_run` are the node's.
    pub sync: Options,
    /// Opens the vault again after its directory was gone and is back; none keeps what is open.
    pub reopen: Option<Reopen>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { listen: Vec::new(), name: "node".into(), follow: Follow::AllKnown, max_delete: None, sync: Options::default(), reopen: None }
    }
}

/// Which peers a node dials. Whoever is in the vault may dial it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follow {
    /// All that this device knows an address of.
    AllKnown,
    /// Those with these names.
    Only(Vec<String>),
}

impl Follow {
    pub(super) fn takes(&self, name: &str) -> bool {
        match self {
            Self::AllKnown => true,
            Self::Only(names) => names.iter().any(|wanted| wanted == name),
        }
    }
}

/// Something happened that is worth a line.
#[derive(Debug)]
pub enum Told {
    /// A session that this node dialled has ended.
    Followed {
        /// With whom.
        peer: DeviceId,
        /// How.
        result: Result<Box<Summary>, ReplicateError>,
    },
    /// A session that a peer dialled, an examination or a pairing has ended.
    Served(Served),
    /// A peer's [`State`] is another one, or its reason is.
    Changed {
        /// Whose.
        peer: DeviceId,
        /// Its state now.
        state: State,
    },
    /// The vault takes nothing more, or does again.
    Paused(Option<Pause>),
}

/// Why a vault or a peer stands still although nobody refuses anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// The user's wish.
    User,
    /// No space, quota or inodes: nothing is taken, but everything is served.
    NoSpace,
    /// A peer would delete more than may be deleted at once.
    Fuse,
    /// The vault's directory is not there.
    Gone,
    /// The disk refuses what it is asked for.
    Disk,
}

/// A vault, or a peer, stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The kind.
    pub reason: PauseReason,
    /// In words.
    pub text: String,
    /// Since when: milliseconds since 1970.
    pub since_ms: u64,
    /// When it is tried again by itself; never if none.
    pub next_in: Option<Duration>,
}

/// Who dialled a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialled {
    /// This node.
    ByUs,
    /// The peer.
    ByThem,
}

/// A session that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// What carries it.
    pub transport: TransportKind,
    /// Where the peer is.
    pub address: Option<SocketAddr>,
    /// Who dialled.
    pub dialled: Dialled,
    /// Since when: milliseconds since 1970.
    pub since_ms: u64,
}

/// What becomes of the connection with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A dial or a handshake is under way.
    Connecting {
        /// Since when: milliseconds since 1970.
        since_ms: u64,
    },
    /// A session is up, and nothing moves.
    Live(Path),
    /// A session is up, and chunks move.
    Transferring(Path),
    /// No session is up: the next dial comes after a pause, at once when the network changes or the peer dials.
    Waiting {
        /// Why.
        reason: String,
        /// Since when: milliseconds since 1970.
        since_ms: u64,
        /// Until the next dial; none when no address is known, and the peer has to dial.
        next_in: Option<Duration>,
    },
    /// The peer does not want this device, or is not who it should be. It is tried again, seldom.
    Refused {
        /// Why.
        reason: String,
        /// Since when: milliseconds since 1970.
        since_ms: u64,
        /// Until the next dial.
        next_in: Option<Duration>,
    },
    /// Something here has to change first.
    Paused(Pause),
}

impl State {
    /// Whether it says the same but for how long it lasts.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Waiting { reason, .. }, Self::Waiting { reason: before, .. })
            | (Self::Refused { reason, .. }, Self::Refused { reason: before, .. }) => reason == before,
            (Self::Paused(pause), Self::Paused(before)) => pause.reason == before.reason && pause.text == before.text,
            (Self::Connecting { .. }, Self::Connecting { .. }) => true,
            _ => self == other,
        }
    }
}

/// How far two replicas are from each other. What is not known is none: a peer that was never met, or a lag too long to add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Events that are here and not applied there.
    pub events_out: Option<u64>,
    /// Events that are there, as far as it has said, and not applied here.
    pub events_in: Option<u64>,
    /// Bytes of the chunks that events not applied there name.
    pub bytes_out: Option<u64>,
    /// Bytes that the session at hand knows to be on the way here.
    pub bytes_in: Option<u64>,
    /// Since both last held the same; zero while they do.
    pub age: Option<Duration>,
}

/// What has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes of chunk frames sent.
    pub bytes_sent: u64,
    /// Bytes of chunk frames received and verified.
    pub bytes_received: u64,
    /// Over the last seconds.
    pub sent_per_s: u64,
    /// Over the last seconds.
    pub received_per_s: u64,
}

/// One peer, now.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// What people call it here.
    pub name: String,
    /// Its key.
    pub device: DeviceId,
    /// Where it is looked for.
    pub addresses: Vec<SocketAddr>,
    /// What becomes of the connection.
    pub state: State,
    /// How far the two are from each other.
    pub lag: Lag,
    /// What has moved since the node was started.
    pub traffic: Traffic,
    /// What limits the transfer under way, or limited the last one.
    pub limiting: Option<Stage>,
    /// Sessions that became live since the node was started.
    pub sessions: u64,
    /// Why the last session or dial failed, if the last one did.
    pub last_error: Option<String>,
}

/// A node, now.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// Which vault.
    pub vault: VaultInfo,
    /// Since when: milliseconds since 1970.
    pub since_ms: u64,
    /// Open ports, for QUIC.
    pub quic: Vec<SocketAddr>,
    /// Open ports, for TCP.
    pub tcp: Vec<SocketAddr>,
    /// Digest over the heads here.
    pub root: Root,
    /// Why the vault takes nothing, if so.
    pub paused: Option<Pause>,
    /// The rates that hold, in bytes a second: up, down.
    pub limits: (Option<u64>, Option<u64>),
    /// Every known peer, and whoever else is connected, by name.
    pub peers: Vec<PeerStatus>,
}

impl NodeStatus {
    /// Whether every known peer is known to hold the same.
    pub fn is_identical(&self) -> bool {
        self.peers.iter().all(|peer| peer.lag.age == Some(Duration::ZERO))
    }
}

/// The rates of a node, for [`Options`]: one for all its sessions.
pub type Limits = replicate::Limits;
