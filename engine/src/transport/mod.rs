//! Connections between two devices: a control stream of messages and lanes of bytes, the same over QUIC, TCP and memory.
//!
//! ```text
//!            ┌ control: messages, both ways, in order ┐
//! Connection ┤ lane: bytes, one way, many at a time   ├ Connection
//!            └ exporter: 32 bytes that both ends know ┘
//! ```
//! One contract, three carriers: QUIC for lossy and long paths (streams are lanes), TCP with TLS for fast clean ones (every lane
//! is a connection of its own), memory for tests. [`Dialer::dial_auto`] tries both and takes the first. A QUIC connection that it made
//! has lanes of both kinds ([`Connection::lane_kinds`]): which of them to use, and when, is the caller's to decide.
//!
//! # Who is on the other end
//! TLS 1.3 only, with mutual raw public keys (RFC 7250): a device *is* its Ed25519 key. The dialer pins the key that it expects,
//! the listener asks [`Admission`] about the key it sees. No X.509, no other signature, no 0-RTT, no resumption.
//! What a stranger can make a listener do is bounded: so many handshakes, so long each, and nothing of it surfaces.
//!
//! # Invariants
//! - [`Listener::accept`] gives only connections whose peer proved its key and may speak the protocol it named.
//! - Nothing that a peer claims is allocated before it has arrived; messages are at most [`crate::limits::MESSAGE_BYTES_MAX`].
//! - A lane that was not finished never looks finished: its reader gets an error, not an end.
//! - When a connection ends, everything that waits on it ends too, with the reason.

#[cfg_attr(not(target_os = "linux"), path = "changes_polled.rs")]
mod changes;
mod connection;
mod control;
mod dialer;
mod error;
mod listener;
pub mod memory;
mod network;
mod quic;
mod race;
mod socket;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;
mod tuning;

pub use changes::NetworkChanges;
pub use connection::{Connection, ControlReceiver, ControlSender, LaneReceiver, LaneSender, Stats};
pub use dialer::{Choice, Dialer};
pub use error::{Cause, CloseReason, TransportError};
pub use listener::Listener;
#[cfg(test)]
pub use network::Host;
pub use network::{Changes, Network};
pub use tuning::{Congestion, PlainLanes, Tuning};

use crate::id::DeviceId;
use std::{fmt, str::FromStr};

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransportKind {
    /// QUIC over UDP.
    Quic,
    /// TLS over several TCP connections.
    Tcp,
    /// Inside this process, for tests.
    Memory,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Memory => "memory",
        })
    }
}

/// What carries a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneKind {
    /// A stream of a QUIC connection.
    Quic,
    /// A TCP connection of its own, with TLS.
    Tcp,
    /// Inside this process, for tests.
    Memory,
}

impl fmt::Display for LaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Memory => "memory",
        })
    }
}

/// A text that names no transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transport is quic or tcp")]
pub struct ParseTransportError;

impl FromStr for TransportKind {
    type Err = ParseTransportError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "quic" => Ok(Self::Quic),
            "tcp" => Ok(Self::Tcp),
            _ => Err(ParseTransportError),
        }
    }
}

/// What a connection is for. Agreed on in the handshake (ALPN, RFC 7301), so that the two can never be mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Two replicas that know each other.
    Session,
    /// A device that holds a ticket and wants to become known.
    Pairing,
    /// Two devices that know each other measure what is between them.
    Doctor,
}

impl Protocol {
    /// Every protocol that a listener answers to.
    pub(crate) const ALL: [Self; 3] = [Self::Session, Self::Pairing, Self::Doctor];

    /// Its name in the handshake.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Session => b"mirror/1",
            Self::Pairing => b"mirror-pair/1",
            Self::Doctor => b"mirror-doctor/1",
        }
    }

    fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.alpn() == name)
    }
}

/// Who may connect. Asked in every handshake, so that a device that was just removed is refused at once.
///
/// Called on a network thread: reading a small file is fine, waiting is not.
pub trait Admission: Send + Sync + 'static {
    /// What this device is here. Who is known may speak [`Protocol::Session`].
    fn standing(&self, device: &DeviceId) -> Standing;
    /// Whether strangers may finish the handshake, to speak [`Protocol::Pairing`] only.
    fn pairing_open(&self) -> bool;
}

/// What a device is to those whom it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// One of them.
    Known,
    /// Never heard of, or removed.
    Stranger,
    /// What says so cannot be read now: let in by nobody, and told to come again.
    Unclear,
}

/// Whether `device` may speak `protocol`, and how it is sent away if not. The verifier lets anyone in while pairing is open, this holds them to
/// pairing.
fn admit(admission: &dyn Admission, device: &DeviceId, protocol: Protocol) -> Result<(), CloseReason> {
    match admission.standing(device) {
        Standing::Known => Ok(()),
        Standing::Stranger if protocol == Protocol::Pairing && admission.pairing_open() => Ok(()),
        Standing::Stranger => Err(CloseReason::Refused),
        Standing::Unclear => Err(CloseReason::Busy),
    }
}

/// What whoever was sent away for `reason` is to this end.
fn sent_away(reason: CloseReason) -> TransportError {
    match reason {
        CloseReason::Refused => TransportError::Refused,
        other => TransportError::Closed(other),
    }
}
