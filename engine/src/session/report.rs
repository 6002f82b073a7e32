//! What a session tells those who watch it.

use super::message::ByeCode;
use crate::{
    event::{Dot, Frontier},
    id::{ChunkId, ReplicaId, Root},
    keys::Certificate,
    meter::Load,
};

/// Something worth showing, counting or remembering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The peer proved itself and said what it holds.
    PeerKnown {
        /// The peer.
        replica: ReplicaId,
        /// Its frontier. Remember it: with it the next session saves a round trip.
        frontier: Frontier,
        /// Digest over its heads.
        root: Root,
    },
    /// What the peer's wall clock said at its Hello.
    PeerClock {
        /// Milliseconds since 1970.
        wall_ms: u64,
    },
    /// Both sides stay: from now on what becomes durable on one goes to the other at once.
    Live,
    /// The peer has applied events, of ours or of others.
    PeerApplied {
        /// Its frontier.
        frontier: Frontier,
        /// Digest over its heads.
        root: Root,
    },
    /// We have applied events.
    Applied {
        /// Our frontier.
        frontier: Frontier,
        /// Digest over our heads.
        root: Root,
    },
    /// What the peer's stages have cost so far, as it says.
    PeerLoad(Load),
    /// Both replicas hold the same events. In a session that stays: each time that they do again.
    Identical {
        /// Their common digest.
        root: Root,
    },
    /// Both sides have signed that they hold the same.
    Certified(Certificate),
    /// The peer said that it holds what we hold, under a signature that is not its own. It was ignored.
    Misattested,
    /// So much more is needed than was known before.
    Missing {
        /// Chunks.
        chunks: u64,
        /// Bytes of their frames, estimated from the lists' means where a list is missing in part.
        bytes: u64,
    },
    /// So much more is to be sent than was known before.
    ToSend {
        /// Chunks.
        chunks: u64,
        /// Bytes of their frames, estimated from the lists' means where the peer lacks a list in part.
        bytes: u64,
    },
    /// Chunks arrived and were checked.
    Received {
        /// Chunks.
        chunks: u64,
        /// Bytes of their frames.
        bytes: u64,
    },
    /// Chunks were sent.
    Served {
        /// Bytes of their frames.
        bytes: u64,
    },
    /// What was lost of events that the peer has is being asked for.
    Healing,
    /// All of that was asked for. What has come is durable once the session is over.
    Healed {
        /// Chunks that came, from this peer or another.
        chunks: u64,
        /// Chunks that the peer does not have either.
        lost: u64,
    },
    /// Events were sent.
    EventsSent {
        /// How many.
        events: u64,
    },
    /// Events came that were new.
    EventsReceived {
        /// How many.
        events: u64,
    },
    /// The peer found these chunks of ours damaged: verify and heal them.
    DamagedHere {
        /// The chunks.
        chunks: Vec<ChunkId>,
    },
    /// Chunks of the peer were damaged on arrival.
    DamagedThere {
        /// The chunks.
        chunks: Vec<ChunkId>,
    },
    /// The session is over; nothing follows.
    Ended(Outcome),
}

/// An event that is kept and not applied, because the peer lacks chunks of it or of one that it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The event.
    pub event: Dot,
    /// Chunks of its own that are missing.
    pub chunks: u64,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All that was to flow has flowed and is durable.
    Complete,
    /// The same, but for what nobody could serve.
    Partial {
        /// Events that wait here.
        here: Vec<Waiting>,
        /// Events that wait at the peer.
        there: u64,
        /// Chunks that were lost here and that the peer does not have either.
        lost_here: u64,
        /// The same, the other way round.
        lost_there: u64,
    },
    /// Both hold the same sequence numbers and yet other events: some author's log was forked.
    Diverged,
    /// The user stopped it; what was committed stays.
    Stopped,
    /// The peer ended it.
    PeerEnded {
        /// Why.
        code: ByeCode,
        /// Its words.
        reason: String,
    },
    /// It broke.
    Failed(SessionError),
}

/// Why a session broke, by whose fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The peer could not prove that it belongs to the vault. Nothing was said to it.
    #[error(transparent)]
    NotAMember(#[from] super::hello::NotAMember),
    /// The peer broke a rule of the protocol. Do not retry soon.
    #[error("the peer broke the protocol: {what}")]
    Protocol {
        /// The rule.
        what: String,
    },
    /// The peer cannot be talked with, by nobody's fault.
    #[error("this peer is refused: {what}")]
    Refused {
        /// Why.
        what: &'static str,
    },
    /// The peer sent an event that its author was not allowed to write, or that does more than the user here lets in.
    #[error("{what}")]
    NotAllowed {
        /// Which, and why.
        what: String,
    },
    /// The peer did nothing for too long. Retry.
    #[error("the peer did not {what} in time")]
    TimedOut {
        /// What it owed.
        what: &'static str,
    },
    /// This side failed. Mend what the reason names, then retry.
    #[error("{reason}")]
    Here {
        /// Why.
        reason: String,
    },
}

impl SessionError {
    /// The error of a peer that broke the rule `what`.
    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    pub(super) fn bye_code(&self) -> ByeCode {
        match self {
            Self::NotAMember(_) | Self::Refused { .. } | Self::NotAllowed { .. } => ByeCode::Refused,
            Self::Protocol { .. } => ByeCode::Violation,
            Self::TimedOut { .. } => ByeCode::TimedOut,
            Self::Here { .. } => ByeCode::Trouble,
        }
    }
}
