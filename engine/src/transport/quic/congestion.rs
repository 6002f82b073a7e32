//! Congestion control that steps aside for the goodbye.
//!
//! Quinn holds back the closing packet while the congestion window is full, and stops everything that could empty it: the peer then
//! learns of the end only by its idle timeout (quinn-rs/quinn#2785, fixed after 0.11). A sender that is stopped in the middle of a
//! transfer is always in that state. So the real controller is wrapped, and on closing the window opens: by then one packet of a
//! few bytes is all that can still go out.

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Makes controllers that [`step_aside`] can open.
pub(super) struct Yielding<F>(pub(super) Arc<F>);

impl<F: ControllerFactory + Send + Sync + 'static> ControllerFactory for Yielding<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(YieldingController { inner: self.0.clone().build(now, current_mtu), closing: Arc::default() })
    }
}

/// Lets the connection's last packet out whatever is in flight.
pub(super) fn step_aside(connection: &quinn::Connection) {
    if let Ok(controller) = connection.congestion_state().into_any().downcast::<YieldingController>() {
        controller.closing.store(true, Ordering::Relaxed);
    }
}

struct YieldingController {
    inner: Box<dyn Controller>,
    /// Shared with the clones that quinn hands out, and makes when the path changes.
    closing: Arc<AtomicBool>,
}

impl Controller for YieldingController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
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
        if self.closing.load(Ordering::Relaxed) { u64::MAX } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), closing: self.closing.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
