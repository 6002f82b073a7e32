//! What goes into and comes out of replication.

use super::{Findings, Haste, Limits};
use crate::{
    event::Frontier,
    id::{DeviceId, Root},
    meter::{Shares, Stage},
    session::{Direction, Stay},
    transport::{Choice, Congestion, Connection, Network, PlainLanes, TransportError, TransportKind, Tuning},
    vault::{Fuse, VaultError},
};
use std::{cmp::Ordering, net::SocketAddr, ops::Add, sync::Arc, time::Duration};
use tokio::sync::watch;

/// How to run one session.
#[derive(Debug, Clone)]
pub struct Options {
    /// From our point of view.
    pub direction: Direction,
    /// QUIC, TCP, or whichever connects.
    pub choice: Choice,
    /// Lanes for chunks; none lets the transport's default stand.
    pub lanes: Option<usize>,
    /// How fast bytes may go; shared by all sessions that are given the same.
    pub limits: Arc<Limits>,
    /// QUIC's congestion control; none lets the default stand.
    pub congestion: Option<Congestion>,
    /// Whether lanes may go without TLS, if the other end allows it, too.
    pub plain_lanes: PlainLanes,
    /// Only find out how many events each side lacks.
    pub dry_run: bool,
    /// Stops before the peer deletes more here than it lets pass; none lets everything pass.
    pub fuse: Option<Arc<Fuse>>,
    /// Where sockets come from.
    pub network: Network,
    /// Whether to stay connected once both are equal, and to send what becomes durable here at once. A server lets who wants to stay.
    pub stay: Stay,
    /// How often such a session is dialled until there is an answer.
    pub haste: Haste,
}

impl Options {
    /// What the transport needs to know of it.
    pub(super) fn tuning(&self) -> Tuning {
        let tuning = Tuning::default();
        Tuning {
            congestion: self.congestion.unwrap_or(tuning.congestion),
            plain_lanes: self.plain_lanes,
            network: self.network.clone(),
            ..tuning
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            direction: Direction::Both,
            choice: Choice::Auto,
            lanes: None,
            limits: Arc::default(),
            congestion: None,
            plain_lanes: PlainLanes::default(),
            dry_run: false,
            fuse: None,
            network: Network::default(),
            stay: Stay::UntilEqual,
            haste: Haste::default(),
        }
    }
}

/// Whom to talk to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Name for people.
    pub name: String,
    /// Its key; nobody else is accepted at its addresses.
    pub device: DeviceId,
    /// Where it may be.
    pub addresses: Vec<SocketAddr>,
}

/// What a session did.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The device at the other end.
    pub peer: DeviceId,
    /// What carried most of its bytes.
    pub transport: TransportKind,
    /// What carried how much.
    pub transports: ByTransport,
    /// How often a connection broke and another one took its place.
    pub reconnects: u32,
    /// Whether lanes went without TLS.
    pub plain_lanes: bool,
    /// Whether it went on from what an interrupted session had left.
    pub resumed: bool,
    /// Events sent.
    pub events_sent: u64,
    /// Events received and applied.
    pub events_received: u64,
    /// Chunks sent.
    pub chunks_sent: u64,
    /// Chunks received, verified and stored.
    pub chunks_received: u64,
    /// Chunks of the events exchanged that were already here or there.
    pub chunks_present: u64,
    /// Bytes of chunk frames sent.
    pub bytes_sent: u64,
    /// Bytes of chunk frames received and verified.
    pub bytes_received: u64,
    /// Chunks that the peer should have had and did not.
    pub chunks_unavailable: u64,
    /// Of the chunks received: those of events that were here already, and that had been lost.
    pub chunks_healed: u64,
    /// Of the chunks not available: those that one side had lost, and the other does not have either.
    pub chunks_lost: u64,
    /// Bytes on the wire, both ways, as far as the transport counts them.
    pub wire_bytes_sent: u64,
    /// Bytes on the wire towards us.
    pub wire_bytes_received: u64,
    /// From the first packet to the last.
    pub elapsed: Duration,
    /// Until the first chunk had arrived or left, if one did.
    pub first_chunk: Option<Duration>,
    /// What kept it from being faster.
    pub limiting_stage: Stage,
    /// What each stage took of the time.
    pub stages: Shares,
    /// What the user must know of either replica's past.
    pub findings: Findings,
    /// Our root at the end.
    pub root: Root,
    /// The peer's, as it last said.
    pub peer_root: Option<Root>,
}

