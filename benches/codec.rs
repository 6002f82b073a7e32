//! Encodings: events signed and checked, bodies, chunk lists, bitmaps.

use crate::support::{VAULT, made_up_list, random, sized};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use mirror_engine::{
    bitmap::Bitmap,
    event::{
        ChunkList, ChunkRef, Content, Event, EventHeader, Frontier, Incarnation, KIND_OPERATIONS, Key, Operation, Value, ValueKind,
        decode_operations, encode_operations,
    },
    id::{ChunkId, PlaintextId},
    keys::DeviceKey,
    limits::{EVENT_OPERATIONS_MAX, LIST_ENTRIES_MAX},
};
use std::hint::black_box;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    bench_event(&mut group);
    bench_operations(&mut group);
    bench_list(&mut group);
    bench_bitmaps(&mut group);
    group.finish();
}

/// With a body of 64 KiB, about what a few hundred small files make.
fn bench_event(group: &mut BenchmarkGroup<'_, WallTime>) {
    let (device, body) = (DeviceKey::from_seed(&[3; 32]), random(1, 64 << 10));
    let header = EventHeader {
        vault: VAULT,
        device: device.id(),
        incarnation: Incarnation([3; 16]),
        sequence: 1,
        lamport: 1,
        previous: None,
        deps: Frontier::new(),
        epoch: 1,
        lists: vec![made_up_list(1, 16).reference()],
        kind: KIND_OPERATIONS,
        body_hash: [0; 32],
        wall_ms: 0,
    };
    let sign = || Event::sign(black_box(header.clone()), &body, &device).expect("a valid header");
    let record = sign().record().to_vec();
    group.throughput(Throughput::Elements(1));
    group.bench_function("event sign", |bencher| bencher.iter(sign));
    group.bench_function("event check", |bencher| {
        bencher.iter_with_setup(|| record.clone(), |record| Event::check(record, &VAULT).expect("a good signature"));
    });
}

fn bench_operations(group: &mut BenchmarkGroup<'_, WallTime>) {
    let operations: Vec<Operation> = (0..sized(16, EVENT_OPERATIONS_MAX as u64)).map(put).collect();
    let body = encode_operations(&operations).expect("as many as are allowed");
    group.throughput(Throughput::Elements(operations.len() as u64));
    group.bench_function("operations encode", |bencher| bencher.iter(|| encode_operations(black_box(&operations))));
    group.bench_function("operations decode", |bencher| {
        bencher.iter(|| assert_eq!(decode_operations(black_box(&body)).map(|read| read.len()), Ok(operations.len())));
    });
}

/// A small file is added.
fn put(seed: u64) -> Operation {
    let ids = random(seed, 64);
    let reference = ChunkRef {
        chunk: ChunkId::from_slice(&ids[..32]).expect("32 bytes"),
        plaintext: PlaintextId::from_slice(&ids[32..]).expect("32 bytes"),
        length: 4_000,
    };
    let content = Content { bytes: 4_000, depth: 0, references: vec![reference] };
    let value = Value { kind: ValueKind::File(0o644), modified_s: 1_790_000_000, modified_ns: seed as u32, content };
    Operation::Put(Key::new(format!("photos/2026/11/image-{seed:08}.jpeg")).expect("a short key"), value)
}

fn bench_list(group: &mut BenchmarkGroup<'_, WallTime>) {
    let list = made_up_list(2, sized(16, LIST_ENTRIES_MAX));
    let record = list.record();
    group.throughput(Throughput::Elements(list.entries().len() as u64));
    group.bench_function("list encode", |bencher| bencher.iter(|| black_box(&list).record()));
    group.bench_function("list decode", |bencher| {
        bencher.iter(|| assert_eq!(ChunkList::from_record(black_box(&record)).map(|read| read.entries().len()), Ok(list.entries().len())));
    });
}

/// All, as of an empty replica; every seventh, as after much deduplication; one run, as after an interruption.
fn bench_bitmaps(group: &mut BenchmarkGroup<'_, WallTime>) {
    let n = sized(64, LIST_ENTRIES_MAX as u32);
    let wants = [
        ("all", Bitmap::full(n as usize)),
        ("scattered", Bitmap::from_positions(n as usize, (0..n).step_by(7))),
        ("a run", Bitmap::from_positions(n as usize, n / 2..n)),
    ];
    group.throughput(Throughput::Elements(u64::from(n)));
    for (name, want) in wants {
        let encoded = want.encode();
        group.bench_function(format!("bitmap encode {name}"), |bencher| bencher.iter(|| black_box(&want).encode()));
        group.bench_function(format!("bitmap decode {name}"), |bencher| {
            bencher.iter(|| assert!(Bitmap::decode(black_box(&encoded), n as usize).is_ok()));
        });
    }
}
