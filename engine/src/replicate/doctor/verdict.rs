//! What the measurements mean: a transfer is as fast as its slowest stage.

use crate::{meter::Stage, probe::Rate};
use std::time::Duration;

/// What was measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Packs read from the disk here.
    ReadHereCold,
    /// Packs read from memory here.
    ReadHereWarm,
    /// One thread hashing here.
    HashHere,
    /// One thread sealing here, as `add` does.
    SealHere,
    /// All threads sealing here.
    SealHereAll,
    /// Writing and syncing here.
    WriteHere,
    /// Bytes over a bare TCP connection to the peer.
    TcpUp,
    /// The same from the peer.
    TcpDown,
    /// Datagrams to the peer: what arrived of as many as could be sent.
    UdpUp,
    /// The same from the peer.
    UdpDown,
    /// Bytes over a lane to the peer: link, encryption and protocol.
    LaneUp,
    /// The same from the peer.
    LaneDown,
    /// Packs read from the disk at the peer.
    ReadThere,
    /// One thread hashing at the peer.
    HashThere,
    /// Writing and syncing at the peer.
    WriteThere,
}

impl What {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadHereCold => "read_here_cold",
            Self::ReadHereWarm => "read_here_warm",
            Self::HashHere => "hash_here",
            Self::SealHere => "seal_here",
            Self::SealHereAll => "seal_here_all_threads",
            Self::WriteHere => "write_here",
            Self::TcpUp => "tcp_up",
            Self::TcpDown => "tcp_down",
            Self::UdpUp => "udp_up",
            Self::UdpDown => "udp_down",
            Self::LaneUp => "lane_up",
            Self::LaneDown => "lane_down",
            Self::ReadThere => "read_there_cold",
            Self::HashThere => "hash_there",
            Self::WriteThere => "write_there",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Of what.
    pub what: What,
    /// What came of it, or why nothing did.
    pub outcome: Result<Rate, String>,
    /// Of datagrams: the share that was lost at three quarters of the rate, between 0 and 1.
    pub loss: Option<f64>,
}

/// What limits a transfer in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The slowest stage.
    pub stage: Stage,
    /// Its measurement.
    pub what: What,
    /// The rate that it allows.
    pub bits_per_s: u64,
}

/// All measurements of one examination.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// The shortest of several round trips over the control stream.
    pub round_trip: Duration,
    /// In the order of the measurements.
    pub findings: Vec<Finding>,
}

/// A lane that is slower than this share of the raw link is held up by the processors at its ends.
const LANE_OF_LINK: f64 = 0.8;

impl Diagnosis {
    fn bits(&self, what: What) -> Option<u64> {
        let finding = self.findings.iter().find(|finding| finding.what == what)?;
        finding.outcome.as_ref().ok().and_then(Rate::bits_per_s)
    }

    /// What limits sending to the peer; none when nothing could be measured.
    pub fn push(&self) -> Option<Verdict> {
        use What as W;
        let ends = [(Stage::Read, W::ReadHereCold), (Stage::Hash, W::HashHere), (Stage::Check, W::HashThere), (Stage::Sync, W::WriteThere)];
        self.slowest(&ends, [W::TcpUp, W::UdpUp], W::LaneUp)
    }

    /// What limits fetching from the peer; none when nothing could be measured.
    pub fn pull(&self) -> Option<Verdict> {
        use What as W;
        let ends = [(Stage::Read, W::ReadThere), (Stage::Hash, W::HashThere), (Stage::Check, W::HashHere), (Stage::Sync, W::WriteHere)];
        self.slowest(&ends, [W::TcpDown, W::UdpDown], W::LaneDown)
    }

    fn slowest(&self, ends: &[(Stage, What)], raw: [What; 2], lane: What) -> Option<Verdict> {
        let verdict = |(stage, what): &(Stage, What)| self.bits(*what).map(|bits_per_s| Verdict { stage: *stage, what: *what, bits_per_s });
        let link = self.link(raw, lane);
        ends.iter().chain(&link).filter_map(verdict).min_by_key(|verdict| verdict.bits_per_s)
    }

    /// The faster of the raw links; the lane instead when it falls far behind it, or when no raw link could be measured.
    fn link(&self, raw: [What; 2], lane: What) -> Option<(Stage, What)> {
        let fastest = raw.into_iter().filter_map(|what| self.bits(what).map(|bits| (bits, what))).max_by_key(|(bits, _)| *bits);
        match (fastest, self.bits(lane)) {
            (None, None) => None,
            (Some((_, what)), None) => Some((Stage::Link, what)),
            (None, Some(_)) => Some((Stage::Link, lane)),
            (Some((bits, _)), Some(over_lane)) if (over_lane as f64) < LANE_OF_LINK * bits as f64 => Some((Stage::SenderCpu, lane)),
            (Some((_, what)), Some(_)) => Some((Stage::Link, what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(rates: &[(What, u64)]) -> Diagnosis {
        let rate = |mbit: u64| Rate { bytes: mbit * 125_000, elapsed: Duration::from_secs(1) };
        let findings = rates.iter().map(|(what, mbit)| Finding { what: *what, outcome: Ok(rate(*mbit)), loss: None }).collect();
        Diagnosis { round_trip: Duration::ZERO, findings }
    }

    #[test]
    fn the_slowest_stage_of_a_direction_limits_it() {
        use What as W;
        let rest = [(W::ReadHereCold, 8000), (W::HashHere, 9000), (W::HashThere, 9000), (W::WriteThere, 5000)];
        let with = |more: &[(What, u64)]| {
            diagnosis(&[&rest[..], more].concat()).push().map(|verdict| (verdict.stage, verdict.bits_per_s / 1_000_000))
        };
        assert_eq!(with(&[(W::TcpUp, 940), (W::UdpUp, 900), (W::LaneUp, 930)]), Some((Stage::Link, 940)));
        assert_eq!(with(&[(W::TcpUp, 900), (W::UdpUp, 950)]), Some((Stage::Link, 950)), "the better of the two can be used");
        assert_eq!(with(&[(W::TcpUp, 20_000), (W::LaneUp, 16_100)]), Some((Stage::Sync, 5000)));
        assert_eq!(with(&[(W::TcpUp, 20_000), (W::LaneUp, 4000)]), Some((Stage::SenderCpu, 4000)));
        assert_eq!(with(&[(W::LaneUp, 4000)]), Some((Stage::Link, 4000)), "no raw link: the lane stands for it");
        assert_eq!(with(&[(W::TcpDown, 10)]), Some((Stage::Sync, 5000)), "the other direction's link does not count");
    }

    #[test]
    fn what_was_not_measured_limits_nothing() {
        let missing = Finding { what: What::TcpUp, outcome: Err("port closed".into()), loss: None };
        assert_eq!(Diagnosis { round_trip: Duration::ZERO, findings: vec![missing] }.push(), None);
    }
}
