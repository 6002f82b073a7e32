//! Operations: what an event's sealed body says, visible only with the vault's key.

use crate::{
    codec::{self, CodecError},
    id::{ChunkId, EventId, PlaintextId},
    limits::{CHUNK_BYTES_MAX, DIRECT_REFERENCES_MAX, EVENT_OPERATIONS_MAX, KEY_BYTES_MAX, NODE_DEPTH_MAX, REASON_BYTES_MAX},
};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::{borrow::Cow, fmt};

/// Name of a value: 1 to [`KEY_BYTES_MAX`] bytes. For files, the path relative to what was added, with `/`; not always UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

/// A key that is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has 1 to {KEY_BYTES_MAX} bytes")]
pub struct KeyError;

impl Key {
    /// Checks the length; any bytes are allowed. Whether a key is a safe path is asked where files are written.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX { Err(KeyError) } else { Ok(Self(bytes)) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For people and JSON: bytes that are not UTF-8 become U+FFFD.
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.to_text())
    }
}

impl<C> Encode<C> for Key {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Key {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Self::new(d.bytes()?).map_err(decode::Error::message)
    }
}

/// A piece of a value: where its sealed form is and what its plaintext must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ChunkRef {
    /// The sealed chunk.
    #[n(0)]
    pub chunk: ChunkId,
    /// Identity of the plaintext.
    #[n(1)]
    pub plaintext: PlaintextId,
    /// Bytes of the plaintext.
    #[n(2)]
    pub length: u32,
}

/// The bytes of a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Content {
    /// Length in bytes.
    #[n(0)]
    pub bytes: u64,
    /// Levels of nodes between `references` and the data: 0 when they are the data. A node chunk's plaintext is the strict CBOR
    /// of a `Vec<ChunkRef>` one level below.
    #[n(1)]
    pub depth: u8,
    /// The pieces in order, at most [`DIRECT_REFERENCES_MAX`].
    #[n(2)]
    pub references: Vec<ChunkRef>,
}

/// What kind of thing a value is, with the metadata that `restore` brings back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ValueKind {
    /// Bytes under a key, made by `put`.
    #[n(0)]
    Blob,
    /// A regular file: permission bits.
    #[n(1)]
    File(#[n(0)] u32),
    /// A directory: permission bits.
    #[n(2)]
    Directory(#[n(0)] u32),
    /// A symbolic link: its target, as it stands.
    #[n(3)]
    Symlink(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Value {
    /// What it is.
    #[n(0)]
    pub kind: ValueKind,
    /// Modification time, seconds since 1970.
    #[n(1)]
    pub modified_s: i64,
    /// Nanoseconds of it.
    #[n(2)]
    pub modified_ns: u32,
    /// Its bytes; empty for directories and links.
    #[n(3)]
    pub content: Content,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    /// `key` has this value now.
    #[n(0)]
    Put(#[n(0)] Key, #[n(1)] Value),
    /// `key` is gone (a tombstone; every version stays).
    #[n(1)]
    Delete(#[n(0)] Key, #[n(1)] Option<String>),
    /// A user chose among conflicting versions of `key`: what the named event said of it stands.
    #[n(2)]
    Resolve(#[n(0)] Key, #[n(1)] EventId),
}

impl Operation {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key, _) | Self::Resolve(key, _) => key,
        }
    }
}

/// The plaintext of an event's body.
///
/// # Errors
/// [`CodecError`] when there are more than [`EVENT_OPERATIONS_MAX`].
pub fn encode_operations(operations: &[Operation]) -> Result<Vec<u8>, CodecError> {
    operations.iter().try_for_each(validate)?;
    if operations.len() > EVENT_OPERATIONS_MAX {
        return Err(CodecError::new("event body", "too many operations"));
    }
    Ok(codec::encode(&Operations(Cow::Borrowed(operations))))
}

/// Reads the plaintext of an event's body.
///
/// # Errors
/// [`CodecError`] on anything that [`encode_operations`] does not make.
pub fn decode_operations(body: &[u8]) -> Result<Vec<Operation>, CodecError> {
    let operations: Operations<'_> = codec::decode("event body", body)?;
    operations.0.iter().try_for_each(validate)?;
    Ok(operations.0.into_owned())
}

fn validate(operation: &Operation) -> Result<(), CodecError> {
    let error = |reason| Err(CodecError::new("operation", reason));
    match operation {
        Operation::Put(_, value) => {
            let content = &value.content;
            if content.depth > NODE_DEPTH_MAX || content.references.len() > DIRECT_REFERENCES_MAX {
                return error("its content has too many references or levels");
            }
            if value.modified_ns >= 1_000_000_000 {
                return error("nanoseconds are out of range");
            }
            if matches!(&value.kind, ValueKind::Symlink(target) if target.is_empty() || target.len() > KEY_BYTES_MAX) {
                return error("a link's target is empty or too long");
            }
            let total: u64 = content.references.iter().map(|reference| u64::from(reference.length)).sum();
            if content.depth == 0 && total != content.bytes {
                return error("its pieces do not add up to its length");
            }
            if content.references.iter().any(|reference| reference.length as usize > CHUNK_BYTES_MAX) {
                return error("a piece is longer than a chunk");
            }
            Ok(())
        }
        Operation::Delete(_, Some(reason)) if reason.len() > REASON_BYTES_MAX => error("the reason is too long"),
        Operation::Delete(..) | Operation::Resolve(..) => Ok(()),
    }
}

struct Operations<'a>(Cow<'a, [Operation]>);

impl<C> Encode<C> for Operations<'_> {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.array(self.0.len() as u64)?;
        self.0.iter().try_for_each(|operation| operation.encode(e, ctx))
    }
}

impl<'b, C> Decode<'b, C> for Operations<'_> {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        let count = d.array()?.ok_or_else(|| decode::Error::message("operations have a definite length"))?;
        if count > EVENT_OPERATIONS_MAX as u64 {
            return Err(decode::Error::message("too many operations"));
        }
        (0..count).map(|_| Operation::decode(d, ctx)).collect::<Result<Vec<_>, _>>().map(|list| Self(Cow::Owned(list)))
    }
}
