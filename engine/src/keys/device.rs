//! A device: an Ed25519 key pair. The public half is its [`DeviceId`]; the private half signs events and TLS handshakes.
//! An X25519 key ([RFC 7748]) that follows from the private half takes what others seal for the device.
//!
//! [RFC 7748]: https://www.rfc-editor.org/rfc/rfc7748

use super::{KeyError, random_bytes};
use crate::id::{AgreementKey, DeviceId};
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::fmt;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

/// PKCS#8 version 2 (RFC 5958) around an Ed25519 seed (RFC 8410): what stands before the seed.
const PKCS8_BEFORE_SEED: [u8; 16] = [0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// What stands between the seed and the public key.
const PKCS8_BEFORE_PUBLIC_KEY: [u8; 3] = [0x81, 0x21, 0x00];

/// A device's Ed25519 key pair.
pub struct DeviceKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
    id: DeviceId,
}

impl DeviceKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Self, KeyError> {
        let seed = Zeroizing::new(random_bytes()?);
        Ok(Self::from_seed(&seed))
    }

    /// The key pair of a seed. Every 32 bytes are one.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = match Ed25519KeyPair::from_seed_unchecked(seed) {
            Ok(pair) => pair,
            Err(error) => unreachable!("an Ed25519 seed is any 32 bytes: {error}"),
        };
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { seed: Zeroizing::new(*seed), pair, id: DeviceId::from_bytes(public) }
    }

    /// The same key once more, for who opens what is sealed for the device.
    pub(crate) fn duplicate(&self) -> Self {
        Self::from_seed(&self.seed)
    }

    /// The public key.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Signs `message`. Deterministic (RFC 8032): needs no randomness and leaks nothing when there is none.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// Both halves in the encoding that rustls' ring provider reads.
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([PKCS8_BEFORE_SEED.as_slice(), self.seed.as_slice(), &PKCS8_BEFORE_PUBLIC_KEY, self.id.as_bytes()].concat())
    }

    /// The seed, to be kept in a file that only the user can read.
    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// What others need to know to let this device in.
    pub fn newcomer(&self) -> Newcomer {
        Newcomer { device: self.id, agreement: Some(self.agreement_key()) }
    }

    /// What others seal keys for this device with.
    pub fn agreement_key(&self) -> AgreementKey {
        AgreementKey::from_bytes(PublicKey::from(&self.agreement_secret()).to_bytes())
    }

    /// What only this device and who holds the secret half of `public` can compute; `None` for a key that makes it a constant.
    pub(super) fn agree(&self, public: &AgreementKey) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.agreement_secret().diffie_hellman(&PublicKey::from(*public.as_bytes()));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }

    /// Derived, so that a device stays one secret of 32 bytes: nothing else has to be kept or moved.
    fn agreement_secret(&self) -> StaticSecret {
        let secret = Zeroizing::new(blake3::derive_key("mirror 2026-11 v1 device agreement", self.seed.as_slice()));
        StaticSecret::from(*secret)
    }

    /// The key that wraps this device's slots.
    pub(super) fn slot_key(&self) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key("mirror 2026-11 v1 device slot");
        let key = Zeroizing::new(*hasher.update(self.seed.as_slice()).finalize().as_bytes());
        hasher.zeroize();
        key
    }
}

/// A device that is to be let in, as it introduces itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newcomer {
    /// Its key.
    pub device: DeviceId,
    /// What keys can be sealed for it with. None if it did not say, as versions before key epochs.
    pub agreement: Option<AgreementKey>,
}

impl From<DeviceId> for Newcomer {
    fn from(device: DeviceId) -> Self {
        Self { device, agreement: None }
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.id).finish()
    }
}
