//! Where cuts fall: as computed elsewhere, within the limits, and near a change only.

use super::*;
use crate::vectors::{self, array, bytes};
use std::collections::HashSet;

fn data(seed: &[u8], length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    blake3::Hasher::new().update(seed).finalize_xof().fill(&mut data);
    data
}

fn lengths(cutter: &Cutter, data: &[u8]) -> Vec<usize> {
    cutter.chunks(data).map(<[u8]>::len).collect()
}

#[test]
fn cuts_fall_where_an_independent_implementation_computes_them() {
    let answers = vectors::parse(vectors::CUTS);
    let cutter = Cutter::new(&array(&answers, "gear_key"));
    let data = data(&bytes(&answers, "seed"), answers["length"].as_u64().unwrap() as usize);
    let cuts: Vec<usize> = answers["cuts"].as_array().unwrap().iter().map(|cut| cut.as_u64().unwrap() as usize).collect();
    assert_eq!(lengths(&cutter, &data), cuts);
    let table: Vec<u8> = gear_table(&array(&answers, "gear_key")).iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(*blake3::hash(&table).as_bytes(), array::<32>(&answers, "gear_table_hash"));
}

#[test]
fn chunks_are_all_of_the_data_within_the_limits() {
    let cutter = Cutter::new(&[8; 32]);
    // Around each limit, odd lengths too: the scan takes two bytes at a time.
    let around = [0, 1, CHUNK_BYTES_MIN, CHUNK_BYTES_MEAN, CHUNK_BYTES_MAX].into_iter().flat_map(|at| [at, at + 1, at + 2]);
    for length in around {
        for data in [data(b"random", length), vec![0; length]] {
            let chunks: Vec<&[u8]> = cutter.chunks(&data).collect();
            assert_eq!(chunks.concat(), data);
            assert!(chunks.iter().all(|chunk| (1..=CHUNK_BYTES_MAX).contains(&chunk.len())));
            assert!(chunks.iter().rev().skip(1).all(|chunk| chunk.len() >= CHUNK_BYTES_MIN), "{length}");
        }
    }
}

#[test]
fn what_lies_beyond_the_longest_chunk_is_not_looked_at() {
    let cutter = Cutter::new(&[8; 32]);
    let data = data(b"long", CHUNK_BYTES_MAX + 100_000);
    assert_eq!(cutter.next_cut(&data), cutter.next_cut(&data[..CHUNK_BYTES_MAX]));
}

#[test]
fn an_insertion_moves_the_cuts_near_it_and_no_others() {
    let cutter = Cutter::new(&[8; 32]);
    let before = data(b"what is cut", 12 << 20);
    let mut after = before.clone();
    after.splice(5_000_000..5_000_000, *b"inserted");
    let of = |data: &'_ [u8]| cutter.chunks(data).map(|chunk| *blake3::hash(chunk).as_bytes()).collect::<HashSet<_>>();
    let (before, after) = (of(&before), of(&after));
    assert!(after.difference(&before).count() <= 2, "{} of {} are new", after.difference(&before).count(), after.len());
}

#[test]
fn another_vault_cuts_elsewhere() {
    let data = data(b"what is cut", 12 << 20);
    assert_ne!(lengths(&Cutter::new(&[8; 32]), &data), lengths(&Cutter::new(&[9; 32]), &data));
}
