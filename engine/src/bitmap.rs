//! Which entries of a chunk list: wanted, missing or held.
//!
//! A [`Bitmap`] belongs to a list of `n` entries (at most [`LIST_ENTRIES_MAX`]) and never holds a position at or above `n`. In
//! memory it is a roaring bitmap. It has exactly one encoding:
//!
//! ```text
//! 0 form   1   0 plain bits · 1 roaring (portable format, runs where they are shorter)
//! 1 body       plain: ceil(n / 8) bytes, least significant bit first, unused bits zero
//! ```
//! The shorter form is the right one, the plain one in a tie, so an encoding never exceeds `1 + ceil(n / 8)` bytes: what is longer
//! is refused before it is expanded, and what does not encode to the same bytes again is refused after it.

use crate::{codec::CodecError, limits::LIST_ENTRIES_MAX};
use roaring::RoaringBitmap;
use std::ops::{BitAnd, BitOr, Sub};

const PLAIN: u8 = 0;
const ROARING: u8 = 1;

/// A set of positions in a chunk list.
#[derive(Debug, Clone, PartialEq)]
pub struct Bitmap {
    n: u32,
    set: RoaringBitmap,
}

impl Bitmap {
    /// No entry of a list of `n`.
    ///
    /// # Panics
    /// If `n` exceeds [`LIST_ENTRIES_MAX`]: a checked list is never that long.
    pub fn empty(n: usize) -> Self {
        assert!(n <= LIST_ENTRIES_MAX, "a chunk list has at most {LIST_ENTRIES_MAX} entries");
        Self { n: n as u32, set: RoaringBitmap::new() }
    }

    /// Every entry of a list of `n`.
    ///
    /// # Panics
    /// As [`Bitmap::empty`].
    pub fn full(n: usize) -> Self {
        let mut all = Self::empty(n);
        all.set.insert_range(0..all.n);
        all
    }

    /// The entries at `positions`; those at or above `n` are ignored.
    ///
    /// # Panics
    /// As [`Bitmap::empty`].
    pub fn from_positions(n: usize, positions: impl IntoIterator<Item = u32>) -> Self {
        let mut bitmap = Self::empty(n);
        bitmap.set.extend(positions.into_iter().filter(|position| (*position as usize) < n));
        bitmap
    }

    /// Length of the list that it is about.
    pub fn entries(&self) -> usize {
        self.n as usize
    }

    /// Number of positions in it.
    pub fn len(&self) -> usize {
        self.set.len() as usize
    }

    /// Whether no position is in it.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether every entry of the list is in it.
    pub fn is_full(&self) -> bool {
        self.len() == self.entries()
    }

    /// Whether `position` is in it.
    pub fn contains(&self, position: u32) -> bool {
        self.set.contains(position)
    }

    /// Adds `position`; whether it is new. A position at or above `n` is not added.
    pub fn insert(&mut self, position: u32) -> bool {
        position < self.n && self.set.insert(position)
    }

    /// Takes `position` out; whether it was there.
    pub fn remove(&mut self, position: u32) -> bool {
        self.set.remove(position)
    }

    /// Positions, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.set.iter()
    }

    /// What is not in it.
    pub fn complement(&self) -> Self {
        &Self::full(self.entries()) - self
    }

    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let plain_bytes = self.entries().div_ceil(8);
        let mut runs = self.set.clone();
        runs.optimize();
        if runs.serialized_size() >= plain_bytes {
            return self.encode_plain(plain_bytes);
        }
        let mut bytes = Vec::with_capacity(1 + runs.serialized_size());
        bytes.push(ROARING);
        match runs.serialize_into(&mut bytes) {
            Ok(()) => bytes,
            Err(error) => unreachable!("writing to a Vec cannot fail: {error}"),
        }
    }

    fn encode_plain(&self, plain_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; 1 + plain_bytes];
        bytes[0] = PLAIN;
        for position in self.iter() {
            bytes[1 + position as usize / 8] |= 1 << (position % 8);
        }
        bytes
    }

    /// Decodes what [`Bitmap::encode`] makes for a list of `n` entries.
    ///
    /// # Errors
    /// [`CodecError`] on anything else; input that is too long is refused before it is looked at.
    pub fn decode(bytes: &[u8], n: usize) -> Result<Self, CodecError> {
        let error = |reason: &str| CodecError::new("bitmap", reason);
        if n > LIST_ENTRIES_MAX || bytes.len() > 1 + n.div_ceil(8) {
            return Err(error("it is too long"));
        }
        let (form, body) = bytes.split_first().ok_or_else(|| error("it is empty"))?;
        let set = match *form {
            PLAIN => RoaringBitmap::from_lsb0_bytes(0, body),
            ROARING => RoaringBitmap::deserialize_from(body).map_err(|cause| error(&cause.to_string()))?,
            _ => return Err(error("its form is unknown")),
        };
        if set.max().is_some_and(|highest| highest as usize >= n) {
            return Err(error("it names an entry that the list has not"));
        }
        let bitmap = Self { n: n as u32, set };
        if bitmap.encode() != bytes {
            return Err(error("not in canonical form"));
        }
        Ok(bitmap)
    }

    fn combined(&self, other: &Self, set: RoaringBitmap) -> Self {
        debug_assert_eq!(self.n, other.n, "bitmaps over different lists");
        Self { n: self.n, set }
    }
}

