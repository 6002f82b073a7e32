//! The only place where the engine reads the clock.
//!
//! Wall time is for display; nothing is ordered by it. Pure modules (session, merge) take `now` as an argument.

#[cfg(test)]
pub(crate) mod simulated;

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; 0 if the clock stands before it.
pub fn wall_ms() -> u64 {
    #[cfg(test)]
    if let Some(simulated_ms) = simulated::wall_ms() {
        return simulated_ms;
    }
    let read_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64);
    #[cfg(test)]
    let read_ms = read_ms.saturating_add_signed(WRONG_BY_MS.get());
    read_ms
}

#[cfg(test)]
thread_local! {
    static WRONG_BY_MS: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// Does `work` while the wall clock, as this thread reads it, is wrong by so much.
#[cfg(test)]
pub(crate) fn wrong_by<T>(ms: i64, work: impl FnOnce() -> T) -> T {
    let before = WRONG_BY_MS.replace(ms);
    let done = work();
    WRONG_BY_MS.set(before);
    done
}

/// Monotonic time, for durations and timeouts.
#[cfg(not(test))]
pub fn now() -> Instant {
    Instant::now()
}

/// Of the runtime, whose time may be virtual.
#[cfg(test)]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How long ago `begun` was, which is a time of [`now`].
pub(crate) fn since(begun: Instant) -> Duration {
    now().saturating_duration_since(begun)
}

/// CPU time of this process so far, all threads, in user mode and in the kernel; none in a simulation, where work takes no time.
pub fn process_cpu() -> Duration {
    #[cfg(test)]
    if simulated::is_played() {
        return Duration::ZERO;
    }
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}
