//! Small pages: of memory that was asked for, only what is used is held.
//!
//! ```text
//! huge pages    2 MiB are resident once a byte of them is touched, and none of them goes back while one is in use
//! small pages   4 KiB are
//! ```
//! Linux gives huge pages to those who ask for them, and mimalloc does, whatever a program allocates. Filling new memory for the first time is
//! then cheaper, which a program that ends soon notices; one that runs for days has its memory already and pays with what it never uses:
//! a daemon at rest held 20 MiB of its own instead of 3 (`docs/performance.md`). Other systems decide for themselves.

use std::io;

/// From now on this process gets small pages only. Memory that it has stays as it is, so this comes before anything large.
///
/// # Errors
/// The system's: a kernel that knows nothing of huge pages has none to refuse.
#[cfg(target_os = "linux")]
pub fn keep_small() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

/// Nothing to be done here: see the module.
#[cfg(not(target_os = "linux"))]
pub fn keep_small() -> io::Result<()> {
    Ok(())
}
