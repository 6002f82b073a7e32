//! How a sealed record lies in bytes.
//!
//! ```text
//!  0  type      1   1 data · 2 node · 3 event body
//!  1  algorithm 1   1 AES-256-GCM
//!  2  codec     1   0 none · 1 zstd
//!  3  zero      1
//!  4  epoch     4   little endian, which keys
//!  8  length    4   little endian, bytes of the body
//! 12  zero      4
//! 16  siv      32
//! 48  body      length bytes, encrypted
//!     tag      16
//! ```
//! All of the header goes into the siv and into the associated data: no byte of it can be changed without notice.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U32};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of the synthetic initialisation value.
pub(super) const SIV_BYTES: usize = 32;
/// Bytes before the body.
pub(super) const PREFIX_BYTES: usize = HEADER_BYTES + SIV_BYTES;
/// Bytes after the body.
pub(super) const TAG_BYTES: usize = 16;
/// AES-256-GCM, the only algorithm of this format.
pub(super) const ALGORITHM: u8 = 1;

/// What a record holds. Part of what is authenticated, so that one kind never passes for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordType {
    Data = 1,
    Node = 2,
    EventBody = 3,
}

/// How the body was made from the plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Codec {
    None = 0,
    Zstd = 1,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RecordHeader {
    kind: u8,
    algorithm: u8,
    codec: u8,
    zero: u8,
    epoch: U32,
    body_bytes: U32,
    reserved: U32,
}

impl RecordHeader {
    pub(super) fn new(kind: RecordType, codec: Codec, epoch: u32, body_bytes: usize) -> Self {
        Self {
            kind: kind as u8,
            algorithm: ALGORITHM,
            codec: codec as u8,
            zero: 0,
            epoch: U32::new(epoch),
            body_bytes: U32::new(body_bytes as u32),
            reserved: U32::new(0),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The epoch that a record says it is sealed under; not authenticated yet.
pub(super) fn epoch_of(record: &[u8]) -> Option<u32> {
    RecordHeader::ref_from_prefix(record).ok().map(|(header, _)| header.epoch.get())
}

/// A record taken apart; nothing in it is authenticated yet.
pub(super) struct Parts<'a> {
    pub(super) codec: Codec,
    pub(super) header: &'a [u8],
    pub(super) siv: &'a [u8; SIV_BYTES],
    /// Header and siv: the associated data.
    pub(super) prefix: &'a [u8],
    /// Encrypted body and tag.
    pub(super) sealed: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes `record` apart if it is exactly of this format, `kind` and `epoch`.
    pub(super) fn of(record: &'a [u8], kind: RecordType, epoch: u32) -> Option<Self> {
        let (prefix, sealed) = record.split_at_checked(PREFIX_BYTES)?;
        let (header, siv) = prefix.split_at(HEADER_BYTES);
        let body_bytes = sealed.len().checked_sub(TAG_BYTES)?;
        let codec =
            [Codec::None, Codec::Zstd].into_iter().find(|codec| RecordHeader::new(kind, *codec, epoch, body_bytes).bytes() == header)?;
        u32::try_from(body_bytes).ok()?;
        Some(Self { codec, header, siv: siv.try_into().ok()?, prefix, sealed })
    }
}
