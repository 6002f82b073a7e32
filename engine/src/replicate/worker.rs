//! Work that waits for files, kept away from the tasks of the network.
//!
//! ```text
//! as a rule      thread of its own: a slow disk delays nobody else
//! simulated      a task like all others: virtual time stands still meanwhile, and one seed has one outcome
//! ```
//! Which of the two is not the caller's business.

use std::time::Duration;
use tokio::{
    runtime::Handle,
    task::{JoinHandle, spawn_blocking},
};

/// Runs `work`, which blocks now and then, until its end.
pub(super) fn run<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    if is_simulated() {
        return tokio::spawn(work);
    }
    let runtime = Handle::current();
    spawn_blocking(move || runtime.block_on(work))
}

/// Calls `work`, which blocks.
pub(super) fn call<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if is_simulated() { tokio::spawn(async move { work() }) } else { spawn_blocking(work) }
}

/// How often something is looked at that nobody reports: every `period`, and rarely where a day passes in seconds and there is no other
/// process.
pub(super) fn look_every(period: Duration) -> Duration {
    if is_simulated() { period * 40 } else { period }
}

#[cfg(not(test))]
const fn is_simulated() -> bool {
    false
}

#[cfg(test)]
use crate::simulation::is_simulated;
