//! QUIC (RFC 9000) by quinn: one bidirectional stream is the control stream, unidirectional streams are lanes.

mod adaptive;
mod batching;
mod congestion;
mod endpoint;
mod paths;
mod streams;
#[cfg(test)]
mod tests;
mod windows;

pub(super) use endpoint::{Endpoint, Role, endpoint, server_config, transport_config};
pub(super) use paths::Paths;
pub(super) use streams::{QuicControlReceiver, QuicControlSender, QuicLaneReceiver, QuicLaneSender};

use super::{Admission, CloseReason, Network, Protocol, Stats, TransportError, admit, control, error::Cause, sent_away, socket, tls};
use crate::id::DeviceId;
use paths::Path;
use quinn::{ClientConfig, ConnectionError, VarInt, crypto::rustls::QuicClientConfig};
use rustls::{AlertDescription, pki_types::CertificateDer};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::net::UdpSocket;
use windows::Window;

/// How long a goodbye may take to leave.
const FLUSH_LIMIT: Duration = Duration::from_millis(30);

/// What a dialer needs besides the address.
pub(super) struct Dial<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) identity: &'a tls::Identity,
    pub(super) tuning: &'a super::Tuning,
    pub(super) expected: DeviceId,
    pub(super) protocol: Protocol,
}

/// Dials. Returns after one round trip, before the listener has seen our key.
pub(super) async fn dial(dial: Dial<'_>, addr: SocketAddr) -> Result<QuicConnection, TransportError> {
    let (client, pinned) = dial.identity.client(dial.expected, dial.protocol.alpn())?;
    let crypto = QuicClientConfig::try_from(client).map_err(|error| TransportError::Protocol(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport_config(Role::Dialer, dial.tuning, payload_bytes(&dial.tuning.network, addr)));
    let path = dial.endpoint.paths().open(addr);
    let unreachable = |what: &dyn std::fmt::Display| TransportError::unreachable(super::TransportKind::Quic, addr, what);
    // The name goes nowhere (no SNI); an address always parses.
    let connecting = dial.endpoint.connect_with(config, addr, &addr.ip().to_string()).map_err(|error| unreachable(&error))?;
    let connection = select! {
        connected = connecting => connected.map_err(|error| match pinned.explain(ended(error)) {
            TransportError::Timeout => unreachable(&"no answer"),
            other => other,
        })?,
        refused = refusal(&dial.tuning.network, addr) => return Err(unreachable(&refused)),
    };
    let (mut send, receive) = connection.open_bi().await.map_err(ended)?;
    send.write_all(&control::keep_alive()).await.map_err(|error| streams::write_failure(&connection, error))?;
    let peer = peer(&connection)?;
    let parts = Parts { connection, peer, protocol: dial.protocol, control: (send, receive), path };
    Ok(QuicConnection::new(parts, dial.tuning))
}

/// What incoming handshakes are held against.
#[derive(Clone)]
pub(super) struct Accept {
    pub(super) config: quinn::ServerConfig,
    pub(super) admission: Arc<dyn Admission>,
    pub(super) tuning: super::Tuning,
    pub(super) paths: Paths,
}

/// Finishes a handshake that came in and holds the peer to what it may speak.
pub(super) async fn accept(accept: Accept, incoming: quinn::Incoming) -> Result<QuicConnection, TransportError> {
    let Accept { mut config, admission, tuning, paths } = accept;
    let addr = incoming.remote_address();
    config.transport_config(transport_config(Role::Listener, &tuning, payload_bytes(&tuning.network, canonical(addr))));
    let path = paths.open(addr);
    let connection = incoming.accept_with(Arc::new(config)).map_err(ended)?.await.map_err(ended)?;
    let peer = peer(&connection)?;
    let protocol = protocol(&connection).ok_or(TransportError::Version)?;
    if let Err(reason) = admit(&*admission, &peer, protocol) {
        hang_up(&connection, reason);
        return Err(sent_away(reason));
    }
    let control = connection.accept_bi().await.map_err(ended)?;
    Ok(QuicConnection::new(Parts { connection, peer, protocol, control, path }, &tuning))
}

/// Closes for `reason`, and sees to it that the peer is told at once.
fn hang_up(connection: &quinn::Connection, reason: CloseReason) {
    congestion::step_aside(connection);
    connection.close(VarInt::from_u32(reason.code().into()), b"");
}

/// Ends only when `addr` is known not to answer. QUIC's own socket is not connected, so it never hears that a port is closed or
/// a network is gone; a connected socket that sends one byte of nothing does.
async fn refusal(network: &Network, addr: SocketAddr) -> io::Error {
    async fn probe(addr: SocketAddr) -> io::Result<usize> {
        let socket = UdpSocket::bind(socket::unspecified(addr)).await?;
        socket.connect(addr).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0]).await
    }
    if !network.is_system() {
        return std::future::pending().await;
    }
    match probe(addr).await {
        Err(error) => error,
        Ok(_) => std::future::pending().await,
    }
}

