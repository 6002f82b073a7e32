//! System calls, and bytes that they copy between this program's memory and the kernel: counted by strace (ptrace), call by call.
//!
//! *Copied* is what read, write, send and receive calls say they have moved, of both ends, for each byte of data. What is read through a map
//! is not copied, and copies inside the program are not seen: allocations and instructions tell of those. Calls that only wait for another
//! thread or for something to happen depend on the scheduler and are left out of the count. What goes through an io_uring is seen
//! as `io_uring_enter` and not as bytes.

use super::Metric;
use crate::{
    bench::{
        bed::Bed,
        console::Skipped,
        measurement::GIB,
        program::{Mirror, Running, is_installed},
    },
    failure::Failure,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// Calls that copy, with the result as the number of bytes.
const COPYING: [&str; 15] = [
    "read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg", "recv", "write", "writev", "pwrite64", "pwritev", "pwritev2",
    "sendto", "sendmsg",
];
/// Calls that copy several messages, each with its `msg_len`.
const COPYING_MANY: [&str; 2] = ["recvmmsg", "sendmmsg"];
/// Calls that wait.
const WAITING: [&str; 10] = [
    "futex",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "poll",
    "ppoll",
    "sched_yield",
    "clock_nanosleep",
    "nanosleep",
    "restart_syscall",
];

/// What a trace holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Calls {
    count: u64,
    copied_bytes: u64,
}

pub(super) fn trace(bed: &Bed, mirror: &Mirror, data: &Path) -> Result<Vec<Metric>, Skipped> {
    let skipped = |reason: String| Skipped::new("system calls and bytes copied", reason);
    if !is_installed("strace") {
        return Err(skipped("strace is not installed".into()));
    }
    measure(bed, mirror, data)
        .map_err(|failure| skipped(failure.causes.iter().fold(failure.message, |all, cause| format!("{all}: {cause}"))))
}

fn measure(bed: &Bed, mirror: &Mirror, data: &Path) -> Result<Vec<Metric>, Failure> {
    let gib = fs::metadata(data).map_err(|error| Failure::reading(data, &error))?.len().max(1) as f64 / GIB;
    let origin = mirror.device(bed)?;
    let pairing = mirror.serve(bed, &origin)?;
    let replica = mirror.clone_of(bed, &origin, &pairing)?;
    pairing.running.stop()?;
    let (strace, file) = traced(bed, mirror);
    strace.run(bed, &replica, &[OsStr::new("add"), data.as_os_str()])?;
    let added = calls(&file)?;
    let (strace, there) = traced(bed, mirror);
    let serving = strace.serve(bed, &origin)?;
    let (strace, here) = traced(bed, mirror);
    strace.push(bed, &replica, &serving, "tcp")?;
    end_traced(serving.running)?;
    let (here, there) = (calls(&here)?, calls(&there)?);
    let pushed = Calls { count: here.count + there.count, copied_bytes: here.copied_bytes + there.copied_bytes };
    Ok([("add", added), ("push", pushed)].into_iter().flat_map(|(name, calls)| metrics(name, calls, gib)).collect())
}

fn metrics(name: &str, calls: Calls, gib: f64) -> [Metric; 2] {
    [
        Metric::count(format!("{name}.system_calls"), calls.count as f64 / gib, "/GiB"),
        Metric::count(format!("{name}.copied"), calls.copied_bytes as f64 / GIB / gib, "bytes/byte"),
    ]
}

fn traced(bed: &Bed, mirror: &Mirror) -> (Mirror, PathBuf) {
    let file = bed.fresh("trace");
    let name = file.to_string_lossy().into_owned();
    (mirror.under(&["strace", "-f", "-qq", "-s", "0", "-o", &name]), file)
}

/// Ends the program that a tracer runs, and so the tracer.
fn end_traced(mut tracer: Running) -> Result<(), Failure> {
    let child = tracer.id().and_then(|id| fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok());
    let child = child.and_then(|children| children.split_whitespace().next()?.parse().ok()).and_then(Pid::from_raw);
    let Some(child) = child else { return tracer.stop().map(drop) };
    let _ = kill_process(child, Signal::TERM);
    tracer.wait().map(drop)
}

fn calls(file: &Path) -> Result<Calls, Failure> {
    let text = fs::read(file).map_err(|error| Failure::reading(file, &error))?;
    let lines = String::from_utf8_lossy(&text);
    Ok(lines
        .lines()
        .filter_map(call)
        .fold(Calls::default(), |sum, (counted, bytes)| Calls { count: sum.count + counted, copied_bytes: sum.copied_bytes + bytes }))
}

/// One line, as in `123 read(3, ""..., 4096) = 4096`: whether it counts as a call, and what it copied. A call that another thread's
/// interrupts is on two lines, of which the second has the result.
fn call(line: &str) -> Option<(u64, u64)> {
    let (_, line) = line.split_once(' ')?;
    let line = line.trim_start();
    if line.ends_with("<unfinished ...>") {
        return None;
    }
    let (name, rest) = match line.strip_prefix("<... ") {
        Some(resumed) => resumed.split_once(" resumed>")?,
        None => line.split_once('(')?,
    };
    let (_, result) = rest.rsplit_once(" = ")?;
    let result: u64 = result.split_whitespace().next()?.parse().unwrap_or(0);
    let bytes = match name {
        name if COPYING.contains(&name) => result,
        name if COPYING_MANY.contains(&name) => lengths(rest),
        _ => 0,
    };
    Some((u64::from(!WAITING.contains(&name)), bytes))
}

/// Sum of all `msg_len=`.
fn lengths(text: &str) -> u64 {
    let digits = |rest: &str| rest.split(|letter: char| !letter.is_ascii_digit()).next().and_then(|number| number.parse::<u64>().ok());
    text.split("msg_len=").skip(1).filter_map(digits).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_once_and_bytes_are_what_they_say_they_moved() {
        for (line, expected) in [
            ("7 read(3, \"\"..., 4096) = 4096", Some((1, 4096))),
            ("7 read(3, 0x7f, 4096) = -1 EAGAIN (Resource temporarily unavailable)", Some((1, 0))),
            ("7  sendto(9, \"\"..., 16000, MSG_NOSIGNAL, NULL, 0 <unfinished ...>", None),
            ("7  <... sendto resumed>) = 16000", Some((1, 16000))),
            ("7 recvmmsg(5, [{msg_hdr={}, msg_len=1452}, {msg_hdr={}, msg_len=8}], 2, 0, NULL) = 2", Some((1, 1460))),
            ("7 futex(0x55, FUTEX_WAIT_PRIVATE, 1, NULL) = 0", Some((0, 0))),
            ("7 +++ exited with 0 +++", None),
            ("7 mmap(NULL, 8, PROT_READ, MAP_PRIVATE, -1, 0) = 0x7f00", Some((1, 0))),
        ] {
            assert_eq!(call(line), expected, "{line}");
        }
    }
}
