//! Work that waits for files, kept away from the tasks of the network.
//!
//! ```text
//! as a rule      thread of its own: a slow disk delays nobody else
//! simulated      a task like all others: virtual time stands still meanwhile, and one seed has one outcome
//! ```
//! Which of the two is not the caller's business.

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

/// Whether no other process can write to a vault that is open here.
pub(super) fn is_alone() -> bool {
    is_simulated()
}

#[cfg(not(test))]
const fn is_simulated() -> bool {
    false
}

#[cfg(test)]
use crate::clock::simulated::is_played as is_simulated;
