//! (being written) Names that the command line uses.
#![allow(missing_docs)]
use crate::id::DeviceId;
use std::{fmt, net::SocketAddr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    Quic,
    Tcp,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Auto,
    Only(TransportKind),
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    #[default]
    Cubic,
    Bbr,
}
#[derive(Debug, Clone)]
pub struct Cause {
    pub kind: TransportKind,
    pub addr: SocketAddr,
    pub what: String,
}
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.addr, self.what)
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    Busy,
    Shutdown,
    ProtocolError,
}
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    #[error("unreachable")]
    Unreachable { causes: Vec<Cause> },
    #[error("the peer refused this device: not paired, or not allowed")]
    Refused,
    #[error("identity changed: expected device {expected}, found {found}")]
    WrongPeer { expected: DeviceId, found: DeviceId },
    #[error("no common protocol version")]
    Version,
    #[error("the peer has not been heard for too long")]
    Timeout,
    #[error("connection closed: {0:?}")]
    Closed(CloseReason),
}
