//! What the socket knows of the paths that connections use: how much went out, and which probes were kept back.
//!
//! Discovery of jumbo frames costs probes of up to 9 kB from each side, more than a session with nothing to say sends in all. The
//! library starts its search at once and cannot be told to wait, so the socket keeps such probes back until a path carries bulk data:
//! to the library they are lost, and it sends them again.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::limits::KIB;
use tokio::sync::{Notify, futures::Notified};

/// UDP payload of a full Ethernet frame over IPv4: what is larger is a jumbo frame.
pub(super) const ETHERNET_PAYLOAD_BYTES: usize = 1_472;
/// Bytes after which probing for jumbo frames is worth its cost.
const BULK_BYTES: u64 = 256 * KIB as u64;

/// The paths of one socket's connections, by the peer's address. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Paths(Arc<Mutex<HashMap<SocketAddr, Weak<Path>>>>);

impl Paths {
    /// The path to `addr`, for as long as the answer is held.
    pub(super) fn open(&self, addr: SocketAddr) -> Arc<Path> {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = paths.get(&addr).and_then(Weak::upgrade) {
            return path;
        }
        paths.retain(|_, path| path.strong_count() > 0);
        let path = Arc::new(Path::default());
        paths.insert(addr, Arc::downgrade(&path));
        path
    }

    /// Whether a send may go out; counts it either way. Paths that nobody opened (the peer has moved) are not held to anything.
    pub(super) fn admit(&self, to: SocketAddr, bytes: usize, segment: usize) -> Admit {
        let path = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&to).and_then(Weak::upgrade);
        path.map_or(Admit::Send, |path| path.admit(bytes as u64, segment))
    }
}

/// What is to be done with a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admit {
    Send,
    Withhold,
}

/// One path's counters.
#[derive(Debug, Default)]
pub(super) struct Path {
    sent_bytes: AtomicU64,
    withheld_bytes: AtomicU64,
    /// Told of each send.
    sends: Notify,
}

impl Path {
    /// Bytes that the library believes sent and the socket kept back.
    pub(super) fn withheld_bytes(&self) -> u64 {
        self.withheld_bytes.load(Ordering::Relaxed)
    }

    /// Comes back after the next send that is admitted once this was called, whichever connection to this address it is of.
    pub(super) fn next_send(&self) -> Notified<'_> {
        self.sends.notified()
    }

    fn admit(&self, bytes: u64, segment: usize) -> Admit {
        if segment > ETHERNET_PAYLOAD_BYTES && self.sent_bytes.load(Ordering::Relaxed) < BULK_BYTES {
            self.withheld_bytes.fetch_add(bytes, Ordering::Relaxed);
            return Admit::Withhold;
        }
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.sends.notify_waiters();
        Admit::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn a_large_probe_waits_until_bulk_data_has_gone_out() {
        let paths = Paths::default();
        let path = paths.open(PEER);
        assert_eq!(paths.admit(PEER, 8_952, 8_952), Admit::Withhold);
        assert_eq!(path.withheld_bytes(), 8_952);
        assert_eq!(paths.admit(PEER, BULK_BYTES as usize, 1_452), Admit::Send);
        assert_eq!(paths.admit(PEER, 8_952, 8_952), Admit::Send);
        assert_eq!(path.withheld_bytes(), 8_952);
    }

    #[test]
    fn an_ethernet_probe_goes_out_at_once() {
        let paths = Paths::default();
        let path = paths.open(PEER);
        assert_eq!(paths.admit(PEER, ETHERNET_PAYLOAD_BYTES, ETHERNET_PAYLOAD_BYTES), Admit::Send);
        assert_eq!(path.withheld_bytes(), 0);
    }

    #[test]
    fn a_path_that_nobody_holds_is_forgotten() {
        let paths = Paths::default();
        drop(paths.open(PEER));
        assert_eq!(paths.admit(PEER, 8_952, 8_952), Admit::Send);
        let other = SocketAddr::new(PEER.ip(), 2);
        let _held = paths.open(other);
        assert_eq!(paths.0.lock().unwrap().len(), 1);
    }
}
