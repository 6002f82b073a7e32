//! Dialling a device by address.

use super::{
    Connection, Protocol, TransportError, TransportKind, Tuning,
    connection::Inner,
    quic::{self, Endpoint, canonical},
    race, tcp,
    tls::Identity,
};
use crate::{
    id::DeviceId,
    keys::DeviceKey,
    limits::{ADDRESSES_MAX, CONNECT_MS},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// Which transports a dial may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// QUIC first, TCP as well when that takes too long or fails; the first to connect is taken. Lanes may be of both kinds.
    #[default]
    Auto,
    /// Like [`Choice::Auto`], beginning with this one: the other has just failed.
    First(TransportKind),
    /// This one and no other.
    Only(TransportKind),
}

/// Dials other devices as this device. Cheap to clone; clones share their sockets.
#[derive(Clone)]
pub struct Dialer {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Identity,
    tuning: Tuning,
    /// QUIC's sockets, made when first needed: one for IPv4, one for IPv6.
    endpoints: Mutex<[Option<Endpoint>; 2]>,
}

impl Dialer {
    /// A dialer that proves to be `device`.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when TLS does not take the key.
    pub fn new(device: &DeviceKey, tuning: Tuning) -> Result<Self, TransportError> {
        let shared = Shared { identity: Identity::new(device)?, tuning, endpoints: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Connects to `expected` at `addr`, which must not take longer than [`CONNECT_MS`]. Cancel-safe.
    ///
    /// Returns when this side's handshake is done. Whether the listener lets us in shows in the first answer: [`TransportError::Refused`]
    /// may come from here or from whatever waits on the connection.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`], [`TransportError::WrongPeer`], [`TransportError::Version`], [`TransportError::Refused`].
    pub async fn dial(
        &self,
        addr: SocketAddr,
        expected: DeviceId,
        protocol: Protocol,
        kind: TransportKind,
    ) -> Result<Connection, TransportError> {
        let addr = canonical(addr);
        let connected = timeout(Duration::from_millis(CONNECT_MS), self.connect(addr, expected, protocol, kind)).await;
        let late = || TransportError::unreachable(kind, addr, format_args!("no answer within {CONNECT_MS} ms"));
        connected.unwrap_or_else(|_| Err(late()))
    }

    /// Connects to `expected` at whichever of `addrs` answers first, over whichever transport `choice` allows. Only the first
    /// [`ADDRESSES_MAX`] are tried, all within [`CONNECT_MS`]. Cancel-safe.
    ///
    /// # Errors
    /// Like [`Dialer::dial`]; [`TransportError::Unreachable`] names each way that was tried. When one address says more than the
    /// others (refused, wrong peer, no common version), that is the error.
    pub async fn dial_auto(
        &self,
        addrs: &[SocketAddr],
        expected: DeviceId,
        protocol: Protocol,
        choice: Choice,
    ) -> Result<Connection, TransportError> {
        let addrs: Vec<SocketAddr> = addrs.iter().take(ADDRESSES_MAX).copied().map(canonical).collect();
        let dial = |attempt: race::Attempt| {
            let dialer = self.clone();
            async move { dialer.connect(attempt.addr, expected, protocol, attempt.kind).await }
        };
        let connection = race::run(race::plan(&addrs, choice), dial).await?;
        match (choice, connection.kind()) {
            (Choice::Auto | Choice::First(_), TransportKind::Quic) if self.shared.tuning.network.is_system() => {
                self.with_tcp_lanes(connection, &addrs)
            }
            _ => Ok(connection),
        }
    }

    /// TCP lanes for a QUIC connection: at its own address, or at another where only that one has TCP open.
    fn with_tcp_lanes(&self, connection: Connection, addrs: &[SocketAddr]) -> Result<Connection, TransportError> {
        let own = connection.remote_addr();
        let others = addrs.iter().copied().filter(|addr| Some(*addr) != own);
        let dials = own.into_iter().chain(others).map(|addr| self.tcp(addr, connection.peer())).collect();
        let lanes = tcp::LaneSet::dialling(&connection, dials)?;
        Ok(connection.with_lanes(lanes))
    }

    fn tcp(&self, addr: SocketAddr, expected: DeviceId) -> tcp::Dial {
        let Shared { identity, tuning, .. } = &*self.shared;
        tcp::Dial { addr, identity: identity.clone(), expected, tuning: tuning.clone() }
    }

    /// Has each live QUIC connection ask its peer for a sign of life now, without waiting for it: this machine's network has changed.
    pub fn probe(&self) {
        self.endpoints().iter().flatten().for_each(Endpoint::probe);
    }

    /// Waits until the goodbyes of closed QUIC connections have been heard, or at most `limit`.
    pub async fn wait_idle(&self, limit: Duration) {
        let endpoints: Vec<Endpoint> = self.endpoints().iter().flatten().cloned().collect();
        let idle = async {
            for endpoint in &endpoints {
                endpoint.wait_idle().await;
            }
        };
        if timeout(limit, idle).await.is_err() {
            tracing::debug!("some goodbyes were not heard in time");
        }
    }

    async fn connect(
        &self,
        addr: SocketAddr,
        expected: DeviceId,
        protocol: Protocol,
        kind: TransportKind,
    ) -> Result<Connection, TransportError> {
        let Shared { identity, tuning, .. } = &*self.shared;
        match kind {
            TransportKind::Quic => {
                let endpoint = self.endpoint(addr)?;
                let dial = quic::Dial { endpoint: &endpoint, identity, tuning, expected, protocol };
                quic::dial(dial, addr).await.map(|connection| Connection::new(Inner::Quic(connection)))
            }
            TransportKind::Tcp if !tuning.network.is_system() => Err(TransportError::unreachable(kind, addr, "this network has no TCP")),
            TransportKind::Tcp => {
                let dial = self.tcp(addr, expected);
                let connection = Connection::new(Inner::Tcp(tcp::dial(dial.clone(), protocol).await?));
                let lanes = tcp::LaneSet::dialling(&connection, vec![dial])?;
                Ok(connection.with_lanes(lanes))
            }
            TransportKind::Memory => Err(TransportError::unreachable(kind, addr, "memory connections have no address")),
        }
    }

    fn endpoint(&self, addr: SocketAddr) -> Result<Endpoint, TransportError> {
        let mut endpoints = self.endpoints();
        let slot = &mut endpoints[usize::from(addr.is_ipv6())];
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let tuning = &self.shared.tuning;
        Ok(slot.insert(quic::endpoint(tuning.network.dialer(addr, tuning)?, None, tuning)?).clone())
    }

    fn endpoints(&self) -> std::sync::MutexGuard<'_, [Option<Endpoint>; 2]> {
        self.shared.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
