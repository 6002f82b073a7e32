//! The only place where the engine reads the clock.
//!
//! Wall time is for display; nothing is ordered by it. Pure modules (session, merge) take `now` as an argument.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; 0 if the clock stands before it.
pub fn wall_ms() -> u64 {
    #[cfg(test)]
    if let Some(simulated_ms) = crate::simulation::wall_ms() {
        return simulated_ms;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
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

/// CPU time of this process so far, all threads, in user mode and in the kernel.
pub fn process_cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}
