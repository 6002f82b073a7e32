//! What is known of both kinds of lanes at one moment, and what a stretch between two moments shows.

use super::Carrier;
use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

/// The share of lost packets of a path that loses them by itself. Below it TCP bears losses as well; above it something stands in QUIC's
/// way, and TCP may fare better: a device that lets only so much UDP pass.
const LOSSY: RangeInclusive<f64> = 0.002..=0.06;
/// Fewer packets say nothing about losses.
const PACKETS_MIN: f64 = 100.0;
/// A round trip this much longer than the shortest shows a queue.
const QUEUED: f64 = 1.5;

/// Whether TCP lanes are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum TcpLanes {
    Dialling,
    Ready,
}

/// Whether there was always something to take since the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Supply {
    Plenty,
    Short,
}

/// What is known at one moment; counters since the start.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Sample {
    pub(in super::super) now: Instant,
    /// Bytes that the network has taken over QUIC, without those it lost.
    pub(in super::super) quic: u64,
    /// Bytes that TCP's sockets have taken.
    pub(in super::super) tcp: u64,
    /// CPU time of this process.
    pub(in super::super) cpu: Duration,
    /// The path's round-trip time, as QUIC knows it.
    pub(in super::super) rtt: Duration,
    /// The shortest round trip that QUIC has seen.
    pub(in super::super) rtt_min: Duration,
    /// Packets that QUIC has sent.
    pub(in super::super) sent: u64,
    /// Packets that QUIC has lost.
    pub(in super::super) lost: u64,
    pub(in super::super) tcp_lanes: TcpLanes,
    pub(in super::super) supply: Supply,
    /// Where the peer is.
    pub(in super::super) path: Option<SocketAddr>,
}

impl Sample {
    pub(super) fn bytes(&self, carrier: Carrier) -> u64 {
        match carrier {
            Carrier::Quic => self.quic,
            Carrier::Tcp => self.tcp,
        }
    }
}

/// What a stretch of time has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    quic_per_s: f64,
    tcp_per_s: f64,
    pub(super) cpu_per_byte: f64,
    /// Of QUIC's packets, how many were lost.
    loss_share: f64,
    path: PathState,
}

/// What a loss would mean at the end of the stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathState {
    /// A queue stands: the path is full, and losses are its way to say so.
    Queued,
    Free,
}

impl Measured {
    pub(super) fn between(from: &Sample, to: &Sample) -> Self {
        let seconds = to.now.duration_since(from.now).as_secs_f64().max(1e-3);
        let grown = |of: fn(&Sample) -> u64| of(to).saturating_sub(of(from)) as f64;
        let (quic, tcp, sent) = (grown(|sample| sample.quic), grown(|sample| sample.tcp), grown(|sample| sample.sent));
        let cpu = to.cpu.saturating_sub(from.cpu).as_secs_f64();
        Self {
            quic_per_s: quic / seconds,
            tcp_per_s: tcp / seconds,
            cpu_per_byte: cpu / (quic + tcp).max(1.0),
            loss_share: if sent < PACKETS_MIN { 0.0 } else { grown(|sample| sample.lost) / sent },
            path: if to.rtt > to.rtt_min.mul_f64(QUEUED) { PathState::Queued } else { PathState::Free },
        }
    }

    pub(super) fn of(&self, carrier: Carrier) -> f64 {
        match carrier {
            Carrier::Quic => self.quic_per_s,
            Carrier::Tcp => self.tcp_per_s,
        }
    }

    /// The same with what `other` says of losses.
    pub(super) fn with_losses_of(self, other: &Self) -> Self {
        Self { loss_share: other.loss_share, path: other.path, ..self }
    }

    pub(super) fn total(&self) -> f64 {
        self.quic_per_s + self.tcp_per_s
    }

    /// Whether packets were lost, not few and not most, although no queue stood that could have dropped them.
    pub(super) fn loses_by_itself(&self) -> bool {
        self.path == PathState::Free && LOSSY.contains(&self.loss_share)
    }
}
