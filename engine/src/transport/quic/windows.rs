//! Windows that follow the path: as large as rate times round trip asks for, no larger.
//!
//! A window smaller than what the path holds leaves it idle; a larger one lets a peer make us hold more for nothing. So a connection
//! begins small, and each time a round trip brings more than half a window, the window becomes twice what came: the next round trip may
//! bring twice as much. It never shrinks, and never grows beyond [`QUIC_WINDOW_BYTES_MAX`].

use crate::{
    clock,
    limits::{MIB, QUIC_WINDOW_BYTES_MAX},
};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Bytes between two looks at the clock.
const LOOK_BYTES: u64 = MIB as u64 / 4;

/// One direction's window.
#[derive(Debug)]
pub(super) struct Window {
    /// Bytes since the last look.
    unseen: AtomicU64,
    state: Mutex<Round>,
}

#[derive(Debug)]
struct Round {
    began: Instant,
    bytes: u64,
    window: u64,
}

impl Window {
    pub(super) fn new(window: u64) -> Self {
        Self { unseen: AtomicU64::new(0), state: Mutex::new(Round { began: clock::now(), bytes: 0, window }) }
    }

    /// Counts what has passed. Returns the new window when it has to grow; asks for the round trip only now and then.
    pub(super) fn passed(&self, bytes: u64, round_trip: impl FnOnce() -> Duration) -> Option<u64> {
        if self.unseen.fetch_add(bytes, Ordering::Relaxed) + bytes < LOOK_BYTES {
            return None;
        }
        let bytes = self.unseen.swap(0, Ordering::Relaxed);
        let mut round = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        round.passed(clock::now(), bytes, round_trip())
    }

    /// The new window, one byte larger.
    pub(super) fn widen(&self) -> u64 {
        let mut round = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        round.window += 1;
        round.window
    }
}

impl Round {
    fn passed(&mut self, now: Instant, bytes: u64, round_trip: Duration) -> Option<u64> {
        self.bytes += bytes;
        if now.saturating_duration_since(self.began) < round_trip {
            return None;
        }
        let brought = std::mem::take(&mut self.bytes);
        self.began = now;
        let wanted = (2 * brought).min(QUIC_WINDOW_BYTES_MAX);
        (wanted > self.window).then(|| {
            self.window = wanted;
            wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(100);

    #[test]
    fn a_window_that_limits_the_path_doubles_each_round_trip() {
        let began = clock::now();
        let mut round = Round { began, bytes: 0, window: 4 << 20 };
        assert_eq!(round.passed(began + ROUND / 2, 3 << 20, ROUND), None);
        assert_eq!(round.passed(began + ROUND, 1 << 20, ROUND), Some(8 << 20));
        assert_eq!(round.passed(began + 2 * ROUND, 8 << 20, ROUND), Some(16 << 20));
    }

    #[test]
    fn a_window_that_is_not_filled_stays() {
        let began = clock::now();
        let mut round = Round { began, bytes: 0, window: 4 << 20 };
        assert_eq!(round.passed(began + ROUND, 2 << 20, ROUND), None);
    }

    #[test]
    fn a_window_never_grows_beyond_its_limit() {
        let began = clock::now();
        let mut round = Round { began, bytes: 0, window: 4 << 20 };
        assert_eq!(round.passed(began + ROUND, 1 << 40, ROUND), Some(QUIC_WINDOW_BYTES_MAX));
        assert_eq!(round.passed(began + 2 * ROUND, 1 << 40, ROUND), None);
    }

    #[test]
    fn the_clock_is_looked_at_only_now_and_then() {
        let window = Window::new(4 << 20);
        assert_eq!(window.passed(LOOK_BYTES - 1, || unreachable!("too early")), None);
    }
}