/// What fits a frame towards `addr`, as far as the system knows.
fn payload_bytes(network: &Network, addr: SocketAddr) -> u16 {
    if network.is_system() { socket::payload_bytes(addr) } else { socket::ETHERNET_PAYLOAD_BYTES }
}

fn peer(connection: &quinn::Connection) -> Result<DeviceId, TransportError> {
    let identity = connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    tls::peer_of(identity.as_ref().map(|chain| chain.as_slice()))
}

fn protocol(connection: &quinn::Connection) -> Option<Protocol> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    Protocol::from_alpn(&data.protocol?)
}

/// Why a QUIC connection ended, in our words.
pub(super) fn ended(error: ConnectionError) -> TransportError {
    match error {
        ConnectionError::VersionMismatch => TransportError::Version,
        ConnectionError::ApplicationClosed(close) => TransportError::closed(CloseReason::from_code(close.error_code.into_inner())),
        // Whatever it was closed for: before the handshake is over QUIC does not tell strangers (RFC 9000, section 10.2.3).
        ConnectionError::ConnectionClosed(close) if close.error_code == quinn::TransportErrorCode::APPLICATION_ERROR => {
            TransportError::Closed(CloseReason::Abandoned)
        }
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(alert) => tls::alert_received(alert),
            None => TransportError::Protocol(close.to_string()),
        },
        ConnectionError::TransportError(error) => match alert(error.code) {
            Some(AlertDescription::NoApplicationProtocol) => TransportError::Version,
            _ => TransportError::Protocol(error.to_string()),
        },
        ConnectionError::TimedOut => TransportError::Timeout,
        ConnectionError::Reset => TransportError::io("QUIC")(io::ErrorKind::ConnectionReset.into()),
        ConnectionError::LocallyClosed => TransportError::Closed(CloseReason::Abandoned),
        ConnectionError::CidsExhausted => TransportError::io("QUIC")(io::ErrorKind::AddrInUse.into()),
    }
}

/// The TLS alert in a QUIC error code (RFC 9001, section 4.8).
fn alert(code: quinn::TransportErrorCode) -> Option<AlertDescription> {
    let alert = u64::from(code).checked_sub(0x100)?;
    u8::try_from(alert).ok().map(AlertDescription::from)
}

/// A QUIC connection and its control stream, until somebody takes it.
#[derive(Clone)]
pub(super) struct QuicConnection(Arc<Handle>);

struct Handle {
    connection: quinn::Connection,
    peer: DeviceId,
    protocol: Protocol,
    control: Mutex<Option<(quinn::SendStream, quinn::RecvStream)>>,
    /// Why we closed it: quinn tells only that we did.
    closed_for: OnceLock<CloseReason>,
    /// Datagrams sent before the goodbye: the next one is it.
    sent_before: AtomicU64,
    /// Frames of streams sent before the last message: what follows them holds it.
    said_before: AtomicU64,
    path: Arc<Path>,
    receiving: Window,
    sending: Window,
}

/// What a finished handshake gives.
struct Parts {
    connection: quinn::Connection,
    peer: DeviceId,
    protocol: Protocol,
    control: (quinn::SendStream, quinn::RecvStream),
    path: Arc<Path>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close(CloseReason::Abandoned);
    }
}

