//! Bandwidth limits: one for all that share it, whatever sessions and lanes they are of, and changed while they wait.
//!
//! Each byte gets a place in a row, and the row moves at the rate. Whoever waits knows its place, not its time: when the rate changes, the
//! time is reckoned anew, and who has waited keeps what it has waited for. A row that stood still catches up with a tenth of a second.

use crate::{
    clock,
    meter::{Meter, Work},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How much of a second may pass at once.
const BURST: Duration = Duration::from_millis(100);
/// Times beyond this are not reckoned: the rate will have changed by then.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// How fast bytes may go, each way. Shared by the sessions that are given the same one.
#[derive(Debug, Default)]
pub struct Limits {
    /// What leaves.
    pub send: Rate,
    /// What comes.
    pub receive: Rate,
}

impl Limits {
    /// Limits of so many bytes a second; none and zero let everything pass.
    pub fn new(send: Option<u64>, receive: Option<u64>) -> Arc<Self> {
        let limits = Self::default();
        limits.send.set(send);
        limits.receive.set(receive);
        Arc::new(limits)
    }
}

/// A rate in bytes a second, or none.
#[derive(Debug)]
pub struct Rate {
    row: Mutex<Row>,
    changed: Notify,
}

/// Who has passed and who has not.
#[derive(Debug, Clone, Copy)]
struct Row {
    bytes_per_s: Option<u64>,
    /// Bytes that could have passed by `at`.
    passed: f64,
    at: Instant,
    /// Bytes that have a place.
    placed: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { row: Mutex::new(Row { bytes_per_s: None, passed: 0.0, at: clock::now(), placed: 0 }), changed: Notify::new() }
    }
}

impl Rate {
    /// Lets so many bytes pass in a second from now on; none and zero let all pass. Whoever waits goes on by the new rate.
    pub fn set(&self, bytes_per_s: Option<u64>) {
        let mut row = self.row();
        row.advance(clock::now());
        row.bytes_per_s = bytes_per_s.filter(|rate| *rate > 0);
        drop(row);
        self.changed.notify_waiters();
    }

    /// Bytes a second.
    pub fn get(&self) -> Option<u64> {
        self.row().bytes_per_s
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` more may pass. Returns how long that took.
    async fn pass(&self, bytes: usize) -> Duration {
        let began = clock::now();
        let place = self.row().place(bytes, began);
        loop {
            // Before the look, so that no change falls between the two.
            let changed = self.changed.notified();
            let Some(wait) = self.row().wait(place, clock::now()) else { return clock::since(began) };
            select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }
}

impl Row {
    /// Lets pass what may by `now`.
    fn advance(&mut self, now: Instant) {
        let placed = self.placed as f64;
        self.passed = match self.bytes_per_s.map(|rate| rate as f64) {
            Some(rate) => (self.passed + rate * now.duration_since(self.at).as_secs_f64()).min(placed + rate * BURST.as_secs_f64()),
            None => placed,
        };
        self.at = now;
    }

    fn place(&mut self, bytes: usize, now: Instant) -> u64 {
        self.advance(now);
        self.placed += bytes as u64;
        self.placed
    }

    /// How long `place` has to wait still.
    fn wait(&self, place: u64, now: Instant) -> Option<Duration> {
        let rate = self.bytes_per_s? as f64;
        let due = (place as f64 - self.passed) / rate - now.duration_since(self.at).as_secs_f64();
        // Less than the timer can tell is nothing.
        (due > 1e-6).then(|| Duration::from_secs_f64(due.min(WAIT_MAX.as_secs_f64())))
    }
}

/// What one direction of one session passes through.
#[derive(Debug)]
pub(super) struct Pace {
    limits: Arc<Limits>,
    side: fn(&Limits) -> &Rate,
    meter: Arc<Meter>,
}

impl Pace {
    pub(super) fn new(limits: &Arc<Limits>, side: fn(&Limits) -> &Rate, meter: Arc<Meter>) -> Self {
        Self { limits: limits.clone(), side, meter }
    }

    /// Waits until `bytes` more may pass.
    pub(super) async fn pass(&self, bytes: usize) {
        let rate = (self.side)(&self.limits);
        if rate.get().is_some() {
            self.meter.add(Work::Limit, rate.pass(bytes).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bytes_per_s: u64, now: Instant) -> Row {
        Row { bytes_per_s: Some(bytes_per_s), passed: 0.0, at: now, placed: 0 }
    }

    /// In milliseconds, rounded.
    fn placed(row: &mut Row, bytes: usize, now: Instant) -> u64 {
        let place = row.place(bytes, now);
        row.wait(place, now).map_or(0, |wait| (wait.as_secs_f64() * 1e3).round() as u64)
    }

    #[test]
    fn bytes_wait_for_their_share_of_a_second() {
        let now = clock::now();
        let mut row = row(1000, now);
        assert_eq!((placed(&mut row, 500, now), placed(&mut row, 500, now)), (500, 1000));
        let later = now + Duration::from_secs(60);
        assert_eq!(placed(&mut row, 100, later), 0, "a pause is a burst, no more");
        assert_eq!(placed(&mut row, 1000, later), 1000);
    }

    #[test]
    fn who_has_waited_half_its_time_waits_half_of_it_at_any_other_rate() {
        let now = clock::now();
        let mut row = row(1000, now);
        let place = row.place(2000, now);
        let half = now + Duration::from_secs(1);
        row.advance(half);
        row.bytes_per_s = Some(100);
        assert_eq!(row.wait(place, half).map(|wait| wait.as_secs_f64().round()), Some(10.0));
        row.bytes_per_s = None;
        assert_eq!(row.wait(place, half), None);
    }

    #[test]
    fn what_passed_without_a_limit_is_no_debt_under_one() {
        let now = clock::now();
        let mut row = Row { bytes_per_s: None, ..row(1, now) };
        row.place(1 << 40, now);
        row.advance(now);
        row.bytes_per_s = Some(1000);
        assert_eq!(placed(&mut row, 1000, now), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_is_lifted_lets_everybody_go_at_once() {
        let limits = Limits::new(None, Some(1));
        let waiting = {
            let limits = limits.clone();
            tokio::spawn(async move { limits.receive.pass(1 << 30).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        limits.receive.set(None);
        assert!(waiting.await.unwrap() < Duration::from_secs(60), "it would have been years");
        assert_eq!((limits.send.get(), limits.receive.get()), (None, None));
    }
}
