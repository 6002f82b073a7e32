//! Giving way to everything else on this machine: processor time that nobody else wants, and the disk when it would be idle.
//!
//! On Linux both belong to threads (sched(7), ioprio_set(2)): a new one has those of the thread that makes it, so this is the first thing that
//! a process does. Elsewhere only the processor's is changed, for the whole process; macOS has one policy for disk, timers and network
//! together, which the user gives from outside: `taskpolicy -b mirror ...`.
//!
//! The network is not told. Packets could be marked for it (LE, RFC 8622), but quinn writes that byte itself for congestion marks, and a bandwidth
//! limit says what is wanted more exactly.
#![allow(unsafe_code)]

use std::io;

/// Added to the niceness, which goes up to 19: about a tenth of the processor's time of a program beside it that also wants all it can get.
const NICER_BY: i32 = 10;

/// Lowers the priority of this thread and of those that it makes from now on. There is no way back without privileges.
///
/// # Errors
/// The system's. The one priority may have been lowered when the other could not be.
pub fn give_way() -> io::Result<()> {
    rustix::process::nice(NICER_BY)?;
    disk_when_idle()
}

/// With schedulers that know priorities (BFQ, mq-deadline); others ignore it.
#[cfg(target_os = "linux")]
fn disk_when_idle() -> io::Result<()> {
    const THIS_THREAD: [libc::c_int; 2] = [1, 0];
    const IDLE: libc::c_int = 3 << 13;
    // SAFETY: the call takes three integers and touches no memory of this process.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, THIS_THREAD[0], THIS_THREAD[1], IDLE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// No call of its own here: see the module.
#[cfg(not(target_os = "linux"))]
fn disk_when_idle() -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::{fs, thread};

    fn niceness() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The name, in parentheses, may hold spaces; niceness is the 19th field, and the 17th after it.
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    fn disk_class() -> libc::c_long {
        // SAFETY: the call takes two integers and touches no memory of this process.
        unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) >> 13 }
    }

    /// On a thread of its own, so that the other tests are not slowed down.
    #[test]
    fn a_thread_gives_way_with_all_that_it_starts_and_no_other_does() {
        let before = (niceness(), disk_class());
        let of_child = thread::spawn(|| {
            give_way().unwrap();
            thread::spawn(|| (niceness(), disk_class())).join().unwrap()
        });
        assert_eq!(of_child.join().unwrap(), ((before.0 + NICER_BY).min(19), 3));
        assert_eq!((niceness(), disk_class()), before);
    }
}