impl BitAnd for &Bitmap {
    type Output = Bitmap;

    fn bitand(self, other: Self) -> Bitmap {
        self.combined(other, &self.set & &other.set)
    }
}

impl BitOr for &Bitmap {
    type Output = Bitmap;

    fn bitor(self, other: Self) -> Bitmap {
        self.combined(other, &self.set | &other.set)
    }
}

impl Sub for &Bitmap {
    type Output = Bitmap;

    fn sub(self, other: Self) -> Bitmap {
        self.combined(other, &self.set - &other.set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from_model(model: &[bool]) -> Bitmap {
        Bitmap::from_positions(model.len(), (0..model.len() as u32).filter(|position| model[*position as usize]))
    }

    #[test]
    fn the_longest_encoding_is_a_byte_more_than_one_bit_an_entry() {
        let every_other = Bitmap::from_positions(LIST_ENTRIES_MAX, (0..LIST_ENTRIES_MAX as u32).step_by(2));
        assert_eq!(every_other.encode().len(), 1 + LIST_ENTRIES_MAX / 8);
        assert!(Bitmap::full(LIST_ENTRIES_MAX).encode().len() < 32, "a full bitmap is one run");
    }

    #[test]
    fn over_long_and_out_of_range_input_is_refused() {
        assert!(Bitmap::decode(&[0; 4], 16).is_err());
        assert!(Bitmap::decode(&[], 0).is_err());
        assert!(Bitmap::decode(&[PLAIN, 0b1000], 3).is_err());
        assert!(Bitmap::decode(&Bitmap::full(10_000).encode(), 9_999).is_err());
        assert!(Bitmap::decode(&[7, 0], 8).is_err());
    }

    #[test]
    fn the_longer_form_of_the_same_set_is_refused() {
        let plain = Bitmap::full(4_096).encode_plain(512);
        assert!(Bitmap::decode(&plain, 4_096).is_err());
        assert_eq!(Bitmap::decode(&Bitmap::full(4_096).encode(), 4_096), Ok(Bitmap::full(4_096)));
    }

    proptest! {
        #[test]
        fn a_bitmap_is_what_its_model_says(pairs in proptest::collection::vec(any::<(bool, bool)>(), 0..3_000)) {
            let (left, right): (Vec<bool>, Vec<bool>) = pairs.iter().copied().unzip();
            let (a, b) = (from_model(&left), from_model(&right));
            prop_assert_eq!(a.len(), left.iter().filter(|bit| **bit).count());
            prop_assert_eq!(a.is_empty(), !left.contains(&true));
            prop_assert_eq!(a.is_full(), !left.contains(&false));
            prop_assert_eq!(&a & &b, from_model(&pairs.iter().map(|(x, y)| *x && *y).collect::<Vec<_>>()));
            prop_assert_eq!(&a | &b, from_model(&pairs.iter().map(|(x, y)| *x || *y).collect::<Vec<_>>()));
            prop_assert_eq!(&a - &b, from_model(&pairs.iter().map(|(x, y)| *x && !*y).collect::<Vec<_>>()));
            prop_assert_eq!(a.complement(), from_model(&left.iter().map(|bit| !bit).collect::<Vec<_>>()));
            prop_assert_eq!(Bitmap::decode(&a.encode(), left.len()), Ok(a));
        }

        #[test]
        fn runs_survive_a_round_trip(n in 1..LIST_ENTRIES_MAX, bounds in proptest::collection::vec(any::<u16>(), 0..12)) {
            let bitmap = Bitmap::from_positions(n, bounds.chunks_exact(2).flat_map(|pair| u32::from(pair[0])..u32::from(pair[1])));
            let bytes = bitmap.encode();
            prop_assert!(bytes.len() <= 1 + n.div_ceil(8));
            prop_assert_eq!(Bitmap::decode(&bytes, n), Ok(bitmap));
        }

        #[test]
        fn decoding_accepts_nothing_but_canonical_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64), n in 0usize..600) {
            if let Ok(bitmap) = Bitmap::decode(&bytes, n) {
                prop_assert_eq!(bitmap.encode(), bytes);
            }
        }
    }
}
