//! Time and chance of a thread that plays a simulation: what clocks show there, and what the system's random numbers are.

use std::{cell::Cell, time::Duration};
use tokio::time::Instant;

thread_local! {
    static PLAYED: Cell<Option<Played>> = const { Cell::new(None) };
}

#[derive(Debug, Clone, Copy)]
struct Played {
    began: Instant,
    /// What the wall clock shows as if virtual time were zero; moved when the clock jumps.
    wall_ms: u64,
    /// State of SplitMix64.
    chance: u64,
}

/// A simulation that this thread plays for as long as this is kept; one at a time.
#[derive(Debug)]
pub(crate) struct Playing {
    before: Option<Played>,
}

/// Begins a simulation at `wall_ms`, in which everything comes of `seed`.
pub(crate) fn begin(wall_ms: u64, seed: u64) -> Playing {
    Playing { before: PLAYED.replace(Some(Played { began: Instant::now(), wall_ms, chance: seed })) }
}

impl Drop for Playing {
    fn drop(&mut self) {
        PLAYED.set(self.before);
    }
}

/// Whether this thread plays a simulation.
pub(crate) fn is_played() -> bool {
    PLAYED.get().is_some()
}

/// How long it has been going on.
pub(crate) fn elapsed() -> Option<Duration> {
    PLAYED.get().map(|played| played.began.elapsed())
}

/// What the wall clock shows, in a simulation.
pub(super) fn wall_ms() -> Option<u64> {
    PLAYED.get().map(|played| played.wall_ms + played.began.elapsed().as_millis() as u64)
}

/// Sets the wall clock off.
pub(crate) fn jump(by_ms: i64) {
    PLAYED.set(PLAYED.get().map(|played| Played { wall_ms: played.wall_ms.saturating_add_signed(by_ms), ..played }));
}

/// What takes the place of the system's random numbers, in a simulation.
pub(crate) fn random_bytes<const N: usize>() -> Option<[u8; N]> {
    let mut played = PLAYED.get()?;
    let bytes = std::array::from_fn(|_| {
        played.chance = played.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (played.chance ^ (played.chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).to_le_bytes()[7]
    });
    PLAYED.set(Some(played));
    Some(bytes)
}
