//! Which stage limits: the utilisation law, as a pure function.
//!
//! In a pipeline in its steady state the slowest resource is busy all the time and the others wait for it (Denning and Buzen, "The
//! Operational Analysis of Queueing Network Models", 1978). A resource is what does one thing at a time: a thread with all that it does,
//! or the network threads together. So stages are grouped by who works on them, the busiest resource is found, and its largest stage
//! is named. The link shows in nothing but waiting: lanes have something to send, nobody takes it, and neither end is busy.
//!
//! Two resources that wait for each other in turn, or for the same processor, limit together though neither is busy all the time: where
//! the busiest of both ends make up nearly all of it between them, little is left for the link, and the busier one is named.

use super::Load;

/// Busier than this, a resource limits, whoever else waits.
const SATURATED: f64 = 0.75;
/// The busiest resource of each end, added up: from here on they limit together.
const TOGETHER: f64 = 0.9;
/// Less busy than this, nothing limits but waiting for answers.
const IDLE: f64 = 0.2;

/// A stage of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The source's disk: bringing chunks into memory.
    Read,
    /// The source's processor: checking chunks before they are sent.
    Hash,
    /// The sender's network threads: encryption, the protocol, system calls.
    SenderCpu,
    /// The user's bandwidth limit.
    Limit,
    /// Losses keep congestion control's window smaller than what the link would take.
    CongestionWindow,
    /// The receiver lets less be under way than the link would take, although it is not busy.
    ReceiveWindow,
    /// The link; or the peer behind it, where that one does not say what it does.
    Link,
    /// The receiver's network threads.
    ReceiverCpu,
    /// The receiver's processor: checking what arrived.
    Check,
    /// The receiver's disk: writing.
    Write,
    /// The receiver's disk: making it durable.
    Sync,
    /// The receiver's index, journal and log.
    Index,
    /// Waiting for answers: there was little to move.
    RoundTrips,
}

impl Stage {
    /// Every stage that can have a share of the time, along the way of a chunk.
    pub const ALL: [Self; 12] = [
        Self::Read,
        Self::Hash,
        Self::SenderCpu,
        Self::Limit,
        Self::CongestionWindow,
        Self::ReceiveWindow,
        Self::Link,
        Self::ReceiverCpu,
        Self::Check,
        Self::Write,
        Self::Sync,
        Self::Index,
    ];

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Hash => "hash",
            Self::SenderCpu => "sender_cpu",
            Self::Limit => "limit",
            Self::CongestionWindow => "congestion_window",
            Self::ReceiveWindow => "receive_window",
            Self::Link => "link",
            Self::ReceiverCpu => "receiver_cpu",
            Self::Check => "check",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Index => "index",
            Self::RoundTrips => "round_trips",
        }
    }
}

/// What each stage took of a stretch of time: 0 is none, 1 all of it. They do not add up to 1, because stages overlap.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shares([f64; Stage::ALL.len()]);

impl Shares {
    /// The shares of one direction: what the `sender` and the `receiver` spent in a stretch of the same length.
    pub fn of(sender: &Load, receiver: &Load) -> Self {
        let (source, sink) = (share_of(sender), share_of(receiver));
        let waited = source(sender.blocked_us);
        let (receive_window, congestion) = (source(sender.receive_window_us), source(sender.congestion_window_us));
        Self([
            source(sender.read_us),
            source(sender.hash_us),
            source(sender.cpu_us),
            source(sender.limit_us).max(sink(receiver.limit_us)),
            congestion,
            receive_window,
            (waited - receive_window - congestion).max(0.0),
            sink(receiver.cpu_us),
            sink(receiver.check_us),
            sink(receiver.write_us),
            sink(receiver.sync_us),
            sink(receiver.index_us),
        ])
    }

    /// The share of `stage`; waiting for answers has none.
    pub fn share(&self, stage: Stage) -> f64 {
        Stage::ALL.iter().position(|known| *known == stage).map_or(0.0, |at| self.0[at])
    }

    /// Every stage with its share, along the way of a chunk.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, f64)> + '_ {
        Stage::ALL.into_iter().zip(self.0)
    }

    /// The stage that limits.
    pub fn limiting(&self) -> Stage {
        use Stage as S;
        let source = self.most(&[&[S::Read, S::Hash], &[S::SenderCpu]]);
        let sink = self.most(&[&[S::ReceiverCpu], &[S::Check, S::Write, S::Sync, S::Index]]);
        let limit = self.most(&[&[S::Limit]]);
        let busier = |a: (Stage, f64), b: (Stage, f64)| if b.1 > a.1 { b } else { a };
        let (busiest, busy) = busier(busier(source, limit), sink);
        let (waiting, waited) = self.most(&[&[S::Link, S::CongestionWindow, S::ReceiveWindow]]);
        let is_busy = busy >= SATURATED || waiting == S::Link && source.1 + sink.1 >= TOGETHER;
        match () {
            () if !is_busy && waited > busy => waiting,
            () if busy >= IDLE => busiest,
            () => S::RoundTrips,
        }
    }

    /// The largest stage of the group with the largest sum, and that sum. Of equals the first counts.
    fn most(&self, groups: &[&[Stage]]) -> (Stage, f64) {
        let mut most = (Stage::RoundTrips, 0.0);
        for group in groups {
            let sum = group.iter().map(|stage| self.share(*stage)).sum::<f64>();
            if sum > most.1 {
                let larger = |a: Stage, b: &Stage| if self.share(*b) > self.share(a) { *b } else { a };
                most = (group.iter().skip(1).fold(group[0], larger), sum);
            }
        }
        most
    }
}

