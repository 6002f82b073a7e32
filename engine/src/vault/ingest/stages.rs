//! Where the time of an `add` goes: what each step has taken, on one thread or on all of rayon's.

use crate::{
    clock,
    meter::{Load, Shares},
};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

/// A step, and on how many threads it runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Large files and streams brought into memory, by the scanning thread.
    Populate,
    /// Large files cut, by the scanning thread.
    Cut,
    /// Small files read, by rayon's threads.
    Read,
    /// Pieces hashed, compressed and encrypted, by rayon's threads.
    Seal,
    /// Chunks written, by the writer, as those below.
    Write,
    /// Chunks made durable.
    Sync,
    /// The event, the view, what is known of files.
    Index,
}

/// Adds up what steps take. Shared by all threads of one `add`.
pub(super) struct Stages {
    began: Instant,
    /// Nanoseconds, by [`Step`].
    spent: [AtomicU64; Step::Index as usize + 1],
}

impl Stages {
    pub(super) fn new() -> Self {
        Self { began: clock::now(), spent: Default::default() }
    }

    /// Does `work`, which is `step`.
    pub(super) fn timed<T>(&self, step: Step, work: impl FnOnce() -> T) -> T {
        let began = clock::now();
        let done = work();
        self.spent[step as usize].fetch_add(began.elapsed().as_nanos() as u64, Relaxed);
        done
    }

    /// The share of each stage, named as in a transfer: files are its sender, packs and log its receiver.
    pub(super) fn shares(&self) -> Shares {
        let us = |step: Step| self.spent[step as usize].load(Relaxed) / 1_000;
        let threads = rayon::current_num_threads().max(1) as u64;
        let elapsed_us = self.began.elapsed().as_micros() as u64;
        let read_us = us(Step::Populate) + us(Step::Read) / threads;
        // Cutting is one thread's and goes on beside the sealing.
        let hash_us = us(Step::Cut).max(us(Step::Seal) / threads);
        let (write_us, sync_us, index_us) = (us(Step::Write), us(Step::Sync), us(Step::Index));
        Shares::of(
            &Load { elapsed_us, read_us, hash_us, ..Load::default() },
            &Load { elapsed_us, write_us, sync_us, index_us, ..Load::default() },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Stage;
    use std::time::Duration;

    #[test]
    fn each_step_counts_for_its_stage_and_the_longest_limits() {
        let stages = Stages { began: clock::now() - Duration::from_secs(100), ..Stages::new() };
        stages.timed(Step::Sync, || {
            let begun = clock::now();
            while clock::now() == begun {}
        });
        let spent = stages.spent.each_ref().map(|spent| spent.load(Relaxed));
        assert!(spent[Step::Sync as usize] > 0 && spent.iter().sum::<u64>() == spent[Step::Sync as usize], "{spent:?}");
        // Not what the machine takes for something, which may be anything.
        stages.spent[Step::Write as usize].store(2_000_000_000, Relaxed);
        stages.spent[Step::Sync as usize].store(40_000_000_000, Relaxed);
        let shares = stages.shares();
        assert!(shares.share(Stage::Sync) > shares.share(Stage::Write) && shares.share(Stage::Write) > 0.0, "{shares:?}");
        assert_eq!((shares.share(Stage::Read), shares.share(Stage::Hash)), (0.0, 0.0));
        assert_eq!(shares.limiting(), Stage::Sync);
    }
}
