//! Small files that only the user can read and that appear whole or not at all, but for what may be lost also after a power cut.

use crate::io::durable;
use std::{
    fs::{DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// For the user alone.
const MODE: u32 = 0o600;

/// Replaces `path` by `bytes`, whole or not at all, durably.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    durable::write_atomic(path, bytes, MODE)
}

/// Replaces `path` by `bytes` without waiting for the disk: for what may be lost, as [`durable::replace_unsynced`] says.
pub(crate) fn write_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    durable::replace_unsynced(path, bytes, MODE)
}

/// Makes an empty file unless there is one.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    File::options().create(true).truncate(false).write(true).mode(MODE).open(path).map(drop)
}

/// Reads at most `bytes_max` bytes; a longer file is an error, not memory.
pub(crate) fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Makes a directory (and those above it) that only the user can enter; one that is there already is left as it is.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
