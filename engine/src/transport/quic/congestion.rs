//! Congestion control that steps aside for the goodbye.
//!
//! Quinn holds back the closing packet while the congestion window is full, and stops everything that could empty it: the peer then
//! learns of the end only by its idle timeout (quinn-rs/quinn#2785, fixed after 0.11). A sender that is stopped in the middle of a
//! transfer is always in that state. So the real controller is wrapped, and on closing the window opens: by then one packet of a
//! few bytes is all that can still go out.
//!
//! The wrapper also measures the shortest round trip: quinn's is never longer than the one that it reckons with before it has measured any.

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Makes controllers that [`step_aside`] can open.
pub(super) struct Yielding<F>(pub(super) Arc<F>);

impl<F: ControllerFactory + Send + Sync + 'static> ControllerFactory for Yielding<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(YieldingController { inner: self.0.clone().build(now, current_mtu), shared: Arc::default() })
    }
}

/// Lets the connection's last packet out whatever is in flight.
pub(super) fn step_aside(connection: &quinn::Connection) {
    if let Ok(controller) = connection.congestion_state().into_any().downcast::<YieldingController>() {
        controller.shared.closing.store(true, Ordering::Relaxed);
    }
}

/// The shortest round trip of a connection so far; none before the first.
pub(super) fn shortest_round_trip(connection: &quinn::Connection) -> Option<Duration> {
    let controller = connection.congestion_state().into_any().downcast::<YieldingController>().ok()?;
    let shortest = controller.shared.shortest_ns.load(Ordering::Relaxed);
    (shortest != u64::MAX).then_some(Duration::from_nanos(shortest))
}

/// What a controller has in common with the clones that quinn hands out, and makes when the path changes.
struct Shared {
    closing: AtomicBool,
    shortest_ns: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self { closing: AtomicBool::new(false), shortest_ns: AtomicU64::new(u64::MAX) }
    }
}

struct YieldingController {
    inner: Box<dyn Controller>,
    shared: Arc<Shared>,
}

impl Controller for YieldingController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        let trip = now.saturating_duration_since(sent).as_nanos().try_into().unwrap_or(u64::MAX);
        self.shared.shortest_ns.fetch_min(trip, Ordering::Relaxed);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.shared.closing.load(Ordering::Relaxed) { u64::MAX } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), shared: self.shared.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
