//! Keys: what opens a vault, what proves membership, and who a device is.
//!
//! ```text
//! passphrase ─ Argon2id ─┐
//! recovery phrase ───────┼─ slot ─► master key ─ derive_key ─► sealing keys (see `seal`), replication key
//! device key ────────────┘                                       replication key = all that a keyless replica has
//! ```
//! A vault has one master key for each key epoch (`epoch.rs`): the slots hold the first, the log the others.
//!
//! Whoever has the master key reads and writes; whoever has only the replication key stores, verifies and serves. Both are random, never
//! derived from what a person types: a passphrase can be changed without sealing anything anew.
//!
//! Keys are erased on drop and never shown: no `Debug` or `Display` here prints one.

mod certificate;
mod device;
mod epoch;
mod kdf;
pub(crate) mod private_file;
mod slot;
pub mod slots;

pub use certificate::{Attestation, Certificate, Witness};
pub use device::{DeviceKey, Newcomer};
pub use epoch::{Giver, Occasion, epoch_id, link, unlink};
pub use kdf::KdfCost;

use crate::id::VaultId;
use ring::{
    error::Unspecified,
    rand::{SecureRandom, SystemRandom},
};
use std::{fmt, io, path::PathBuf};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Why a key could not be made, kept or brought back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The passphrase, phrase or device opens no slot. Whose fault is not knowable.
    #[error("wrong passphrase or key")]
    Wrong,
    /// There is no slot of that kind.
    #[error("the vault has no {0} slot")]
    NoSlot(&'static str),
    /// The user gave an empty passphrase, or a file by mistake.
    #[error("a passphrase has 1 byte to 1 MiB")]
    PassphraseLength,
    /// The user's words are not a recovery phrase: a word is missing, unknown or in the wrong place.
    #[error("not a recovery phrase: {0}")]
    Phrase(String),
    /// A slot on disk asks for a derivation outside the bounds; nothing was derived.
    #[error("{file} asks for a key derivation outside the bounds ({cost})")]
    Bounds {
        /// The slot.
        file: PathBuf,
        /// What it asks for.
        cost: KdfCost,
    },
    /// A file is not what its name says: damaged, or another vault's.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a newer version.
    #[error("{file} is of a newer format")]
    TooNew {
        /// The file.
        file: PathBuf,
    },
    /// Too many slots.
    #[error("the vault has too many key slots")]
    TooMany,
    /// The system's random numbers are not random. Nothing made with them may be used.
    #[error("the system's random number generator does not work")]
    Randomness,
    /// The key derivation itself failed.
    #[error("the key derivation failed: {0}")]
    Derivation(String),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done to what.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

/// Random bytes of the system.
///
/// # Errors
/// [`KeyError::Randomness`] when there are none, or when they are all equal, as those of a broken generator are.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], KeyError> {
    #[cfg(test)]
    if let Some(bytes) = crate::clock::simulated::random_bytes() {
        return Ok(bytes);
    }
    random_bytes_from(|bytes| SystemRandom::new().fill(bytes))
}

fn random_bytes_from<const N: usize>(fill: impl FnOnce(&mut [u8]) -> Result<(), Unspecified>) -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
    if bytes.iter().all(|byte| *byte == bytes[0]) {
        return Err(KeyError::Randomness);
    }
    Ok(bytes)
}

macro_rules! secret_keys {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The key that these bytes are.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes. They must not be shown, logged or stored outside a slot.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )+};
}

secret_keys! {
    /// The key of a vault: everything else is derived from it.
    MasterKey;
    /// Proves that a replica belongs to the vault, and opens nothing.
    ReplicationKey;
}

impl MasterKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Self, KeyError> {
        random_bytes().map(Self)
    }

    /// What a keyless replica of `vault` gets.
    pub fn replication_key(&self, vault: &VaultId) -> ReplicationKey {
        let mut hasher = blake3::Hasher::new_derive_key("mirror 2026-11 v1 replication");
        let key = ReplicationKey(*hasher.update(&self.0).update(vault.as_bytes()).finalize().as_bytes());
        hasher.zeroize();
        key
    }
}

/// What a replica holds of a vault's keys.
#[derive(Debug, Clone)]
pub enum Secrets {
    /// Reads and writes.
    Member(MasterKey),
    /// Stores, verifies, serves and heals.
    Keyless(ReplicationKey),
}

impl Secrets {
    const MEMBER: u8 = 1;
    const KEYLESS: u8 = 2;
    const BYTES: usize = 33;

    /// The key that proves membership in `vault`.
    pub fn replication_key(&self, vault: &VaultId) -> ReplicationKey {
        match self {
            Self::Member(master) => master.replication_key(vault),
            Self::Keyless(key) => key.clone(),
        }
    }

    /// One byte for the kind, then the key: what a slot wraps and what a new replica is sent inside an authenticated connection.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let (kind, key) = match self {
            Self::Member(master) => (Self::MEMBER, &master.0),
            Self::Keyless(replication) => (Self::KEYLESS, &replication.0),
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::BYTES));
        bytes.push(kind);
        bytes.extend_from_slice(key);
        bytes
    }

    /// Reads what [`Secrets::to_bytes`] made; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, key) = bytes.split_first()?;
        let key: [u8; 32] = key.try_into().ok()?;
        match *kind {
            Self::MEMBER => Some(Self::Member(MasterKey(key))),
            Self::KEYLESS => Some(Self::Keyless(ReplicationKey(key))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
