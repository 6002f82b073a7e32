//! Measuring one stage of a transfer alone: a disk, a processor, a link with nothing of ours on it.
//!
//! ```text
//! disk ─ read ─► hash ─► (seal) ─► raw TCP, raw UDP ─► hash ─► write, sync ─ disk
//! ```
//! Each function works for about the time it is given and says how much it moved in how long ([`Rate`]). What the slowest of them says
//! is the ceiling of a transfer; how near the engine comes to it is the engine's merit. Nothing here knows a vault, a peer or a key:
//! bytes are made up, files are named by the caller, sockets are the caller's.
//!
//! # Invariants
//! - A time and a number of bytes bound every measurement.
//! - What is written for measuring has no name, so that nothing of it is left, whatever happens.

mod disk;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod work;

pub use disk::{Cache, disk_read, disk_write};
pub use tcp::{tcp_receive, tcp_send};
pub use udp::{Datagrams, UDP_DATAGRAM_BYTES, udp_receive, udp_send};
pub use work::{Threads, hash, seal};

use std::time::Duration;

/// Bytes and the time they took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// How many bytes.
    pub bytes: u64,
    /// In how long.
    pub elapsed: Duration,
}

impl Rate {
    /// As bits a second; none when nothing was moved, or in no time.
    pub fn bits_per_s(&self) -> Option<u64> {
        let seconds = self.elapsed.as_secs_f64();
        (self.bytes > 0 && seconds > 0.0).then(|| (self.bytes as f64 * 8.0 / seconds) as u64)
    }
}

/// Bytes that do not compress and are not all alike (xorshift64, Marsaglia 2003), so that neither a disk nor a link gets it easier than
/// with sealed chunks.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}