impl Summary {
    /// Bytes of chunks, both ways: whether a session got anywhere.
    pub(super) fn moved(&self) -> u64 {
        self.bytes_sent + self.bytes_received + self.events_received
    }

    /// What this session and those before it did together, of which the last one's connection broke. It took `elapsed` in all.
    pub(super) fn after(self, earlier: &Self, elapsed: Duration) -> Self {
        let transports = self.transports + earlier.transports;
        let before = elapsed.saturating_sub(self.elapsed);
        Self {
            transport: transports.most().unwrap_or(self.transport),
            transports,
            reconnects: earlier.reconnects + 1,
            resumed: earlier.resumed,
            events_sent: self.events_sent + earlier.events_sent,
            events_received: self.events_received + earlier.events_received,
            chunks_healed: self.chunks_healed + earlier.chunks_healed,
            chunks_sent: self.chunks_sent + earlier.chunks_sent,
            chunks_received: self.chunks_received + earlier.chunks_received,
            // What the earlier ones moved is there already when this one asks.
            chunks_present: self.chunks_present.saturating_sub(earlier.chunks_sent + earlier.chunks_received),
            bytes_sent: self.bytes_sent + earlier.bytes_sent,
            bytes_received: self.bytes_received + earlier.bytes_received,
            wire_bytes_sent: self.wire_bytes_sent + earlier.wire_bytes_sent,
            wire_bytes_received: self.wire_bytes_received + earlier.wire_bytes_received,
            elapsed,
            first_chunk: earlier.first_chunk.or(self.first_chunk.map(|after| before + after)),
            findings: self.findings.clone().after(&earlier.findings),
            ..self
        }
    }

    /// Whether both replicas hold the same events, and all chunks of them as far as the session has found.
    pub fn is_identical(&self) -> bool {
        self.peer_root == Some(self.root) && self.chunks_lost == 0
    }

    /// Verified chunk bytes, both ways, a second, in bits.
    pub fn goodput_bits_per_s(&self) -> u64 {
        let bits = (self.bytes_sent + self.bytes_received) as f64 * 8.0;
        (bits / self.elapsed.as_secs_f64().max(1e-6)) as u64
    }
}

/// Bytes on the wire, both ways, by what carried them. Together they are all that the transports count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByTransport {
    /// Over QUIC.
    pub quic: u64,
    /// Over TCP, lanes of a QUIC connection included.
    pub tcp: u64,
}

impl ByTransport {
    pub(super) fn of(connection: &Connection) -> Self {
        let over = |kind| {
            let stats = connection.stats_over(kind);
            stats.bytes_sent + stats.bytes_received
        };
        Self { quic: over(TransportKind::Quic), tcp: over(TransportKind::Tcp) }
    }

    /// What carried more; none when neither did.
    pub(super) fn most(self) -> Option<TransportKind> {
        match self.quic.cmp(&self.tcp) {
            Ordering::Greater => Some(TransportKind::Quic),
            Ordering::Less => Some(TransportKind::Tcp),
            Ordering::Equal => None,
        }
    }
}

impl Add for ByTransport {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { quic: self.quic + other.quic, tcp: self.tcp + other.tcp }
    }
}

