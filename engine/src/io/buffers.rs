//! Buffers that are used again: bytes on their way from a pack to a socket.
//!
//! A new buffer of a mebibyte is memory that the system has to clear, page by page, before a read overwrites it; one that was used a
//! moment ago is warm in the processor's cache as well.

use bytes::Bytes;
use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

/// Buffers that wait for their next use. More at once are made and freed.
const IDLE_MAX: usize = 8;

/// Where buffers come from and return to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Buffers {
    idle: Arc<Mutex<Vec<Vec<u8>>>>,
    kept_bytes_max: usize,
}

impl Buffers {
    /// None yet. Those longer than `kept_bytes_max` will not be kept.
    pub fn new(kept_bytes_max: usize) -> Self {
        Self { idle: Arc::default(), kept_bytes_max }
    }

    /// A buffer of exactly `bytes`, of any content.
    pub fn take(&self, bytes: usize) -> Buffer {
        let mut memory = self.with_idle(Vec::pop).unwrap_or_default();
        if memory.len() < bytes {
            memory.resize(bytes, 0);
        }
        Buffer { memory, bytes, home: self.clone() }
    }

    fn with_idle<T>(&self, with: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> T {
        with(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Bytes of a [`Buffers`]; dropped, their memory returns there.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    bytes: usize,
    home: Buffers,
}

impl Buffer {
    /// To be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[..self.bytes]
    }

    /// To be shared. The memory returns when the last of those who look at it are gone.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.bytes]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = mem::take(&mut self.memory);
        if memory.len() <= self.home.kept_bytes_max {
            self.home.with_idle(|idle| {
                if idle.len() < IDLE_MAX {
                    idle.push(memory);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_the_length_asked_for_and_its_memory_comes_back() {
        let buffers = Buffers::new(10_000);
        let mut long = buffers.take(5_000);
        long.as_mut_slice().fill(7);
        let shared = long.freeze();
        let part = shared.slice(10..20);
        drop(shared);
        assert!(buffers.with_idle(|idle| idle.is_empty()), "somebody still looks at it");
        drop(part);
        assert_eq!(buffers.with_idle(|idle| idle.len()), 1);
        assert_eq!(buffers.take(100).as_ref(), [7; 100], "the same memory");
        assert_eq!(buffers.take(6_000).as_ref().len(), 6_000);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::new(1_000);
        drop(buffers.take(1_001));
        assert!(buffers.with_idle(|idle| idle.is_empty()));
        let many: Vec<Buffer> = (0..IDLE_MAX + 5).map(|_| buffers.take(10)).collect();
        drop(many);
        assert_eq!(buffers.with_idle(|idle| idle.len()), IDLE_MAX);
    }
}
