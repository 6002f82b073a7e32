//! Cutting: how fast the scan finds the borders of chunks.

use crate::support::{MIB, random, sized};
use criterion::{Criterion, Throughput};
use mirror_engine::chunk::Cutter;
use std::hint::black_box;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk");
    let cutter = Cutter::new(&[7; 32]);
    let bytes = sized(MIB, 64 * MIB);
    group.throughput(Throughput::Bytes(bytes as u64));
    // Random bytes cut near the mean. A run of one byte never cuts: every chunk is scanned to its maximum.
    for (name, data) in [("random", random(1, bytes)), ("zeros", vec![0; bytes])] {
        group.bench_function(name, |bencher| bencher.iter(|| cutter.chunks(black_box(&data)).count()));
    }
    group.finish();
}
