//! Distinct identifiers: 32 bytes each, shown as lower-case hexadecimal, never interchangeable.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    str::FromStr,
    sync::LazyLock,
};

/// Length of every identifier in bytes.
pub const ID_BYTES: usize = 32;

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an identifier is 64 hexadecimal digits")]
pub struct ParseIdError;

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// Wraps raw bytes.
            pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }

            /// The identifier in `bytes`, if there are exactly 32 of them.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(8);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                Self::from_slice(d.bytes()?).ok_or_else(|| decode::Error::message("an identifier is 32 bytes"))
            }
        }
    )+};
}

identifiers! {
    /// A vault: random, chosen at `init`, the same on every replica.
    VaultId;
    /// A sealed chunk: BLAKE3 of its record, so that anyone can check it without a key.
    ChunkId;
    /// A chunk list: BLAKE3 of its encoding.
    ListId;
    /// A signed event: BLAKE3 of its record.
    EventId;
    /// A device: its Ed25519 public key.
    DeviceId;
    /// A replica (the author of a log): BLAKE3 of device key and incarnation.
    ReplicaId;
    /// Identity of a plaintext inside one vault (keyed, never outside sealed data).
    PlaintextId;
    /// A ticket, between its issuer and its bearer: BLAKE3 of its secret, which it does not give away.
    TicketId;
    /// Digest over all heads: equal roots mean equal replicas.
    Root;
    /// A key epoch: derived from its replication key, so that whoever is given the key can tell whether it is the one that was meant.
    EpochId;
    /// The public half of a device's X25519 key: what is sealed for the device is sealed to it.
    AgreementKey;
}

fn parse_hex(text: &str) -> Result<[u8; ID_BYTES], ParseIdError> {
    let digits = text.as_bytes();
    if digits.len() != 2 * ID_BYTES {
        return Err(ParseIdError);
    }
    let mut bytes = [0; ID_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(bytes)
}

fn nibble(digit: u8) -> Result<u8, ParseIdError> {
    (digit as char).to_digit(16).map(|value| value as u8).ok_or(ParseIdError)
}

/// A map with identifiers for keys.
pub type IdMap<K, V> = HashMap<K, V, IdHashing>;
/// A set of identifiers.
pub type IdSet<K> = HashSet<K, IdHashing>;

/// Hashes identifiers for maps in a few nanoseconds, and so that nobody can choose identifiers that fall into one place.
///
/// An identifier's four words are multiplied by 128-bit keys that this process chose at random, and the upper half of the sum is the
/// hash: multilinear hashing, which is strongly universal (Lemire and Kaser, "Strongly universal string hashing is fast", 2014). So
/// any two identifiers, whoever made them, meet with the probability of two random numbers; the peer sees neither keys nor hashes.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHashing;

impl BuildHasher for IdHashing {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { keys: &KEYS, sum: KEYS[ID_WORDS] }
    }
}

const ID_WORDS: usize = ID_BYTES / 8;

/// A key for each word, and one to begin with.
static KEYS: LazyLock<[u128; ID_WORDS + 1]> = LazyLock::new(|| {
    let random = RandomState::new();
    std::array::from_fn(|n| (u128::from(random.hash_one((n, "high"))) << 64) | u128::from(random.hash_one((n, "low"))))
});

/// The hash of one identifier: only what it writes, 32 bytes in one piece, is looked at.
#[derive(Debug)]
pub struct IdHasher {
    keys: &'static [u128; ID_WORDS + 1],
    sum: u128,
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        debug_assert_eq!(bytes.len(), ID_BYTES, "only identifiers are hashed");
        for (word, key) in bytes.as_chunks().0.iter().zip(self.keys) {
            self.sum = self.sum.wrapping_add(key.wrapping_mul(u128::from(u64::from_le_bytes(*word))));
        }
    }

    /// The length of the array, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        (self.sum >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_that_differ_in_any_one_byte_have_hashes_of_their_own() {
        let changed = |byte: usize, value: u8| {
            let mut bytes = [0; ID_BYTES];
            bytes[byte] = value;
            ChunkId::from_bytes(bytes)
        };
        let ids = (0..ID_BYTES).flat_map(|byte| (1..=255).map(move |value| changed(byte, value)));
        let hashes: HashSet<u64> = ids.map(|id| IdHashing.hash_one(id)).collect();
        assert_eq!(hashes.len(), ID_BYTES * 255);
        assert_eq!(IdHashing.hash_one(changed(3, 4)), IdHashing.hash_one(changed(3, 4)));
    }

    #[test]
    fn text_form_survives_a_round_trip() {
        let id = ChunkId::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short().len(), 8);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "00", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert_eq!(text.parse::<ChunkId>(), Err(ParseIdError), "{text}");
        }
    }
}
