//! The system's cache of a file, asked to let go: what a read costs when the disk has to answer it.

use std::{fs::File, io};

/// Lets go of the cached pages of `file`. Pages that are not written yet, or mapped by somebody, stay.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub fn forget(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// This system has no such call.
///
/// # Errors
/// Always `Unsupported`.
#[cfg(not(target_os = "linux"))]
pub fn forget(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
