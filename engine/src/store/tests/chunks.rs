use super::*;
use crate::{
    bitmap::Bitmap,
    store::{Appended, Spans, pack::OVERLAY_ENTRIES_MAX},
};

#[test]
fn what_was_appended_is_read_back_at_once_and_after_reopening() {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..200);
    let mut writer = store.writer();
    assert!(writer.append_run(&verified(&frames)).unwrap().iter().all(|appended| *appended == Appended::New));
    writer.flush().unwrap();
    assert_eq!(store.counts().unwrap().chunks, 0, "not durable yet");
    assert_eq!(store.read_frame(&id_of(&frames[7])).unwrap().unwrap(), frames[7].verified().bytes());
    writer.checkpoint().unwrap();
    assert_eq!(store.counts().unwrap().chunks, 200);
    drop((writer, store));
    let store = dir.open();
    for frame in &frames {
        assert_eq!(store.read_frame(&id_of(frame)).unwrap().unwrap(), frame.verified().bytes());
    }
    let bytes: usize = frames.iter().map(|frame| frame.verified().bytes().len()).sum();
    assert_eq!(store.counts().unwrap().bytes, bytes as u64);
    assert!(store.missing(&list_of(&frames)).unwrap().is_empty());
}

#[test]
fn a_chunk_is_stored_once() {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..3);
    let mut writer = store.writer();
    assert_eq!(writer.append(frames[0].verified()).unwrap(), Appended::New);
    assert_eq!(writer.append(frames[0].verified()).unwrap(), Appended::Present, "buffered");
    writer.flush().unwrap();
    assert_eq!(writer.append(frames[0].verified()).unwrap(), Appended::Present, "written");
    writer.checkpoint().unwrap();
    assert_eq!(writer.append(frames[0].verified()).unwrap(), Appended::Present, "published");
    let run = [frames[1].verified(), frames[1].verified()];
    assert_eq!(writer.append_run(&run).unwrap(), [Appended::New, Appended::Present], "twice in a run");
    writer.checkpoint().unwrap();
    assert_eq!(store.counts().unwrap().chunks, 2);
}

#[test]
fn chunks_that_were_missing_are_stored_once_whoever_publishes_them_meanwhile() {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..3);
    let (mut writer, mut other) = (store.writer(), store.writer());
    let looked = writer.looks();
    assert_eq!(writer.append_missing(&verified(&frames[..1]), looked).unwrap(), [Appended::New]);
    writer.checkpoint().unwrap();
    assert_eq!(writer.looks(), looked, "its own publication is none of another");
    other.append(frames[1].verified()).unwrap();
    other.flush().unwrap();
    assert_eq!(writer.append_missing(&verified(&frames[1..2]), looked).unwrap(), [Appended::Present], "written by another");
    other.checkpoint().unwrap();
    assert_ne!(writer.looks(), looked);
    assert_eq!(writer.append_missing(&verified(&frames[1..]), looked).unwrap(), [Appended::Present, Appended::New], "published by another");
}

#[test]
fn a_publication_of_another_process_is_noticed_with_the_next_checkpoint() {
    let dir = Dir::new();
    let (store, elsewhere) = (dir.open(), dir.open());
    let frames = chunks(0..3);
    let mut writer = store.writer();
    let start = writer.looks();
    writer.append(frames[0].verified()).unwrap();
    writer.checkpoint().unwrap();
    assert_eq!(writer.looks(), start);
    put(&elsewhere, &frames[1..2]);
    writer.append(frames[2].verified()).unwrap();
    writer.checkpoint().unwrap();
    assert_ne!(writer.looks(), start);
}

#[test]
fn a_run_longer_than_the_buffer_is_written_as_it_lies() {
    let dir = Dir::new();
    let store = dir.open();
    let frames: Vec<_> = (0..6).map(|seed| chunk(seed, 700_000)).collect();
    let list = put(&store, &frames);
    assert!(store.missing(&list).unwrap().is_empty());
    assert_eq!(store.read_frame(&id_of(&frames[5])).unwrap().unwrap(), frames[5].verified().bytes());
}

