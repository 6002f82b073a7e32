use super::*;
use crate::{
    bitmap::Bitmap,
    event::{Dot, Frontier},
    store::{Depth, DryRun, Location, LostPage, recover},
};
use std::{fs, ops::ControlFlow, os::unix::fs::FileExt};

/// A store with an event of author 1 that names `frames` 0 to 9, and one of author 2 that names 10 to 19.
fn filled() -> (Dir, Store, Vec<FrameBuf>) {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..20);
    for (author, run) in frames.chunks(10).enumerate() {
        let list = put(&store, run);
        Author::new(author as u8 + 1).append(&store, &[list]).unwrap();
    }
    (dir, store, frames)
}

fn place_of(store: &Store, frame: &FrameBuf) -> Location {
    store.locate(&[id_of(frame)]).unwrap()[0].unwrap()
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Flips a bit of the frame's record, and lets the store find it by reading.
fn spoil(dir: &Dir, store: &Store, frame: &FrameBuf) -> Location {
    let place = place_of(store, frame);
    let last = place.offset + u64::from(place.length) - 1;
    write_at(&dir.pack(place.pack), last, &[frame.verified().bytes().last().unwrap() ^ 1]);
    place
}

fn quarantined(dir: &Dir) -> Vec<fs::DirEntry> {
    fs::read_dir(dir.path().join("quarantine")).into_iter().flatten().map(Result::unwrap).collect()
}

/// Positions that are lost, list by list.
fn lost(store: &Store, frames: &[FrameBuf]) -> Vec<usize> {
    let chunks = store.lost_chunks().unwrap();
    (0..frames.len()).filter(|n| chunks.contains(&id_of(&frames[*n]))).collect()
}

#[test]
fn a_store_that_lost_nothing_says_so_without_looking_through_its_lists() {
    let (dir, store, _) = filled();
    assert!(store.is_whole().unwrap());
    // With the log gone nothing could be looked through.
    fs::remove_file(dir.segment(1)).unwrap();
    assert!(store.is_whole().unwrap());
}

#[test]
fn a_damaged_chunk_goes_into_quarantine_is_lost_and_is_whole_again_with_a_good_copy() {
    let (dir, store, frames) = filled();
    spoil(&dir, &store, &frames[3]);
    assert!(matches!(store.read_frame(&id_of(&frames[3])), Err(StoreError::DamagedChunk { .. })));
    assert_eq!(store.read_frame(&id_of(&frames[3])).unwrap(), None, "it is not found again");
    let [kept] = quarantined(&dir).try_into().unwrap();
    assert!(kept.file_name().to_str().unwrap().starts_with(&id_of(&frames[3]).to_string()));
    assert_eq!(fs::read(kept.path()).unwrap().len(), frames[3].verified().bytes().len());
    assert_eq!(lost(&store, &frames), [3]);
    assert!(!store.is_whole().unwrap());
    put(&store, &frames[3..4]);
    assert!(store.is_whole().unwrap());
    assert_eq!(store.read_frame(&id_of(&frames[3])).unwrap().unwrap(), frames[3].verified().bytes());
}

#[test]
fn what_is_lost_is_known_by_the_events_that_name_it() {
    let (dir, store, frames) = filled();
    for n in [3, 12] {
        spoil(&dir, &store, &frames[n]);
        store.quarantine(&[(id_of(&frames[n]), place_of(&store, &frames[n]))]).unwrap();
    }
    assert_eq!(lost(&store, &frames), [3, 12]);
    let knows: Frontier = [Dot { author: Author::new(2).id(), sequence: 1 }].into_iter().collect();
    let within = store.lost_lists(Some(&knows), None, 9).unwrap().lists;
    assert_eq!(within.len(), 1);
    assert_eq!((within[0].list.clone(), within[0].missing.clone()), (list_of(&frames[10..]), Bitmap::from_positions(10, [2])));
    assert_eq!(store.lost_lists(Some(&Frontier::new()), None, 9).unwrap(), LostPage::default());
    let first = store.lost_lists(None, None, 1).unwrap();
    let second = store.lost_lists(None, first.next, 9).unwrap();
    assert_eq!((first.lists.len(), second.lists.len(), second.next), (1, 1, None));
}

#[test]
fn chunks_of_a_pack_that_is_deleted_or_cut_are_lost_with_and_without_an_index() {
    for keep in [None, Some(0), Some(1), Some(2_000)] {
        for with_index in [true, false] {
            let (dir, store, frames) = filled();
            drop(store);
            match keep {
                None => fs::remove_file(dir.pack(1)).unwrap(),
                Some(bytes) => fs::OpenOptions::new().write(true).open(dir.pack(1)).unwrap().set_len(bytes).unwrap(),
            }
            if !with_index {
                dir.remove_index();
            }
            let (store, repairs) = dir.open_mending();
            assert!(repairs.iter().any(|repair| repair.loss), "{keep:?}: {repairs:?}");
            let gone = lost(&store, &frames);
            let held: Vec<usize> = (0..frames.len()).filter(|n| store.read_frame(&id_of(&frames[*n])).unwrap().is_some()).collect();
            assert_eq!([held, gone.clone()].concat(), (0..frames.len()).collect::<Vec<_>>(), "{keep:?} {with_index}");
            assert!(!gone.is_empty());
            put(&store, &frames);
            assert!(store.is_whole().unwrap());
            drop(store);
            assert!(dir.open().is_whole().unwrap());
        }
    }
}

#[test]
fn a_record_of_another_chunk_in_a_chunk_s_place_is_damage_and_the_other_is_not_lost() {
    let (dir, store, _) = filled();
    let pair = [chunk(100, 500), chunk(101, 500)];
    let list = put(&store, &pair);
    Author::new(1).append(&store, std::slice::from_ref(&list)).unwrap();
    let place = place_of(&store, &pair[0]);
    write_at(&dir.pack(place.pack), place.offset, pair[1].verified().bytes());
    let mut spans = store.spans(&list, &Bitmap::full(2), usize::MAX).unwrap();
    let sent: Vec<u8> = spans.by_ref().flat_map(|span| span.unwrap().piece.bytes.to_vec()).collect();
    assert_eq!(sent, pair[1].verified().bytes(), "only the chunk that was asked for");
    assert_eq!(spans.damaged(), [(id_of(&pair[0]), place)]);
    assert_eq!(store.quarantine(spans.damaged()).unwrap(), 1);
    assert_eq!(lost(&store, &pair), [0]);
    put(&store, &pair);
    drop(store);
    dir.remove_index();
    let store = dir.open_mending().0;
    assert!(store.is_whole().unwrap());
    assert_eq!(store.read_frame(&id_of(&pair[1])).unwrap().unwrap(), pair[1].verified().bytes());
}

#[test]
fn a_record_in_quarantine_is_not_found_again_when_the_index_is_rebuilt() {
    let dir = Dir::new();
    let store = dir.open();
    // So long ago that its pack's end, which is hashed when the index is rebuilt, begins behind it.
    let frames = [chunk(0, 500), chunk(1, 500)];
    let list = put(&store, &frames);
    Author::new(1).append(&store, &[list]).unwrap();
    for seed in 0..33 {
        put(&store, &[chunk(1_000 + seed, 4 << 20)]);
    }
    let place = spoil(&dir, &store, &frames[0]);
    assert_eq!(store.quarantine(&[(id_of(&frames[0]), place)]).unwrap(), 1);
    put(&store, &frames[..1]);
    let good = place_of(&store, &frames[0]);
    drop(store);
    dir.remove_index();
    let store = dir.open_mending().0;
    assert_eq!(place_of(&store, &frames[0]), good);
    assert!(store.is_whole().unwrap());
    let report = store.verify(Depth::Data, &|_, _| ControlFlow::Continue(())).unwrap();
    assert!(report.is_clean(), "{report:?}");
    drop(store);
    let repairs = recover(dir.path(), &VAULT, DryRun::No).unwrap();
    assert_eq!(repairs, [], "what lies in quarantine and is here in a good copy needs no repair");
}

#[test]
fn only_what_is_really_damaged_is_put_aside() {
    let (dir, store, frames) = filled();
    let place = place_of(&store, &frames[0]);
    assert_eq!(store.quarantine(&[(id_of(&frames[0]), place)]).unwrap(), 0, "its bytes are right");
    fs::rename(dir.pack(1), dir.path().join("away")).unwrap();
    assert_eq!(store.quarantine(&[(id_of(&frames[0]), place)]).unwrap(), 0, "a disk that is not there is no damage");
    fs::rename(dir.path().join("away"), dir.pack(1)).unwrap();
    assert!(store.is_whole().unwrap() && quarantined(&dir).is_empty());
}
