//! Both ends dial at once: which of the two sessions stays, as a pure function.
//!
//! ```text
//! A ── session 1 ──► B      the device with the smaller id is A: what A dialled stays, and
//! A ◄── session 2 ── B      whoever dialled the other one ends it, once the one that stays is up
//! ```
//! That is for two that have both come through. Where the peer's has and ours has not yet, ours is given up before it carries anything: a
//! session that is replaced in the middle of a backlog sends much of it twice, on a path that it has to get to know again.
//!
//! Each end decides by itself, without a word of the protocol, and both decide the same. A program that does not know the rule (`mirror sync
//! --follow` beside `mirror serve`) will not end its own: then the other end does, a while later. Until then both work, and what comes
//! twice is stored once.

use crate::id::DeviceId;
use std::time::Duration;

/// How long the peer gets to end the session that it dialled. It has to see ours come up, which takes about a round trip.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// What becomes of the session that we dialled while one is up that the peer dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It ends: the peer's stays.
    Yield,
    /// It stays for as long as the peer takes to end the other, and yields if the peer does not.
    Outlast,
}

/// Which session stays.
pub(super) fn verdict(own: &DeviceId, peer: &DeviceId) -> Verdict {
    if own < peer { Verdict::Outlast } else { Verdict::Yield }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_keep_the_same_session() {
        let devices = [0, 1, 7, 255].map(|n| DeviceId::from_bytes([n; 32]));
        for (a, b) in devices.iter().flat_map(|a| devices.iter().map(move |b| (a, b))).filter(|(a, b)| a != b) {
            let kept = [verdict(a, b), verdict(b, a)];
            assert_eq!(kept.iter().filter(|verdict| **verdict == Verdict::Yield).count(), 1, "{a} {b}");
            assert_eq!(kept[0] == Verdict::Outlast, a < b, "the smaller one's stays");
        }
    }
}
