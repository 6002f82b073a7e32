//! Listening on both transports. Every handshake runs in a task of its own, under a time limit; only finished ones surface.
//!
//! When [`HANDSHAKES_MAX`] are under way, the oldest makes room for the newest: honest handshakes take milliseconds, so the oldest is
//! the one most likely to be somebody who connects and says nothing.
//!
//! A first packet of QUIC may come from anybody in anybody's name, and answering it costs a signature. Once [`HANDSHAKES_UNPROVED_MAX`] are
//! under way, whoever has not shown that packets reach the address it names is asked to (RFC 9000, section 8.1.2), which costs nothing to
//! remember and an honest one a round trip. So a flood in false names fills no more than these places, and pushes out nobody who is real.

use super::{
    Admission, Connection, TransportError, TransportKind, Tuning,
    connection::Inner,
    network,
    quic::{self, Endpoint, canonical},
    socket::{self, Stack},
    tcp,
    tls::Identity,
};
use crate::{
    keys::DeviceKey,
    limits::{HANDSHAKE_MS, HANDSHAKES_MAX, HANDSHAKES_UNPROVED_MAX},
};
use quinn::AsyncUdpSocket;
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex as AsyncMutex, mpsc},
    task::{AbortHandle, JoinHandle},
    time::{sleep, timeout},
};

/// Finished connections that wait for [`Listener::accept`].
const ACCEPTED_WAITING: usize = 16;
/// Pause after the system could not accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections on UDP and TCP. Dropping it stops accepting; connections live on.
pub struct Listener {
    accepted: AsyncMutex<mpsc::Receiver<Connection>>,
    endpoints: Vec<Endpoint>,
    addrs: (Vec<SocketAddr>, Vec<SocketAddr>),
    /// Loops that take what comes in; gone once closed.
    loops: Mutex<Vec<JoinHandle<()>>>,
}

