//! A device's Ed25519 key (RFC 8032): what a replica signs with and what peers pin.

use crate::id::DeviceId;
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use zeroize::Zeroizing;

/// PKCS #8 version 1 header of an Ed25519 private key (RFC 8410, section 7): the seed follows.
const PKCS8_HEADER: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandomness;

/// A device's Ed25519 key. The seed is wiped when it is dropped.
pub struct DeviceKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

impl DeviceKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`NoRandomness`] when the system's generator fails.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *seed).map_err(|_| NoRandomness)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        match Ed25519KeyPair::from_seed_unchecked(seed) {
            Ok(pair) => Self { seed: Zeroizing::new(*seed), pair },
            Err(_) => unreachable!("any 32 bytes are a seed"),
        }
    }

    /// The public key, which names the device.
    pub fn id(&self) -> DeviceId {
        match DeviceId::from_slice(self.pair.public_key().as_ref()) {
            Some(id) => id,
            None => unreachable!("an Ed25519 public key is 32 bytes"),
        }
    }

    /// The signature of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The private key as PKCS #8, for TLS.
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&PKCS8_HEADER[..], &self.seed[..]].concat())
    }
}
