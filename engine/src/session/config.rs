//! What a session is told at its start.

use super::{action::Admitted, forks::ForkKnowledge, healing::Holding, hello::HelloKeys};
use crate::{
    event::Frontier,
    id::{ReplicaId, Root, VaultId},
    keys::Witness,
    limits::{INLINE_BYTES_MAX, PENDING_EVENT_BYTES_MAX, PENDING_EVENTS_MAX, WANTED_BYTES_MAX, WANTED_CHUNKS_MAX, WANTS_MAX},
};
use minicbor::{Decode, Encode};

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that connected. It speaks first.
    Dialer,
    /// The one that was connected to. It is silent until the dialer has proved itself.
    Listener,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Listener,
            Self::Listener => Self::Dialer,
        }
    }
}

/// Which way events may flow, as the side that says it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Direction {
    /// Only from us.
    #[n(0)]
    Push,
    /// Only to us.
    #[n(1)]
    Pull,
    /// Both ways.
    #[n(2)]
    Both,
}

impl Direction {
    pub(super) fn sends(self) -> bool {
        matches!(self, Self::Push | Self::Both)
    }

    pub(super) fn receives(self) -> bool {
        matches!(self, Self::Pull | Self::Both)
    }
}

/// When a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stay {
    /// When both sides hold what they held together at its start.
    #[default]
    UntilEqual,
    /// When one side ends it: until then, what becomes durable on one side goes to the other at once. Only if both sides say so; with a
    /// peer that does not, the session ends as any other.
    Live,
}

/// How much may be under way at once. The defaults are the limits of the protocol; less is always allowed, more is cut to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Lists of at most this many bytes travel on the control stream. Above about one lane's start-up cost they delay events.
    pub inline_bytes_max: u64,
    /// Bytes of chunks asked for and not yet here. Below bandwidth times round trip the link idles.
    pub wanted_bytes_max: u64,
    /// Chunks asked for and not yet here: about 100 bytes of memory each.
    pub wanted_chunks_max: usize,
    /// Wants sent and not yet answered.
    pub wants_max: usize,
    /// Events sent and not yet applied by the peer.
    pub pending_events_max: usize,
    /// Bytes of events sent and not yet applied by the peer. One event always goes, whatever its size.
    pub pending_event_bytes_max: usize,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            inline_bytes_max: INLINE_BYTES_MAX as u64,
            wanted_bytes_max: WANTED_BYTES_MAX,
            wanted_chunks_max: WANTED_CHUNKS_MAX,
            wants_max: WANTS_MAX,
            pending_events_max: PENDING_EVENTS_MAX,
            pending_event_bytes_max: PENDING_EVENT_BYTES_MAX,
        }
    }
}

impl Windows {
    /// The same, none of it above the protocol's limits or zero where zero would stop the session.
    pub(super) fn bounded(self) -> Self {
        let limits = Self::default();
        Self {
            inline_bytes_max: self.inline_bytes_max.min(limits.inline_bytes_max),
            wanted_bytes_max: self.wanted_bytes_max.clamp(1, limits.wanted_bytes_max),
            wanted_chunks_max: self.wanted_chunks_max.clamp(1, limits.wanted_chunks_max),
            wants_max: self.wants_max.clamp(1, limits.wants_max),
            pending_events_max: self.pending_events_max.clamp(1, limits.pending_events_max),
            pending_event_bytes_max: self.pending_event_bytes_max.clamp(1, limits.pending_event_bytes_max),
        }
    }
}

/// Who talks, how, about what.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which end this is.
    pub side: Side,
    /// Which way events may flow. For a listener: what it allows.
    pub direction: Direction,
    /// The vault.
    pub vault: VaultId,
    /// This replica.
    pub replica: ReplicaId,
    /// Keys of this connection's Hellos.
    pub hello_keys: HelloKeys,
    /// The peer's frontier when we last heard of it. A dialer with one sends the first events right behind its Hello, which saves
    /// a round trip; if it is wrong, those bytes are wasted and nothing else happens.
    pub cached_peer_frontier: Option<Frontier>,
    /// Whether to stay once both sides are equal. For a listener: whether it lets a dialer stay.
    pub stay: Stay,
    /// Limits of what is under way.
    pub windows: Windows,
    /// Who signs that both are the same; none leaves it unsigned.
    pub witness: Option<Witness>,
    /// The wall clock when the session begins, milliseconds since 1970: what is signed names a time, for display.
    pub wall_ms: u64,
}

/// The state of this replica when the session starts.
#[derive(Debug, Clone)]
pub struct Local {
    /// Events applied.
    pub frontier: Frontier,
    /// Digest over the heads.
    pub root: Root,
    /// Events in the journal that wait for chunks, in causal order, each with what it lacks.
    pub pending: Vec<Admitted>,
    /// Whether all chunks of the events applied are here.
    pub holding: Holding,
    /// What is known of forked logs.
    pub forks: ForkKnowledge,
}