impl Listener {
    /// Listens on each address with both transports, on the same port. Port 0 lets the system choose one.
    ///
    /// An IPv6 address takes IPv4 as well (dual stack), unless an IPv4 address is in the list.
    ///
    /// # Errors
    /// [`TransportError::Io`] when an address cannot be bound.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn bind(addrs: &[SocketAddr], device: &DeviceKey, admission: Arc<dyn Admission>, tuning: Tuning) -> Result<Self, TransportError> {
        let mut setup = Setup::new(addrs, device, admission, tuning)?;
        for addr in addrs {
            #[cfg(test)]
            if let network::Network::Played(host) = &setup.tuning.network {
                let socket = host.bind(addr.port()).map_err(TransportError::io("listening"))?;
                setup.quic(socket)?;
                continue;
            }
            let (udp, tcp) = socket::pair(*addr, setup.stack, &setup.tuning).map_err(at(*addr))?;
            setup.quic(network::wrap(udp)?)?;
            setup.tcp(tcp)?;
        }
        Ok(setup.finish())
    }

    /// Like [`Listener::bind`], with one transport only.
    ///
    /// # Errors
    /// [`TransportError::Io`] when an address cannot be bound.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn bind_only(
        kind: TransportKind,
        addrs: &[SocketAddr],
        device: &DeviceKey,
        admission: Arc<dyn Admission>,
        tuning: Tuning,
    ) -> Result<Self, TransportError> {
        let mut setup = Setup::new(addrs, device, admission, tuning)?;
        for addr in addrs {
            match kind {
                TransportKind::Quic => setup.quic(network::wrap(socket::udp(*addr, setup.stack, &setup.tuning).map_err(at(*addr))?)?)?,
                TransportKind::Tcp => setup.tcp(socket::tcp(*addr, setup.stack, &setup.tuning).map_err(at(*addr))?)?,
                TransportKind::Memory => {}
            }
        }
        Ok(setup.finish())
    }

    /// Where it listens: QUIC's addresses, then TCP's.
    pub fn local_addrs(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        self.addrs.clone()
    }

    /// The next connection whose peer has proved its key and may speak its protocol; `None` once closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Connection> {
        self.accepted.lock().await.recv().await
    }

    /// Stops accepting. What was accepted stays until it is closed; what is in its handshake is dropped.
    pub fn close(&self) {
        for accepting in self.loops.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            accepting.abort();
        }
        for endpoint in &self.endpoints {
            endpoint.set_server_config(None);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

/// A listener in the making.
struct Setup {
    identity: Identity,
    tuning: Tuning,
    stack: Stack,
    admission: Arc<dyn Admission>,
    registry: Arc<tcp::Registry>,
    gate: Gate,
    accepted: mpsc::Receiver<Connection>,
    endpoints: Vec<Endpoint>,
    addrs: (Vec<SocketAddr>, Vec<SocketAddr>),
    loops: Vec<JoinHandle<()>>,
}

impl Setup {
    fn new(addrs: &[SocketAddr], device: &DeviceKey, admission: Arc<dyn Admission>, tuning: Tuning) -> Result<Self, TransportError> {
        let (sender, accepted) = mpsc::channel(ACCEPTED_WAITING);
        Ok(Self {
            identity: Identity::new(device)?,
            tuning,
            stack: if addrs.iter().any(SocketAddr::is_ipv4) { Stack::Single } else { Stack::Dual },
            admission,
            registry: Arc::default(),
            gate: Gate { accepted: sender, handshakes: Arc::default() },
            accepted,
            endpoints: Vec::new(),
            addrs: (Vec::new(), Vec::new()),
            loops: Vec::new(),
        })
    }

    fn quic(&mut self, socket: Arc<dyn AsyncUdpSocket>) -> Result<(), TransportError> {
        let config = quic::server_config(&self.identity, self.admission.clone())?;
        let endpoint = quic::endpoint(socket, Some(config.clone()), &self.tuning)?;
        self.addrs.0.push(endpoint.local_addr().map_err(TransportError::io("listening"))?);
        let accept =
            quic::Accept { config, admission: self.admission.clone(), tuning: self.tuning.clone(), paths: endpoint.paths().clone() };
        self.loops.push(tokio::spawn(accept_quic(endpoint.clone(), accept, self.registry.clone(), self.gate.clone())));
        self.endpoints.push(endpoint);
        Ok(())
    }

    fn tcp(&mut self, socket: std::net::TcpListener) -> Result<(), TransportError> {
        let listener = TcpListener::from_std(socket).map_err(TransportError::io("listening"))?;
        self.addrs.1.push(listener.local_addr().map_err(TransportError::io("listening"))?);
        let accept = tcp::Accept {
            config: self.identity.server(self.admission.clone(), &tcp::ALPN)?,
            admission: self.admission.clone(),
            registry: self.registry.clone(),
            tuning: self.tuning.clone(),
        };
        self.loops.push(tokio::spawn(accept_tcp(listener, accept, self.gate.clone())));
        Ok(())
    }

    fn finish(self) -> Listener {
        Listener { accepted: AsyncMutex::new(self.accepted), endpoints: self.endpoints, addrs: self.addrs, loops: Mutex::new(self.loops) }
    }
}

async fn accept_quic(endpoint: Endpoint, accept: quic::Accept, registry: Arc<tcp::Registry>, gate: Gate) {
    while let Some(incoming) = endpoint.accept().await {
        if gate.is_crowded() && !incoming.remote_address_validated() {
            // Nothing is left to ask of one that has been asked already, and such a one is validated.
            let _ = incoming.retry();
            continue;
        }
        let (accept, registry, from) = (accept.clone(), registry.clone(), canonical(incoming.remote_address()));
        gate.run(from, async move {
            let connection = Connection::new(Inner::Quic(quic::accept(accept, incoming).await?));
            with_lanes(connection, &registry).map(Some)
        });
    }
}

/// From here on TCP lanes find the connection.
fn with_lanes(connection: Connection, registry: &tcp::Registry) -> Result<Connection, TransportError> {
    let lanes = tcp::LaneSet::listening(&connection, registry)?;
    Ok(connection.with_lanes(lanes))
}

async fn accept_tcp(listener: TcpListener, accept: tcp::Accept, gate: Gate) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let (accept, registry) = (accept.clone(), accept.registry.clone());
                gate.run(canonical(from), async move {
                    let connection = tcp::accept(accept, stream, from).await?.map(|connection| Connection::new(Inner::Tcp(connection)));
                    connection.map(|connection| with_lanes(connection, &registry)).transpose()
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept TCP connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What stands between a handshake and [`Listener::accept`].
#[derive(Clone)]
struct Gate {
    accepted: mpsc::Sender<Connection>,
    handshakes: Arc<Mutex<VecDeque<AbortHandle>>>,
}

impl Gate {
    /// Runs a handshake in its own task and passes on what comes of it.
    fn run(&self, from: SocketAddr, handshake: impl Future<Output = Result<Option<Connection>, TransportError>> + Send + 'static) {
        let accepted = self.accepted.clone();
        let task = tokio::spawn(async move {
            let finished = timeout(Duration::from_millis(HANDSHAKE_MS), handshake).await.unwrap_or(Err(TransportError::Timeout));
            match finished {
                // Nobody listens any more when this fails; dropping the connection tells the peer.
                Ok(Some(connection)) => drop(accepted.send(connection).await),
                Ok(None) => {}
                Err(error) => tracing::debug!(%from, %error, "a handshake came to nothing"),
            }
        });
        self.admit(task.abort_handle());
    }

    /// Whether so many are under way that strangers have to show first that they are where they say.
    fn is_crowded(&self) -> bool {
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.retain(|handshake| !handshake.is_finished());
        handshakes.len() >= HANDSHAKES_UNPROVED_MAX
    }

    fn admit(&self, task: AbortHandle) {
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.retain(|handshake| !handshake.is_finished());
        if handshakes.len() >= HANDSHAKES_MAX
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.abort();
        }
        handshakes.push_back(task);
    }
}

/// What listening at `addr` failed with; says where, if the place is what is wrong.
fn at(addr: SocketAddr) -> impl FnOnce(io::Error) -> TransportError {
    move |error| {
        let is_of_place = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable);
        let error = if is_of_place { io::Error::new(error.kind(), format!("{addr}: {error}")) } else { error };
        TransportError::io("listening")(error)
    }
}
