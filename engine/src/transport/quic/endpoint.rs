//! QUIC endpoints: how quinn is set up, and the socket below it.

use super::super::{Congestion, TransportError, Tuning, tls::Identity};
use super::congestion::Yielding;
use crate::limits::{LANES_MAX, QUIC_IDLE_MS};
use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, Runtime, ServerConfig, TokioRuntime, TransportConfig,
    UdpPoller, VarInt, congestion,
    crypto::rustls::QuicServerConfig,
    udp::{RecvMeta, Transmit},
};
use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

/// Largest UDP payload over IPv4: what one send may hold, segments and all.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// UDP payload of an Ethernet frame: batches are sized for it until something larger is sent.
const ETHERNET_PAYLOAD_BYTES: usize = 1_472;
/// UDP payload of a 9000-byte link over IPv6. More was seen to stall on loopback.
const JUMBO_PAYLOAD_BYTES: u16 = 8_952;
/// What every QUIC path must carry (RFC 9000, section 14).
const PAYLOAD_BYTES_MIN: u16 = 1_200;

/// Which side opens the control stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Role {
    Dialer,
    Listener,
}

/// An endpoint on `socket`; it accepts connections if `server` is there.
///
/// # Errors
/// The system's, when the socket cannot be registered.
pub(in super::super) fn endpoint(socket: UdpSocket, server: Option<ServerConfig>, tuning: &Tuning) -> Result<Endpoint, TransportError> {
    let failed = TransportError::io("setting up a UDP socket");
    let wrapped = match TokioRuntime.wrap_udp_socket(socket) {
        Ok(inner) => Arc::new(BatchedSocket { inner, segment_bytes: AtomicUsize::new(ETHERNET_PAYLOAD_BYTES) }),
        Err(error) => return Err(failed(error)),
    };
    let mut config = EndpointConfig::default();
    let receive_bytes = tuning.quic_datagram_bytes_max.max(JUMBO_PAYLOAD_BYTES);
    if let Err(error) = config.max_udp_payload_size(receive_bytes) {
        tracing::warn!(%error, "datagram size not possible");
    }
    Endpoint::new_with_abstract_socket(config, server, wrapped, Arc::new(TokioRuntime)).map_err(failed)
}

/// How a listener's endpoint answers.
pub(in super::super) fn server_config(
    identity: &Identity,
    admission: Arc<dyn super::super::Admission>,
) -> Result<ServerConfig, TransportError> {
    let alpn = super::super::Protocol::ALL.map(super::super::Protocol::alpn);
    let tls =
        QuicServerConfig::try_from(identity.server(admission, &alpn)?).map_err(|error| TransportError::Protocol(error.to_string()))?;
    Ok(ServerConfig::with_crypto(Arc::new(tls)))
}

/// Windows, limits and timers, the same on both sides but for who opens the control stream.
pub(in super::super) fn transport_config(role: Role, tuning: &Tuning) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(LANES_MAX as u32))
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::from(role == Role::Listener)))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(tuning.quic_lane_window_bytes))
        .receive_window(VarInt::from_u32(tuning.quic_connection_window_bytes))
        .send_window(tuning.quic_send_window_bytes)
        // One lane at a time fills packets: fewer, larger frames for the receiver to put together.
        .send_fairness(false)
        .mtu_discovery_config(Some(discovery(tuning)))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(QUIC_IDLE_MS as u32))))
        .keep_alive_interval(Some(Duration::from_millis(QUIC_IDLE_MS / 3)));
    match tuning.congestion {
        Congestion::Cubic => config.congestion_controller_factory(Arc::new(Yielding(Arc::new(congestion::CubicConfig::default())))),
        Congestion::Bbr => config.congestion_controller_factory(Arc::new(Yielding(Arc::new(congestion::BbrConfig::default())))),
    };
    Arc::new(config)
}

/// Discovery stops at half the way from the smallest datagram to the largest of an Ethernet.
const MTU_STEP_BYTES: u16 = 130;

fn discovery(tuning: &Tuning) -> MtuDiscoveryConfig {
    let mut config = MtuDiscoveryConfig::default();
    config.upper_bound(tuning.quic_datagram_bytes_max.max(PAYLOAD_BYTES_MIN));
    // With the default bound one probe, of the size that nearly every path takes, finds it: a session with nothing to say stays small.
    config.minimum_change(MTU_STEP_BYTES);
    config
}

/// Quinn's socket, with batches that fit.
///
/// Quinn hands the kernel up to ten datagrams as one send (GSO). Ten jumbo datagrams are more than a send may hold: the kernel
/// refuses, quinn takes the refusal for a lost MTU probe, and the path falls back to the smallest size for good. A path grows only
/// after a probe of the new size went out through this very socket, so bounding the batch by the largest datagram ever sent is
/// both safe and no smaller than needed.
#[derive(Debug)]
struct BatchedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    segment_bytes: AtomicUsize,
}

impl AsyncUdpSocket for BatchedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let bytes = transmit.segment_size.unwrap_or(transmit.contents.len());
        if bytes > self.segment_bytes.load(Ordering::Relaxed) {
            self.segment_bytes.fetch_max(bytes, Ordering::Relaxed);
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        let fit = DATAGRAM_BYTES_MAX / self.segment_bytes.load(Ordering::Relaxed).max(1);
        self.inner.max_transmit_segments().min(fit).max(1)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }
}
