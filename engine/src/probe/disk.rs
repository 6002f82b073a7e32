//! A disk alone: files read from the start, and a file written and made durable.

use super::{Rate, noise};
use crate::{
    clock,
    io::{cached, durable},
    limits::MIB,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Bytes of one read or write.
const BLOCK_BYTES: usize = MIB;
/// Bytes between two syncs, as between two checkpoints of a transfer.
const SYNC_BYTES: u64 = crate::limits::CHECKPOINT_BYTES;

/// Where the bytes of a read come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// From the disk: the system is asked to forget the files first.
    Cold,
    /// From memory, if they fit: files are read once before it counts.
    Warm,
}

/// Reads `files` one after the other, for `time` and at most `bytes_max` bytes, one block in any case. Ends earlier when all are read.
///
/// # Errors
/// What the system says; `Unsupported` when it cannot be asked to forget.
pub fn disk_read(files: &[PathBuf], bytes_max: u64, time: Duration, cache: Cache) -> io::Result<Rate> {
    match cache {
        Cache::Cold => files.iter().try_for_each(|path| cached::forget(&File::open(path)?))?,
        Cache::Warm => _ = read_for(files, bytes_max, time)?,
    }
    read_for(files, bytes_max, time)
}

fn read_for(files: &[PathBuf], bytes_max: u64, time: Duration) -> io::Result<Rate> {
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut rate = Rate::default();
    let began = clock::now();
    for path in files {
        let mut file = File::open(path)?;
        while rate.bytes == 0 || rate.bytes < bytes_max && began.elapsed() < time {
            match file.read(&mut buffer)? {
                0 => break,
                bytes => rate.bytes += bytes as u64,
            }
        }
    }
    rate.elapsed = began.elapsed();
    Ok(rate)
}

/// Writes a file in `directory` for `time` (one block in any case), at most `bytes_max` bytes and a tenth of what is free there, and makes
/// it durable every 64 MiB and at the end, which is in the time. The file has no name: its space is free again on return, and also after
/// a crash.
///
/// # Errors
/// What the system says.
pub fn disk_write(directory: &Path, bytes_max: u64, time: Duration) -> io::Result<Rate> {
    let bytes_max = bytes_max.min(durable::free_bytes(directory)? / 10);
    let block = noise(BLOCK_BYTES);
    let mut file = nameless(directory)?;
    let mut rate = Rate::default();
    let began = clock::now();
    while rate.bytes + BLOCK_BYTES as u64 <= bytes_max && (rate.bytes == 0 || began.elapsed() < time) {
        file.write_all(&block)?;
        rate.bytes += BLOCK_BYTES as u64;
        if rate.bytes.is_multiple_of(SYNC_BYTES) {
            durable::sync_data(&file)?;
        }
    }
    durable::sync_data(&file)?;
    rate.elapsed = began.elapsed();
    Ok(rate)
}

/// A new file without a name. A crash right after it was made leaves an empty one with a name that says what it is.
fn nameless(directory: &Path) -> io::Result<File> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = format!(".probe.{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let path = directory.join(name);
    // Its name is ours alone (process and counter), so what lies there is left from a process of that number that died.
    let _ = fs::remove_file(&path);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}
