//! Sealing: encryption at rest, which is also what travels.
//!
//! ```text
//! pid    = keyed_hash(K_pid, plaintext)                de-duplication identity, only ever inside encrypted data
//! body   = codec(plaintext)                            none | zstd
//! bh     = pid when codec is none, else keyed_hash(K_body, body)
//! siv    = keyed_hash(K_siv, header || bh || context)  stored; the context is empty for chunks
//! ct     = AES-256-GCM(key = keyed_hash(K_enc, siv || algorithm), nonce = 0, aad = header || siv || context, body)
//! record = header || siv || ct                         ChunkId = BLAKE3(record)
//! ```
//! # Why this way
//! - The key of a record is derived from the exact bytes that it encrypts, so a key never meets two bodies and the nonce can be zero.
//!   (Deriving it from the plaintext and compressing afterwards reuses a key as soon as the compressor changes.)
//! - Equal plaintext in a vault gives an equal record on every replica: de-duplication, and transfers that may be repeated.
//! - The id is over the ciphertext: a replica without keys verifies, serves and heals.
//!
//! # Opening
//! Id, then AEAD, then siv again, then decompression bounded by the length expected, then pid again. Nothing is decompressed that was not
//! authenticated. Everything that a key holder could cause by tampering fails with the one error [`OpenError::Refused`].
//!
//! Keys come from `BLAKE3 derive_key("mirror 2026-11 v1 <purpose>", master || vault || epoch)`. Known answers, made by an independent
//! implementation, are in `tests/vectors/seal.json`.

mod body;
mod compress;
mod keyring;
mod record;
#[cfg(test)]
mod tests;

pub use keyring::KeyRing;

use crate::{
    event::ChunkRef,
    frame::{self, FrameBuf, Kind},
    id::{ChunkId, PlaintextId, VaultId},
    keys::MasterKey,
    limits::CHUNK_BYTES_MAX,
};
use record::{ALGORITHM, Codec, HEADER_BYTES, PREFIX_BYTES, Parts, RecordHeader, RecordType, SIV_BYTES, TAG_BYTES};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::{borrow::Cow, fmt};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Where the plaintext lies in a draft's buffer: behind the frame's header and the record's prefix.
const PLAINTEXT_AT: usize = frame::HEADER_BYTES + PREFIX_BYTES;
/// Every record has a key of its own.
const NONCE: [u8; 12] = [0; 12];

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkType {
    /// A piece of a value.
    Data,
    /// References to chunks one level below.
    Node,
}

impl ChunkType {
    fn record_type(self) -> RecordType {
        match self {
            Self::Data => RecordType::Data,
            Self::Node => RecordType::Node,
        }
    }
}

/// Whether to compress before encrypting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// When a look at samples promises something and at least 5 % are saved.
    Auto,
    /// Not at all.
    Never,
}

/// Why a record was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes are not those that the id names: the disk or whoever sent them is at fault. Fetch the chunk from another replica.
    #[error("the chunk's bytes do not match its id")]
    Damaged,
    /// The bytes were not sealed with these keys for this place: whoever wrote them is at fault, or the key is another one. Deliberately
    /// one error for wrong key, tag, header, siv, length and plaintext, so that nobody learns which.
    #[error("authentication failed")]
    Refused,
    /// The bytes are sealed under a key epoch that this device was given no key of. Says nothing that the header does not show everyone.
    #[error("it is sealed under key epoch {0}, and this device was given no key of it")]
    NoKey(u32),
}

/// The keys of one vault and epoch. Erased on drop; share them behind an `Arc`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SealKeys {
    epoch: u32,
    plaintext: [u8; 32],
    body: [u8; 32],
    siv: [u8; 32],
    encryption: [u8; 32],
    gear: [u8; 32],
}

