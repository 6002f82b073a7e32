//! Content-defined cutting: the same content gives the same pieces, wherever it lies in a file.
//!
//! FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems", IEEE TPDS 2020)
//! with normalisation level 2, as the paper recommends: a stricter mask below the mean size, a looser one above it, so that sizes
//! gather around the mean. A cut depends only on the bytes since the previous cut, so an insertion moves the cuts near it and no others.
//!
//! The scan is the `fastcdc` crate's; the gear table is ours, 256 words from a key of the vault. A keyed table keeps someone who sees
//! sealed sizes from computing the cuts of a known file; it hinders such fingerprinting and does not prevent it (IACR ePrint 2025/558).
//! The crate changed its cut points between majors: it is pinned, and golden vectors in `tests/vectors/cuts.json` hold the cuts still.

use crate::limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MEAN, CHUNK_BYTES_MIN};
use fastcdc::v2020::{Normalization, cut_gear, select_masks};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

const GEAR_WORDS: usize = 256;
const WORD_BYTES: usize = size_of::<u64>();

/// Cuts byte strings into chunks of [`CHUNK_BYTES_MIN`] to [`CHUNK_BYTES_MAX`] bytes. One for each vault; 4 KiB of memory.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Cutter {
    gear: Box<[u64; GEAR_WORDS]>,
    /// Every word shifted left by one: the scan rolls two bytes at a time (section 3.7 of the paper).
    gear_shifted: Box<[u64; GEAR_WORDS]>,
    mask_below_mean: u64,
    mask_above_mean: u64,
}

impl Cutter {
    /// The cutter of the vault whose gear key this is.
    pub fn new(gear_key: &[u8; 32]) -> Self {
        let gear = Box::new(gear_table(gear_key));
        let gear_shifted = Box::new(gear.map(|word| word << 1));
        let (mask_below_mean, mask_above_mean) = select_masks(CHUNK_BYTES_MEAN, Normalization::Level2);
        Self { gear, gear_shifted, mask_below_mean, mask_above_mean }
    }

    /// Length of the chunk at the start of `data`.
    ///
    /// The caller passes [`CHUNK_BYTES_MAX`] bytes, or all that is left; what lies beyond the maximum is not looked at. The result is
    /// 0 only for empty `data`, and less than [`CHUNK_BYTES_MIN`] only when nothing follows.
    pub fn next_cut(&self, data: &[u8]) -> usize {
        let (_, length) = cut_gear(
            data,
            CHUNK_BYTES_MIN,
            CHUNK_BYTES_MEAN,
            CHUNK_BYTES_MAX,
            self.mask_below_mean,
            self.mask_above_mean,
            self.mask_below_mean << 1,
            self.mask_above_mean << 1,
            self.gear.as_slice(),
            self.gear_shifted.as_slice(),
        );
        length
    }

    /// All chunks of `data`, in order; none when it is empty.
    pub fn chunks<'a>(&self, data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = data;
        std::iter::from_fn(move || {
            let (chunk, after) = rest.split_at(self.next_cut(rest));
            rest = after;
            (!chunk.is_empty()).then_some(chunk)
        })
    }
}

impl fmt::Debug for Cutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cutter")
    }
}

fn gear_table(gear_key: &[u8; 32]) -> [u64; GEAR_WORDS] {
    let mut hasher = blake3::Hasher::new_derive_key("mirror 2026-11 v1 gear table");
    let mut bytes = [0; GEAR_WORDS * WORD_BYTES];
    hasher.update(gear_key).finalize_xof().fill(&mut bytes);
    let (words, _) = bytes.as_chunks::<WORD_BYTES>();
    let table = std::array::from_fn(|index| u64::from_le_bytes(words[index]));
    bytes.zeroize();
    hasher.zeroize();
    table
}

#[cfg(test)]
mod tests;
