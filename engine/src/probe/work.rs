//! What the processor does with chunks: hashing and sealing, on one thread and on all.

use super::{Rate, noise};
use crate::{
    clock,
    id::VaultId,
    keys::MasterKey,
    limits::CHUNK_BYTES_MEAN,
    seal::{ChunkType, Compression, SealKeys},
};
use std::{
    hint::black_box,
    num::NonZero,
    thread,
    time::{Duration, Instant},
};

/// How many threads work at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One.
    One,
    /// As many as the system lets this process run at once.
    All,
}

impl Threads {
    /// How many that is here.
    pub fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::All => thread::available_parallelism().map_or(1, NonZero::get),
        }
    }
}

/// Hashes chunks of the usual size (BLAKE3, as chunks are checked) for `time`.
pub fn hash(threads: Threads, time: Duration) -> Rate {
    let chunk = noise(CHUNK_BYTES_MEAN);
    on(threads, || {
        until(time, || {
            black_box(blake3::hash(black_box(&chunk)));
        })
    })
}

/// Seals chunks of the usual size (as `add` does, with a key made up for it; compression does not pay) for `time`.
pub fn seal(threads: Threads, time: Duration) -> Rate {
    let keys = SealKeys::derive(&MasterKey::from_bytes([7; 32]), &VaultId::from_bytes([7; 32]), 0);
    let chunk = noise(CHUNK_BYTES_MEAN);
    on(threads, || {
        let mut buffer = Vec::new();
        until(time, || {
            let sealed = keys.seal(keys.draft(&chunk, std::mem::take(&mut buffer)), ChunkType::Data, Compression::Never);
            buffer = black_box(sealed.frame).into_bytes();
        })
    })
}

/// Chunks worked off by all threads together, in the time from the first start to the last end.
fn on(threads: Threads, work: impl Fn() -> u64 + Sync) -> Rate {
    let began = clock::now();
    let chunks: u64 = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.count()).map(|_| scope.spawn(&work)).collect();
        work() + others.into_iter().map(|thread| thread.join().unwrap_or_default()).sum::<u64>()
    });
    Rate { bytes: chunks * CHUNK_BYTES_MEAN as u64, elapsed: began.elapsed() }
}

fn until(time: Duration, mut one: impl FnMut()) -> u64 {
    let end: Instant = clock::now() + time;
    let mut count = 0;
    while count == 0 || clock::now() < end {
        one();
        count += 1;
    }
    count
}
