use super::*;
use crate::store::{Depth, StoreReport};
use std::{fs, ops::ControlFlow};

fn verify(store: &Store, depth: Depth) -> StoreReport {
    store.verify(depth, &|_, _| ControlFlow::Continue(())).unwrap()
}

/// A store with 40 chunks in two packs, named by an event.
fn filled() -> (Dir, Store, Vec<FrameBuf>) {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..40);
    let mut first = store.writer();
    first.append_run(&verified(&frames[..20])).unwrap();
    put(&store, &frames[20..]);
    first.flush().unwrap();
    let mut second = store.writer();
    second.append_run(&verified(&frames[..20])).unwrap();
    first.checkpoint().unwrap();
    second.checkpoint().unwrap();
    Author::new(1).append(&store, &[list_of(&frames)]).unwrap();
    drop((first, second));
    (dir, store, frames)
}

#[test]
fn a_whole_store_is_clean_at_any_depth() {
    let (_dir, store, frames) = filled();
    for depth in [Depth::Structure, Depth::Data] {
        let report = verify(&store, depth);
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.chunks, report.bytes), (frames.len() as u64, store.counts().unwrap().bytes));
    }
}

#[test]
fn every_flipped_byte_of_a_frame_is_found() {
    let (dir, store, frames) = filled();
    let place = store.locate(&[id_of(&frames[30])]).unwrap()[0].unwrap();
    let path = dir.pack(place.pack);
    let whole = fs::read(&path).unwrap();
    for at in [0, 3, 4, 9, 13, 20, 47, 48, place.length as usize - 1] {
        let mut bytes = whole.clone();
        bytes[place.offset as usize + at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let report = verify(&dir.open(), Depth::Data);
        assert_eq!(report.damaged.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id_of(&frames[30])], "byte {at}");
        assert_eq!((report.chunks, report.missing.len()), (39, 0));
        let in_header = at < 48;
        assert_eq!(verify(&dir.open(), Depth::Structure).damaged.len(), usize::from(in_header), "byte {at}");
    }
}

#[test]
fn a_pack_that_vanishes_under_an_open_store_is_named_with_its_chunks() {
    let (dir, store, frames) = filled();
    let place = store.locate(&[id_of(&frames[0])]).unwrap()[0].unwrap();
    let lost = frames.iter().filter(|frame| store.locate(&[id_of(frame)]).unwrap()[0].unwrap().pack == place.pack).count();
    fs::remove_file(dir.pack(place.pack)).unwrap();
    let report = verify(&store, Depth::Structure);
    assert_eq!((report.missing.len(), report.damaged.len(), report.files.len()), (lost, 0, 1));
    let reopened = dir.open_mending().0;
    assert_eq!(verify(&reopened, Depth::Data).missing.len(), lost, "and still missing once the index has forgotten them");
}

#[test]
fn a_truncated_pack_and_a_damaged_log_are_named() {
    let (dir, store, frames) = filled();
    let place = store.locate(&[id_of(&frames[39])]).unwrap()[0].unwrap();
    fs::OpenOptions::new().write(true).open(dir.pack(place.pack)).unwrap().set_len(place.offset + 10).unwrap();
    let mut log = fs::read(dir.segment(1)).unwrap();
    let last = log.len() - 1;
    log[last] ^= 1;
    log[20] ^= 1;
    fs::write(dir.segment(1), log).unwrap();
    let report = verify(&store, Depth::Structure);
    assert!(report.missing.contains(&id_of(&frames[39])));
    assert_eq!(report.files.len(), 3, "{:?}", report.files);
}

#[test]
fn verification_stops_when_told() {
    let (_dir, store, _) = filled();
    assert!(matches!(store.verify(Depth::Data, &|_, _| ControlFlow::Break(())), Err(StoreError::Stopped)));
}
