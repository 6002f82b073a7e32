//! What a process has cost: processor time and peak memory, of this one or of a child at its end.
//!
//! `getrusage` and `wait4` (4.3BSD) tell both on every system of ours, to the microsecond, for all threads together, and `wait4` with the
//! children that the child itself has waited for. The standard library gives away neither.
#![allow(unsafe_code)]

use std::{io, mem, process::Child, time::Duration};

/// Bytes in the unit in which the system counts peak memory.
const PEAK_UNIT_BYTES: u64 = if cfg!(target_os = "macos") { 1 } else { 1024 };

/// What a process has used since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time of all threads, user and system.
    pub cpu: Duration,
    /// Most memory that was resident at once.
    pub peak_bytes: u64,
}

/// How a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Of this process, so far.
///
/// # Errors
/// The system's.
pub fn own() -> io::Result<Usage> {
    let mut usage = empty();
    // SAFETY: `usage` is a valid place for the answer for the time of the call.
    let done = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    if done == 0 { Ok(read(&usage)) } else { Err(io::Error::last_os_error()) }
}

/// Waits for the end of `child`, and says what it has cost in all. Takes the child: nobody can wait for it or signal it again.
///
/// # Errors
/// The system's.
pub fn wait(child: Child) -> io::Result<(End, Usage)> {
    let (pid, mut status, mut usage) = (child.id() as libc::pid_t, 0, empty());
    loop {
        // SAFETY: both places are valid for the time of the call.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            return Ok((end(status), read(&usage)));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn end(status: libc::c_int) -> End {
    if libc::WIFSIGNALED(status) { End::Signal(libc::WTERMSIG(status)) } else { End::Code(libc::WEXITSTATUS(status)) }
}

fn read(usage: &libc::rusage) -> Usage {
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    Usage { cpu: time(usage.ru_utime) + time(usage.ru_stime), peak_bytes: usage.ru_maxrss as u64 * PEAK_UNIT_BYTES }
}

fn empty() -> libc::rusage {
    // SAFETY: a `rusage` is numbers only, for which zeros are a value.
    unsafe { mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn work_costs_processor_time_and_memory() {
        let before = own().unwrap();
        let mut words = vec![1_u64; 1 << 20];
        while own().unwrap().cpu == before.cpu {
            words.iter_mut().for_each(|word| *word = std::hint::black_box(word.wrapping_mul(3)));
        }
        assert!(own().unwrap().peak_bytes >= 8 << 20);
    }

    #[test]
    fn a_child_says_how_it_ended_and_what_it_cost() {
        let (ended, usage) = wait(Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap()).unwrap();
        assert_eq!(ended, End::Code(7));
        assert!(usage.peak_bytes > 0);
        let (ended, _) = wait(Command::new("sh").args(["-c", "kill -9 $$"]).spawn().unwrap()).unwrap();
        assert_eq!(ended, End::Signal(9));
    }
}
