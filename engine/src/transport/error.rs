//! Why a connection could not be made, or ended.

use super::TransportKind;
use crate::id::DeviceId;
use std::{fmt, io, net::SocketAddr, sync::Arc};

/// Why a side closed a connection. One byte on the wire: QUIC's application close code, TCP's close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// Every handle was dropped without a reason: the other side must not take it for success.
    Abandoned,
    /// All is said: the clean end.
    Done,
    /// The device is not known here, or not allowed what it asked for.
    Refused,
    /// The other side broke the protocol.
    ProtocolError,
    /// Try again later.
    Busy,
    /// The process is ending.
    Shutdown,
    /// A lane or the path broke; what was said is not in doubt. Dial again.
    Broken,
    /// A reason that only a newer version knows.
    Unknown,
}

impl CloseReason {
    const ALL: [Self; 7] = [Self::Abandoned, Self::Done, Self::Refused, Self::ProtocolError, Self::Busy, Self::Shutdown, Self::Broken];

    /// Its code on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Abandoned => 0,
            Self::Done => 1,
            Self::Refused => 2,
            Self::ProtocolError => 3,
            Self::Busy => 4,
            Self::Shutdown => 5,
            Self::Broken => 6,
            Self::Unknown => u8::MAX,
        }
    }

    /// The reason behind a code.
    pub fn from_code(code: u64) -> Self {
        Self::ALL.into_iter().find(|reason| u64::from(reason.code()) == code).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abandoned => "abandoned",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::ProtocolError => "protocol error",
            Self::Busy => "busy",
            Self::Shutdown => "shutting down",
            Self::Broken => "the path broke",
            Self::Unknown => "for a reason unknown to this version",
        })
    }
}

/// Why one way to one address did not work.
#[derive(Debug, Clone)]
pub struct Cause {
    /// The transport that was tried.
    pub kind: TransportKind,
    /// The address that was tried.
    pub addr: SocketAddr,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.addr, self.what)
    }
}

/// Why a connection could not be made or used. Cheap to clone: everything that waits on a connection gets the same one.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Nobody answered. The network's or the peer's doing: retry later.
    #[error("unreachable: {}", join(.causes))]
    Unreachable {
        /// Each way that was tried; none when there was no address.
        causes: Vec<Cause>,
    },
    /// The peer does not know this device, or does not allow what it asked for. Pair first.
    #[error("the peer refused this device: not paired, or not allowed")]
    Refused,
    /// Another device answers at that address: its identity changed, or somebody is in between.
    #[error("identity changed: expected device {expected}, found {found}")]
    WrongPeer {
        /// The device that was dialled.
        expected: DeviceId,
        /// The device that answered.
        found: DeviceId,
    },
    /// The two sides have no protocol version in common.
    #[error("no common protocol version")]
    Version,
    /// The peer has gone silent.
    #[error("the peer has not been heard for too long")]
    Timeout,
    /// One side closed the connection.
    #[error("connection closed: {0}")]
    Closed(CloseReason),
    /// The peer gave up this lane; the connection may live on.
    #[error("the peer gave up the lane")]
    LaneReset,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// A message longer than the limit was to be sent: the caller's fault.
    #[error("a message of {0} bytes is too long to send")]
    MessageTooLong(usize),
    /// A send was dropped half-way before; what followed would not be understood.
    #[error("an earlier send was cancelled in the middle")]
    Cancelled,
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's error.
        source: Arc<io::Error>,
    },
}

impl TransportError {
    /// Wraps a system error with what was being done.
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source: Arc::new(source) }
    }

    /// The end of a connection that was closed for `reason`.
    pub(super) fn closed(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Refused => Self::Refused,
            other => Self::Closed(other),
        }
    }

    /// One failed way to reach a peer.
    pub(super) fn unreachable(kind: TransportKind, addr: SocketAddr, what: impl fmt::Display) -> Self {
        Self::Unreachable { causes: vec![Cause { kind, addr, what: what.to_string() }] }
    }

    /// Whether this is the clean end.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Closed(CloseReason::Done))
    }
}

fn join(causes: &[Cause]) -> String {
    if causes.is_empty() {
        return "no address is known".to_owned();
    }
    causes.iter().map(Cause::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_a_round_trip_and_unknown_ones_are_kept_apart() {
        for reason in CloseReason::ALL {
            assert_eq!(CloseReason::from_code(reason.code().into()), reason);
        }
        assert_eq!(CloseReason::from_code(7), CloseReason::Unknown);
        assert_eq!(CloseReason::from_code(u64::MAX), CloseReason::Unknown);
    }
}
