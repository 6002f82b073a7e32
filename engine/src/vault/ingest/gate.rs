//! The gate: bounds the bytes in a pipeline, and keeps their buffers for reuse.

use crate::limits::{CHUNK_BYTES_MAX, KIB};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Buffers kept for reuse: as many chunks of mean size as fit the pipeline.
const BUFFERS_KEPT: usize = 64;
/// A buffer of the largest chunk; larger ones are not kept.
const BUFFER_BYTES_KEPT: usize = CHUNK_BYTES_MAX + 4 * KIB;

#[derive(Debug)]
struct State {
    free: usize,
    closed: bool,
    buffers: Vec<Vec<u8>>,
}

/// Lets at most so many bytes in; whoever enters waits until there is room.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

/// The right to hold so many bytes. Given back by [`Gate::leave`], not by a drop: it travels with its bytes.
#[derive(Debug)]
#[must_use]
pub(super) struct Permit(usize);

impl Permit {
    /// The right to nothing: another piece of the same group holds the group's.
    pub(super) fn none() -> Self {
        Self(0)
    }
}

impl Gate {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State { free: capacity, closed: false, buffers: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room; none once the gate is closed.
    pub(super) fn enter(&self, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.capacity);
        let mut state = self.state();
        while state.free < bytes && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.free -= bytes;
        Some(Permit(bytes))
    }

    pub(super) fn leave(&self, permit: Permit) {
        self.state().free += permit.0;
        self.changed.notify_one();
    }

    /// Ends all waiting: the far end has failed.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// An empty buffer, warm if possible.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.state().buffers.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn recycle(&self, mut buffer: Vec<u8>) {
        let mut state = self.state();
        if state.buffers.len() < BUFFERS_KEPT && buffer.capacity() <= BUFFER_BYTES_KEPT {
            buffer.clear();
            state.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_holds_no_more_than_its_capacity() {
        let gate = Gate::new(10);
        let first = gate.enter(6).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.enter(6).map(|permit| gate.leave(permit)).is_some());
            gate.leave(first);
            assert!(waiting.join().unwrap());
        });
        assert_eq!(gate.state().free, 10);
    }

    #[test]
    fn what_is_larger_than_the_gate_passes_alone() {
        let gate = Gate::new(10);
        let permit = gate.enter(100).unwrap();
        assert_eq!(gate.state().free, 0);
        gate.leave(permit);
    }

    #[test]
    fn closing_ends_the_waiting() {
        let gate = Gate::new(1);
        let _held = gate.enter(1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.enter(1).is_none());
            gate.close();
            assert!(waiting.join().unwrap());
        });
    }
}
