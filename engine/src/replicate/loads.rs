//! The loads of both ends: when to tell the peer ours, and what limits, over the last interval and over all.

use super::carriers::TCP_LANES;
use crate::{
    clock,
    meter::{Flow, Load, Meter, Shares},
    transport::{Connection, LaneKind, Stats},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::{Handle, RuntimeMetrics};

/// How often a load is told and a progress line gets new shares.
const INTERVAL: Duration = Duration::from_millis(500);
/// Losses beyond this share of the packets keep a window small.
const LOSS: f64 = 0.002;
/// A queue in the path shows as a round trip this much longer than the shortest: then the link is full, and losses are its way to say so.
const QUEUED: f64 = 1.5;

/// What is known of both ends.
pub(super) struct Loads {
    meter: Arc<Meter>,
    lanes: usize,
    workers: Workers,
    told: Instant,
    bytes_told: u64,
    stats: Stats,
    receive_window_us: u64,
    congestion_window_us: u64,
    ours: Latest,
    theirs: Latest,
}

/// The last two of one end's loads.
#[derive(Debug, Clone, Copy, Default)]
struct Latest {
    before: Load,
    now: Load,
}

impl Latest {
    /// A load soon after the last lengthens the interval: what a stage does in a moment says little.
    fn next(&mut self, load: Load) {
        let soon = load.since(self.now).elapsed_us < INTERVAL.as_micros() as u64 / 2;
        *self = Self { before: if soon { self.before } else { self.now }, now: load };
    }

    fn interval(&self) -> Load {
        self.now.since(self.before)
    }
}

impl Loads {
    /// `lanes` as the user asked for them.
    pub(super) fn new(connection: &Connection, lanes: Option<usize>) -> Self {
        // QUIC does all of one connection in one task at a time; TCP has a task a lane.
        let over_tcp = connection.lane_kinds().contains(&LaneKind::Tcp);
        let lanes = lanes.unwrap_or(if over_tcp { TCP_LANES } else { 1 });
        let parallel = if over_tcp { lanes } else { 1 };
        Self {
            meter: Arc::default(),
            lanes,
            workers: Workers::new(parallel),
            told: clock::now(),
            bytes_told: 0,
            stats: connection.stats(),
            receive_window_us: 0,
            congestion_window_us: 0,
            ours: Latest::default(),
            theirs: Latest::default(),
        }
    }

    pub(super) fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// Our load, if it is time to tell it and lanes have carried something since.
    pub(super) fn due(&mut self, connection: &Connection) -> Option<Load> {
        if self.told.elapsed() < INTERVAL { None } else { self.news(connection) }
    }

    /// Our load, if lanes have carried something since it was told last: before an acknowledgement that may end the session.
    pub(super) fn news(&mut self, connection: &Connection) -> Option<Load> {
        let bytes = self.meter.carried(Flow::Out) + self.meter.carried(Flow::In);
        if bytes == self.bytes_told {
            return None;
        }
        self.refresh(connection);
        (self.told, self.bytes_told) = (clock::now(), bytes);
        Some(self.ours.now)
    }

    /// Bytes that lanes have carried.
    pub(super) fn carried(&self, flow: Flow) -> u64 {
        self.meter.carried(flow)
    }

    /// The way that most bytes go.
    fn flow(&self) -> Flow {
        if self.meter.carried(Flow::In) > self.meter.carried(Flow::Out) { Flow::In } else { Flow::Out }
    }

    fn refresh(&mut self, connection: &Connection) {
        let mut load = self.meter.load(self.lanes);
        load.cpu_us = self.workers.busy().as_micros() as u64;
        let stats = connection.stats();
        let blocked = load.blocked_us.saturating_sub(self.ours.now.blocked_us);
        match why_blocked(&self.stats, &stats, Duration::from_micros(blocked)) {
            Blocked::Receiver => self.receive_window_us += blocked,
            Blocked::Losses => self.congestion_window_us += blocked,
            Blocked::Link => {}
        }
        self.stats = stats;
        self.ours.next(Load { receive_window_us: self.receive_window_us, congestion_window_us: self.congestion_window_us, ..load });
    }

    /// The peer told its load.
    pub(super) fn heard(&mut self, load: Load) {
        self.theirs.next(load);
    }

    /// Over the last interval.
    pub(super) fn recent(&self) -> Shares {
        shares(self.flow(), &self.ours.interval(), &self.theirs.interval())
    }

    /// Over the whole session.
    pub(super) fn overall(&mut self, connection: &Connection) -> Shares {
        self.refresh(connection);
        shares(self.flow(), &self.ours.now, &self.theirs.now)
    }
}

fn shares(flow: Flow, ours: &Load, theirs: &Load) -> Shares {
    match flow {
        Flow::Out => Shares::of(ours, theirs),
        Flow::In => Shares::of(theirs, ours),
    }
}

/// What kept a transport from taking more.
#[derive(Debug, PartialEq, Eq)]
enum Blocked {
    Receiver,
    Losses,
    Link,
}

/// From what changed in a transport's counters while lanes were blocked for `blocked`. A sender that waits for a window says so once for
/// every window that it has used up, which takes about a round trip.
fn why_blocked(before: &Stats, after: &Stats, blocked: Duration) -> Blocked {
    let grown = |of: fn(&Stats) -> Option<u64>| of(after).unwrap_or(0).saturating_sub(of(before).unwrap_or(0)) as f64;
    let rtt = after.rtt.unwrap_or_default().as_secs_f64();
    let unqueued = after.rtt_min.is_some_and(|least| rtt < QUEUED * least.as_secs_f64());
    match () {
        () if blocked.is_zero() => Blocked::Link,
        () if grown(|stats| stats.windows_used_up) * rtt > blocked.as_secs_f64() / 2.0 => Blocked::Receiver,
        () if unqueued && grown(|stats| stats.packets_lost) > LOSS * grown(|stats| stats.packets_sent) => Blocked::Losses,
        () => Blocked::Link,
    }
}

/// How long the runtime's threads have worked, as if one thread did what cannot be shared.
struct Workers {
    metrics: RuntimeMetrics,
    parallel: usize,
    at_first: Duration,
}

impl Workers {
    fn new(parallel: usize) -> Self {
        let metrics = Handle::current().metrics();
        let parallel = parallel.clamp(1, metrics.num_workers().max(1));
        let at_first = total(&metrics);
        Self { metrics, parallel, at_first }
    }

    fn busy(&self) -> Duration {
        total(&self.metrics).saturating_sub(self.at_first) / self.parallel as u32
    }
}

fn total(metrics: &RuntimeMetrics) -> Duration {
    (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(windows_used_up: u64, packets_lost: u64, rtt_ms: u64) -> Stats {
        Stats {
            rtt: Some(Duration::from_millis(rtt_ms)),
            rtt_min: Some(Duration::from_millis(100)),
            packets_sent: Some(10_000),
            packets_lost: Some(packets_lost),
            windows_used_up: Some(windows_used_up),
            ..Stats::default()
        }
    }

    #[test]
    fn what_blocks_a_sender_shows_in_the_counters() {
        let before = Stats { packets_sent: Some(0), ..stats(0, 0, 100) };
        let second = Duration::from_secs(1);
        assert_eq!(why_blocked(&before, &stats(0, 0, 100), second), Blocked::Link);
        assert_eq!(why_blocked(&before, &stats(8, 0, 100), second), Blocked::Receiver);
        assert_eq!(why_blocked(&before, &stats(1, 0, 100), second), Blocked::Link, "one window of many");
        assert_eq!(why_blocked(&before, &stats(0, 100, 110), second), Blocked::Losses);
        assert_eq!(why_blocked(&before, &stats(0, 100, 200), second), Blocked::Link, "a queue: the link is full");
        assert_eq!(why_blocked(&before, &stats(8, 100, 100), Duration::ZERO), Blocked::Link);
        assert_eq!(why_blocked(&Stats::default(), &Stats::default(), second), Blocked::Link, "nothing is known");
    }
}
