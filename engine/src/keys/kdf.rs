//! From a passphrase to a key: Argon2id (RFC 9106), with costs that are bounded before anything is allocated.

use super::KeyError;
use crate::limits::{KDF_LANES, KDF_MEMORY_KIB, KDF_PASSES};
use argon2::{Algorithm, Argon2, Params, Version};
use minicbor::{Decode, Encode};
use std::fmt;
use zeroize::Zeroizing;

/// What guessing one passphrase costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct KdfCost {
    /// Memory in KiB.
    #[n(0)]
    pub memory_kib: u32,
    /// Passes over the memory.
    #[n(1)]
    pub passes: u32,
    /// Lanes.
    #[n(2)]
    pub lanes: u32,
}

impl KdfCost {
    /// 64 MiB and three passes: the second choice of RFC 9106 with one lane, about 100 ms.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// The least that a slot may ask for.
    pub const LEAST: Self = Self { memory_kib: *KDF_MEMORY_KIB.start(), passes: *KDF_PASSES.start(), lanes: *KDF_LANES.start() };

    /// Whether this is within the bounds.
    pub fn is_allowed(&self) -> bool {
        KDF_MEMORY_KIB.contains(&self.memory_kib) && KDF_PASSES.contains(&self.passes) && KDF_LANES.contains(&self.lanes)
    }

    /// Derives a key. The cost must be allowed: asked by the caller, who knows the file to blame.
    pub(super) fn derive(&self, passphrase: &[u8], salt: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        tracing::debug!(cost = %self, "deriving a key from a passphrase");
        let failed = |error: argon2::Error| KeyError::Derivation(error.to_string());
        let mut key = Zeroizing::new([0; 32]);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(key.len())).map_err(failed)?;
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, salt, key.as_mut_slice())
            .map_err(failed)?;
        #[cfg(test)]
        DERIVATIONS.set(DERIVATIONS.get() + 1);
        Ok(key)
    }
}

impl fmt::Display for KdfCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB, {} passes, {} lanes", self.memory_kib, self.passes, self.lanes)
    }
}

#[cfg(test)]
thread_local! {
    /// Derivations of this thread: tests hold that a wrong passphrase costs exactly one.
    pub(super) static DERIVATIONS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}
