//! A file that grows at its end, written behind whoever appends to it.
//!
//! ```text
//! append ─► gathered up to a block ─► backend ─► file (written: whoever maps it sees it) ─ sync ─► durable
//! ```
//! Up to its first whole block a file is written by plain calls, whatever the backend: there is nothing to write behind yet, and one
//! small value costs neither a ring nor a probe of the file system.
//!
//! # Invariants
//! - Bytes reach the file in the order in which they were appended: whatever happens, the file holds a beginning of them, and a crash
//!   leaves a torn end, never a gap.
//! - The file is never longer than what was written, so that its length tells others what they can map.
//! - After a failed write everything behind [`Appender::written_to`] is given up and cut off as far as the disk lets us; what lies before
//!   can still be synced. After a failed sync the file must not be written or trusted any more ([`super::durable`]).
//! - The [`Disk`] sees every write and sync before it happens, on each backend.

use super::{
    backend::{self, Backend, Unavailable},
    durable::{Disk, directory_of},
    portable::Portable,
    uring::Uring,
};
use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Bytes gathered for one write. Small in tests, so that a few kilobytes are many blocks.
pub(super) const BLOCK_BYTES: usize = if cfg!(test) { 16 << 10 } else { 1 << 20 };

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A write: what was written before is as good as it was.
    #[error("{0}")]
    Write(io::Error),
    /// The sync: nothing since the one before is certain.
    #[error("{0}")]
    Sync(io::Error),
}

/// How bytes get from the caller into the file: one implementation a backend.
pub(super) trait Backing: fmt::Debug + Send {
    /// Takes `parts`, one after the other. An error may be that of an earlier write.
    fn append(&mut self, target: &Target, parts: &[&[u8]]) -> io::Result<()>;
    /// Waits until everything is in the file.
    fn settle(&mut self, target: &Target) -> io::Result<()>;
    /// Waits until everything is durable.
    fn sync(&mut self, target: &Target) -> Result<(), AppendError>;
    /// Up to where the file holds what was appended.
    fn written_to(&self) -> u64;
    /// Where the next byte goes.
    fn end(&self) -> u64;
}

/// The file that is appended to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) disk: Disk,
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl Target {
    /// What writes the file from `end` on, if that is a ring.
    fn ring_from(&self, end: u64) -> io::Result<Option<Uring>> {
        if self.disk.backend(directory_of(&self.path)) == Backend::Portable {
            return Ok(None);
        }
        match Uring::start(self, end) {
            Ok(uring) => Ok(Some(uring)),
            Err(error) => match Unavailable::behind(&error) {
                Some(refused) if backend::does_without(self.disk.choice(), refused) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

/// Appends to one file. Dropped without [`Appender::sync`], what was not written is lost.
#[derive(Debug)]
pub struct Appender {
    target: Target,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Less than a block so far.
    Small(Portable),
    Chosen(Box<dyn Backing>),
}

impl Appender {
    /// Appends to `file`, which lies at `path`, from `end` on. Nobody else may write to it.
    pub fn new(disk: Disk, file: File, path: PathBuf, end: u64) -> Self {
        Self { target: Target { disk, file, path }, way: Way::Small(Portable::new(end)) }
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.target.path
    }

    fn backing(&mut self) -> (&mut dyn Backing, &Target) {
        match &mut self.way {
            Way::Small(portable) => (portable, &self.target),
            Way::Chosen(backing) => (backing.as_mut(), &self.target),
        }
    }

    /// Where the next byte goes.
    pub fn end(&self) -> u64 {
        match &self.way {
            Way::Small(portable) => portable.end(),
            Way::Chosen(backing) => backing.end(),
        }
    }

    /// Up to where the file holds what was appended; durable only after [`Appender::sync`].
    pub fn written_to(&self) -> u64 {
        match &self.way {
            Way::Small(portable) => portable.written_to(),
            Way::Chosen(backing) => backing.written_to(),
        }
    }

    /// Appends `parts`, one after the other. Blocks only while every buffer is on its way to the disk.
    ///
    /// # Errors
    /// Of this write or of one before it; everything behind [`Appender::written_to`] is given up.
    pub fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let result = match &mut self.way {
            Way::Small(portable) if portable.gathered_bytes() + bytes >= BLOCK_BYTES => self.leave_small(parts),
            _ => {
                let (backing, target) = self.backing();
                backing.append(target, parts)
            }
        };
        result.map_err(|error| self.given_up(error))
    }

    /// The first whole block: now the backend matters.
    fn leave_small(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let Way::Small(portable) = &mut self.way else { return Ok(()) };
        if let Some(mut uring) = self.target.ring_from(portable.written_to())? {
            let gathered = portable.take_gathered();
            let appended = uring.append(&self.target, &[&gathered]).and_then(|()| uring.append(&self.target, parts));
            self.way = Way::Chosen(Box::new(uring));
            return appended;
        }
        let mut portable = std::mem::replace(portable, Portable::new(0));
        let appended = portable.append(&self.target, parts);
        self.way = Way::Chosen(Box::new(portable));
        appended
    }

    /// Waits until everything is in the file: readable, not durable.
    ///
    /// # Errors
    /// As [`Appender::append`].
    pub fn settle(&mut self) -> io::Result<()> {
        let (backing, target) = self.backing();
        backing.settle(target).map_err(|error| self.given_up(error))
    }

    /// Waits until everything is durable.
    ///
    /// # Errors
    /// See [`AppendError`] for what is left then.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        let (backing, target) = self.backing();
        backing.sync(target).map_err(|error| match error {
            AppendError::Write(error) => AppendError::Write(self.given_up(error)),
            AppendError::Sync(error) => AppendError::Sync(error),
        })
    }

    /// A write failed. Best effort: whatever stays behind what was written is overwritten, or found to be torn.
    fn given_up(&mut self, error: io::Error) -> io::Error {
        let written_to = self.written_to();
        // Drops a ring before the cut: none of its writes may come after it.
        self.way = Way::Small(Portable::new(written_to));
        let _ = self.cut(written_to);
        error
    }

    /// Cuts the file off at `end`, for one that is given up.
    ///
    /// # Errors
    /// What the system says.
    pub fn cut(&self, end: u64) -> io::Result<()> {
        self.target.disk.truncate(&self.target.file, &self.target.path, end)
    }
}
