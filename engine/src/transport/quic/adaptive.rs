//! The default congestion control: CUBIC (RFC 9438) that asks whether a loss was congestion.
//!
//! CUBIC takes every lost packet for a full queue. On a path that loses one packet in a hundred by itself it ends at a hundredth of the
//! rate. Models of the path (BBR) bear such loss, but the library's fills the queue until a quarter of what it sends is dropped. Here both
//! kinds of evidence are heard:
//!
//! | evidence at a loss | verdict | window |
//! | --- | --- | --- |
//! | the round trip is longer than the path's own by an eighth: a queue stands | congestion | what the path holds without a queue, but 0.7 to 0.85 of what it was |
//! | more were lost lately than a path of 5 % loses by chance, or the network said so (ECN) | congestion | 0.7 |
//! | neither | the path's own loss | stays, and grows on |
//!
//! Both kinds of evidence need numbers. Two packets of the first thirty are no share yet, so what chance may do is borne beside the 5 %. And
//! where packets are delayed each by itself (jitter), the shortest of a few round trips is longer than the path's own without any queue: so
//! there have to be some, and by more than half of what they differ among themselves. What is lost of the first flight counts for nothing: a
//! peer whose last word of the handshake was overtaken or lost could not read it.
//!
//! "What the path holds" is the delivered rate (the best of ten round trips) times the shortest round trip seen. The latter does not grow
//! while the window is used, so a route that becomes longer looks like a queue: then this is CUBIC. Who has had little to send for
//! [`REST`] has no queue of its own, and a path that was not filled for so long is a new one: what is known of it is forgotten, and slow start
//! begins again, as after idle time in TCP (RFC 5681, section 4.1). Every verdict of congestion is a multiplicative decrease and growth is
//! CUBIC's, so flows that share a queue converge as CUBIC's do. Slow start ends when a queue begins to stand (after HyStart++, RFC 9406), not
//! at the first loss.
//!
//! The shortest round trip is measured here: the library's is never longer than the round trip that it reckons with at first.

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

/// Window of a new path, in packets: RFC 6928's ten, and what others (QUICHE, BBR) have begun with for years.
const INITIAL_PACKETS: u64 = 32;
/// Smallest window, in packets.
const PACKETS_MIN: u64 = 4;
/// CUBIC's constants (RFC 9438, section 4.6).
const CUBIC_C: f64 = 0.4;
const CUBIC_BETA: f64 = 0.7;
/// Least decrease at congestion, so that flows which share a queue converge.
const BETA_MAX: f64 = 0.85;
/// Share of lost packets that may be the path's own, whatever the round trip says.
const LOSS_SHARE_BORNE: f64 = 0.05;
/// What chance may add to it, in standard deviations (Poisson),
const LOSS_DEVIATIONS: f64 = 3.0;
/// and in packets: of very few, deviations say nothing.
const LOSS_BY_CHANCE: f64 = 2.0;
/// Packets over which that share is taken.
const LOSS_PACKETS: u64 = 512;
/// A queue stands when the round trip is longer than the shortest by an eighth, but at least by the first (timers and interrupts are no
/// queue) and at most by the second.
const QUEUE_DELAY: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(16));
/// Packets of which the shortest round trip tells a queue from chance (RFC 9406, section 4.2).
const ROUND_SAMPLES_MIN: usize = 8;
/// A path that was not filled for so long may be another one.
const REST: Duration = Duration::from_secs(10);
/// Part of the window, or of a new path's if that is more, that has to arrive in a round trip for a path to count as filled, whatever limited
/// the sender.
const FILLED: u64 = 4;
/// Round trips whose best rate counts.
const RATE_ROUNDS: usize = 10;

/// Makes [`Adaptive`] controllers.
#[derive(Debug, Default)]
pub(super) struct AdaptiveConfig;

impl ControllerFactory for AdaptiveConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Adaptive::new(now, current_mtu))
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Adaptive {
    mtu: u64,
    window: u64,
    /// Below it the window doubles each round trip.
    slow_start_until: u64,
    growth: Option<Growth>,
    /// Losses of what was sent before are one with the last verdict.
    judged_at: Option<Instant>,
    /// When the connection began; none after the first [`REST`].
    opened: Option<Instant>,
    /// When a good part of the window was last used, or the path became a new one.
    filled_at: Instant,
    path: Path,
}

/// CUBIC's curve since the last decrease.
#[derive(Debug, Clone, Copy)]
struct Growth {
    began: Instant,
    /// Window before the decrease, in packets.
    plateau: f64,
    /// Seconds until the curve is back there.
    plateau_s: f64,
    /// What Reno would have by now, in packets.
    reno: f64,
}

/// What was acknowledged, in one packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acked {
    pub(super) now: Instant,
    pub(super) sent: Instant,
    pub(super) bytes: u64,
    pub(super) demand: Demand,
}

/// Whether there was more to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// The window was what limited us.
    Network,
    /// Nothing more to send: says nothing about the path.
    Application,
}

