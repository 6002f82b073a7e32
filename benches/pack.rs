//! Packs: chunks appended until they are durable, and read again as a sender or a restore does.

use crate::support::{FreshStore, KIB, MIB, frames, list_of, random, sized, verified};
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use mirror_engine::{
    bitmap::Bitmap,
    frame::{FrameBuf, Kind},
    id::ChunkId,
};

/// Bytes of a span, as replication asks for them.
const SPAN_BYTES: usize = 256 * KIB;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pack");
    group.sample_size(20);
    // Small ones are gathered in the writer's buffer, large ones go to the system as they lie.
    for (name, frames) in [("4 KiB", frames(sized(16, 8_192), 4 * KIB)), ("1 MiB", frames(sized(2, 32), MIB))] {
        group.throughput(Throughput::Bytes(frames.iter().map(|frame| frame.verified().bytes().len() as u64).sum()));
        bench_append(&mut group, name, &frames);
        bench_spans(&mut group, name, &frames);
        bench_read_frame(&mut group, name, &frames);
    }
    bench_checkpoint(&mut group);
    group.finish();
}

/// Frames in runs of a mebibyte, then one checkpoint for all, into an empty store.
fn bench_append(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, frames: &[FrameBuf]) {
    let runs: Vec<_> = frames.chunks(MIB / frames[0].verified().bytes().len() + 1).map(verified).collect();
    let append = |fresh: FreshStore| {
        let mut writer = fresh.store.writer();
        for run in &runs {
            writer.append_run(run).expect("the disk takes chunks");
        }
        writer.checkpoint().expect("the disk keeps chunks");
        drop(writer);
        fresh
    };
    group.bench_function(format!("append {name}"), |bencher| bencher.iter_batched(FreshStore::new, append, BatchSize::PerIteration));
}

/// The whole list, for sending: located, hashed, handed out from the map.
fn bench_spans(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, frames: &[FrameBuf]) {
    let (held, list) = (FreshStore::holding(frames), list_of(frames));
    let want = Bitmap::full(frames.len());
    let spans = || {
        let spans = held.store.spans(&list, &want, SPAN_BYTES).expect("the index answers");
        assert_eq!(spans.map(|span| span.expect("the pack is there").entries.len()).sum::<usize>(), frames.len());
    };
    group.bench_function(format!("spans {name}"), |bencher| bencher.iter(spans));
}

fn bench_read_frame(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, frames: &[FrameBuf]) {
    let held = FreshStore::holding(frames);
    let ids: Vec<ChunkId> = frames.iter().map(|frame| ChunkId::from_bytes(frame.id())).collect();
    let read = || {
        let found = ids.iter().filter_map(|id| held.store.read_frame(id).expect("the pack is there"));
        assert_eq!(found.count(), ids.len());
    };
    group.bench_function(format!("read one by one {name}"), |bencher| bencher.iter(read));
}

/// One small chunk until it is durable: what every acknowledgement waits for at least.
fn bench_checkpoint(group: &mut BenchmarkGroup<'_, WallTime>) {
    let fresh = FreshStore::new();
    let mut writer = fresh.store.writer();
    let mut next = 0..;
    let mut another = || FrameBuf::new(Kind::Chunk, &random(next.next().unwrap_or_default(), KIB));
    let mut durable = |frame: FrameBuf| {
        writer.append(frame.verified()).expect("the disk takes a chunk");
        writer.checkpoint().expect("the disk keeps a chunk");
    };
    group.throughput(Throughput::Elements(1));
    group.bench_function("checkpoint of one chunk", |bencher| bencher.iter_batched(&mut another, &mut durable, BatchSize::PerIteration));
}
