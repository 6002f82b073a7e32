//! (being written)
use crate::id::DeviceId;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// A device's Ed25519 key.
pub struct DeviceKey(Ed25519KeyPair);

impl DeviceKey {
    /// A new key.
    pub fn generate() -> Self {
        let mut seed = [0; 32];
        let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed);
        Self::from_seed(&seed)
    }

    /// The key that `seed` gives.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        match Ed25519KeyPair::from_seed_unchecked(seed) {
            Ok(pair) => Self(pair),
            Err(error) => unreachable!("32 bytes are a seed: {error}"),
        }
    }

    /// Public key.
    pub fn id(&self) -> DeviceId {
        let mut id = [0; 32];
        id.copy_from_slice(self.0.public_key().as_ref());
        DeviceId::from_bytes(id)
    }

    /// Signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(message).as_ref());
        signature
    }
}
