//! A set of positions in a chunk list, with exactly one encoding.

use crate::{codec::CodecError, limits::LIST_ENTRIES_MAX};
use roaring::RoaringBitmap;

/// Positions below a capacity of at most [`LIST_ENTRIES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    bits: RoaringBitmap,
    capacity: u32,
}

impl Bitmap {
    /// No position of `capacity`.
    pub fn new(capacity: u32) -> Self {
        Self { bits: RoaringBitmap::new(), capacity: capacity.min(LIST_ENTRIES_MAX as u32) }
    }

    /// Every position of `capacity`.
    pub fn full(capacity: u32) -> Self {
        let mut full = Self::new(capacity);
        full.bits.insert_range(0..full.capacity);
        full
    }

    /// Reads what [`Bitmap::encode`] made for the same capacity.
    ///
    /// # Errors
    /// [`CodecError`] on anything else.
    pub fn decode(bytes: &[u8], capacity: u32) -> Result<Self, CodecError> {
        let error = |reason: &str| CodecError::new("bitmap", reason);
        if capacity as usize > LIST_ENTRIES_MAX || bytes.len() > LIST_ENTRIES_MAX {
            return Err(error("it is too long"));
        }
        let bits = RoaringBitmap::deserialize_from(bytes).map_err(|_| error("it is not a bitmap"))?;
        let bitmap = Self { bits: bits.iter().collect(), capacity };
        if bitmap.bits.max().is_some_and(|max| max >= capacity) {
            return Err(error("it has bits beyond its list"));
        }
        if bitmap.encode() != bytes {
            return Err(error("not in canonical form"));
        }
        Ok(bitmap)
    }

    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bits.serialized_size());
        let canonical: RoaringBitmap = self.bits.iter().collect();
        match canonical.serialize_into(&mut bytes) {
            Ok(()) => bytes,
            Err(error) => unreachable!("writing to a Vec cannot fail: {error}"),
        }
    }

    /// Adds a position; beyond the capacity nothing happens.
    pub fn set(&mut self, position: u32) {
        if position < self.capacity {
            self.bits.insert(position);
        }
    }

    /// Whether a position is in it.
    pub fn contains(&self, position: u32) -> bool {
        self.bits.contains(position)
    }

    /// Takes a position out.
    pub fn remove(&mut self, position: u32) {
        self.bits.remove(position);
    }

    /// Positions, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.bits.iter()
    }

    /// Number of positions in it.
    pub fn len(&self) -> usize {
        self.bits.len() as usize
    }

    /// Whether no position is in it.
    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// Number of positions that could be in it.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
}
