//! The control socket: how `mirror` on this machine asks the daemon, and tells it what to do.
//!
//! ```text
//! $MIRROR_HOME (0700)/mirord.lock   flock, for as long as the daemon lives, with its pid: one daemon a device
//!                    /mirord.sock   0600; each connection's user is asked of the system
//! mirror status, why, daemon ─► client ─► one JSON line ─► server ─► one JSON line
//! ```
//! # Invariants
//! - Nobody but this user, or root, is answered.
//! - What a connection can make the daemon hold is bounded: lines, connections, and the time that one may be silent.
//! - A socket that a daemon left behind when it was killed is replaced; whoever holds the lock is the only one who replaces it.

mod client;
mod lock;
mod protocol;
mod server;

pub(crate) use client::Client;
pub(super) use lock::DaemonLock;
pub(crate) use protocol::Question;
pub(super) use protocol::{Answer, Refusal};
pub(super) use server::Server;
