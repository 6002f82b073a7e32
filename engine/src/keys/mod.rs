//! Device keys: an Ed25519 pair each.

use crate::id::DeviceId;
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};

/// A device's Ed25519 key.
pub struct DeviceKey(Ed25519KeyPair);

impl DeviceKey {
    /// A new random key.
    pub fn generate() -> Self {
        let mut seed = [0; 32];
        match SystemRandom::new().fill(&mut seed) {
            Ok(()) => Self::from_seed(&seed),
            Err(_) => unreachable!("the system has no randomness"),
        }
    }

    /// The key of a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        match Ed25519KeyPair::from_seed_unchecked(seed) {
            Ok(pair) => Self(pair),
            Err(_) => unreachable!("32 bytes are a seed"),
        }
    }

    /// Public key.
    pub fn id(&self) -> DeviceId {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        DeviceId::from_bytes(bytes)
    }

    /// Signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.0.sign(message).as_ref());
        bytes
    }
}
