//! What can be set about transports. Plain data; the defaults are measured.

use crate::limits::MIB;

/// How QUIC decides how much may be in flight. TCP's is the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// CUBIC (RFC 9438): loss means congestion. The faster one on clean links.
    #[default]
    Cubic,
    /// BBR: models bandwidth and delay. For long paths with loss that is not congestion; experimental in the library.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Congestion control of QUIC.
    pub congestion: Congestion,
    /// Whether TCP lanes may go without TLS.
    pub plain_lanes: PlainLanes,
    /// Kernel buffers of a UDP socket, bytes each way. The system may cap it (`net.core.rmem_max`); too small means lost datagrams.
    pub udp_buffer_bytes: usize,
    /// Kernel buffers of a TCP socket, bytes each way. `None` leaves them to the system, which adapts them to the path;
    /// a value fixes them, so it pays only where the system's ceiling is known to be too low.
    pub tcp_buffer_bytes: Option<usize>,
    /// Bytes that a QUIC lane may have on the way to us. More than 4 MiB makes the library copy what it buffers.
    pub quic_lane_window_bytes: u32,
    /// Bytes that all QUIC streams together may have on the way to us: bounds what a peer makes us hold.
    pub quic_connection_window_bytes: u32,
    /// Bytes that we hold unacknowledged for the peer.
    pub quic_send_window_bytes: u64,
    /// Largest UDP payload that path discovery tries, 1200 to 8952. The default is what fits Ethernet; on a link with 9000-byte frames,
    /// 8952 halves the CPU cost of QUIC.
    pub quic_datagram_bytes_max: u16,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            congestion: Congestion::default(),
            plain_lanes: PlainLanes::default(),
            udp_buffer_bytes: 4 * MIB,
            tcp_buffer_bytes: None,
            quic_lane_window_bytes: 4 * MIB as u32,
            quic_connection_window_bytes: 16 * MIB as u32,
            quic_send_window_bytes: 16 * MIB as u64,
            quic_datagram_bytes_max: 1_452,
        }
    }
}