/// Of a stretch, as a share between 0 and 1.
fn share_of(load: &Load) -> impl Fn(u64) -> f64 + use<> {
    let elapsed = load.elapsed_us.max(1) as f64;
    move |us| (us as f64 / elapsed).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn load(with: impl Fn(&mut Load)) -> Load {
        let mut load = Load { elapsed_us: SECOND, ..Load::default() };
        with(&mut load);
        load
    }

    /// In tenths of the time: what the sender and the receiver do.
    #[test]
    fn the_busiest_resource_limits_and_the_link_only_when_none_is_busy() {
        let tenths = SECOND / 10;
        type Set = fn(&mut Load, u64);
        type Parts<'a> = &'a [(Set, u64)];
        let cases: [(Parts<'_>, Parts<'_>, Stage); 19] = [
            (&[], &[], Stage::RoundTrips),
            (&[(|l, t| l.read_us = t, 1)], &[(|l, t| l.write_us = t, 1)], Stage::RoundTrips),
            (&[(|l, t| l.read_us = t, 7), (|l, t| l.hash_us = t, 2)], &[], Stage::Read),
            (&[(|l, t| l.read_us = t, 2), (|l, t| l.hash_us = t, 7)], &[], Stage::Hash),
            (&[(|l, t| l.cpu_us = t, 10), (|l, t| l.blocked_us = t, 10)], &[], Stage::SenderCpu),
            (&[(|l, t| l.limit_us = t, 9)], &[], Stage::Limit),
            (&[(|l, t| l.blocked_us = t, 4)], &[(|l, t| l.limit_us = t, 9)], Stage::Limit),
            (&[(|l, t| l.blocked_us = t, 9)], &[], Stage::Link),
            (&[(|l, t| l.blocked_us = t, 9), (|l, t| l.cpu_us = t, 3)], &[(|l, t| l.check_us = t, 3)], Stage::Link),
            (&[(|l, t| l.blocked_us = t, 9), (|l, t| l.congestion_window_us = t, 8)], &[], Stage::CongestionWindow),
            (&[(|l, t| l.blocked_us = t, 9), (|l, t| l.receive_window_us = t, 8)], &[], Stage::ReceiveWindow),
            // A peer that is busy opens no window: it is the cause, the window the messenger.
            (
                &[(|l, t| l.blocked_us = t, 9), (|l, t| l.receive_window_us = t, 9)],
                &[(|l, t| l.check_us = t, 2), (|l, t| l.write_us = t, 3), (|l, t| l.sync_us = t, 4)],
                Stage::Sync,
            ),
            (&[(|l, t| l.blocked_us = t, 9)], &[(|l, t| l.check_us = t, 8)], Stage::Check),
            (&[(|l, t| l.blocked_us = t, 9)], &[(|l, t| l.index_us = t, 8)], Stage::Index),
            (&[(|l, t| l.blocked_us = t, 9)], &[(|l, t| l.cpu_us = t, 9), (|l, t| l.write_us = t, 5)], Stage::ReceiverCpu),
            // Neither is busy for three quarters of the time, but one of them always is.
            (&[(|l, t| l.blocked_us = t, 9), (|l, t| l.cpu_us = t, 4)], &[(|l, t| l.check_us = t, 6)], Stage::Check),
            (&[(|l, t| l.blocked_us = t, 9), (|l, t| l.cpu_us = t, 6)], &[(|l, t| l.cpu_us = t, 4)], Stage::SenderCpu),
            (&[(|l, t| l.blocked_us = t, 9), (|l, t| l.cpu_us = t, 4)], &[(|l, t| l.check_us = t, 4)], Stage::Link),
            // A window that is known to be the limit is it, whatever else goes on.
            (
                &[(|l, t| l.blocked_us = t, 9), (|l, t| l.congestion_window_us = t, 9), (|l, t| l.cpu_us = t, 4)],
                &[(|l, t| l.check_us = t, 6)],
                Stage::CongestionWindow,
            ),
        ];
        for (number, (sender, receiver, limiting)) in cases.into_iter().enumerate() {
            let made = |parts: Parts<'_>| load(|load| parts.iter().for_each(|(set, share)| set(load, share * tenths)));
            assert_eq!(Shares::of(&made(sender), &made(receiver)).limiting(), limiting, "case {number}");
        }
    }

    #[test]
    fn nonsense_from_a_peer_becomes_a_share() {
        let liar = Load { elapsed_us: 0, cpu_us: u64::MAX, check_us: u64::MAX, ..Load::default() };
        let shares = Shares::of(&Load::default(), &liar);
        assert!(shares.iter().all(|(_, share)| (0.0..=1.0).contains(&share)));
        assert_eq!(Load::default().since(liar), Load::default());
    }

    #[test]
    fn names_are_those_that_were_promised() {
        let names: Vec<&str> = Stage::ALL.into_iter().chain([Stage::RoundTrips]).map(Stage::name).collect();
        let promised = "read hash sender_cpu limit congestion_window receive_window link receiver_cpu check write sync index round_trips";
        assert_eq!(names.join(" "), promised);
    }
}
