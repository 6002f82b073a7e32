//! Finding out what is missing: by frontier, and by chunk where there is a list.

use crate::support::{FreshStore, frames, list_of, made_up_list, random, sized};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use mirror_engine::{
    bitmap::Bitmap,
    event::{ChunkList, Dot, Frontier},
    id::{ChunkId, ReplicaId},
    limits::{FRONTIER_AUTHORS_MAX, LIST_ENTRIES_MAX},
    session::Wants,
};
use std::hint::black_box;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reconcile");
    bench_frontiers(&mut group);
    bench_lists(&mut group);
    bench_wants(&mut group);
    group.finish();
}

/// Two replicas that both know as many authors as may be, each ahead of the other at every second.
fn bench_frontiers(group: &mut BenchmarkGroup<'_, WallTime>) {
    let authors: Vec<ReplicaId> =
        (0..sized(16, FRONTIER_AUTHORS_MAX as u64)).filter_map(|n| ReplicaId::from_slice(&random(n, 32))).collect();
    let ahead_at = |parity: usize| -> Frontier {
        let sequence = |nth: usize| if nth % 2 == parity { 1_000 } else { 900 };
        authors.iter().enumerate().map(|(nth, author)| Dot { author: *author, sequence: sequence(nth) }).collect()
    };
    let (ours, theirs) = (ahead_at(0), ahead_at(1));
    group.throughput(Throughput::Elements(authors.len() as u64));
    group.bench_function("frontier difference", |bencher| {
        bencher.iter(|| assert_eq!(black_box(&ours).events_beyond(&theirs), authors.len().div_ceil(2) as u64 * 100));
    });
}

/// A full list against a store that has every second of its chunks.
fn bench_lists(group: &mut BenchmarkGroup<'_, WallTime>) {
    let frames = frames(sized(32, LIST_ENTRIES_MAX), 100);
    let (held, list) = (FreshStore::holding(&frames[frames.len() / 2..]), list_of(&frames));
    let ids: Vec<ChunkId> = list.entries().iter().map(|entry| entry.id).collect();
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("missing, half is here", |bencher| {
        bencher.iter(|| assert_eq!(held.store.missing(&list).map(|missing| missing.len()).ok(), Some(ids.len() / 2)));
    });
    group.bench_function("missing, nothing is here", |bencher| {
        let other = made_up_list(5, ids.len());
        bencher.iter(|| assert!(held.store.missing(&other).is_ok_and(|missing| missing.is_full())));
    });
    group.bench_function("locate", |bencher| bencher.iter(|| held.store.locate(black_box(&ids)).expect("the index answers")));
}

/// Every chunk of a list expected, then arrived.
fn bench_wants(group: &mut BenchmarkGroup<'_, WallTime>) {
    let list = made_up_list(6, sized(32, LIST_ENTRIES_MAX));
    let (id, want) = (list.id(), Bitmap::full(list.entries().len()));
    group.bench_function("wants expected and met", |bencher| {
        bencher.iter(|| {
            let mut wants = Wants::new();
            wants.expect(id, &list, &want);
            meet(&mut wants, &list);
            assert_eq!(wants.outstanding_chunks(), 0);
        });
    });
}

fn meet(wants: &mut Wants, list: &ChunkList) {
    for entry in list.entries() {
        black_box(wants.arrived(&entry.id, entry.length));
    }
}
