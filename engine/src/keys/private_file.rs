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
/// What [`with_check`] adds.
pub(crate) const CHECK_BYTES: usize = 32;

/// Replaces `path` by `bytes`, whole or not at all, durably.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    durable::write_atomic(path, bytes, MODE)
}

/// Replaces `path` by `bytes` without waiting for the disk: for what may be lost, as [`durable::replace_unsynced`] says.
pub(crate) fn write_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    durable::replace_unsynced(path, bytes, MODE)
}

/// `bytes` with a BLAKE3 of them behind, for a file in which a flipped bit would pass for something else.
pub(crate) fn with_check(mut bytes: Vec<u8>) -> Vec<u8> {
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

/// What [`with_check`] was given; none if it was changed since.
pub(crate) fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
    (blake3::hash(body).as_bytes() == check).then_some(body)
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

/// Makes a directory (and those above it) that only the user can enter, durably; one that is there already is left as it is.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    let is_new = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
    let new: Vec<&Path> = path.ancestors().take_while(is_new).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    new.into_iter().try_for_each(|made| match durable::sync_dir(durable::directory_of(made)) {
        // Who may write there may not read there: nothing more can be done.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    })
}
