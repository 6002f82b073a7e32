//! A peer that is away is dialled the more seldom the longer it has been away.
//!
//! ```text
//! away for      0 ........... 1 min ........... 10 min ............... 20 min ...
//! pause         0.2 0.4 0.5 s │ 2 s              │ a tenth of what is over 10 min │ 60 s
//! dials begun   every 0.25 s ─┴─ 2 min ─┬─ each second, in every try
//! ```
//! So one that is back within a minute or two is found within a moment, although no system may tell; later its own dial, or a network that
//! changed, mostly says so earlier. What a person has to mend is tried again once a minute.

use crate::{clock, limits::REDIAL_MS_MAX};
use std::time::{Duration, Instant};

/// Before the first try again, and doubled each time.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause while the peer may be back at any moment. A dial is a few packets: they cost less than what is not sent meanwhile.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Until the peer has been away for so long.
const ANY_MOMENT: Duration = Duration::from_secs(60);
/// The pause after that.
const SOON: Duration = Duration::from_secs(2);
/// Whoever has been away for longer is likely to stay away.
const LONG: Duration = Duration::from_secs(600);
/// Of what an absence is longer than that, the pause is one part of so many.
const SHARE: u32 = 10;
/// The longest pause.
pub(crate) const SELDOM: Duration = Duration::from_millis(REDIAL_MS_MAX);
/// Until when dials are begun [`Haste::Often`].
const HASTE: Duration = Duration::from_secs(120);

/// How soon another dial is begun beside those that have no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Haste {
    /// Every quarter of a second: the peer was there not long ago.
    #[default]
    Often,
    /// Each second.
    Seldom,
}

/// Since when nothing has come of dialling, and how often it was tried.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    since: Option<Instant>,
    tries: u32,
}

impl Absence {
    /// The peer was there, or there is a reason to expect it.
    pub(crate) fn over(&mut self) {
        *self = Self::default();
    }

    /// Nothing came of a dial: how long to wait before the next.
    pub(crate) fn pause(&mut self) -> Duration {
        self.pause_at(clock::now())
    }

    /// How to dial now.
    pub(crate) fn haste(&self) -> Haste {
        self.haste_at(clock::now())
    }

    fn haste_at(&self, now: Instant) -> Haste {
        match self.since {
            Some(since) if now.duration_since(since) > HASTE => Haste::Seldom,
            _ => Haste::Often,
        }
    }

    fn pause_at(&mut self, now: Instant) -> Duration {
        let away = now.duration_since(*self.since.get_or_insert(now));
        let doubled = FIRST.saturating_mul(1 << self.tries.min(16));
        self.tries += 1;
        let most = if away < ANY_MOMENT { AT_ONCE } else { (away.saturating_sub(LONG) / SHARE).clamp(SOON, SELDOM) };
        doubled.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_at_once_for_a_minute_soon_for_ten_and_seldom_after_that() {
        let (mut absence, began) = (Absence::default(), clock::now());
        let mut at = |s| absence.pause_at(began + Duration::from_secs(s)).as_millis();
        assert_eq!([at(0), at(1), at(2), at(3)], [200, 400, 500, 500]);
        assert_eq!([at(59), at(60), at(599), at(620)], [500, 2_000, 2_000, 2_000]);
        assert_eq!([at(900), at(1_200), at(100_000)], [30_000, 60_000, REDIAL_MS_MAX.into()]);
        absence.over();
        assert_eq!(absence.pause_at(began), FIRST);
    }

    #[test]
    fn dials_are_begun_often_until_a_peer_has_been_away_for_some_time() {
        let (mut absence, began) = (Absence::default(), clock::now());
        assert_eq!(absence.haste_at(began), Haste::Often);
        absence.pause_at(began);
        assert_eq!(absence.haste_at(began + HASTE), Haste::Often);
        assert_eq!(absence.haste_at(began + HASTE * 2), Haste::Seldom);
        absence.over();
        assert_eq!(absence.haste_at(began + HASTE * 2), Haste::Often);
    }
}
