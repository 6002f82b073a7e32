//! Scrubbing a vault: everything is read again at a bounded rate, goes on where it was interrupted, and is recorded. Needs no key.
//!
//! ```text
//! read ─► damaged: quarantine ─► what is lost, from peers (the caller) ─► record: found, healed, still lost
//! ```

use super::{Vault, VaultError, Watch};
use crate::{
    clock,
    home::ScrubRecord,
    id::ChunkId,
    limits::MIB,
    store::{ScrubPlace, ScrubStep, StoreError},
};
use std::{
    collections::HashSet,
    ops::ControlFlow,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// Bytes after which it is noted how far a scrub is: what a killed one reads again at most.
const NOTED_BYTES: u64 = 256 * MIB as u64;
/// How often a scrub that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// A scrub whose reading is done.
#[derive(Debug, Clone)]
pub struct Scrub {
    /// Whether it went on from where another had been interrupted.
    pub resumed: bool,
    /// What it has come to so far.
    pub record: ScrubRecord,
    /// Files that are damaged and could not be mended.
    pub files: Vec<(PathBuf, String)>,
}

impl Vault {
    /// Reads every chunk again, at most `bytes_per_s`, puts what is damaged into quarantine and finds out what is missing. Goes on where
    /// an earlier one was interrupted. What is missing can be fetched from peers then; [`Vault::end_scrub`] records the end.
    ///
    /// # Errors
    /// [`VaultError::Cancelled`] when `watch` says so: the next one goes on from there. When the system refuses. Damage is no error.
    pub fn scrub(&self, bytes_per_s: Option<u64>, watch: &dyn Watch) -> Result<Scrub, VaultError> {
        let earlier = self.home.scrub(&self.dir).filter(|record| record.ended_ms.is_none());
        let resumed = earlier.is_some();
        let fresh = || ScrubRecord { began_ms: clock::wall_ms(), pack: Some(0), ..ScrubRecord::default() };
        let mut record = earlier.unwrap_or_else(fresh);
        let counts = self.store.counts()?;
        watch.expect(counts.chunks, counts.bytes);
        watch.advance(record.chunks, record.bytes);
        let read = self.read_again(&mut record, bytes_per_s, watch);
        self.home.record_scrub(&self.dir, &record)?;
        let files = read?;
        record.found = record.healed + self.store.lost_chunks()?.len() as u64;
        self.home.record_scrub(&self.dir, &record)?;
        Ok(Scrub { resumed, record, files })
    }

    fn read_again(
        &self,
        record: &mut ScrubRecord,
        bytes_per_s: Option<u64>,
        watch: &dyn Watch,
    ) -> Result<Vec<(PathBuf, String)>, VaultError> {
        // Once everything has been read, only what the log itself says is looked at again.
        let from = record.pack.map_or(ScrubPlace { pack: u32::MAX, offset: 0 }, |pack| ScrubPlace { pack, offset: record.offset });
        let mut pace = Pace::new(bytes_per_s);
        let mut noted = record.bytes;
        let mut failed = Ok(());
        let scrubbed = self.store.scrub(from, &mut |step: ScrubStep| {
            (record.pack, record.offset) = (Some(step.next.pack), step.next.offset);
            record.chunks += step.chunks;
            record.bytes += step.bytes;
            watch.advance(step.chunks, step.bytes);
            if record.bytes - noted >= NOTED_BYTES {
                noted = record.bytes;
                failed = self.home.record_scrub(&self.dir, record);
            }
            if failed.is_err() { ControlFlow::Break(()) } else { pace.wait(step.bytes, watch) }
        });
        failed?;
        let report = match scrubbed {
            Err(StoreError::Stopped) => return Err(VaultError::Cancelled),
            report => report?,
        };
        record.pack = None;
        Ok(report.files)
    }

    /// Records the end of a scrub, after what was missing has been fetched as far as it could be. Returns what is still missing.
    ///
    /// # Errors
    /// When the index or the record fails.
    pub fn end_scrub(&self, scrub: &mut Scrub) -> Result<HashSet<ChunkId>, VaultError> {
        let lost = self.store.lost_chunks()?;
        let record = &mut scrub.record;
        record.lost = lost.len() as u64;
        record.found = record.found.max(record.lost);
        record.healed = record.found - record.lost;
        record.ended_ms = Some(clock::wall_ms());
        self.home.record_scrub(&self.dir, record)?;
        Ok(lost)
    }
}

/// Keeps reading to a rate.
struct Pace {
    bytes_per_s: Option<u64>,
    began: Instant,
    bytes: u64,
}

impl Pace {
    fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s, began: clock::now(), bytes: 0 }
    }

    /// Waits until `bytes` more may have been read.
    fn wait(&mut self, bytes: u64, watch: &dyn Watch) -> ControlFlow<()> {
        self.bytes += bytes;
        loop {
            if watch.cancelled() {
                return ControlFlow::Break(());
            }
            let due = self.due().saturating_sub(self.began.elapsed());
            if due.is_zero() {
                return ControlFlow::Continue(());
            }
            thread::sleep(due.min(LOOK));
        }
    }

    /// How long reading should have taken so far.
    fn due(&self) -> Duration {
        self.bytes_per_s.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::Unwatched;

    #[test]
    fn reading_takes_as_long_as_its_rate_says_and_no_rate_takes_no_time() {
        let mut pace = Pace::new(Some(1 << 20));
        pace.bytes = 3 << 20;
        assert_eq!(pace.due(), Duration::from_secs(3));
        assert_eq!(Pace { bytes_per_s: None, ..pace }.due(), Duration::ZERO);
        let mut fast = Pace::new(Some(100 << 20));
        let began = clock::now();
        assert!(fast.wait(2 << 20, &Unwatched).is_continue());
        assert!(began.elapsed() >= Duration::from_millis(19));
    }

    #[test]
    fn who_waits_can_be_stopped() {
        struct Stopped;
        impl Watch for Stopped {
            fn advance(&self, _: u64, _: u64) {}
            fn expect(&self, _: u64, _: u64) {}
            fn cancelled(&self) -> bool {
                true
            }
        }
        assert!(Pace::new(Some(1)).wait(u64::MAX / 2, &Stopped).is_break());
    }
}