impl Adaptive {
    pub(super) fn new(now: Instant, mtu: u16) -> Self {
        let mtu = u64::from(mtu);
        Self {
            mtu,
            window: INITIAL_PACKETS * mtu,
            slow_start_until: u64::MAX,
            growth: None,
            judged_at: None,
            opened: Some(now),
            filled_at: now,
            path: Path::new(now, Duration::MAX),
        }
    }

    pub(super) fn acked(&mut self, acked: Acked) {
        self.rest(&acked);
        let is_judged = self.judged_at.is_some_and(|judged| acked.sent <= judged);
        self.path.acked(&acked);
        if !is_judged {
            self.path.delivered_lately += acked.bytes;
        }
        if self.window < self.slow_start_until && self.path.queue_begins() {
            self.slow_start_until = self.window;
        }
        // While a loss is being repaired the window stands still.
        if acked.demand == Demand::Application || is_judged {
            return;
        }
        if self.window < self.slow_start_until {
            self.window += acked.bytes;
        } else {
            self.grow(&acked);
        }
    }

    /// Begins anew when the path was not filled for long. The last round trips stay: nothing may come for as long again.
    fn rest(&mut self, acked: &Acked) {
        let filled = self.window.max(INITIAL_PACKETS * self.mtu) / FILLED;
        if acked.demand == Demand::Network || self.path.round_bytes >= filled {
            self.filled_at = acked.now;
        } else if acked.now.saturating_duration_since(self.filled_at) >= REST {
            let shortest = self.path.shortest_lately;
            *self = Self { path: Path::new(acked.now, shortest), opened: None, ..Self::new(acked.now, self.mtu as u16) };
        }
    }

    /// RFC 9438, sections 4.2 to 4.4.
    fn grow(&mut self, acked: &Acked) {
        let packets = self.window as f64 / self.mtu as f64;
        let growth = self.growth.get_or_insert(Growth { began: acked.now, plateau: packets, plateau_s: 0.0, reno: packets });
        let acked_packets = acked.bytes as f64 / self.mtu as f64;
        let elapsed = acked.now.saturating_duration_since(growth.began) + self.path.shortest;
        let cubic = CUBIC_C * (elapsed.as_secs_f64() - growth.plateau_s).powi(3) + growth.plateau;
        let reno_share = if growth.reno < growth.plateau { 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA) } else { 1.0 };
        growth.reno += reno_share * acked_packets / packets;
        let target = cubic.max(growth.reno).clamp(packets, 1.5 * packets);
        self.window += ((target - packets) / packets * acked.bytes as f64) as u64;
    }

    pub(super) fn lost(&mut self, now: Instant, sent: Instant, loss: Loss) {
        if self.judged_at.is_some_and(|judged| sent <= judged) || matches!(loss, Loss::Bytes(_)) && self.is_first_flight(sent) {
            return;
        }
        let evidence = self.path.lost(loss, self.mtu);
        let window = self.window as f64;
        let kept = match evidence {
            Evidence::None => return,
            // Slow start sends twice what the path takes before anybody can know.
            Evidence::Queue if self.growth.is_none() => self.path.capacity_bytes().clamp(0.5 * window, BETA_MAX * window),
            Evidence::Queue => self.path.capacity_bytes().clamp(CUBIC_BETA * window, BETA_MAX * window),
            Evidence::Told => CUBIC_BETA * window,
            Evidence::Collapse => 0.0,
        };
        self.decrease(now, kept as u64);
    }

    /// Whether the peer may not have had the keys yet when this arrived: whoever's last word of the handshake was lost or overtaken loses all that
    /// came before it (RFC 9002, section 7.4).
    fn is_first_flight(&self, sent: Instant) -> bool {
        let until = self.opened.map(|opened| opened.checked_add(self.path.shortest.saturating_mul(2)));
        until.is_some_and(|until| until.is_none_or(|until| sent < until))
    }

    fn decrease(&mut self, now: Instant, kept: u64) {
        let before = self.window as f64 / self.mtu as f64;
        self.window = kept.max(PACKETS_MIN * self.mtu);
        self.slow_start_until = self.window.max(if kept == 0 { before as u64 * self.mtu / 2 } else { 0 });
        let after = self.window as f64 / self.mtu as f64;
        // Who has less than last time leaves room for those that came (fast convergence, section 4.7).
        let shrinking = self.growth.is_some_and(|growth| before < growth.plateau);
        let plateau = if shrinking { before * (1.0 + CUBIC_BETA) / 2.0 } else { before }.max(after);
        let plateau_s = ((plateau - after) / CUBIC_C).cbrt();
        self.growth = Some(Growth { began: now, plateau, plateau_s, reno: after });
        self.judged_at = Some(now);
        // Whoever sends little would be judged by the same losses again and again.
        (self.path.delivered_lately, self.path.lost_lately) = (0, 0);
    }
}

/// What a loss report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// So many bytes did not arrive.
    Bytes(u64),
    /// The network marked packets instead of dropping them.
    Marked,
    /// Nothing arrived for a long time.
    Everything,
}

/// Why a loss is congestion.
enum Evidence {
    None,
    Queue,
    Told,
    Collapse,
}

