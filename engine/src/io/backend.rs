//! Which backend writes packs: chosen once, logged once with its reason.
//!
//! ```text
//! auto      io_uring, where this kernel lets us use it and the file system takes direct writes; else portable
//! uring     io_uring, or an error at the start
//! portable  positioned writes, on any system
//! ```
//! What io_uring is worth depends on direct writes: without them the system copies every byte into its cache while somebody waits, and a
//! ring only adds a copy of ours before. So `auto` writes and throws away one block in the directory of the packs to find out. An
//! explicit choice is never replaced by another.
//!
//! That io_uring can be used does not mean that a ring is to be had whenever one is needed: it takes a descriptor and memory, which are
//! limited. `auto` then writes that file without, says so once, and asks again for the next.
//!
//! The choice belongs to the process, as its memory limit does: every store that it opens writes in the same way, also those that
//! are opened on the way to something else.

use super::uring;
use std::{
    fmt, io,
    path::Path,
    sync::{Once, OnceLock},
};

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Whichever suits the system and the file system.
    #[default]
    Auto,
    /// io_uring with direct writes behind the caller.
    Uring,
    /// Positioned writes.
    Portable,
}

/// As `--io` is given.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Portable => "portable",
        })
    }
}

/// What writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// io_uring with direct writes behind the caller.
    Uring,
    /// Positioned writes.
    Portable,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Portable => "portable",
        })
    }
}

/// The backend that was asked for cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("io_uring cannot be used here: {0}")]
pub struct Unavailable(pub(super) String);

impl Unavailable {
    /// Whether that is what made a write fail.
    pub fn behind(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// No ring could be made.
    #[cfg(target_os = "linux")]
    pub(super) fn now(error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), Self(error.to_string()))
    }
}

static CHOSEN: OnceLock<Choice> = OnceLock::new();

/// Says how this process writes; the first call counts.
///
/// # Errors
/// When io_uring is asked for and cannot be used.
pub fn choose(choice: Choice) -> Result<(), Unavailable> {
    if choice == Choice::Uring {
        uring::usable()?;
    }
    CHOSEN.get_or_init(|| choice);
    Ok(())
}

/// What was chosen, or the default.
pub(super) fn chosen() -> Choice {
    *CHOSEN.get_or_init(unasked)
}

#[cfg(not(test))]
fn unasked() -> Choice {
    Choice::Auto
}

/// The same tests run on each backend.
#[cfg(test)]
fn unasked() -> Choice {
    super::tests::asked()
}

/// Whether a file is written without a ring that could not be made just now; said the first time.
pub(super) fn does_without(choice: Choice, refused: &Unavailable) -> bool {
    static SAID: Once = Once::new();
    if choice == Choice::Auto {
        SAID.call_once(|| tracing::warn!(reason = refused.0, "no ring for io_uring can be made now: packs are written by portable calls"));
    }
    choice == Choice::Auto
}

/// What writes files in `directory`.
pub(super) fn decide(choice: Choice, directory: &Path) -> Backend {
    let (backend, reason) = match choice {
        Choice::Portable => (Backend::Portable, "asked for".to_owned()),
        Choice::Uring => (Backend::Uring, "asked for".to_owned()),
        Choice::Auto => match uring::usable().and_then(|()| uring::takes_direct_writes(directory)) {
            Ok(()) => (Backend::Uring, "the file system takes direct writes".to_owned()),
            Err(Unavailable(reason)) => (Backend::Portable, reason),
        },
    };
    tracing::info!(%backend, reason, directory = %directory.display(), "how packs are written");
    backend
}
