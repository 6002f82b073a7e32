//! (being written)
use crate::id::DeviceId;
/// A device's Ed25519 key.
pub struct DeviceKey;
impl DeviceKey {
    /// Public key.
    pub fn id(&self) -> DeviceId {
        DeviceId::from_bytes([0; 32])
    }
    /// Signature.
    pub fn sign(&self, _message: &[u8]) -> [u8; 64] {
        [0; 64]
    }
}
