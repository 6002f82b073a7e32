//! Where sockets come from: the system, or a test that plays the network.

use super::{TransportError, Tuning, socket};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use std::{fmt, net::SocketAddr, sync::Arc};

/// What the packets of a device go through.
#[derive(Clone, Default)]
pub enum Network {
    /// The system's sockets.
    #[default]
    System,
    /// One host of a network that a test plays: UDP alone.
    #[cfg(test)]
    Played(Arc<dyn Host>),
}

/// A host of a network that a test plays.
#[cfg(test)]
pub trait Host: Send + Sync {
    /// A socket at `port`, or at any that is free if that is 0.
    fn bind(&self, port: u16) -> std::io::Result<Arc<dyn AsyncUdpSocket>>;
    /// What QUIC's choices are drawn from.
    fn seed(&self) -> [u8; 32];
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_system() { "System" } else { "Played" })
    }
}

impl Network {
    /// Whether there is TCP, and a system that knows of links and of ports that are closed.
    pub(super) fn is_system(&self) -> bool {
        matches!(self, Self::System)
    }

    /// A socket to dial from, for one address family.
    pub(super) fn dialer(&self, family: SocketAddr, tuning: &Tuning) -> Result<Arc<dyn AsyncUdpSocket>, TransportError> {
        match self {
            Self::System => wrap(socket::udp_dialer(family, tuning).map_err(TransportError::io("opening a UDP socket"))?),
            #[cfg(test)]
            Self::Played(host) => host.bind(0).map_err(TransportError::io("opening a UDP socket")),
        }
    }

    /// What QUIC's choices are drawn from, where that is to be the same each time.
    pub(super) fn seed(&self) -> Option<[u8; 32]> {
        match self {
            Self::System => None,
            #[cfg(test)]
            Self::Played(host) => Some(host.seed()),
        }
    }
}

/// A system's socket as QUIC takes it.
pub(super) fn wrap(socket: std::net::UdpSocket) -> Result<Arc<dyn AsyncUdpSocket>, TransportError> {
    TokioRuntime.wrap_udp_socket(socket).map_err(TransportError::io("setting up a UDP socket"))
}
