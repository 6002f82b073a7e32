//! Events: the signed entries of each replica's log, in their final form.
//!
//! ```text
//! record = header length (u32 LE) || header (strict CBOR) || Ed25519 signature (64) || sealed body
//! ```
//! The header is public, so that keyless replicas replicate; it binds the body by hash and names the chunk lists that the event
//! adds. The signature covers [`SIGNATURE_CONTEXT`] and the header bytes as received. `EventId` is BLAKE3 of the record.
//!
//! Invariants that need the log (previous hash, lamport, known deps) are checked by the store; everything else here.

mod frontier;
mod list;
mod operation;
mod resealed;
#[cfg(test)]
mod tests;

pub use frontier::{Dot, Frontier, Head, Heads};
pub use list::{ChunkList, Entry, ListRef};
pub use operation::{ChunkRef, Content, Key, KeyError, Operation, Value, ValueKind, decode_operations, encode_operations};
pub use resealed::{decode_resealed, encode_resealed};

use crate::{
    codec::{self, CodecError},
    frame::{FrameBuf, Kind},
    id::{DeviceId, EventId, ReplicaId, VaultId},
    keys::DeviceKey,
    limits::{EVENT_BODY_BYTES_MAX, EVENT_LISTS_MAX},
};
use minicbor::{Decode, Encode};
use ring::signature::{ED25519, UnparsedPublicKey};

/// What an Ed25519 signature over an event begins with, so that it can't be taken for one over anything else.
pub const SIGNATURE_CONTEXT: &[u8] = b"mirror 2026-11 v1 event";
const SIGNATURE_BYTES: usize = 64;
const LENGTH_BYTES: usize = 4;
/// Event kind whose sealed body is a batch of operations. Others come from newer replicas: stored and forwarded, not applied.
pub const KIND_OPERATIONS: u16 = 1;
/// Event kind that says who is in the vault (see [`members`](crate::members)); its body opens with the replication key.
pub const KIND_MEMBERSHIP: u16 = 2;
/// Event kind whose sealed body says where plaintexts lie as well, under a later key epoch: see [`encode_resealed`].
pub const KIND_RESEALED: u16 = 3;

/// Number that makes the author of a copied or restored vault directory a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Incarnation(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// The author of the log that `device` writes in this incarnation of its vault directory.
pub fn author(device: &DeviceId, incarnation: &Incarnation) -> ReplicaId {
    let mut hasher = blake3::Hasher::new_derive_key("mirror 2026-11 v1 author");
    hasher.update(device.as_bytes()).update(&incarnation.0);
    ReplicaId::from_bytes(*hasher.finalize().as_bytes())
}

/// The public, signed part of an event.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EventHeader {
    /// The vault it belongs to.
    #[n(0)]
    pub vault: VaultId,
    /// The device that signed it.
    #[n(1)]
    pub device: DeviceId,
    /// With the device, the author.
    #[n(2)]
    pub incarnation: Incarnation,
    /// Position in the author's log, from 1, without holes.
    #[n(3)]
    pub sequence: u64,
    /// Exactly `1 + max(lamport of previous, of deps)`.
    #[n(4)]
    pub lamport: u64,
    /// The author's event before this one; none for the first.
    #[n(5)]
    pub previous: Option<EventId>,
    /// What the author had seen of other authors.
    #[n(6)]
    pub deps: Frontier,
    /// Key epoch of the body.
    #[n(7)]
    pub epoch: u32,
    /// Chunk lists that must be here before the event is visible.
    #[n(8)]
    pub lists: Vec<ListRef>,
    /// [`KIND_OPERATIONS`], [`KIND_MEMBERSHIP`], [`KIND_RESEALED`], or something newer.
    #[n(9)]
    pub kind: u16,
    /// BLAKE3 of the sealed body.
    #[n(10)]
    #[cbor(with = "minicbor::bytes")]
    pub body_hash: [u8; 32],
    /// Wall time at the author in milliseconds since 1970. Only for display.
    #[n(11)]
    pub wall_ms: u64,
}

impl EventHeader {
    /// The author.
    pub fn author(&self) -> ReplicaId {
        author(&self.device, &self.incarnation)
    }

    /// Author and sequence number.
    pub fn dot(&self) -> Dot {
        Dot { author: self.author(), sequence: self.sequence }
    }

    /// Everything that happened before it: what it depends on and its author's earlier events.
    pub fn past(&self) -> Frontier {
        let mut past = self.deps.clone();
        past.raise(Dot { author: self.author(), sequence: self.sequence.saturating_sub(1) });
        past
    }

    fn validate(&self) -> Result<(), EventError> {
        if self.sequence == 0 || (self.sequence == 1) != self.previous.is_none() {
            return Err(EventError::Invalid("sequence and previous event do not fit"));
        }
        if self.lamport == 0 || self.lamport == u64::MAX {
            return Err(EventError::Invalid("lamport is out of range"));
        }
        if self.lists.len() > EVENT_LISTS_MAX {
            return Err(EventError::Invalid("too many chunk lists"));
        }
        if self.deps.sequence_of(&self.author()) != 0 {
            return Err(EventError::Invalid("an event depends on its own author through `previous` only"));
        }
        Ok(())
    }
}

