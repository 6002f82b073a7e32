//! One key slot: a vault's secrets, wrapped for whoever has the slot's own key.
//!
//! ```text
//! file   = "mirror key slot 1\n" || strict CBOR { header { vault, lock, salt }, commitment, sealed }
//! kek    = Argon2id(passphrase, salt) | derive_key(recovery entropy) | derive_key(device seed)
//! key || commitment = keyed_hash_xof(kek, magic || header), 64 bytes
//! sealed = AES-256-GCM(key, nonce = 0, aad = magic || header, secrets)
//! spare  = Ed25519 key of the seed derive_key("mirror 2026-11 v1 spare device", kek || magic || header)
//! ```
//! - The key depends on the header with its random salt, so it wraps one thing only and a zero nonce is safe.
//! - The whole header is authenticated: vault, kind, costs and format can't be exchanged or lowered.
//! - The commitment is compared before decryption. AES-GCM alone commits to no key: a slot could be made that several passphrases open.

use super::{DeviceKey, KdfCost, KeyError, Secrets, random_bytes};
use crate::{
    codec,
    id::{DeviceId, VaultId},
};
use minicbor::{Decode, Encode};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::path::Path;
use zeroize::Zeroizing;

const MAGIC: &[u8] = b"mirror key slot 1\n";
const MAGIC_OF_ANY_FORMAT: &[u8] = b"mirror key slot ";

/// What kind of key opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum Lock {
    #[n(0)]
    Passphrase(#[n(0)] KdfCost),
    #[n(1)]
    Recovery,
    #[n(2)]
    Device(#[n(0)] DeviceId),
}

impl Lock {
    /// Whether a slot with this lock may leave the device: only what its user can open elsewhere.
    pub(super) fn is_portable(&self) -> bool {
        !matches!(self, Self::Device(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Header {
    #[n(0)]
    vault: VaultId,
    #[n(1)]
    lock: Lock,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    salt: [u8; 32],
}

/// A slot as it lies in its file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Slot {
    #[n(0)]
    header: Header,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    commitment: [u8; 32],
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

/// The key of a slot before it is bound to the slot's header.
pub(super) type WrappingKey = Zeroizing<[u8; 32]>;

impl Slot {
    /// Wraps `secrets`; `key` makes the wrapping key from the new slot's salt.
    pub(super) fn wrap(
        vault: &VaultId,
        lock: Lock,
        secrets: &Secrets,
        key: impl FnOnce(&[u8; 32]) -> Result<WrappingKey, KeyError>,
    ) -> Result<Self, KeyError> {
        let header = Header { vault: *vault, lock, salt: random_bytes()? };
        let (aead, commitment) = bind(&key(&header.salt)?, &header);
        let mut sealed = secrets.to_bytes();
        if aead.seal_in_place_append_tag(nonce(), Aad::from(associated(&header)), &mut *sealed).is_err() {
            unreachable!("a slot wraps a few bytes");
        }
        Ok(Self { header, commitment, sealed: sealed.to_vec() })
    }

    /// The secrets, if `key` is this slot's; [`KeyError::Wrong`] otherwise.
    pub(super) fn unwrap_with(&self, key: &WrappingKey) -> Result<Secrets, KeyError> {
        let (aead, commitment) = bind(key, &self.header);
        if blake3::Hash::from_bytes(commitment) != blake3::Hash::from_bytes(self.commitment) {
            return Err(KeyError::Wrong);
        }
        let mut sealed = Zeroizing::new(self.sealed.clone());
        let plaintext =
            aead.open_in_place(nonce(), Aad::from(associated(&self.header)), sealed.as_mut_slice()).map_err(|_| KeyError::Wrong)?;
        Secrets::from_bytes(plaintext).ok_or(KeyError::Wrong)
    }

    /// The device that whoever knows `key` can sign as, beside the one that is at hand: how an owner that has lost its devices comes back.
    pub(super) fn spare(&self, key: &WrappingKey) -> DeviceKey {
        let material = Zeroizing::new([key.as_slice(), &associated(&self.header)].concat());
        DeviceKey::from_seed(&Zeroizing::new(blake3::derive_key("mirror 2026-11 v1 spare device", &material)))
    }

    pub(super) fn lock(&self) -> &Lock {
        &self.header.lock
    }

    pub(super) fn vault(&self) -> &VaultId {
        &self.header.vault
    }

    pub(super) fn salt(&self) -> &[u8; 32] {
        &self.header.salt
    }

    /// The only name that a file with this slot may have: no name comes from a peer.
    pub(super) fn file_name(&self) -> String {
        let salt = u64::from_le_bytes(std::array::from_fn(|index| self.header.salt[index]));
        match &self.header.lock {
            Lock::Passphrase(_) => format!("passphrase-{salt:016x}.slot"),
            Lock::Recovery => format!("recovery-{salt:016x}.slot"),
            Lock::Device(device) => device_file_name(device),
        }
    }

    pub(super) fn to_file(&self) -> Vec<u8> {
        [MAGIC, &codec::encode(self)].concat()
    }

    /// Reads a slot's file. Costs outside the bounds are refused here, before anyone allocates for them.
    pub(super) fn from_file(file: &Path, bytes: &[u8]) -> Result<Self, KeyError> {
        let file = || file.to_owned();
        let Some(encoded) = bytes.strip_prefix(MAGIC) else {
            return Err(match bytes.starts_with(MAGIC_OF_ANY_FORMAT) {
                true => KeyError::TooNew { file: file() },
                false => KeyError::Damaged { file: file(), reason: "it is not a key slot".into() },
            });
        };
        let slot: Self =
            codec::decode("key slot", encoded).map_err(|error| KeyError::Damaged { file: file(), reason: error.to_string() })?;
        match slot.header.lock {
            Lock::Passphrase(cost) if !cost.is_allowed() => Err(KeyError::Bounds { file: file(), cost }),
            _ => Ok(slot),
        }
    }
}

/// Name of the file with the slot of `device`.
pub(super) fn device_file_name(device: &DeviceId) -> String {
    format!("device-{device}.slot")
}

fn associated(header: &Header) -> Vec<u8> {
    [MAGIC, &codec::encode(header)].concat()
}

fn bind(key: &WrappingKey, header: &Header) -> (LessSafeKey, [u8; 32]) {
    let mut output = Zeroizing::new([0; 64]);
    blake3::Hasher::new_keyed(key).update(&associated(header)).finalize_xof().fill(output.as_mut_slice());
    let (key, rest) = output.split_at(32);
    let mut commitment = [0; 32];
    commitment.copy_from_slice(rest);
    match UnboundKey::new(&AES_256_GCM, key) {
        Ok(key) => (LessSafeKey::new(key), commitment),
        Err(_) => unreachable!("a key of AES-256 has 32 bytes"),
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
