//! Where a transfer's time goes: what each end spends on each stage, and which stage limits.
//!
//! ```text
//! server thread   read │ hash                       ┐
//! sending lanes   limit │ blocked (nobody takes it)  ├ Meter ─ Load ─► the peer, twice a second
//! keeper thread   check │ write │ sync │ index       │              ◄─ the peer's
//! network threads cpu                               ┘
//! two Loads (an interval of each end) ─► Shares ─► the stage that limits
//! ```
//! Threads add up what they spend, a few additions for a span of a mebibyte and none for a chunk. Neither end can tell alone why a link
//! takes no more: the peer may not be able to, either. So each tells the other its [`Load`], and both name the same stage.
//!
//! # Invariants
//! - What a peer says of itself is shown and decides nothing else; nonsense becomes a share between 0 and 1.

mod rule;

pub use rule::{Shares, Stage};

use crate::clock;
use minicbor::{Decode, Encode};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// What one end has spent on its stages since it began: microseconds. As it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Load {
    /// Time since the session began.
    #[n(0)]
    pub elapsed_us: u64,
    /// Bringing chunks into memory to send them.
    #[n(1)]
    pub read_us: u64,
    /// Checking them before they are sent.
    #[n(2)]
    pub hash_us: u64,
    /// Held back by the user's bandwidth limit, sending or receiving.
    #[n(3)]
    pub limit_us: u64,
    /// Lanes with something to send, waiting for the transport to take it.
    #[n(4)]
    pub blocked_us: u64,
    /// Of that, because the peer opened no window.
    #[n(5)]
    pub receive_window_us: u64,
    /// Of that, because losses keep congestion control's window small.
    #[n(6)]
    pub congestion_window_us: u64,
    /// Network threads at work: encryption, the protocol, system calls.
    #[n(7)]
    pub cpu_us: u64,
    /// Checking what arrived.
    #[n(8)]
    pub check_us: u64,
    /// Writing it.
    #[n(9)]
    pub write_us: u64,
    /// Making it durable.
    #[n(10)]
    pub sync_us: u64,
    /// Finding out what is missing, journal, log.
    #[n(11)]
    pub index_us: u64,
}

impl Load {
    fn map(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            elapsed_us: with(self.elapsed_us, other.elapsed_us),
            read_us: with(self.read_us, other.read_us),
            hash_us: with(self.hash_us, other.hash_us),
            limit_us: with(self.limit_us, other.limit_us),
            blocked_us: with(self.blocked_us, other.blocked_us),
            receive_window_us: with(self.receive_window_us, other.receive_window_us),
            congestion_window_us: with(self.congestion_window_us, other.congestion_window_us),
            cpu_us: with(self.cpu_us, other.cpu_us),
            check_us: with(self.check_us, other.check_us),
            write_us: with(self.write_us, other.write_us),
            sync_us: with(self.sync_us, other.sync_us),
            index_us: with(self.index_us, other.index_us),
        }
    }

    /// What was spent since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.map(earlier, u64::saturating_sub)
    }
}

/// What is metered by whoever does it. The rest of a [`Load`] is looked up when it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Bringing chunks into memory.
    Read,
    /// Checking chunks before they are sent.
    Hash,
    /// Held back by a limit.
    Limit,
    /// Waiting for the transport to take what is ready.
    Blocked,
    /// Checking what arrived.
    Check,
    /// Writing it.
    Write,
    /// Making it durable.
    Sync,
    /// Index, journal, log.
    Index,
}

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// From here to the peer.
    Out,
    /// From the peer to here.
    In,
}

/// Adds up what the threads and lanes of one session spend. All of them share it.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    /// Nanoseconds, by [`Work`].
    spent: [AtomicU64; Work::Index as usize + 1],
    /// Bytes on lanes, by [`Flow`].
    carried: [AtomicU64; 2],
}

impl Default for Meter {
    fn default() -> Self {
        Self { began: clock::now(), spent: Default::default(), carried: Default::default() }
    }
}

impl Meter {
    /// Adds `time` to what was spent on `work`.
    pub fn add(&self, work: Work, time: Duration) {
        self.spent[work as usize].fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// Adds the time since `since`, and says what time it is: the next stretch begins there.
    pub fn lap(&self, work: Work, since: Instant) -> Instant {
        let now = clock::now();
        self.add(work, now.duration_since(since));
        now
    }

    /// A lane has carried `bytes`.
    pub fn carry(&self, flow: Flow, bytes: usize) {
        self.carried[flow as usize].fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes that lanes have carried.
    pub fn carried(&self, flow: Flow) -> u64 {
        self.carried[flow as usize].load(Relaxed)
    }

    /// What was spent so far, with lanes' times shared among `lanes` of them.
    pub fn load(&self, lanes: usize) -> Load {
        let us = |work: Work| self.spent[work as usize].load(Relaxed) / 1000;
        let lanes = lanes.max(1) as u64;
        Load {
            elapsed_us: clock::since(self.began).as_micros() as u64,
            read_us: us(Work::Read),
            hash_us: us(Work::Hash),
            limit_us: us(Work::Limit) / lanes,
            blocked_us: us(Work::Blocked) / lanes,
            check_us: us(Work::Check),
            write_us: us(Work::Write),
            sync_us: us(Work::Sync),
            index_us: us(Work::Index),
            ..Load::default()
        }
    }
}
