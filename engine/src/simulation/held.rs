//! What two replicas hold in this process, and that it does not grow with the time that they run.

use super::world::World;
use std::fs;

/// Tasks and files that come and go with what is on its way.
const TO_AND_FRO: usize = 24;
/// SQLite's caches of two replicas, which fill as these grow: for each a view's (32 MiB), an index's writer (16 MiB) and four of its readers (8 MiB).
const CACHES_KIB: u64 = (2 * (32 + 16 + 4 * 8)) << 10;

/// What is held at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// Events of both.
    events: u64,
    /// Tasks that run.
    tasks: usize,
    /// Open files of this process; none where the system does not tell.
    files: usize,
    /// Memory of this process's own.
    memory_kib: u64,
    /// Events that wait for their chunks.
    waiting: usize,
}

impl Held {
    pub(super) fn by(world: &World) -> Self {
        let vaults = || world.replicas.iter().filter_map(|replica| replica.vault());
        Self {
            events: vaults().map(|vault| vault.store().frontier().iter().map(|(_, last)| last).sum::<u64>()).sum(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            files: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            memory_kib: memory_kib().unwrap_or_default(),
            waiting: vaults().map(|vault| vault.store().journal_pending().unwrap().len()).sum(),
        }
    }
}

fn memory_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?.trim().trim_end_matches(" kB").parse().ok()
}

/// Asserts that at the end there is no more than after the first of the moments but one, beyond what comes and goes.
pub(super) fn stays(held: &[Held]) {
    let [_, first, .., last] = held else { return };
    assert!(last.events > first.events, "nothing happened");
    assert!(last.tasks <= first.tasks + TO_AND_FRO && last.files <= first.files + TO_AND_FRO, "{first:?}, then {last:?}");
    assert!(last.waiting <= TO_AND_FRO, "{last:?}");
    assert!(last.memory_kib <= first.memory_kib + CACHES_KIB, "{first:?}, then {last:?}");
}
