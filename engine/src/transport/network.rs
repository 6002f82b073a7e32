//! Where sockets come from, and who tells that the network has changed: the system, or a test that plays the network.

use super::{NetworkChanges, TransportError, Tuning, socket};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use std::{fmt, io, net::SocketAddr, sync::Arc};

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
    /// Another number each time that the host's network is another one.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;
}

/// Tells when the network of this machine is another one.
#[derive(Debug)]
pub enum Changes {
    /// As the system says.
    System(NetworkChanges),
    /// As the test says.
    #[cfg(test)]
    Played(tokio::sync::watch::Receiver<u64>),
}

impl Changes {
    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// When nothing can be heard any more.
    pub async fn next(&mut self) -> io::Result<()> {
        match self {
            Self::System(changes) => changes.next().await,
            #[cfg(test)]
            Self::Played(changes) => changes.changed().await.map_err(io::Error::other),
        }
    }
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

    /// Tells from now on when it is another one.
    ///
    /// # Errors
    /// When the system tells this process nothing.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn changes(&self) -> io::Result<Changes> {
        match self {
            Self::System => NetworkChanges::listen().map(Changes::System),
            #[cfg(test)]
            Self::Played(host) => Ok(Changes::Played(host.changes())),
        }
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
