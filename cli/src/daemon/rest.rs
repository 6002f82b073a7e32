//! When the daemon has come to rest after work: what it keeps for more of the same is of no use any longer.

use std::time::Duration;

/// Between two looks. As long as threads that waited for files stay for more: with them goes what they keep.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// Processor time between two looks from which on the daemon worked: 1 % of a core. At rest it takes a tenth of that.
const WORK: Duration = Duration::from_millis(100);

/// Told at each look what the process has used so far.
#[derive(Debug, Default)]
pub(super) struct Rest {
    used: Duration,
    worked: bool,
}

impl Rest {
    /// Whether the daemon has worked, and not since the last look: true once after each stretch of work.
    pub(super) fn begins(&mut self, used: Duration) -> bool {
        let works = used.saturating_sub(self.used) >= WORK;
        self.used = used;
        let worked = std::mem::replace(&mut self.worked, works);
        worked && !works
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is answered at looks between which this was used, in ms.
    fn looks<const N: usize>(used_ms: [u64; N]) -> [bool; N] {
        let (mut rest, mut sum) = (Rest::default(), Duration::ZERO);
        used_ms.map(|used| {
            sum += Duration::from_millis(used);
            rest.begins(sum)
        })
    }

    #[test]
    fn rest_begins_once_after_work_and_never_in_its_midst() {
        assert_eq!(looks([800, 9_000, 10, 10, 10]), [false, false, true, false, false]);
        assert_eq!(looks([10, 100, 99, 400, 0]), [false, false, true, false, true]);
    }

    #[test]
    fn a_daemon_that_has_done_nothing_has_no_rest_to_begin() {
        assert_eq!(looks([10, 80, 99]), [false; 3]);
    }
}