/// How long packets took there and back in one round.
#[derive(Debug, Clone, Copy)]
struct Trips {
    shortest: Duration,
    longest: Duration,
    samples: usize,
}

impl Trips {
    const NONE: Self = Self { shortest: Duration::MAX, longest: Duration::ZERO, samples: 0 };

    fn and(self, other: Self) -> Self {
        Self {
            shortest: self.shortest.min(other.shortest),
            longest: self.longest.max(other.longest),
            samples: self.samples + other.samples,
        }
    }
}

/// What is known of the path.
#[derive(Debug, Clone)]
struct Path {
    shortest: Duration,
    /// The same since [`REST`] began.
    shortest_lately: Duration,
    /// Delivered bytes a second of the last round trips.
    rates: [f64; RATE_ROUNDS],
    rounds: usize,
    round_began: Instant,
    round_bytes: u64,
    /// Of this round and of the one before.
    trips: [Trips; 2],
    /// Since the last verdict, of what was sent after it; at most of the last [`LOSS_PACKETS`].
    delivered_lately: u64,
    lost_lately: u64,
}

impl Path {
    fn new(now: Instant, shortest: Duration) -> Self {
        Self {
            shortest,
            shortest_lately: Duration::MAX,
            rates: [0.0; RATE_ROUNDS],
            rounds: 0,
            round_began: now,
            round_bytes: 0,
            trips: [Trips::NONE; 2],
            delivered_lately: 0,
            lost_lately: 0,
        }
    }

    fn acked(&mut self, acked: &Acked) {
        let trip = acked.now.saturating_duration_since(acked.sent);
        self.shortest = self.shortest.min(trip);
        self.shortest_lately = self.shortest_lately.min(trip);
        self.trips[0] = self.trips[0].and(Trips { shortest: trip, longest: trip, samples: 1 });
        self.round_bytes += acked.bytes;
        if acked.sent >= self.round_began {
            self.end_round(acked);
        }
    }

    fn end_round(&mut self, acked: &Acked) {
        let elapsed = acked.now.saturating_duration_since(self.round_began).max(Duration::from_micros(1));
        let rate = self.round_bytes as f64 / elapsed.as_secs_f64();
        if acked.demand == Demand::Network || rate > self.rate() {
            self.rates[self.rounds % RATE_ROUNDS] = rate;
            self.rounds += 1;
        }
        (self.round_began, self.round_bytes) = (acked.now, 0);
        self.trips = [Trips::NONE, self.trips[0]];
    }

    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn capacity_bytes(&self) -> f64 {
        self.rate() * self.shortest.as_secs_f64()
    }

    /// The shortest of two round trips: what delays single packets is no queue.
    fn queue_stands(&self) -> bool {
        self.is_queue(self.trips[0].and(self.trips[1]))
    }

    /// The same as soon as a round trip has shown enough: in slow start the next would double the queue.
    fn queue_begins(&self) -> bool {
        self.is_queue(self.trips[0])
    }

    fn is_queue(&self, trips: Trips) -> bool {
        if trips.samples < ROUND_SAMPLES_MIN {
            return false;
        }
        let jitter = (trips.longest - trips.shortest) / 2;
        let margin = (self.shortest / 8).max(jitter).clamp(QUEUE_DELAY.0, QUEUE_DELAY.1);
        trips.shortest > self.shortest.saturating_add(margin)
    }

    fn lost(&mut self, loss: Loss, mtu: u64) -> Evidence {
        let bytes = match loss {
            Loss::Marked => return Evidence::Told,
            Loss::Everything => return Evidence::Collapse,
            Loss::Bytes(bytes) => bytes,
        };
        self.lost_lately += bytes;
        while self.delivered_lately + self.lost_lately > LOSS_PACKETS * mtu {
            (self.delivered_lately, self.lost_lately) = (self.delivered_lately / 2, self.lost_lately / 2);
        }
        match (self.queue_stands(), self.loses_more_than_by_chance(mtu)) {
            (true, _) => Evidence::Queue,
            (false, true) => Evidence::Told,
            (false, false) => Evidence::None,
        }
    }

    fn loses_more_than_by_chance(&self, mtu: u64) -> bool {
        let packets = |bytes: u64| bytes as f64 / mtu as f64;
        let borne = LOSS_SHARE_BORNE * packets(self.delivered_lately + self.lost_lately);
        packets(self.lost_lately) > borne + LOSS_DEVIATIONS * borne.sqrt() + LOSS_BY_CHANCE
    }
}

impl Controller for Adaptive {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _: &RttEstimator) {
        let demand = if app_limited { Demand::Application } else { Demand::Network };
        self.acked(Acked { now, sent, bytes, demand });
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        let loss = match (is_persistent_congestion, lost_bytes) {
            (true, _) => Loss::Everything,
            (false, 0) => Loss::Marked,
            (false, bytes) => Loss::Bytes(bytes),
        };
        self.lost(now, sent, loss);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.window = self.window.max(PACKETS_MIN * self.mtu);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window;
        metrics.ssthresh = Some(self.slow_start_until);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
