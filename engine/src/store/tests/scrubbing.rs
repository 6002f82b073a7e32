use super::*;
use crate::store::{Depth, ScrubPlace, ScrubStep};
use std::{fs, ops::ControlFlow, os::unix::fs::FileExt};

/// A store with 40 chunks of about a mebibyte each, so that there are several blocks, named by an event.
fn filled() -> (Dir, Store, Vec<FrameBuf>) {
    let dir = Dir::new();
    let store = dir.open();
    let frames: Vec<FrameBuf> = (0..40).map(|seed| chunk(seed, (1 << 20) - seed as usize)).collect();
    let list = put(&store, &frames);
    Author::new(1).append(&store, &[list]).unwrap();
    (dir, store, frames)
}

fn spoil(dir: &Dir, store: &Store, frame: &FrameBuf, byte: u64) {
    let place = store.locate(&[id_of(frame)]).unwrap()[0].unwrap();
    let file = fs::OpenOptions::new().write(true).open(dir.pack(place.pack)).unwrap();
    file.write_all_at(&[frame.verified().bytes()[byte as usize] ^ 4], place.offset + byte).unwrap();
}

/// All steps, and what could not be mended.
fn scrub(store: &Store, from: ScrubPlace) -> (Vec<ScrubStep>, Vec<String>) {
    let mut steps = Vec::new();
    let report = store.scrub(from, &mut |step| {
        steps.push(step);
        ControlFlow::Continue(())
    });
    (steps, report.unwrap().files.into_iter().map(|(file, what)| format!("{}: {what}", file.display())).collect())
}

fn sum(steps: &[ScrubStep]) -> (u64, u64, u64) {
    steps.iter().fold((0, 0, 0), |(chunks, bytes, damaged), step| (chunks + step.chunks, bytes + step.bytes, damaged + step.damaged))
}

#[test]
fn every_chunk_of_a_whole_store_is_read_once_in_small_steps() {
    let (_dir, store, frames) = filled();
    let (steps, files) = scrub(&store, ScrubPlace::default());
    assert_eq!((sum(&steps), files), ((frames.len() as u64, store.counts().unwrap().bytes, 0), vec![]));
    assert!(steps.len() >= 10 && steps.iter().all(|step| step.bytes <= 6 << 20), "{steps:?}");
    assert!(steps.is_sorted_by_key(|step| step.next) && store.is_whole().unwrap());
}

#[test]
fn damage_of_header_record_or_place_is_quarantined_and_nothing_else_is() {
    let (dir, store, frames) = filled();
    for (n, byte) in [(3, 0), (7, 20), (11, 60), (30, (1 << 20) - 1)] {
        spoil(&dir, &store, &frames[n], byte);
    }
    let (steps, _) = scrub(&store, ScrubPlace::default());
    assert_eq!(sum(&steps).2, 4);
    let lost = store.lost_chunks().unwrap();
    assert!(lost.len() == 4 && [3, 7, 11, 30].iter().all(|n| lost.contains(&id_of(&frames[*n]))));
    assert_eq!(sum(&scrub(&store, ScrubPlace::default()).0), (36, store.counts().unwrap().bytes, 0), "once is enough");
    put(&store, &frames);
    let report = store.verify(Depth::Data, &|_, _| ControlFlow::Continue(())).unwrap();
    assert!(store.is_whole().unwrap() && report.is_clean(), "{report:?}");
}

#[test]
fn a_scrub_that_is_stopped_goes_on_where_it_was_and_misses_nothing() {
    let (dir, store, frames) = filled();
    [5, 35].iter().for_each(|n| spoil(&dir, &store, &frames[*n], 100));
    for stop_after in 1..6 {
        let (mut steps, mut from) = (Vec::new(), ScrubPlace::default());
        let mut left = stop_after;
        while let Err(error) = store.scrub(from, &mut |step| {
            steps.push(step);
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }) {
            assert!(matches!(error, StoreError::Stopped));
            (from, left) = (steps.last().unwrap().next, stop_after);
        }
        let chunks = store.counts().unwrap().chunks + sum(&steps).2;
        assert_eq!(sum(&steps).0, chunks, "after {stop_after}");
    }
    assert_eq!(store.lost_chunks().unwrap().len(), 2);
}

#[test]
fn a_pack_s_header_is_written_anew_and_a_damaged_log_is_named() {
    let (dir, store, _) = filled();
    drop(store);
    let pack = fs::OpenOptions::new().write(true).open(dir.pack(1)).unwrap();
    pack.write_all_at(b"X", 9).unwrap();
    let log = fs::OpenOptions::new().write(true).open(dir.segment(1)).unwrap();
    let (store, _) = dir.open_mending();
    log.write_all_at(b"X", 9).unwrap();
    let (_, files) = scrub(&store, ScrubPlace::default());
    assert_eq!(files, ["log/00000001.seg: its header is damaged"]);
    let report = store.verify(Depth::Structure, &|_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(report.files.len(), 1, "{:?}", report.files);
}
