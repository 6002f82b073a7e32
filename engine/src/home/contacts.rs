//! What each peer held when it was last talked with: what `status` says of peers that are not connected at the moment, and what the next
//! session, in whichever process, begins from before it has heard the peer.
//!
//! One small file a peer, replaced at the end of each session. A peer that it is wrong about says so in its Hello, so a lost, damaged or
//! old one costs time and nothing else: the end of a session does not wait until it is durable.

use super::{HomeError, VaultHome, failed};
use crate::{
    codec,
    event::Frontier,
    id::{DeviceId, Root},
    keys::private_file,
    limits::HELLO_BYTES_MAX,
};
use minicbor::{Decode, Encode};
use std::path::PathBuf;

/// The end of the last session with a peer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Contact {
    /// When: milliseconds since 1970, by this device's clock.
    #[n(0)]
    pub at_ms: u64,
    /// What carried it: `quic` or `tcp`.
    #[n(1)]
    pub transport: String,
    /// What the peer had applied.
    #[n(2)]
    pub frontier: Frontier,
    /// Digest over the peer's heads.
    #[n(3)]
    pub root: Root,
}

impl VaultHome {
    /// Notes how the last session with `device` ended.
    ///
    /// # Errors
    /// [`HomeError::Io`]. Nothing but the display and the next session's pace depends on it.
    pub fn record_contact(&self, device: &DeviceId, contact: &Contact) -> Result<(), HomeError> {
        let path = self.contact_path(device);
        private_file::write_unsynced(&path, &private_file::with_check(codec::encode(contact))).map_err(failed("writing", &path))
    }

    /// The last contact with `device`; none if there was none, or if its file cannot be read.
    pub fn contact(&self, device: &DeviceId) -> Option<Contact> {
        let bytes = private_file::read(&self.contact_path(device), HELLO_BYTES_MAX).ok()?;
        codec::decode("contact", private_file::checked(&bytes)?).ok()
    }

    fn contact_path(&self, device: &DeviceId) -> PathBuf {
        self.dir.join("contacts").join(format!("{device}.contact"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{home::Home, id::VaultId};

    #[test]
    fn the_last_contact_stands_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Home::open(dir.path()).unwrap().vault(&VaultId::from_bytes([1; 32])).unwrap();
        let device = DeviceId::from_bytes([2; 32]);
        assert_eq!(vault.contact(&device), None);
        let contact = |at_ms| Contact { at_ms, transport: "tcp".into(), frontier: Frontier::new(), root: Root::from_bytes([3; 32]) };
        vault.record_contact(&device, &contact(1)).unwrap();
        vault.record_contact(&device, &contact(2)).unwrap();
        assert_eq!(vault.contact(&device), Some(contact(2)));
        let mut flipped = std::fs::read(vault.contact_path(&device)).unwrap();
        flipped[3] ^= 1;
        for damaged in [&b"garbage"[..], &flipped] {
            std::fs::write(vault.contact_path(&device), damaged).unwrap();
            assert_eq!(vault.contact(&device), None);
        }
    }
}
