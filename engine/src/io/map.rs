//! A file mapped for reading, that survives whatever happens to the file.
//!
//! Records are handed to a socket straight from the map, without a copy. Two things follow from mapping a file that others may
//! change: what was read must be checked against its hash after it was read, never before; and a file that shrinks must not kill
//! the process. For the second see `sigbus.rs`: a lost page reads as zeros, and [`Map::is_damaged`] says so from then on.
#![allow(unsafe_code)]

use super::sigbus::{MAPS_MAX, Registration, page_bytes};
use std::{
    fs::File,
    io,
    ops::Range,
    os::fd::AsRawFd,
    ptr, slice,
    sync::atomic::{AtomicU64, Ordering},
};

/// Most files that one process can have mapped at once; [`Map::open`] fails beyond.
pub const OPEN_MAPS_MAX: usize = MAPS_MAX;

/// Bytes read through a map before its pages are given back: a map of any size costs about this much memory.
const RESIDENT_BYTES_MAX: u64 = 32 << 20;

/// The first bytes of a file, in memory.
#[derive(Debug)]
pub struct Map {
    start: *const u8,
    length: usize,
    /// None for an empty map, for which nothing is mapped.
    registration: Option<Registration>,
    /// Bytes read since the pages were given back.
    touched: AtomicU64,
}

// SAFETY: the map is read-only and belongs to the process, not to a thread.
unsafe impl Send for Map {}
// SAFETY: as above; its flag is atomic.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the first `length` bytes of `file`. The file may be closed afterwards.
    ///
    /// # Errors
    /// When the file is shorter, when the system refuses, or when [`OPEN_MAPS_MAX`] files are mapped already.
    pub fn open(file: &File, length: usize) -> io::Result<Self> {
        if file.metadata()?.len() < length as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than what is to be mapped"));
        }
        if length == 0 {
            return Ok(Self { start: ptr::NonNull::dangling().as_ptr(), length, registration: None, touched: AtomicU64::new(0) });
        }
        // SAFETY: a fresh mapping at an address that the system chooses affects no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut map = Self { start: start.cast(), length, registration: None, touched: AtomicU64::new(0) };
        map.registration = Some(Registration::new(start as usize, length)?);
        Ok(map)
    }

    /// The mapped bytes. They may change when somebody writes to the file, and become zeros when it shrinks: check, then use.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range stays mapped and readable until drop; an empty map has a dangling but aligned pointer and length 0.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }

    /// Whether part of it was lost and reads as zeros. A new map of the same file may be whole again.
    pub fn is_damaged(&self) -> bool {
        self.registration.as_ref().is_some_and(Registration::is_damaged)
    }

    /// Brings `range` into memory now, in one call instead of a fault a page. Where the system cannot, nothing happens.
    pub fn populate(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        const ADVICE: libc::c_int = libc::MADV_POPULATE_READ;
        #[cfg(not(target_os = "linux"))]
        const ADVICE: libc::c_int = libc::MADV_WILLNEED;
        self.advise(range, ADVICE);
    }

    /// Says that it will be read from its start to its end: larger read-ahead.
    pub fn advise_sequential(&self) {
        self.advise(0..self.length, libc::MADV_SEQUENTIAL);
    }

    /// Says that `bytes` more have been read. Every now and then the pages are taken out of this process, so that its size does not
    /// depend on how much it reads; whoever still looks at some gets them back from the system's cache.
    pub fn touched(&self, bytes: u64) {
        if self.touched.fetch_add(bytes, Ordering::Relaxed) + bytes >= RESIDENT_BYTES_MAX {
            self.touched.store(0, Ordering::Relaxed);
            self.advise(0..self.length, libc::MADV_DONTNEED);
        }
    }

    fn advise(&self, range: Range<usize>, advice: libc::c_int) {
        let from = range.start & !(page_bytes() - 1);
        let to = range.end.min(self.length);
        if from >= to {
            return;
        }
        let at = self.start.wrapping_add(from).cast_mut().cast();
        // SAFETY: the range lies in this map; the advice used here changes no content. An old kernel (EINVAL) or a page that is gone
        // (EFAULT) makes it a no-op, and reading finds out.
        let _ = unsafe { libc::madvise(at, to - from, advice) };
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // Out of the table before the address can belong to anybody else.
        self.registration = None;
        if self.length > 0 {
            // SAFETY: exactly what `open` mapped; `bytes` borrows self, so nobody can still look at it.
            unsafe { libc::munmap(self.start.cast_mut().cast(), self.length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_file_truncated_under_its_map_reads_as_zeros_and_says_so() {
        let file = file_of(&[7; 300_000]);
        let map = Map::open(&file, 300_000).unwrap();
        assert!(map.bytes().iter().all(|byte| *byte == 7) && !map.is_damaged());
        file.set_len(100_000).unwrap();
        assert_eq!(map.bytes()[250_000], 0);
        assert!(map.is_damaged());
        assert_eq!(map.bytes()[50_000], 7, "what the file still has stays readable");
    }

    #[test]
    fn many_maps_fault_at_once_and_none_harms_another() {
        let whole = file_of(&[9; 64 << 10]);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let file = file_of(&[5; 64 << 10]);
                        let (map, other) = (Map::open(&file, 64 << 10).unwrap(), Map::open(&whole, 64 << 10).unwrap());
                        file.set_len(0).unwrap();
                        assert!(map.bytes().iter().all(|byte| *byte == 0) && map.is_damaged());
                        assert!(other.bytes().iter().all(|byte| *byte == 9) && !other.is_damaged());
                    }
                });
            }
        });
    }

    #[test]
    fn populating_and_advising_survive_any_range() {
        let file = file_of(&[1; 10_000]);
        let map = Map::open(&file, 10_000).unwrap();
        map.advise_sequential();
        map.populate(5_000..50_000);
        map.populate(20_000..30_000);
        file.set_len(0).unwrap();
        map.populate(0..10_000);
        assert_eq!(map.bytes()[0], 0);
    }

    #[test]
    fn an_empty_map_needs_no_file_content_and_a_short_file_is_refused() {
        let file = file_of(&[]);
        assert!(Map::open(&file, 0).unwrap().bytes().is_empty());
        assert_eq!(Map::open(&file, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
