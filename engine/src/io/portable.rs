//! The portable backend: positioned writes by whoever appends.
//!
//! Small parts are gathered to one write of a block; more goes to the system as it lies, without a copy of ours. The system copies it into
//! its cache and writes it to the disk when it likes, at the latest at the sync (`fdatasync`, `F_FULLFSYNC` on macOS).
//!
//! A thread of its own would need a copy of its own: a frame is lent only until `append` returns.

use super::append::{AppendError, BLOCK_BYTES, Backing, Target};
use std::io;

#[derive(Debug)]
pub(super) struct Portable {
    written_to: u64,
    gathered: Vec<u8>,
}

impl Portable {
    pub(super) fn new(end: u64) -> Self {
        Self { written_to: end, gathered: Vec::new() }
    }

    pub(super) fn gathered_bytes(&self) -> usize {
        self.gathered.len()
    }

    /// What was gathered and not written, for somebody else to write.
    pub(super) fn take_gathered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.gathered)
    }

    /// Writes what was gathered, and `parts` after it.
    fn write(&mut self, target: &Target, parts: &[&[u8]]) -> io::Result<()> {
        let mut all = Vec::with_capacity(1 + parts.len());
        all.push(self.gathered.as_slice());
        all.extend_from_slice(parts);
        target.disk.write_all_at(&target.file, &target.path, &all, self.written_to)?;
        self.written_to += all.iter().map(|part| part.len() as u64).sum::<u64>();
        self.gathered.clear();
        Ok(())
    }
}

impl Backing for Portable {
    fn append(&mut self, target: &Target, parts: &[&[u8]]) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if self.gathered.len() + bytes >= BLOCK_BYTES {
            return self.write(target, parts);
        }
        parts.iter().for_each(|part| self.gathered.extend_from_slice(part));
        Ok(())
    }

    fn settle(&mut self, target: &Target) -> io::Result<()> {
        if self.gathered.is_empty() { Ok(()) } else { self.write(target, &[]) }
    }

    fn sync(&mut self, target: &Target) -> Result<(), AppendError> {
        self.settle(target).map_err(AppendError::Write)?;
        target.disk.sync_data(&target.file, &target.path).map_err(AppendError::Sync)
    }

    fn written_to(&self) -> u64 {
        self.written_to
    }

    fn end(&self) -> u64 {
        self.written_to + self.gathered.len() as u64
    }
}
