//! How long to wait before the next dial: the longer a peer has been away, the longer.
//!
//! ```text
//! 0.2 s  0.4  0.8  1.6  2  2  2 ... after 20 s a tenth of the absence ... 60 s
//! ```
//! So a peer that is back is found after a tenth more than it was away, if nothing says so earlier: its own dial, or a network that changed.
//! What a person has to mend is tried again once a minute.

use crate::{clock, limits::REDIAL_MS_MAX};
use std::time::{Duration, Instant};

/// Before the first dial again.
const FIRST: Duration = Duration::from_millis(200);
/// A dial is a few packets: for a while they cost less than what is not sent meanwhile.
const SOON: Duration = Duration::from_secs(2);
/// Of an absence, the pause is one part of so many.
const SHARE: u32 = 10;
/// The longest pause.
pub(super) const SELDOM: Duration = Duration::from_millis(REDIAL_MS_MAX);

/// Since when nothing has come of dialling, and how often it was tried.
#[derive(Debug, Default)]
pub(super) struct Absence {
    since: Option<Instant>,
    tries: u32,
}

impl Absence {
    /// The peer was there.
    pub(super) fn over(&mut self) {
        *self = Self::default();
    }

    /// Nothing came of a dial: how long to wait before the next.
    pub(super) fn pause(&mut self) -> Duration {
        self.pause_at(clock::now())
    }

    fn pause_at(&mut self, now: Instant) -> Duration {
        let away = now.duration_since(*self.since.get_or_insert(now));
        let doubled = FIRST.saturating_mul(1 << self.tries.min(16));
        self.tries += 1;
        doubled.min((away / SHARE).clamp(SOON, SELDOM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_absence_and_begin_anew_after_it() {
        let mut absence = Absence::default();
        let mut now = clock::now();
        let mut pauses = Vec::new();
        while pauses.len() < 200 {
            let pause = absence.pause_at(now);
            now += pause;
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses[..6], [200, 400, 800, 1_600, 2_000, 2_000]);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] <= pair[0].max(1_000) * 2), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&u128::from(REDIAL_MS_MAX)));
        absence.over();
        assert_eq!(absence.pause_at(now), FIRST);
    }
}
