//! Surplus memory: what allocators keep for later goes back to the system, when there is no later for a while.
//!
//! ```text
//! mimalloc (Rust)      gives free memory back a second after it was freed, but looks only while pages of it are allocated or freed
//! glibc (C: SQLite)    gives back the end of a heap; free pages below what is in use stay
//! ```
//! A process that has done much and comes to rest thus keeps nearly its peak until something goes on again (`docs/performance.md`). Asking costs as
//! much as filling that memory anew afterwards: nothing for a process at rest, a lot for one in the midst of work.
#![allow(unsafe_code)]

// Links mimalloc for programs too that allocate otherwise.
use libmimalloc_sys as _;

unsafe extern "C" {
    /// mimalloc.h: collects the heap of this thread and, if forced, gives back what is free in the arenas of all.
    fn mi_collect(force: bool);
}

/// Gives back what is free. In a program whose allocator is not mimalloc, what C holds alone.
pub fn give_back() {
    // SAFETY: callable from any thread at any time; on a thread that has no heap of mimalloc's it does nothing.
    unsafe { mi_collect(true) };
    trim_c();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim_c() {
    // SAFETY: callable from any thread at any time (malloc_trim(3): MT-Safe); keeps nothing free at the end of heaps.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries have no such call, or decide for themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim_c() {}
