//! QUIC endpoints: how quinn is set up.

use super::super::{Congestion, TransportError, Tuning, tls::Identity};
use super::{adaptive::AdaptiveConfig, batching::BatchedSocket, congestion::Yielding, paths::Paths};
use crate::limits::{LANES_MAX, QUIC_IDLE_MS, QUIC_KEEP_ALIVE_MS, QUIC_WINDOW_BYTES_MAX};
use quinn::{
    AsyncUdpSocket, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt, congestion,
    crypto::rustls::QuicServerConfig,
};
use std::{ops::Deref, sync::Arc, time::Duration};

/// UDP payload that fits an Ethernet frame whatever the IP version.
const ETHERNET_PAYLOAD_BYTES: u16 = 1_452;
/// UDP payload of a 9000-byte link over IPv6. More was seen to stall on loopback.
const JUMBO_PAYLOAD_BYTES: u16 = 8_952;
/// What every QUIC path must carry (RFC 9000, section 14).
const PAYLOAD_BYTES_MIN: u16 = 1_200;

/// Round trip that is reckoned with before one was measured, a third of what RFC 9002 proposes: a lost packet of the handshake is sent again
/// after 0.3 s instead of 1 s, and a path that is slower gets a few packets twice.
const RTT_GUESS: Duration = Duration::from_millis(100);

/// Packets that may overtake one before it counts as lost. RFC 9002 says 3, of which Wi-Fi and paths of several links make losses that are
/// none; of a window of thousands these are nothing, and where few are under way [`OVERTAKEN_SHARE`] comes first.
const OVERTAKEN_BY: u32 = 32;
/// Round trips after which one that others have overtaken counts as lost. RACK has a quarter over one (RFC 8985); but whoever has more to send
/// than the window lets out acknowledges with the next packet that it does let out (quinn 0.11), which may be a third of a round trip later.
const OVERTAKEN_SHARE: f32 = 1.5;

/// Which side opens the control stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Role {
    Dialer,
    Listener,
}

/// Quinn's endpoint, and what its socket knows of paths. Cheap to clone.
#[derive(Debug, Clone)]
pub(in super::super) struct Endpoint {
    inner: quinn::Endpoint,
    paths: Paths,
}

impl Endpoint {
    pub(in super::super) fn paths(&self) -> &Paths {
        &self.paths
    }
}

impl Deref for Endpoint {
    type Target = quinn::Endpoint;

    fn deref(&self) -> &quinn::Endpoint {
        &self.inner
    }
}

/// An endpoint on `socket`; it accepts connections if `server` is there.
///
/// # Errors
/// The system's, when the socket has no address.
pub(in super::super) fn endpoint(
    socket: Arc<dyn AsyncUdpSocket>,
    server: Option<ServerConfig>,
    tuning: &Tuning,
) -> Result<Endpoint, TransportError> {
    let failed = TransportError::io("setting up a UDP socket");
    let receive_bytes = tuning.quic_datagram_bytes_max.max(JUMBO_PAYLOAD_BYTES);
    let paths = Paths::default();
    let socket = BatchedSocket::spawn(socket, paths.clone(), receive_bytes.into());
    let mut config = EndpointConfig::default();
    config.rng_seed(tuning.network.seed());
    if let Err(error) = config.max_udp_payload_size(receive_bytes) {
        tracing::warn!(%error, "datagram size not possible");
    }
    let inner = quinn::Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime)).map_err(failed)?;
    Ok(Endpoint { inner, paths })
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
/// `payload_bytes` is what the system says fits a frame towards the peer.
pub(in super::super) fn transport_config(role: Role, tuning: &Tuning, payload_bytes: u16) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(LANES_MAX as u32))
        .max_concurrent_bidi_streams(VarInt::from_u32(u32::from(role == Role::Listener)))
        .datagram_receive_buffer_size(None)
        // What bounds a lane is the connection's window, which follows the path.
        .stream_receive_window(VarInt::from_u32(QUIC_WINDOW_BYTES_MAX as u32))
        .receive_window(VarInt::from_u32(tuning.quic_window_bytes))
        .send_window(tuning.quic_window_bytes.into())
        // One lane at a time fills packets: fewer, larger frames for the receiver to put together.
        .send_fairness(false)
        .mtu_discovery_config(Some(discovery(tuning, payload_bytes)))
        .initial_rtt(RTT_GUESS)
        .packet_threshold(OVERTAKEN_BY)
        .time_threshold(OVERTAKEN_SHARE)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(QUIC_IDLE_MS as u32))))
        .keep_alive_interval(Some(Duration::from_millis(QUIC_KEEP_ALIVE_MS)));
    match tuning.congestion {
        Congestion::Auto => config.congestion_controller_factory(Arc::new(Yielding(Arc::new(AdaptiveConfig)))),
        Congestion::Cubic => config.congestion_controller_factory(Arc::new(Yielding(Arc::new(congestion::CubicConfig::default())))),
        Congestion::Bbr => config.congestion_controller_factory(Arc::new(Yielding(Arc::new(congestion::BbrConfig::default())))),
    };
    Arc::new(config)
}

/// Discovery stops at half the way from the smallest datagram to the largest of an Ethernet.
const MTU_STEP_BYTES: u16 = 130;
/// A path that has lost its large packets is searched again after this long.
const MTU_LOST: Duration = Duration::from_secs(2);
/// A path that has settled is searched again after this long: most probes may have been kept back before there was bulk data.
const MTU_AGAIN: Duration = Duration::from_secs(60);

/// One probe, of the size that nearly every path takes, finds an Ethernet: a session with nothing to say stays small. Jumbo frames are
/// looked for only where this end's own link has them.
fn discovery(tuning: &Tuning, payload_bytes: u16) -> MtuDiscoveryConfig {
    let usual = if payload_bytes < JUMBO_PAYLOAD_BYTES { ETHERNET_PAYLOAD_BYTES } else { JUMBO_PAYLOAD_BYTES };
    let mut config = MtuDiscoveryConfig::default();
    config
        .upper_bound(usual.min(payload_bytes).min(tuning.quic_datagram_bytes_max).max(PAYLOAD_BYTES_MIN))
        .minimum_change(MTU_STEP_BYTES)
        .black_hole_cooldown(MTU_LOST)
        .interval(MTU_AGAIN);
    config
}
