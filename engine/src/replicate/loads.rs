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
/// Little is enough: the default congestion control keeps a full link's queue at a few hundredths of a round trip for most of the time.
const QUEUED: f64 = 1.02;
/// With so much of the congestion window in flight it is that window which lets no more out, whatever the peer's says.
const USED: f64 = 0.75;
/// A congestion window that has grown this much is still on its way to what the link takes.
const GROWING: f64 = 1.5;

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
        if clock::since(self.told) < INTERVAL { None } else { self.news(connection) }
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
        let interval = load.elapsed_us.saturating_sub(self.ours.now.elapsed_us);
        match why_blocked(&self.stats, &stats, Duration::from_micros(interval), Duration::from_micros(blocked)) {
            Blocked::Receiver => self.receive_window_us += blocked,
            Blocked::Window => self.congestion_window_us += blocked,
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
    Window,
    Link,
}

/// From what changed in a transport's counters in an `interval`, while lanes were blocked for `blocked` of it.
///
/// What lanes hand over waits in the transport, which tells the peer that its window is used up as soon as all of it is *handed over*, once
/// for every window, which takes about a round trip. That alone says nothing: it limits only where less is in flight than congestion
/// control would let out. TCP's counters are the system's, and not known here: its waiting is the link's.
fn why_blocked(before: &Stats, after: &Stats, interval: Duration, blocked: Duration) -> Blocked {
    let grown = |of: fn(&Stats) -> Option<u64>| of(after).unwrap_or(0).saturating_sub(of(before).unwrap_or(0)) as f64;
    let rtt = after.rtt.unwrap_or_default().as_secs_f64();
    let window = |stats: &Stats| stats.congestion_window.unwrap_or(0) as f64;
    let sent = after.bytes_sent.saturating_sub(before.bytes_sent) as f64;
    let in_flight = sent * rtt / interval.as_secs_f64().max(1e-3);
    let is_queued = after.rtt_min.is_none_or(|least| rtt > QUEUED * least.as_secs_f64());
    let loses = grown(|stats| stats.packets_lost) > LOSS * grown(|stats| stats.packets_sent);
    let is_growing = window(after) > GROWING * window(before);
    match () {
        () if blocked.is_zero() || is_queued => Blocked::Link,
        () if in_flight >= USED * window(after) && (loses || is_growing) => Blocked::Window,
        () if in_flight >= USED * window(after) => Blocked::Link,
        () if grown(|stats| stats.windows_used_up) * rtt > blocked.as_secs_f64() / 2.0 => Blocked::Receiver,
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
    // Work takes no time there, or what is told would be as long as the machine is slow.
    #[cfg(test)]
    if clock::simulated::is_played() {
        return Duration::ZERO;
    }
    (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);
    const SECOND: Duration = Duration::from_secs(1);
    const WINDOW: u64 = 1_000_000;

    /// After a second in which `in_flight` was under way all the time.
    fn stats(in_flight: u64, windows_used_up: u64, packets_lost: u64, rtt_ms: u64) -> Stats {
        let rtt = Duration::from_millis(rtt_ms);
        Stats {
            bytes_sent: (in_flight as f64 / rtt.as_secs_f64()) as u64,
            rtt: Some(rtt),
            rtt_min: Some(RTT),
            packets_sent: Some(10_000),
            packets_lost: Some(packets_lost),
            windows_used_up: Some(windows_used_up),
            congestion_window: Some(WINDOW),
            ..Stats::default()
        }
    }

    /// What is in flight, windows of the peer used up, packets lost of 10,000, round trip (100 ms at least), and what blocks.
    #[test]
    fn what_blocks_a_sender_shows_in_the_counters() {
        let cases = [
            (WINDOW, 0, 0, 105, Blocked::Link, "all that the window allows, and nothing lost"),
            (WINDOW, 8, 0, 105, Blocked::Link, "the peer's window holds what waits here, not what is under way"),
            (WINDOW, 8, 100, 101, Blocked::Window, "losses keep it small"),
            (WINDOW, 8, 100, 200, Blocked::Link, "a queue: the link is full"),
            (WINDOW / 2, 8, 0, 101, Blocked::Receiver, "the congestion window would let more out"),
            (WINDOW / 2, 8, 100, 101, Blocked::Receiver, "and so it is with losses"),
            (WINDOW / 2, 1, 0, 101, Blocked::Link, "one window of many"),
            (WINDOW / 2, 0, 0, 101, Blocked::Link, "nobody says why"),
        ];
        let before = Stats { packets_sent: Some(0), bytes_sent: 0, ..stats(0, 0, 0, 100) };
        for (in_flight, used_up, lost, rtt_ms, blocked, what) in cases {
            assert_eq!(why_blocked(&before, &stats(in_flight, used_up, lost, rtt_ms), SECOND, SECOND), blocked, "{what}");
        }
    }

    #[test]
    fn a_congestion_window_that_still_grows_is_what_blocks() {
        let before = Stats { congestion_window: Some(WINDOW / 2), ..Stats::default() };
        assert_eq!(why_blocked(&before, &stats(WINDOW, 0, 0, 100), SECOND, SECOND), Blocked::Window);
    }

    #[test]
    fn nothing_blocks_where_lanes_did_not_wait_or_nothing_is_known() {
        let before = Stats::default();
        assert_eq!(why_blocked(&before, &stats(WINDOW / 2, 8, 100, 100), SECOND, Duration::ZERO), Blocked::Link);
        assert_eq!(why_blocked(&before, &before, SECOND, SECOND), Blocked::Link);
    }
}
