//! Announcing: a served vault is said to be there for as long as it is.

use super::{
    Discovery, DiscoveryError,
    service::{Tag, services},
    wait_for,
};
use crate::id::DeviceId;
use std::net::SocketAddr;

/// What is announced, until it is dropped: then its goodbye is said.
pub struct Announcement {
    discovery: Discovery,
    names: Vec<String>,
}

impl Discovery {
    /// Says that `device` serves the vault with this tag at the addresses `listening`, now and whenever an address comes or goes. Returns at
    /// once; names are tried out for most of a second before they are used (RFC 6762, section 8.1).
    ///
    /// # Errors
    /// When the thread has ended, or has more to do than it can.
    pub fn announce(&self, device: &DeviceId, tag: Tag, listening: &[SocketAddr]) -> Result<Announcement, DiscoveryError> {
        let mut announcement = Announcement { discovery: self.clone(), names: Vec::new() };
        for service in services(device, tag, listening)? {
            announcement.names.push(service.get_fullname().to_owned());
            self.daemon.0.register(service)?;
        }
        Ok(announcement)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        for name in &self.names {
            if let Ok(done) = self.discovery.daemon.0.unregister(name) {
                wait_for(&done, |_| true);
            }
        }
    }
}
