//! A peer that does not want this device is asked again: soon at first, because it may only not have heard yet that the device was let in,
//! then ever more seldom, because it may mean it.
//!
//! ```text
//! refused   1 s   2 s   4 s   8 s   16 s   32 s   60 s   60 s ...
//! ```
//! So a peer that has removed this device hears of it six times in the first minute and once in each that follows. Who is in is said by the
//! log, so a log that says something new of that here is a reason to ask at once: where that came from, the peer may have it from, too.

use crate::replicate::SELDOM;
use std::time::Duration;

/// Before the first try again, and doubled each time.
const FIRST: Duration = Duration::from_secs(1);

/// How often in a row a peer has refused this device.
#[derive(Debug, Default)]
pub(super) struct Refusals(u32);

impl Refusals {
    /// It let this device in, or there is a reason to expect that.
    pub(super) fn over(&mut self) {
        self.0 = 0;
    }

    /// It has refused once more: how long to wait before the next try.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.0.min(16)).min(SELDOM);
        self.0 += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_asks_again_soon_and_then_ever_more_seldom() {
        let mut refusals = Refusals::default();
        let pauses: Vec<u64> = (0..9).map(|_| refusals.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        refusals.over();
        assert_eq!(refusals.pause(), FIRST);
    }
}
