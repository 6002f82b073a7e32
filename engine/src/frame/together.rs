//! BLAKE3 of many short records at once.
//!
//! BLAKE3 is fast because it hashes up to sixteen pieces of 1 KiB side by side in wide registers. A record of 8 KiB has only eight, then
//! four parents, two, one: most lanes stay empty, and a byte of it costs four times what it costs in a long record. Here the lanes are
//! filled with pieces that stand at the same place of different records:
//!
//! ```text
//!            piece 0   piece 1   piece 2
//! record c   ████████  ████████  ███       longest first; one call hashes a column of whole pieces,
//! record a   ████████  ████████            then one call each level of all trees,
//! record b   ████████  ██                  then one call all roots
//! ```
//! Lanes that a column leaves empty repeat its last input: one wide pass costs less than the narrow ones that do without.
//!
//! The result is BLAKE3's, bit for bit ([specification](https://github.com/BLAKE3-team/BLAKE3-specs), 2.4 to 2.6: chunks, tree, root);
//! a test compares lengths around every boundary. The vector code is the `blake3` crate's own, reached through a module that it does
//! not promise to keep, which is why `Cargo.toml` pins its version.

use crate::{id::ID_BYTES, limits::KIB};
use blake3::{BLOCK_LEN, CHUNK_LEN, IncrementCounter, platform::Platform};
use std::{cmp::Reverse, iter};

/// A longer record fills the lanes by itself.
const TOGETHER_BYTES_MAX: usize = 32 * KIB;
/// As few inputs as this are not worth a pass of full width.
const NARROW: usize = 2;
const IV: [u32; 8] = [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19];

type Id = [u8; ID_BYTES];

/// What a compression is told of its place.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    all: u8,
    start: u8,
    end: u8,
}

const CHUNK: Flags = Flags { all: 0, start: 1, end: 2 };
const PARENT: Flags = Flags { all: 4, start: 0, end: 0 };
const ROOT: Flags = Flags { all: 4 | 8, start: 0, end: 0 };

/// BLAKE3 of each of `records`, in their order.
pub(super) fn hash_each(records: &[&[u8]]) -> Vec<Id> {
    let mut ids = vec![[0; ID_BYTES]; records.len()];
    let (mut trees, mut values) = (Vec::with_capacity(records.len()), 0);
    for (position, record) in records.iter().enumerate() {
        if (CHUNK_LEN + 1..=TOGETHER_BYTES_MAX).contains(&record.len()) {
            let count = record.len().div_ceil(CHUNK_LEN);
            trees.push(Tree { position, record, first: values, count });
            values += count;
        } else {
            ids[position] = *blake3::hash(record).as_bytes();
        }
    }
    trees.sort_unstable_by_key(|tree| Reverse(tree.count));
    let mut forest = Forest { platform: Platform::detect(), trees, values: vec![[0; ID_BYTES]; values] };
    forest.hash_pieces();
    while forest.merge_level() {}
    forest.hash_roots(&mut ids);
    ids
}

/// The tree of a record of more than one piece.
struct Tree<'r> {
    position: usize,
    record: &'r [u8],
    /// Where in the forest the chaining values of its lowest level that is not merged yet begin.
    first: usize,
    /// How many there are.
    count: usize,
}

struct Forest<'r> {
    platform: Platform,
    /// Those with more pieces first.
    trees: Vec<Tree<'r>>,
    values: Vec<Id>,
}

