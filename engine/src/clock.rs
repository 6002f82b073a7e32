//! The only place where the engine reads the clock.
//!
//! Wall time is for display; nothing is ordered by it. Pure modules (session, merge) take `now` as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; 0 if the clock stands before it.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// Monotonic time, for durations and timeouts.
pub fn now() -> Instant {
    Instant::now()
}