impl Handle {
    /// A connection that the peer has ended keeps that reason: closed once more, quinn would call it ours.
    fn close(&self, reason: CloseReason) {
        if self.closed_for.set(reason).is_ok() && self.connection.close_reason().is_none() {
            self.sent_before.store(self.connection.stats().udp_tx.datagrams, Ordering::Relaxed);
            hang_up(&self.connection, reason);
        }
    }

    /// Whether we have closed it and the datagram that says so is still to be sent. To a peer that has hung up there is nothing to say.
    fn owes_goodbye(&self) -> bool {
        let stats = self.connection.stats();
        matches!(self.connection.close_reason(), Some(ConnectionError::LocallyClosed))
            && stats.frame_rx.connection_close == 0
            && stats.udp_tx.datagrams <= self.sent_before.load(Ordering::Relaxed)
    }

    /// Waits until the last message has been given to the system, whatever is in flight.
    async fn last_message_sent(&self) {
        congestion::step_aside(&self.connection);
        loop {
            let sent = self.path.next_send();
            let is_sent = self.connection.stats().frame_tx.stream > self.said_before.load(Ordering::Relaxed);
            if is_sent || self.connection.close_reason().is_some() {
                return;
            }
            sent.await;
        }
    }

    /// Waits until the goodbye has been given to the system. Quinn has no event for it, our socket has.
    async fn goodbye_sent(&self) {
        loop {
            let sent = self.path.next_send();
            if !self.owes_goodbye() {
                return;
            }
            sent.await;
        }
    }
}

impl QuicConnection {
    fn new(parts: Parts, tuning: &super::Tuning) -> Self {
        let Parts { connection, peer, protocol, control, path } = parts;
        let window = || Window::new(tuning.quic_window_bytes.into());
        Self(Arc::new(Handle {
            connection,
            peer,
            protocol,
            control: Mutex::new(Some(control)),
            closed_for: OnceLock::new(),
            said_before: AtomicU64::new(0),
            sent_before: AtomicU64::default(),
            path,
            receiving: window(),
            sending: window(),
        }))
    }

    /// Counts lane bytes that have come; the peer may send more at once when they fill the window.
    fn received(&self, bytes: usize) {
        let grown = self.0.receiving.passed(bytes as u64, || self.0.connection.rtt());
        if let Some(window) = grown.and_then(|window| VarInt::from_u64(window).ok()) {
            self.0.connection.set_receive_window(window);
        }
    }

    /// Counts lane bytes that were handed to quinn; it may hold more unacknowledged when they fill the window.
    fn sent(&self, bytes: usize) {
        if let Some(window) = self.0.sending.passed(bytes as u64, || self.0.connection.rtt()) {
            self.0.connection.set_send_window(window);
        }
    }

    pub(super) fn peer(&self) -> DeviceId {
        self.0.peer
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.0.protocol
    }

    pub(super) fn remote_addr(&self) -> SocketAddr {
        canonical(self.0.connection.remote_address())
    }

    pub(super) fn exporter(&self, label: &[u8], context: &[u8]) -> Result<[u8; 32], TransportError> {
        let mut output = [0; 32];
        let exported = self.0.connection.export_keying_material(&mut output, label, context);
        exported.map(|()| output).map_err(|error| TransportError::Protocol(format!("{error:?}")))
    }

    pub(super) fn take_control(&self) -> Option<(QuicControlSender, QuicControlReceiver)> {
        let (send, receive) = self.0.control.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some((QuicControlSender::new(self.clone(), send), QuicControlReceiver::new(self.clone(), receive)))
    }

    pub(super) async fn open_lane(&self) -> Result<QuicLaneSender, TransportError> {
        let stream = self.0.connection.open_uni().await.map_err(|error| self.why(error))?;
        Ok(QuicLaneSender::new(self.clone(), stream))
    }

