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
mod histories;
mod net;
mod replica;
mod template;
mod world;

use dice::Dice;
use std::{
    cell::{Cell, RefCell},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// 2026-11-01T00:00:00Z, where simulations begin.
const EPOCH_MS: u64 = 1_793_491_200_000;

thread_local! {
    static RANDOM: RefCell<Option<Dice>> = const { RefCell::new(None) };
    /// What the wall clock shows when virtual time is zero; moved by clock jumps.
    static WALL: Cell<Option<(tokio::time::Instant, u64)>> = const { Cell::new(None) };
}

/// Whether this thread plays a simulation.
pub(crate) fn is_simulated() -> bool {
    RANDOM.with_borrow(Option::is_some)
}

/// What the wall clock shows, in a simulation.
pub(crate) fn wall_ms() -> Option<u64> {
    WALL.get().map(|(began, at_ms)| at_ms + began.elapsed().as_millis() as u64)
}

/// What takes the place of the system's random numbers, in a simulation.
pub(crate) fn random_bytes<const N: usize>() -> Option<[u8; N]> {
    RANDOM.with_borrow_mut(|dice| dice.as_mut().map(Dice::bytes))
}

/// Sets the wall clock off by `offset`, either way.
fn jump_clock(offset: Duration, ahead: Ahead) {
    if let Some((began, at_ms)) = WALL.get() {
        let offset_ms = offset.as_millis() as u64;
        let at_ms = match ahead {
            Ahead::Yes => at_ms + offset_ms,
            Ahead::No => at_ms.saturating_sub(offset_ms),
        };
        WALL.set(Some((began, at_ms)));
    }
}

/// Whether it is: threads of the replicas ask, too.
static TOLD: AtomicBool = AtomicBool::new(false);

/// What happens, for whoever looks into one seed.
fn tell(what: impl FnOnce() -> String) {
    if TOLD.load(Ordering::Relaxed) {
        eprintln!("{:?} {}", WALL.get().map(|(began, _)| began.elapsed()).unwrap_or_default(), what());
    }
}

/// Which way a clock jumps.
enum Ahead {
    Yes,
    No,
}

/// Plays `history` on this thread, in virtual time.
fn play<T>(seed: u64, history: impl Future<Output = T>) -> T {
    /// Also when the history panics: other tests run on this thread.
    struct Playing;
    impl Drop for Playing {
        fn drop(&mut self) {
            RANDOM.set(None);
            WALL.set(None);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let playing = Playing;
    RANDOM.set(Some(Dice::new(seed ^ 0x7261_6e64)));
    let result = runtime.block_on(async {
        WALL.set(Some((tokio::time::Instant::now(), EPOCH_MS)));
        history.await
    });
    drop(runtime);
    drop(playing);
    result
}

/// A number that whoever runs the tests gave.
fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}
