//! Congestion control that steps aside for the goodbye.
//!
//! Quinn holds back the closing packet while the congestion window is full, and stops everything that could empty it: the peer then
//! learns of the end only by its idle timeout (quinn-rs/quinn#2785, fixed after 0.11). A sender that is stopped in the middle of a
//! transfer is always in that state. So the real controller is wrapped, and on closing the window opens: by then one packet of a
//! few bytes is all that can still go out.
//!
//! The wrapper also measures two things, whatever it wraps: the shortest round trip (quinn's is never longer than the one that it reckons with
//! before it has measured any), and which part is lost lately.

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What a round trip counts in the part that is lost: one in which everything was lost (a cut) says little about the path.
const ROUND_WEIGHT: f32 = 1.0 / 8.0;

/// Makes controllers that [`step_aside`] can open.
pub(super) struct Yielding<F>(pub(super) Arc<F>);

impl<F: ControllerFactory + Send + Sync + 'static> ControllerFactory for Yielding<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let round = Round { began: now, acked_bytes: 0, lost_bytes: 0 };
        Box::new(YieldingController { inner: self.0.clone().build(now, current_mtu), shared: Arc::default(), round })
    }
}

/// Lets the connection's last packet out whatever is in flight.
pub(super) fn step_aside(connection: &quinn::Connection) {
    if let Some(shared) = shared(connection) {
        shared.closing.store(true, Ordering::Relaxed);
    }
}

/// Lets one packet out that congestion control would hold back.
pub(super) fn let_one_out(connection: &quinn::Connection) {
    if let Some(shared) = shared(connection) {
        shared.one_more.store(true, Ordering::Relaxed);
    }
}

/// What was measured of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// The shortest round trip so far; none before the first.
    pub(super) shortest: Option<Duration>,
    /// Which part of the bytes of the last round trips was lost, 0 to 1.
    pub(super) loss: f32,
}

/// What was measured of a connection's path.
pub(super) fn measured(connection: &quinn::Connection) -> Option<Measured> {
    shared(connection).map(|shared| shared.measured())
}

fn shared(connection: &quinn::Connection) -> Option<Arc<Shared>> {
    let controller = connection.congestion_state().into_any().downcast::<YieldingController>().ok()?;
    Some(controller.shared)
}

/// What a controller has in common with the clones that quinn hands out, and makes when the path changes.
struct Shared {
    closing: AtomicBool,
    one_more: AtomicBool,
    shortest_ns: AtomicU64,
    /// An `f32`'s bits.
    loss: AtomicU32,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            closing: AtomicBool::default(),
            one_more: AtomicBool::default(),
            shortest_ns: AtomicU64::new(u64::MAX),
            loss: AtomicU32::default(),
        }
    }
}

impl Shared {
    fn measured(&self) -> Measured {
        let shortest = self.shortest_ns.load(Ordering::Relaxed);
        Measured {
            shortest: (shortest != u64::MAX).then_some(Duration::from_nanos(shortest)),
            loss: f32::from_bits(self.loss.load(Ordering::Relaxed)),
        }
    }

    fn is_open(&self) -> bool {
        self.closing.load(Ordering::Relaxed) || self.one_more.load(Ordering::Relaxed) && self.one_more.swap(false, Ordering::Relaxed)
    }

    fn end_round(&self, round: &Round) {
        let lost = round.lost_bytes as f32 / (round.lost_bytes + round.acked_bytes).max(1) as f32;
        let before = f32::from_bits(self.loss.load(Ordering::Relaxed));
        self.loss.store((before + (lost - before) * ROUND_WEIGHT).to_bits(), Ordering::Relaxed);
    }
}

/// One round trip.
#[derive(Debug, Clone, Copy)]
struct Round {
    began: Instant,
    acked_bytes: u64,
    lost_bytes: u64,
}

struct YieldingController {
    inner: Box<dyn Controller>,
    shared: Arc<Shared>,
    round: Round,
}

impl Controller for YieldingController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        let trip = now.saturating_duration_since(sent).as_nanos().try_into().unwrap_or(u64::MAX);
        self.shared.shortest_ns.fetch_min(trip, Ordering::Relaxed);
        self.round.acked_bytes += bytes;
        if sent >= self.round.began {
            self.shared.end_round(&self.round);
            self.round = Round { began: now, acked_bytes: 0, lost_bytes: 0 };
        }
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.round.lost_bytes += lost_bytes;
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.shared.is_open() { u64::MAX } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), shared: self.shared.clone(), round: self.round })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rounds: &[(u64, u64)]) -> f32 {
        let shared = Shared::default();
        for &(acked_bytes, lost_bytes) in rounds {
            shared.end_round(&Round { began: Instant::now(), acked_bytes, lost_bytes });
        }
        shared.measured().loss
    }

    #[test]
    fn what_is_lost_is_an_average_over_round_trips_and_a_cut_is_one_of_them() {
        assert_eq!(after(&[(1_000, 0); 10]), 0.0);
        assert!(after(&[(1, 1_000_000)]) < 0.13, "a window that a cut took");
        let even = after(&[(500, 500); 40]);
        assert!((0.49..0.51).contains(&even), "{even}");
        assert!(after(&[(500, 500); 6]) > 0.25);
        assert_eq!(after(&[(0, 0)]), 0.0);
    }

    #[test]
    fn one_more_packet_is_one() {
        let shared = Shared::default();
        assert!(!shared.is_open());
        shared.one_more.store(true, Ordering::Relaxed);
        assert_eq!([shared.is_open(), shared.is_open()], [true, false]);
        shared.closing.store(true, Ordering::Relaxed);
        assert_eq!([shared.is_open(), shared.is_open()], [true, true]);
    }
}
