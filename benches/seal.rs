//! Sealing and opening by size: what cannot be compressed, and what can.

use crate::support::{KIB, MIB, VAULT, random, sized, text};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use mirror_engine::{
    frame::HEADER_BYTES,
    keys::MasterKey,
    seal::{ChunkType, Compression, SealKeys},
};
use std::hint::black_box;

/// Small ones cost by the piece, large ones by the byte; 4 MiB is the longest chunk.
const SIZES: [usize; 4] = [KIB, 64 * KIB, MIB, 4 * MIB];

pub(crate) fn bench(criterion: &mut Criterion) {
    let keys = SealKeys::derive(&MasterKey::from_bytes([9; 32]), &VAULT, 1);
    let mut group = criterion.benchmark_group("seal");
    for bytes in &SIZES[..sized(2, SIZES.len())] {
        group.throughput(Throughput::Bytes(*bytes as u64));
        for (content, plaintext) in [("random", random(1, *bytes)), ("text", text(1, *bytes))] {
            bench_seal(&mut group, BenchmarkId::new(format!("seal {content}"), bytes), &keys, &plaintext);
            bench_open(&mut group, BenchmarkId::new(format!("open {content}"), bytes), &keys, &plaintext);
        }
    }
    group.finish();
}

/// With the buffer used again, as the pipeline does.
fn bench_seal(group: &mut BenchmarkGroup<'_, WallTime>, id: BenchmarkId, keys: &SealKeys, plaintext: &[u8]) {
    let mut buffer = Vec::new();
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            let draft = keys.draft(black_box(plaintext), std::mem::take(&mut buffer));
            buffer = keys.seal(draft, ChunkType::Data, Compression::Auto).frame.into_bytes();
        });
    });
}

fn bench_open(group: &mut BenchmarkGroup<'_, WallTime>, id: BenchmarkId, keys: &SealKeys, plaintext: &[u8]) {
    let sealed = keys.seal(keys.draft(plaintext, Vec::new()), ChunkType::Data, Compression::Auto);
    let (frame, mut opened) = (sealed.frame.into_bytes(), Vec::new());
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            opened.clear();
            keys.open(black_box(&frame[HEADER_BYTES..]), ChunkType::Data, &sealed.reference, &mut opened).expect("its own seal opens");
        });
    });
    assert!(opened.is_empty() || opened == plaintext);
}