/// What a session tells while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The handshake is done: totals begin anew. Of what a broken connection was given to send, what has not arrived is sent again.
    Connected {
        /// What carries it.
        transport: TransportKind,
        /// Where the peer is.
        address: Option<SocketAddr>,
    },
    /// So much is known to have to come over this connection, in all.
    Total {
        /// Chunks.
        chunks: u64,
        /// Bytes of their frames.
        bytes: u64,
    },
    /// So much is known to have to leave over this connection, in all.
    ToSend {
        /// Chunks.
        chunks: u64,
        /// Bytes of their frames.
        bytes: u64,
    },
    /// So much more was verified and stored here.
    Received {
        /// Chunks.
        chunks: u64,
        /// Bytes of their frames.
        bytes: u64,
    },
    /// Both stay: what becomes durable on one side goes to the other at once, from now on.
    Live,
    /// Of the peer nothing was heard for longer than it keeps quiet by itself: it may be elsewhere by now.
    Silent,
    /// Something is heard of it again.
    Heard,
    /// What the peer said that it holds, when it proved itself.
    PeerHolds {
        /// All that it holds.
        frontier: Frontier,
        /// Digest over its heads.
        root: Root,
    },
    /// The peer has applied these, durably.
    PeerApplied {
        /// All that it has applied.
        frontier: Frontier,
        /// Digest over its heads.
        root: Root,
    },
    /// Both hold the same, again.
    Identical {
        /// Digest over the heads of each.
        root: Root,
    },
    /// So much more was handed to the transport.
    Sent {
        /// Chunks.
        chunks: u64,
        /// Bytes of their frames.
        bytes: u64,
    },
    /// What each stage took of the last half second or so.
    Stages(Shares),
    /// No session is up: the next one is begun after a pause.
    Waiting {
        /// Why.
        reason: String,
        /// For how long.
        pause: Duration,
    },
}

/// Who watches a session, and can stop it. Called from many threads; must return at once.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn progress(&self, progress: Progress);
    /// Whether to stop at the next commit point. Asked often.
    fn cancelled(&self) -> bool;
    /// Turns true when [`Observer::cancelled`] does, so that nobody has to ask; none where it has to be asked.
    fn stopping(&self) -> Option<watch::Receiver<bool>> {
        None
    }
}

/// Watches nothing, never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn progress(&self, _: Progress) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Why a session did not do what it was to do. What was committed stays, and the next session goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicateError {
    /// The network's, or the peer's device's doing.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// This replica's trouble.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The peer did not prove that it belongs to this vault, or does not want this session.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// The peer sent an event whose device may not write it, or is itself out of the vault. Nothing of it was stored.
    #[error("{0}")]
    NotAllowed(String),
    /// The peer broke the protocol, or sent what does not check.
    #[error("the peer misbehaved: {0}")]
    Peer(String),
    /// The peer has trouble of its own; try again later.
    #[error("the peer stopped: {0}")]
    PeerStopped(String),
    /// A fork or a rollback was found.
    #[error("{0}")]
    Fork(String),
    /// The peer's changes delete more than is allowed; nothing of them was taken over.
    #[error("{deletions} keys would be deleted, more than the {allowed} allowed at once; nothing of that was taken over")]
    Fuse {
        /// Keys that stand here and would be gone.
        deletions: u64,
        /// How many may go.
        allowed: u64,
    },
    /// The ticket is malformed, expired, used, or the peer's no more.
    #[error("the ticket cannot be used: {0}")]
    Ticket(String),
    /// The peer cannot do what was asked of it: it is older.
    #[error("{0}")]
    Unsupported(String),
    /// None of the peer's addresses can be looked up.
    #[error("no address of the peer was found: {0}")]
    NoAddress(String),
    /// A part of the session panicked. What was committed before stays; the same may not happen again.
    #[error("the session broke down, which is a fault of this program: {0}")]
    BrokeDown(String),
    /// The user stopped it.
    #[error("interrupted")]
    Cancelled,
    /// Everything that could be done was, but some chunks exist nowhere on this path.
    #[error("{} chunks are not available from this peer", .0.chunks_unavailable)]
    Partial(Box<Summary>),
}

impl ReplicateError {
    /// A task or a thread of a session ended as it should not.
    pub(super) fn broke_down(error: impl std::fmt::Display) -> Self {
        Self::BrokeDown(error.to_string())
    }
}