#[test]
fn two_writers_work_at_once_each_in_its_own_pack() {
    let dir = Dir::new();
    let (one, two) = (dir.open(), dir.open());
    let (left, right) = (chunks(0..300), chunks(300..600));
    let both_have_begun = &std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for (store, frames) in [(&one, &left), (&two, &right)] {
            scope.spawn(move || {
                let mut writer = store.writer();
                for (turn, run) in frames.chunks(50).enumerate() {
                    writer.append_run(&verified(run)).unwrap();
                    if turn == 0 {
                        both_have_begun.wait();
                    }
                    writer.checkpoint().unwrap();
                }
            });
        }
    });
    for store in [&one, &two] {
        for frames in [&left, &right] {
            assert!(store.missing(&list_of(frames)).unwrap().is_empty());
        }
        assert_eq!(store.read_frame(&id_of(&right[9])).unwrap().unwrap(), right[9].verified().bytes());
    }
    assert!(dir.pack(2).exists() && !dir.pack(3).exists());
}

#[test]
fn a_pack_is_used_again_by_the_next_writer() {
    let dir = Dir::new();
    let store = dir.open();
    put(&store, &chunks(0..5));
    put(&store, &chunks(5..9));
    assert!(!dir.pack(2).exists());
    assert_eq!(store.counts().unwrap().chunks, 9);
}

#[test]
fn a_writer_that_is_dropped_leaves_what_the_next_one_checks_and_adopts() {
    let dir = Dir::new();
    let store = dir.open();
    put(&store, &chunks(0..2));
    let abandoned = chunks(2..5);
    let mut writer = store.writer();
    writer.append_run(&verified(&abandoned)).unwrap();
    writer.flush().unwrap();
    drop(writer);
    assert_eq!(store.missing(&list_of(&abandoned)).unwrap().len(), 3);
    put(&store, &chunks(5..6));
    assert!(store.missing(&list_of(&abandoned)).unwrap().is_empty());
    assert_eq!(store.counts().unwrap().chunks, 6);
}

#[test]
fn damage_is_found_when_a_chunk_is_read() {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..3);
    put(&store, &frames);
    let place = store.locate(&[id_of(&frames[1])]).unwrap()[0].unwrap();
    flip(&dir.pack(1), place.offset + 60);
    assert!(
        matches!(store.read_frame(&id_of(&frames[1])), Err(StoreError::DamagedChunk { pack: 1, offset, .. }) if offset == place.offset)
    );
    assert!(store.read_frame(&id_of(&frames[2])).unwrap().is_some());
    assert_eq!(store.missing(&list_of(&frames)).unwrap().iter().collect::<Vec<_>>(), [1]);
    put(&store, &frames);
    assert_eq!(store.read_frame(&id_of(&frames[1])).unwrap().unwrap(), frames[1].verified().bytes(), "healed by a good copy");
}

fn flip(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// Entries and bytes of all spans.
fn drain(spans: &mut Spans) -> (Vec<u32>, Vec<u8>, usize) {
    let (mut entries, mut bytes, mut count) = (Vec::new(), Vec::new(), 0);
    for span in spans {
        let span = span.unwrap();
        entries.extend(span.entries);
        bytes.extend_from_slice(&span.piece.bytes);
        count += 1;
    }
    (entries, bytes, count)
}

#[test]
fn neighbouring_frames_become_one_span() {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..50);
    let list = put(&store, &frames);
    let all: Vec<u8> = frames.iter().flat_map(|frame| frame.verified().bytes().to_vec()).collect();
    let (entries, bytes, count) = drain(&mut store.spans(&list, &Bitmap::full(50), usize::MAX).unwrap());
    assert_eq!((entries, count), ((0..50).collect(), 1));
    assert_eq!(bytes, all);
    let want = Bitmap::from_positions(50, [3, 4, 9]);
    let (entries, _, count) = drain(&mut store.spans(&list, &want, usize::MAX).unwrap());
    assert_eq!((entries, count), (vec![3, 4, 9], 2));
    let mut bounded = store.spans(&list, &Bitmap::full(50), 4_000).unwrap();
    assert!(bounded.all(|span| span.as_ref().is_ok_and(|span| span.piece.bytes.len() <= 4_000 || span.entries.len() == 1)));
}