/// Why bytes are not an event that may be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The header is not strict CBOR of the known form.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A rule that needs no other event is broken.
    #[error("invalid event: {0}")]
    Invalid(&'static str),
    /// The signature is not the device's.
    #[error("the event's signature is wrong")]
    Signature,
    /// The event is another vault's.
    #[error("the event belongs to another vault")]
    WrongVault,
}

/// An event whose signature, body hash and own limits have been checked. Can only be made by signing or by checking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    header: EventHeader,
    author: ReplicaId,
    id: EventId,
    record: Vec<u8>,
    body_at: usize,
}

impl Event {
    /// Signs `header` over `body`; the header's `device` and `body_hash` are filled in.
    ///
    /// # Errors
    /// [`EventError::Invalid`] when the header breaks a limit.
    pub fn sign(mut header: EventHeader, body: &[u8], device: &DeviceKey) -> Result<Self, EventError> {
        header.device = device.id();
        header.body_hash = *blake3::hash(body).as_bytes();
        header.validate()?;
        if body.len() > EVENT_BODY_BYTES_MAX {
            return Err(EventError::Invalid("the body is too long"));
        }
        let encoded = codec::encode(&header);
        let signature = device.sign(&signed_bytes(&encoded));
        let mut record = Vec::with_capacity(LENGTH_BYTES + encoded.len() + SIGNATURE_BYTES + body.len());
        record.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
        record.extend_from_slice(&encoded);
        record.extend_from_slice(&signature);
        let body_at = record.len();
        record.extend_from_slice(body);
        Ok(Self::assemble(header, record, body_at))
    }

    /// Checks a record: form, limits, vault, body hash, signature.
    ///
    /// # Errors
    /// [`EventError`], never a panic, on any bytes.
    pub fn check(record: Vec<u8>, vault: &VaultId) -> Result<Self, EventError> {
        let (header, signature_at) = Self::parse_header(&record)?;
        let body_at = signature_at + SIGNATURE_BYTES;
        let body = record.get(body_at..).ok_or(EventError::Invalid("cut off"))?;
        if header.vault != *vault {
            return Err(EventError::WrongVault);
        }
        header.validate()?;
        if body.len() > EVENT_BODY_BYTES_MAX || blake3::hash(body).as_bytes() != &header.body_hash {
            return Err(EventError::Invalid("the body does not match its hash"));
        }
        UnparsedPublicKey::new(&ED25519, header.device.as_bytes())
            .verify(&signed_bytes(&record[LENGTH_BYTES..signature_at]), &record[signature_at..body_at])
            .map_err(|_| EventError::Signature)?;
        Ok(Self::assemble(header, record, body_at))
    }

    /// Reads a record that this replica checked before it stored it; the caller has compared its hash with the stored id.
    ///
    /// # Errors
    /// [`EventError`] when the bytes are not a record.
    pub fn from_stored(record: Vec<u8>) -> Result<Self, EventError> {
        let (header, signature_at) = Self::parse_header(&record)?;
        let body_at = signature_at + SIGNATURE_BYTES;
        if record.len() < body_at {
            return Err(EventError::Invalid("cut off"));
        }
        Ok(Self::assemble(header, record, body_at))
    }

    fn parse_header(record: &[u8]) -> Result<(EventHeader, usize), EventError> {
        let (length, rest) = record.split_first_chunk::<LENGTH_BYTES>().ok_or(EventError::Invalid("cut off"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let encoded = rest.get(..length).ok_or(EventError::Invalid("cut off"))?;
        Ok((codec::decode("event header", encoded)?, LENGTH_BYTES + length))
    }

    fn assemble(header: EventHeader, record: Vec<u8>, body_at: usize) -> Self {
        let author = header.author();
        let id = EventId::from_bytes(*blake3::hash(&record).as_bytes());
        Self { header, author, id, record, body_at }
    }

    /// The public part.
    pub fn header(&self) -> &EventHeader {
        &self.header
    }

    /// The author, computed once.
    pub fn author(&self) -> ReplicaId {
        self.author
    }

    /// Author and sequence number.
    pub fn dot(&self) -> Dot {
        Dot { author: self.author, sequence: self.header.sequence }
    }

    /// BLAKE3 of the record.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// The sealed body.
    pub fn body(&self) -> &[u8] {
        &self.record[self.body_at..]
    }

    /// The whole record.
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// The record as a frame.
    pub fn to_frame(&self) -> FrameBuf {
        FrameBuf::new(Kind::Event, &self.record)
    }
}

/// What binds a sealed body to its place, so that it can't be moved to another event.
pub fn body_context(author: &ReplicaId, sequence: u64) -> Vec<u8> {
    [author.as_bytes().as_slice(), &sequence.to_le_bytes()].concat()
}

fn signed_bytes(header: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, header].concat()
}
