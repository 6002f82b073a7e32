//! Whole replicas in one thread and in virtual time: one seed decides everything that happens to them.
//!
//! ```text
//!          replica 0                                    replica 1
//! vault: view, log, packs (tmpfs)              vault: view, log, packs (tmpfs)
//!   │ every change ─► FaultyDisk                 │            FaultyDisk: crashes, torn writes, failed syncs, full
//! session · keeper · server (tasks)            session · keeper · server
//! quinn ── Nic ──► Net: latency, loss, reorder, duplication, partitions, addresses ──► Nic ── quinn
//! ```
//! The code is the one that users run. What differs: sockets ([`crate::transport::Network::Played`]), the disk's observer
//! ([`crate::io::durable::Observer`]), threads that are tasks here (`replicate/worker.rs`), and where time and random numbers come from.
//! Tokio's clock stands still while anything can run, and then jumps to the next timer: an hour without news takes milliseconds.
//!
//! # What is not simulated
//! SQLite: `index.db` and the view lie behind no observer. A crash leaves them, deletes them or puts an older copy back.

mod day;
mod dice;
mod disk;
mod held;
mod histories;
mod net;
mod replica;
mod template;
mod world;

use crate::clock::simulated;
use std::sync::atomic::{AtomicBool, Ordering};

/// 2026-11-01T00:00:00Z, where simulations begin.
const EPOCH_MS: u64 = 1_793_491_200_000;

/// Whether it is told what happens. Of all threads, since replicas have some.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Tells what happens, to whoever looks into one seed.
fn tell(what: impl FnOnce() -> String) {
    if TOLD.load(Ordering::Relaxed) {
        eprintln!("{:?} {}", simulated::elapsed().unwrap_or_default(), what());
    }
}

/// Plays `history` on this thread, in virtual time.
fn play<T>(seed: u64, history: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let entered = runtime.enter();
    // Also undone when the history panics: other tests run on this thread.
    let _playing = simulated::begin(EPOCH_MS, seed ^ 0x7261_6e64);
    drop(entered);
    runtime.block_on(history)
}

/// A number that whoever runs the tests gave.
fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}
