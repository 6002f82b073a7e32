//! What can be set about transports. Plain data; the defaults are measured.

use super::Network;
use crate::limits::MIB;

/// How QUIC decides how much may be in flight. TCP's is the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// CUBIC that asks whether a loss was congestion: fair on clean paths, and no collapse on those that lose packets by themselves.
    #[default]
    Auto,
    /// CUBIC (RFC 9438): every loss means congestion.
    Cubic,
    /// BBR: models bandwidth and delay, and takes no notice of loss. Experimental in the library; it overfills queues.
    Bbr,
}

/// Whether lanes may go without TLS; see the module `tcp::plain` for what that gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainLanes {
    /// Every byte goes over TLS or QUIC.
    #[default]
    Refused,
    /// TCP lanes are plain where the other end allows it, too.
    Allowed,
}

/// Buffers and windows. A field's cost is memory, per what it names.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Where sockets come from.
    pub network: Network,
    /// Congestion control of QUIC.
    pub congestion: Congestion,
    /// Whether TCP lanes may go without TLS.
    pub plain_lanes: PlainLanes,
    /// Kernel buffers of a UDP socket, bytes each way. The system may cap it (`net.core.rmem_max`); too small means lost datagrams.
    pub udp_buffer_bytes: usize,
    /// Kernel buffers of a TCP socket, bytes each way. `None` leaves them to the system, which adapts them to the path;
    /// a value fixes them, so it pays only where the system's ceiling is known to be too low.
    pub tcp_buffer_bytes: Option<usize>,
    /// Bytes that a QUIC connection may have on the way, each way, to begin with. It grows with the path, up to
    /// [`crate::limits::QUIC_WINDOW_BYTES_MAX`]: bounds what a peer makes us hold, and what we hold unacknowledged for it.
    pub quic_window_bytes: u32,
    /// Largest UDP payload that path discovery tries, 1200 to 8952. Sizes above Ethernet's are tried only where this end's own
    /// link takes 9000-byte frames, and only once bulk data flows.
    pub quic_datagram_bytes_max: u16,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            network: Network::default(),
            congestion: Congestion::default(),
            plain_lanes: PlainLanes::default(),
            udp_buffer_bytes: 4 * MIB,
            tcp_buffer_bytes: None,
            quic_window_bytes: 4 * MIB as u32,
            quic_datagram_bytes_max: 8_952,
        }
    }
}
