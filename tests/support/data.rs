//! Bytes to move, and waiting for what must come.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks: who looks all the time takes the processor from what it waits for.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until `done`.
#[track_caller]
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "it did not come to that");
        thread::sleep(LOOK);
    }
}

/// Bytes that no codec makes smaller, the same for the same seed (xorshift64*).
pub(crate) fn incompressible(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = vec![0; bytes];
    for word in data.chunks_mut(8) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        word.copy_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()[..word.len()]);
    }
    data
}

/// Waits until the clock of the file system has moved on since `path` was written: a later change is sure to show in its times.
pub(crate) fn settle(path: &Path) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32);
    until(|| SystemTime::now().duration_since(changed).is_ok_and(|age| age > Duration::from_millis(50)));
}

/// What a tree holds: for each path its kind, mode, time and bytes (or target).
pub(crate) fn contents(root: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if metadata.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            let state = (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), bytes);
            found.insert(path.strip_prefix(root).unwrap().to_owned(), state);
        }
    }
    found
}
