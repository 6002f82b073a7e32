//! Bytes that have passed: all of them, and how many a second of late.

use std::time::{Duration, Instant};

/// Over so many of the last whole seconds.
const SECONDS: u64 = 5;

/// A counter with a memory of a few seconds. The second at hand is not whole, and does not count for the rate.
#[derive(Debug)]
pub(super) struct Flow {
    began: Instant,
    total: u64,
    /// What passed in each second, in a ring.
    passed: [u64; SECONDS as usize + 1],
    /// The second at hand.
    second: u64,
}

impl Flow {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, total: 0, passed: [0; SECONDS as usize + 1], second: 0 }
    }

    pub(super) fn add(&mut self, bytes: u64, now: Instant) {
        self.turn(now);
        self.total += bytes;
        self.passed[self.slot(self.second)] += bytes;
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes a second.
    pub(super) fn per_s(&mut self, now: Instant) -> u64 {
        self.turn(now);
        let whole = SECONDS.min(self.second);
        let sum: u64 = (self.second - whole..self.second).map(|second| self.passed[self.slot(second)]).sum();
        sum.checked_div(whole).unwrap_or_default()
    }

    /// Whether anything passed within the last second or two.
    pub(super) fn is_moving(&mut self, now: Instant) -> bool {
        self.turn(now);
        let before = self.second.checked_sub(1).map_or(0, |before| self.passed[self.slot(before)]);
        self.passed[self.slot(self.second)] + before > 0
    }

    fn turn(&mut self, now: Instant) {
        let second = now.duration_since(self.began).as_secs();
        let forgotten = (self.second + 1..=second).rev().take(self.passed.len());
        for second in forgotten {
            let slot = self.slot(second);
            self.passed[slot] = 0;
        }
        self.second = self.second.max(second);
    }

    fn slot(&self, second: u64) -> usize {
        (second % (SECONDS + 1)) as usize
    }
}

/// Since when something lasts, on the clock that stands still for nobody's hand.
pub(super) fn left(until: Option<Instant>, now: Instant) -> Option<Duration> {
    until.map(|until| until.saturating_duration_since(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_rate_is_of_the_last_whole_seconds_and_ends_with_them() {
        let began = clock::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut flow = Flow::new(began);
        flow.add(700, at(100));
        assert_eq!(flow.per_s(at(900)), 0, "the first second is not whole");
        assert!(flow.is_moving(at(900)));
        flow.add(300, at(1_500));
        assert_eq!(flow.per_s(at(1_900)), 700);
        assert_eq!(flow.per_s(at(2_100)), 500);
        assert_eq!(flow.per_s(at(5_100)), 200);
        assert_eq!(flow.per_s(at(6_100)), 60, "the first second is forgotten");
        assert_eq!((flow.per_s(at(7_100)), flow.per_s(at(700_000)), flow.total()), (0, 0, 1_000));
        assert!(!flow.is_moving(at(700_000)));
    }
}
