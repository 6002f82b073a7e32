//! A ticket: one word that lets one new replica in, once.
//!
//! ```text
//! text = "mirror1" || base32( strict CBOR of the ticket || first 4 bytes of BLAKE3(CBOR) )
//! id   = BLAKE3(secret)                                   names the ticket to its issuer
//! key  = derive_key("mirror 2026-11 v1 ticket", secret)   proves possession; all that the issuer keeps
//! ```
//! Whoever has the ticket is let in, so it is as secret as a key: it is shown once, where it is issued, and its `Debug` hides the secret.

use super::{Role, TicketKey, base32, check_addresses, check_name};
use crate::{
    codec,
    id::{DeviceId, TicketId, VaultId},
    limits::TICKET_BYTES_MAX,
};
use minicbor::{Decode, Encode};
use std::{fmt, str::FromStr};
use zeroize::{Zeroize, ZeroizeOnDrop};

const PREFIX: &str = "mirror1";
const CHECKSUM_BYTES: usize = 4;

/// Why a text is not a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It begins differently: something else was pasted.
    #[error("a ticket begins with {PREFIX}")]
    Prefix,
    /// It has letters that no ticket has, or is too long.
    #[error("the ticket has letters that no ticket has, or too many")]
    Alphabet,
    /// Letters are missing or wrong.
    #[error("the ticket was mistyped or cut off: its checksum is wrong")]
    Checksum,
    /// Whole, but not a ticket that this program understands.
    #[error("the ticket is not valid: {0}")]
    Invalid(&'static str),
}

/// The random part of a ticket. Erased on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Encode, Decode)]
#[cbor(transparent)]
pub struct TicketSecret(#[cbor(with = "minicbor::bytes")] pub(super) [u8; 32]);

impl TicketSecret {
    /// What the ticket is called.
    pub fn id(&self) -> TicketId {
        TicketId::from_bytes(*blake3::hash(&self.0).as_bytes())
    }

    /// What proves possession.
    pub fn key(&self) -> TicketKey {
        let mut hasher = blake3::Hasher::new_derive_key("mirror 2026-11 v1 ticket");
        let key = TicketKey::from_bytes(*hasher.update(&self.0).finalize().as_bytes());
        hasher.zeroize();
        key
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret")
    }
}

/// An invitation, as its bearer holds it. `Display` is the word to hand over, `FromStr` reads it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ticket {
    /// The vault.
    #[n(0)]
    pub vault: VaultId,
    /// Who issued it: pinned when it is used.
    #[n(1)]
    pub device: DeviceId,
    /// Where the issuer may be reached.
    #[n(2)]
    pub addresses: Vec<String>,
    /// What makes the bearer the bearer.
    #[n(3)]
    pub secret: TicketSecret,
    /// When it ends: milliseconds since 1970, by the issuer's clock.
    #[n(4)]
    pub expires_ms: u64,
    /// What the bearer becomes.
    #[n(5)]
    pub role: Role,
    /// The vault's name for people.
    #[n(6)]
    pub vault_name: String,
}

impl Ticket {
    /// Asked of what is issued here and of what others hand us alike.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        check_name(&self.vault_name)?;
        check_addresses(&self.addresses)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = codec::encode(self);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        write!(f, "{PREFIX}{}", base32::encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// White space around the word is ignored, and case.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let (prefix, word) = text.split_at_checked(PREFIX.len()).ok_or(TicketError::Prefix)?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return Err(TicketError::Prefix);
        }
        if word.len() > (TICKET_BYTES_MAX + CHECKSUM_BYTES) * 8 / 5 + 1 || !word.bytes().all(|letter| letter.is_ascii_alphanumeric()) {
            return Err(TicketError::Alphabet);
        }
        let bytes = base32::decode(word).ok_or(TicketError::Checksum)?;
        let (encoded, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketError::Checksum)?;
        if checksum(encoded) != *sum {
            return Err(TicketError::Checksum);
        }
        let ticket: Self = codec::decode("ticket", encoded).map_err(|_| TicketError::Invalid("it is of another format"))?;
        ticket.check().map_err(TicketError::Invalid)?;
        Ok(ticket)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::hash(bytes);
    std::array::from_fn(|index| hash.as_bytes()[index])
}