impl SealKeys {
    /// Derives all keys of `vault` in `epoch`.
    pub fn derive(master: &MasterKey, vault: &VaultId, epoch: u32) -> Self {
        let material = Zeroizing::new([master.as_bytes().as_slice(), vault.as_bytes(), &epoch.to_le_bytes()].concat());
        let key = |context| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            let key = *hasher.update(&material).finalize().as_bytes();
            hasher.zeroize();
            key
        };
        Self {
            epoch,
            plaintext: key("mirror 2026-11 v1 plaintext id"),
            body: key("mirror 2026-11 v1 body hash"),
            siv: key("mirror 2026-11 v1 siv"),
            encryption: key("mirror 2026-11 v1 encryption"),
            gear: key("mirror 2026-11 v1 gear"),
        }
    }

    /// Which epoch's they are: stands in all that they seal.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The key of the vault's gear table, for [`Cutter::new`](crate::chunk::Cutter::new).
    pub fn gear_key(&self) -> [u8; 32] {
        self.gear
    }

    /// Copies `plaintext`, once, to its final place in `buffer` and identifies the copy.
    ///
    /// The source may be a mapped file that changes under us: identifying the source and encrypting the copy would store a chunk that
    /// can't be opened. The buffer's contents are discarded, its memory is used again.
    ///
    /// # Panics
    /// If there are more than [`CHUNK_BYTES_MAX`] bytes.
    pub fn draft(&self, plaintext: &[u8], mut buffer: Vec<u8>) -> Draft {
        assert!(plaintext.len() <= CHUNK_BYTES_MAX, "a chunk has at most {CHUNK_BYTES_MAX} bytes");
        buffer.clear();
        buffer.reserve(PLAINTEXT_AT + plaintext.len() + TAG_BYTES);
        buffer.resize(PLAINTEXT_AT, 0);
        buffer.extend_from_slice(plaintext);
        let plaintext_id = PlaintextId::from_bytes(self.plaintext_hash(&buffer[PLAINTEXT_AT..]));
        Draft { buffer, plaintext_id, length: plaintext.len() as u32 }
    }

    /// Compresses if it pays, encrypts in place, and frames the record.
    pub fn seal(&self, draft: Draft, kind: ChunkType, compression: Compression) -> SealedChunk {
        let Draft { mut buffer, plaintext_id, length } = draft;
        let (codec, body_hash) = match compress::compress(&mut buffer, PLAINTEXT_AT, compression) {
            false => (Codec::None, *plaintext_id.as_bytes()),
            true => (Codec::Zstd, self.compressed_hash(&buffer[PLAINTEXT_AT..])),
        };
        self.encrypt(&mut buffer, frame::HEADER_BYTES, kind.record_type(), codec, &body_hash, b"");
        let frame = FrameBuf::seal_header(Kind::Chunk, buffer);
        let reference = ChunkRef { chunk: ChunkId::from_bytes(frame.id()), plaintext: plaintext_id, length };
        SealedChunk { frame, reference }
    }

    /// Appends the plaintext of `record` to `out`, if it is what `expected` says.
    ///
    /// # Errors
    /// [`OpenError`]; then `out` has nothing more in it than before.
    pub fn open(&self, record: &[u8], kind: ChunkType, expected: &ChunkRef, out: &mut Vec<u8>) -> Result<(), OpenError> {
        if ChunkId::from_bytes(*blake3::hash(record).as_bytes()) != expected.chunk {
            return Err(OpenError::Damaged);
        }
        let start = out.len();
        let opened = self.open_record(record, kind, expected, out);
        if opened.is_none() {
            out.truncate(start);
        }
        opened.ok_or(OpenError::Refused)
    }

    fn open_record(&self, record: &[u8], kind: ChunkType, expected: &ChunkRef, out: &mut Vec<u8>) -> Option<()> {
        let (start, length) = (out.len(), expected.length as usize);
        let parts = Parts::of(record, kind.record_type(), self.epoch).filter(|_| length <= CHUNK_BYTES_MAX)?;
        let plaintext_hash = match parts.codec {
            Codec::None => self.decrypt(&parts, b"", out)?,
            Codec::Zstd => {
                compress::with_scratch(|body| {
                    self.decrypt(&parts, b"", body)?;
                    compress::decompress(body, length, out)
                })?;
                self.plaintext_hash(&out[start..])
            }
        };
        let same = same_bytes(&plaintext_hash, expected.plaintext.as_bytes()) && out.len() - start == length;
        same.then_some(())
    }

    /// Encrypts the body that lies in `buffer` from `at + PREFIX_BYTES` on, writes the record's prefix before it and the tag behind it.
    fn encrypt(&self, buffer: &mut Vec<u8>, at: usize, kind: RecordType, codec: Codec, body_hash: &[u8; 32], context: &[u8]) {
        let (prefix, body) = buffer[at..].split_at_mut(PREFIX_BYTES);
        let header = RecordHeader::new(kind, codec, self.epoch, body.len());
        let siv = self.siv(header.bytes(), body_hash, context);
        prefix[..HEADER_BYTES].copy_from_slice(header.bytes());
        prefix[HEADER_BYTES..].copy_from_slice(&siv);
        let associated = Aad::from(joined(prefix, context));
        match self.record_key(&siv).seal_in_place_separate_tag(Nonce::assume_unique_for_key(NONCE), associated, body) {
            Ok(tag) => buffer.extend_from_slice(tag.as_ref()),
            Err(_) => unreachable!("AES-GCM takes 64 GiB, a record has megabytes"),
        }
    }

    /// Appends the body to `out` and returns its hash, if tag and siv are right. On failure `out` may hold rubbish behind its old end.
    fn decrypt(&self, parts: &Parts<'_>, context: &[u8], out: &mut Vec<u8>) -> Option<[u8; 32]> {
        let start = out.len();
        out.extend_from_slice(parts.sealed);
        let associated = Aad::from(joined(parts.prefix, context));
        let key = self.record_key(parts.siv);
        let body = key.open_in_place(Nonce::assume_unique_for_key(NONCE), associated, &mut out[start..]).ok()?;
        let body_hash = match parts.codec {
            Codec::None => self.plaintext_hash(body),
            Codec::Zstd => self.compressed_hash(body),
        };
        let body_bytes = body.len();
        out.truncate(start + body_bytes);
        same_bytes(&self.siv(parts.header, &body_hash, context), parts.siv).then_some(body_hash)
    }

    fn plaintext_hash(&self, plaintext: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.plaintext, plaintext).as_bytes()
    }

    fn compressed_hash(&self, body: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.body, body).as_bytes()
    }

    fn siv(&self, header: &[u8], body_hash: &[u8; 32], context: &[u8]) -> [u8; SIV_BYTES] {
        // Header and hash have fixed lengths, so no two triples are joined to the same bytes.
        let mut hasher = blake3::Hasher::new_keyed(&self.siv);
        *hasher.update(header).update(body_hash).update(context).finalize().as_bytes()
    }

    fn record_key(&self, siv: &[u8; SIV_BYTES]) -> LessSafeKey {
        let mut input = [ALGORITHM; SIV_BYTES + 1];
        input[..SIV_BYTES].copy_from_slice(siv);
        let mut key = *blake3::keyed_hash(&self.encryption, &input).as_bytes();
        let made = UnboundKey::new(&AES_256_GCM, &key);
        key.zeroize();
        match made {
            Ok(key) => LessSafeKey::new(key),
            Err(_) => unreachable!("a key of AES-256 has 32 bytes"),
        }
    }
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKeys")
    }
}

/// A plaintext in its buffer, identified and not yet sealed.
pub struct Draft {
    buffer: Vec<u8>,
    plaintext_id: PlaintextId,
    length: u32,
}

impl Draft {
    /// Identity of the plaintext: whoever has a chunk with it already needs no other.
    pub fn plaintext_id(&self) -> PlaintextId {
        self.plaintext_id
    }

    /// Bytes of the plaintext.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The buffer, for the next draft, when the plaintext is known already.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft").field("length", &self.length).finish_non_exhaustive()
    }
}

/// A sealed chunk, ready for a pack.
#[derive(Debug)]
pub struct SealedChunk {
    /// Header and record.
    pub frame: FrameBuf,
    /// What an operation or a node says of it.
    pub reference: ChunkRef,
}

fn joined<'a>(prefix: &'a [u8], context: &[u8]) -> Cow<'a, [u8]> {
    if context.is_empty() { Cow::Borrowed(prefix) } else { Cow::Owned([prefix, context].concat()) }
}

/// In constant time: how much of a keyed hash was right must not show.
fn same_bytes(left: &[u8; 32], right: &[u8; 32]) -> bool {
    blake3::Hash::from_bytes(*left) == blake3::Hash::from_bytes(*right)
}
