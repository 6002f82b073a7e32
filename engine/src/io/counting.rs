//! An allocator that counts: how often memory was asked for, how much of it, and how much is held.
//!
//! A program that measures wraps its allocator in [`Counting`]; [`counted`] then says what this process has asked for so far. Counts hold on
//! every machine where times do not, so that a gate can compare them. [`held_bytes`] is what was not given back: what an allocator keeps for later,
//! which the system counts as used, is not in it. Two relaxed additions for each allocation and one for its end are all it costs.
//! In a program that does not wrap its allocator, nothing is counted.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);
static RETURNED_BYTES: AtomicU64 = AtomicU64::new(0);

/// The allocator inside, and a count of what it is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counting<A>(pub A);

/// What a process has asked for since its start. Memory that was given back still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allocated {
    /// How often; a buffer that grows counts again.
    pub allocations: u64,
    /// Bytes asked for; a buffer that grows counts with what it grows by.
    pub bytes: u64,
}

impl Allocated {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { allocations: self.allocations - earlier.allocations, bytes: self.bytes - earlier.bytes }
    }
}

/// What this process has asked for so far; zero unless its allocator is a [`Counting`].
pub fn counted() -> Allocated {
    Allocated { allocations: ALLOCATIONS.load(Relaxed), bytes: ALLOCATED_BYTES.load(Relaxed) }
}

/// Bytes that this process holds at the moment; zero unless its allocator is a [`Counting`].
pub fn held_bytes() -> u64 {
    let returned = RETURNED_BYTES.load(Relaxed);
    ALLOCATED_BYTES.load(Relaxed).saturating_sub(returned)
}

fn give_back(bytes: usize) {
    RETURNED_BYTES.fetch_add(bytes as u64, Relaxed);
}

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Relaxed);
    ALLOCATED_BYTES.fetch_add(bytes as u64, Relaxed);
}

// SAFETY: every call goes to the allocator inside with the arguments as they came, and its answer goes back as it is.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is that of the allocator inside.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: the pointer came from the allocator inside, with this layout.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.saturating_sub(layout.size()));
        give_back(layout.size().saturating_sub(size));
        // SAFETY: the pointer came from the allocator inside, with this layout; the caller vouches for the size.
        unsafe { self.0.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    /// The only test here: counters belong to the process.
    #[test]
    fn what_is_asked_for_is_counted_and_what_is_given_back_is_held_no_longer() {
        let (before, held, layout) = (counted(), held_bytes(), Layout::from_size_align(100, 8).unwrap());
        let counting = Counting(System);
        // SAFETY: the layout is not empty.
        let pointer = unsafe { counting.alloc(layout) };
        // SAFETY: allocated above with this layout; 150 is not zero.
        let pointer = unsafe { counting.realloc(pointer, layout, 150) };
        assert_eq!(held_bytes() - held, 150);
        // SAFETY: allocated above; 120 is not zero.
        let pointer = unsafe { counting.realloc(pointer, Layout::from_size_align(150, 8).unwrap(), 120) };
        assert_eq!(held_bytes() - held, 120);
        // SAFETY: allocated above; its layout has the new size.
        unsafe { counting.dealloc(pointer, Layout::from_size_align(120, 8).unwrap()) };
        // SAFETY: the layout is not empty.
        let zeroed = unsafe { counting.alloc_zeroed(layout) };
        // SAFETY: allocated above with this layout.
        unsafe { counting.dealloc(zeroed, layout) };
        assert_eq!((counted().since(before), held_bytes()), (Allocated { allocations: 4, bytes: 250 }, held));
    }
}