    pub(super) async fn accept_lane(&self) -> Result<QuicLaneReceiver, TransportError> {
        let stream = self.0.connection.accept_uni().await.map_err(|error| self.why(error))?;
        Ok(QuicLaneReceiver::new(self.clone(), stream))
    }

    pub(super) fn stats(&self) -> Stats {
        let stats = self.0.connection.stats();
        let measured = congestion::measured(&self.0.connection);
        Stats {
            bytes_sent: stats.udp_tx.bytes.saturating_sub(self.0.path.withheld_bytes()),
            bytes_received: stats.udp_rx.bytes,
            rtt: Some(stats.path.rtt),
            rtt_min: measured.and_then(|measured| measured.shortest),
            loss: measured.map(|measured| measured.loss),
            packets_sent: Some(stats.path.sent_packets),
            windows_used_up: Some(stats.frame_tx.data_blocked + stats.frame_tx.stream_data_blocked),
            packets_lost: Some(stats.path.lost_packets),
            bytes_lost: Some(stats.path.lost_bytes),
            congestion_window: Some(stats.path.cwnd),
        }
    }

    /// Makes the peer acknowledge something: in a new window there is always something to tell. Only when that is acknowledged it is known
    /// that what was sent before is lost, and the library asks by itself after pauses that double.
    pub(super) fn probe(&self) {
        congestion::let_one_out(&self.0.connection);
        if let Ok(window) = VarInt::from_u64(self.0.receiving.widen()) {
            self.0.connection.set_receive_window(window);
        }
    }

    pub(super) fn limit_backlog(&self, bytes: u64) {
        self.0.connection.set_send_window(bytes);
    }

    pub(super) fn end_so_far(&self) -> Option<TransportError> {
        self.0.connection.close_reason().map(|error| self.why(error))
    }

    pub(super) fn close(&self, reason: CloseReason) {
        self.0.close(reason);
    }

    pub(super) async fn closed(&self) -> TransportError {
        self.why(self.0.connection.closed().await)
    }

    pub(super) async fn said(&self) {
        if tokio::time::timeout(FLUSH_LIMIT, self.0.last_message_sent()).await.is_err() {
            tracing::debug!("the last message did not leave in time");
        }
    }

    /// The next message is about to be written.
    fn says(&self) {
        self.0.said_before.store(self.0.connection.stats().frame_tx.stream, Ordering::Relaxed);
    }

    pub(super) async fn flushed(&self) {
        if self.0.closed_for.get().is_some() && tokio::time::timeout(FLUSH_LIMIT, self.0.goodbye_sent()).await.is_err() {
            tracing::debug!("the goodbye did not leave in time");
        }
    }

    /// Why the connection ended; our own reason when it was us.
    fn why(&self, error: ConnectionError) -> TransportError {
        match (error, self.0.closed_for.get()) {
            (ConnectionError::LocallyClosed, Some(reason)) => TransportError::closed(*reason),
            (other, _) => ended(other),
        }
    }

    /// The error of a stream that failed: the connection's, or the stream's own.
    fn lane_error(&self) -> TransportError {
        self.end_so_far().unwrap_or(TransportError::LaneReset)
    }
}

/// An IPv4 address as such, also when it came in over a dual-stack socket.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip if ip == addr.ip() => addr,
        ip => SocketAddr::new(ip, addr.port()),
    }
}

/// One failed attempt, for the report of all of them.
pub(super) fn causes(kind: super::TransportKind, addr: SocketAddr, error: &TransportError) -> Vec<Cause> {
    match error {
        TransportError::Unreachable { causes } => causes.clone(),
        other => vec![Cause { kind, addr, what: other.to_string() }],
    }
}

#[cfg(test)]
mod handshake_tests {
    use super::*;

    #[test]
    fn a_peer_that_hangs_up_during_the_handshake_may_be_tried_again() {
        let close = quinn::ConnectionClose {
            error_code: quinn::TransportErrorCode::APPLICATION_ERROR,
            frame_type: None,
            reason: bytes::Bytes::new(),
        };
        assert!(matches!(ended(ConnectionError::ConnectionClosed(close)), TransportError::Closed(CloseReason::Abandoned)));
    }
}
