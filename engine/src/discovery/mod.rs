//! Discovery: which devices say, on the networks that this one is on, that they serve a vault, and where.
//!
//! Multicast DNS (RFC 6762) with service discovery on top (RFC 6763): no server, no configuration, works on a network without a way out.
//! ```text
//! serve    announce ─► "3f9c01ab-7740._mirror._udp.local: port 7740, v=1, d=<device>, t=<tag>", again whenever an address comes or goes
//! dial     look ─► what was heard: device ─► addresses ─► dialled, with the device's key pinned
//! stop     goodbye: neighbours forget at once, not when the record has run out
//! ```
//! Anyone on the network can announce anything, so what is heard is a guess at an address and nothing else: only devices that are known
//! are dialled, and whoever answers there has to prove to be that device, as at any other address. A lie costs a dial.
//!
//! A device that serves several vaults has several ports. The [tag](service::Tag) tells them apart for whoever knows the vault, and
//! nothing to anyone else.
//!
//! # Invariants
//! - Nothing heard is stored, and no more is held than [`crate::limits::NEIGHBOURS_MAX`] services.
//! - The machine's own name is not told: names on the wire are made from the device's key, which is announced anyway.
//! - A network that does not work is no error: interfaces come and go, and each is used once it is there.

mod announce;
mod neighbours;
mod service;

#[cfg(test)]
mod tests;

pub use announce::Announcement;
pub use neighbours::{Neighbour, Neighbours};
pub use service::Tag;

use mdns_sd::{DaemonStatus, IfKind, Receiver, ServiceDaemon};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How often the system's addresses are looked at: a laptop in a new network is heard of this much later.
const ADDRESS_CHECK_S: u32 = 2;
/// How long the thread that speaks gets for its goodbyes.
const GOODBYE: Duration = Duration::from_millis(500);

/// Why nothing can be said or heard at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("discovery on the local network: {0}")]
pub struct DiscoveryError(String);

impl From<mdns_sd::Error> for DiscoveryError {
    fn from(error: mdns_sd::Error) -> Self {
        Self(error.to_string())
    }
}

/// Where to speak and listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On every interface, at the port that all the world uses.
    Networks,
    /// On the loopback interface only and at this port: a network of its own, for tests.
    Alone(u16),
}

/// Who could hear what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Other devices, on at least one interface.
    Networks,
    /// At most other programs here: no interface is up but the loopback one.
    ThisMachine,
}

/// One thread that speaks and listens. Cheap to clone; ends, with a goodbye, when the last clone, announcement and listener is dropped.
#[derive(Clone)]
pub struct Discovery {
    daemon: Arc<Daemon>,
}

struct Daemon(ServiceDaemon);

impl Discovery {
    /// Starts the thread. Interfaces that appear later are used, too.
    ///
    /// # Errors
    /// When the system has no thread or no descriptor to spare.
    pub fn start(place: Place) -> Result<Self, DiscoveryError> {
        let daemon = match place {
            Place::Networks => ServiceDaemon::new()?,
            Place::Alone(port) => {
                let daemon = ServiceDaemon::new_with_port(port)?;
                daemon.disable_interface(IfKind::All)?;
                daemon.enable_interface(IfKind::LoopbackV4)?;
                daemon
            }
        };
        daemon.set_ip_check_interval(ADDRESS_CHECK_S)?;
        Ok(Self { daemon: Arc::new(Daemon(daemon)) })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(ended) = self.0.shutdown() {
            wait_for(&ended, |status| matches!(status, DaemonStatus::Shutdown));
        }
    }
}

/// Waits for one answer of the thread, or until [`GOODBYE`] is over.
fn wait_for<T>(answers: &Receiver<T>, is_it: impl Fn(&T) -> bool) {
    let deadline: Instant = crate::clock::now() + GOODBYE;
    while let Ok(answer) = answers.recv_deadline(deadline) {
        if is_it(&answer) {
            return;
        }
    }
}

/// Who could hear this device at this moment.
pub fn reach() -> Reach {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let others = |interface: &if_addrs::Interface| interface.is_oper_up() && !interface.is_p2p() && !interface.is_loopback();
    if interfaces.iter().any(others) { Reach::Networks } else { Reach::ThisMachine }
}