impl Forest<'_> {
    fn hash_pieces(&mut self) {
        let columns = self.trees.first().map_or(0, |tree| tree.count);
        let (mut inputs, mut places) = (Vec::new(), Vec::new());
        for column in 0..columns {
            inputs.clear();
            places.clear();
            for tree in self.trees.iter().take_while(|tree| tree.count > column) {
                let rest = &tree.record[column * CHUNK_LEN..];
                match rest.first_chunk::<CHUNK_LEN>() {
                    Some(piece) => {
                        inputs.push(piece);
                        places.push(tree.first + column);
                    }
                    None => self.values[tree.first + column] = self.hash_last_piece(rest, column as u64),
                }
            }
            let values = self.hash_wide(&mut inputs, column as u64, CHUNK);
            for (place, value) in places.iter().zip(values) {
                self.values[*place] = value;
            }
        }
    }

    /// The chaining value of a record's last piece, which is not whole.
    fn hash_last_piece(&self, piece: &[u8], column: u64) -> Id {
        let mut value = IV;
        let last = piece.len().div_ceil(BLOCK_LEN) - 1;
        for (number, bytes) in piece.chunks(BLOCK_LEN).enumerate() {
            let mut block = [0; BLOCK_LEN];
            block[..bytes.len()].copy_from_slice(bytes);
            let start = if number == 0 { CHUNK.start } else { 0 };
            let end = if number == last { CHUNK.end } else { 0 };
            self.platform.compress_in_place(&mut value, &block, bytes.len() as u8, column, start | end);
        }
        let mut bytes = [0; ID_BYTES];
        bytes.as_chunks_mut().0.iter_mut().zip(value).for_each(|(to, word)| *to = word.to_le_bytes());
        bytes
    }

    /// Merges neighbours in every tree that has more than two values left; whether there was one. A value without a neighbour goes up
    /// as it is, which makes the left part of every tree as large as BLAKE3 wants it.
    fn merge_level(&mut self) -> bool {
        let mut pairs: Vec<&[u8; BLOCK_LEN]> = Vec::new();
        for tree in self.trees.iter().take_while(|tree| tree.count > 2) {
            pairs.extend(self.values[tree.first..tree.first + tree.count].as_flattened().as_chunks().0);
        }
        let mut parents = self.hash_wide(&mut pairs, 0, PARENT).into_iter();
        for tree in self.trees.iter_mut().take_while(|tree| tree.count > 2) {
            let (values, merged) = (&mut self.values[tree.first..tree.first + tree.count], tree.count / 2);
            values[..merged].iter_mut().zip(&mut parents).for_each(|(value, parent)| *value = parent);
            values[merged] = values[tree.count - 1];
            tree.count = tree.count.div_ceil(2);
        }
        self.trees.first().is_some_and(|tree| tree.count > 2)
    }

    fn hash_roots(&self, ids: &mut [Id]) {
        let pair = |tree: &Tree<'_>| self.values[tree.first..].as_flattened().first_chunk();
        let mut pairs: Vec<&[u8; BLOCK_LEN]> = self.trees.iter().filter_map(pair).collect();
        for (tree, id) in self.trees.iter().zip(self.hash_wide(&mut pairs, 0, ROOT)) {
            ids[tree.position] = id;
        }
    }

    /// Hashes each of `inputs`, which lose their last ones' loneliness: see the module. Returns at least as many values.
    fn hash_wide<const N: usize>(&self, inputs: &mut Vec<&[u8; N]>, counter: u64, flags: Flags) -> Vec<Id> {
        let lanes = self.platform.simd_degree();
        if let Some(last) = inputs.last().copied().filter(|_| inputs.len() % lanes > NARROW) {
            let empty = inputs.len().next_multiple_of(lanes) - inputs.len();
            inputs.extend(iter::repeat_n(last, empty));
        }
        let mut values = vec![[0; ID_BYTES]; inputs.len()];
        let Flags { all, start, end } = flags;
        self.platform.hash_many(inputs, &IV, counter, IncrementCounter::No, all, start, end, values.as_flattened_mut());
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around every block, piece, power of two of pieces, and both ends of what is hashed together.
    fn lengths() -> Vec<usize> {
        let edges = (0..=34).map(|piece| piece * CHUNK_LEN).chain([BLOCK_LEN, CHUNK_LEN + BLOCK_LEN, 4 * CHUNK_LEN + BLOCK_LEN]);
        edges.flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1]).collect()
    }

    #[test]
    fn records_hash_together_to_what_each_hashes_to_alone() {
        let bytes: Vec<u8> = (0..40 * CHUNK_LEN as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
        let records: Vec<&[u8]> = lengths().into_iter().enumerate().map(|(start, length)| &bytes[start..start + length]).collect();
        let alone = |record: &&[u8]| *blake3::hash(record).as_bytes();
        for together in [1, 2, 3, 16, 17, records.len()] {
            for records in records.chunks(together) {
                assert_eq!(hash_each(records), records.iter().map(alone).collect::<Vec<_>>(), "{together} together");
            }
        }
    }

    #[test]
    fn nothing_hashes_to_nothing() {
        assert_eq!(hash_each(&[]), Vec::<Id>::new());
    }
}
