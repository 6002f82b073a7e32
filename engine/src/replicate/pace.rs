//! A bandwidth limit shared by all lanes of one direction: a token bucket that holds a tenth of a second.

use crate::{
    clock,
    meter::{Meter, Work},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How much of a second may pass at once.
const BURST: Duration = Duration::from_millis(100);

/// Lets bytes pass at a rate, or freely.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// When everything let through so far would have passed at the rate.
    due: Mutex<Instant>,
    meter: Arc<Meter>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>, meter: Arc<Meter>) -> Self {
        Self { bytes_per_second: bytes_per_second.filter(|rate| *rate > 0), due: Mutex::new(clock::now()), meter }
    }

    /// Waits until `bytes` more may pass.
    pub(super) async fn pass(&self, bytes: usize) {
        if let Some(wait) = self.wait(bytes, clock::now()) {
            tokio::time::sleep(wait).await;
            self.meter.add(Work::Limit, wait);
        }
    }

    fn wait(&self, bytes: usize, now: Instant) -> Option<Duration> {
        let rate = self.bytes_per_second?;
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*due).max(now.checked_sub(BURST).unwrap_or(now));
        *due = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        due.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_their_share_of_a_second() {
        let now = clock::now();
        let pace = Pace { bytes_per_second: Some(1000), due: Mutex::new(now), meter: Arc::default() };
        assert_eq!(pace.wait(500, now), Some(Duration::from_millis(500)));
        assert_eq!(pace.wait(500, now), Some(Duration::from_secs(1)));
        assert_eq!(pace.wait(100, now + Duration::from_secs(60)), None, "a pause is a burst, no more");
        assert_eq!(pace.wait(1000, now + Duration::from_secs(60)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        assert_eq!(Pace::new(None, Arc::default()).wait(usize::MAX / 2, clock::now()), None);
    }
}