#[test]
fn damaged_and_absent_chunks_are_left_out_of_spans_and_named() {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..10);
    let list = list_of(&frames);
    put(&store, &frames[..8]);
    let place = store.locate(&[id_of(&frames[4])]).unwrap()[0].unwrap();
    flip(&dir.pack(1), place.offset + 50);
    let mut spans = store.spans(&list, &Bitmap::full(10), usize::MAX).unwrap();
    let (entries, ..) = drain(&mut spans);
    assert_eq!(entries, [0, 1, 2, 3, 5, 6, 7]);
    assert_eq!(spans.unavailable().iter().collect::<Vec<_>>(), [4, 8, 9]);
}

#[test]
fn a_pack_truncated_under_its_map_costs_only_what_was_cut() {
    let dir = Dir::new();
    let store = dir.open();
    let frames: Vec<_> = (0..20).map(|seed| chunk(seed, 10_000)).collect();
    let list = put(&store, &frames);
    assert!(store.read_frame(&id_of(&frames[19])).unwrap().is_some(), "mapped now");
    let half = store.locate(&[id_of(&frames[10])]).unwrap()[0].unwrap().offset;
    std::fs::OpenOptions::new().write(true).open(dir.pack(1)).unwrap().set_len(half + 5).unwrap();
    let mut spans = store.spans(&list, &Bitmap::full(20), usize::MAX).unwrap();
    let (entries, ..) = drain(&mut spans);
    assert_eq!(entries, (0..10).collect::<Vec<_>>());
    assert_eq!(spans.unavailable().len(), 10);
    assert!(matches!(store.read_frame(&id_of(&frames[15])), Err(StoreError::DamagedChunk { .. })));
    std::fs::remove_file(dir.pack(1)).unwrap();
    let other = dir.open_mending().0;
    assert!(other.spans(&list, &Bitmap::full(20), usize::MAX).unwrap().next().is_none());
}

#[test]
fn chunks_that_are_not_published_stay_bounded() {
    let dir = Dir::new();
    let store = dir.open();
    let frames: Vec<_> = (0..OVERLAY_ENTRIES_MAX as u64 + 10).map(|seed| chunk(seed, 8)).collect();
    let mut writer = store.writer();
    writer.append_run(&verified(&frames)).unwrap();
    assert_eq!(store.counts().unwrap().chunks, frames.len() as u64, "the writer checkpointed by itself");
}

#[test]
fn what_another_writer_has_not_made_durable_can_be_taken_over() {
    let dir = Dir::new();
    let (store, frames) = (dir.open(), chunks(0..3));
    let list = list_of(&frames);
    let mut slow = store.writer();
    slow.append_run(&verified(&frames)).unwrap();
    slow.flush().unwrap();
    assert!(store.missing(&list).unwrap().is_empty(), "it can be read");
    assert!(matches!(Author::new(1).append(&store, std::slice::from_ref(&list)), Err(StoreError::MissingChunks { .. })));
    let mut writer = store.writer();
    writer.take_over(&list.entries().iter().map(|entry| entry.id).collect::<Vec<_>>()).unwrap();
    writer.checkpoint().unwrap();
    Author::new(1).append(&store, std::slice::from_ref(&list)).unwrap();
    slow.checkpoint().unwrap();
    drop((slow, writer, store));
    let store = dir.open();
    assert!(store.missing(&list).unwrap().is_empty());
    assert_eq!(store.counts().unwrap().chunks, 3);
}
