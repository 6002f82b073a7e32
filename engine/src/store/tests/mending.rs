use super::*;
use crate::{
    bitmap::Bitmap,
    store::{Depth, DryRun, recover},
};
use std::{fs, ops::ControlFlow};

/// Three rounds of five chunks and an event of each of two authors.
fn filled() -> (Dir, Vec<FrameBuf>) {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..15);
    for run in frames.chunks(5) {
        let list = put(&store, run);
        Author::new(1).append(&store, &[list]).unwrap();
        Author::new(2).append(&store, &[]).unwrap();
    }
    drop(store);
    (dir, frames)
}

fn cut(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn append_bytes(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn assert_whole(store: &Store, frames: &[FrameBuf]) {
    for frame in frames {
        assert_eq!(store.read_frame(&id_of(frame)).unwrap().unwrap(), frame.verified().bytes());
    }
    assert_eq!(store.counts().unwrap().chunks, frames.len() as u64);
    assert_eq!(store.frontier().iter().map(|(_, sequence)| sequence).collect::<Vec<_>>(), [3, 3]);
}

#[test]
fn a_new_vault_needs_no_mending_and_an_old_one_neither() {
    let (dir, frames) = filled();
    assert_whole(&dir.open(), &frames);
    assert!(dir.open().root() == dir.open().root());
    assert!(Store::create(dir.path(), &VAULT).is_err(), "there is one already");
}

#[test]
fn an_index_that_is_gone_or_garbage_is_rebuilt_with_the_same_content() {
    let (dir, frames) = filled();
    let (root, counts) = { (dir.open().root(), dir.open().counts().unwrap()) };
    let other_vault = tempfile::tempdir().unwrap();
    let other = VaultId::from_bytes([1; 32]);
    Store::create(other_vault.path(), &other).unwrap();
    drop(Store::open(other_vault.path(), &other).unwrap());
    let foreign = fs::read(other_vault.path().join("index.db")).unwrap();
    for index in [None, Some(vec![]), Some(vec![0xA5; 20_000]), Some(foreign)] {
        dir.remove_index();
        if let Some(bytes) = &index {
            fs::write(dir.path().join("index.db"), bytes).unwrap();
        }
        let (store, repairs) = dir.open_mending();
        assert!(matches!(&repairs[..], [repair] if repair.file == Path::new("index.db") && !repair.loss), "{repairs:?}");
        assert_eq!((store.root(), store.counts().unwrap()), (root, counts));
        assert_whole(&store, &frames);
        drop(store);
        assert_whole(&dir.open(), &frames);
    }
}

#[test]
fn an_old_copy_of_the_index_catches_up() {
    let dir = Dir::new();
    let frames = chunks(0..15);
    let old = {
        let store = dir.open();
        Author::new(1).append(&store, &[put(&store, &frames[..5])]).unwrap();
        drop(store);
        fs::read(dir.path().join("index.db")).unwrap()
    };
    let store = dir.open();
    Author::new(1).append(&store, &[put(&store, &frames[5..])]).unwrap();
    let root = store.root();
    drop(store);
    dir.remove_index();
    fs::write(dir.path().join("index.db"), old).unwrap();
    let store = dir.open();
    assert_eq!((store.root(), store.counts().unwrap().chunks), (root, 15));
}

/// What a file system leaves that had made the file longer and had not written what was to be there.
#[test]
fn a_pack_or_log_that_grew_and_was_not_written_opens_at_its_last_record() {
    let (dir, frames) = filled();
    let (pack, log) = (length(&dir.pack(1)), length(&dir.segment(1)));
    append_bytes(&dir.pack(1), &[0; 8_192]);
    append_bytes(&dir.segment(1), &[0; 8_192]);
    let (store, repairs) = dir.open_mending();
    assert!(repairs.len() == 2 && repairs.iter().all(|repair| !repair.loss), "{repairs:?}");
    assert_eq!((length(&dir.pack(1)), length(&dir.segment(1))), (pack, log));
    assert_whole(&store, &frames);
    let more = put(&store, &chunks(100..105));
    Author::new(1).append(&store, &[more]).unwrap();
    drop(store);
    assert_eq!(dir.open().counts().unwrap().chunks, frames.len() as u64 + 5);
}

#[test]
fn a_torn_tail_is_dropped_and_reported() {
    let (dir, frames) = filled();
    let (pack, log) = (length(&dir.pack(1)), length(&dir.segment(1)));
    append_bytes(&dir.pack(1), &chunk(99, 500).into_bytes()[..300]);
    append_bytes(&dir.segment(1), &Author::new(3).sign(&first_slot(), &[], b"torn").to_frame().into_bytes()[..100]);
    let (store, repairs) = dir.open_mending();
    let files: Vec<_> = repairs.iter().map(|repair| repair.file.to_str().unwrap()).collect();
    assert_eq!(files, ["packs/00000001.pack", "log/00000001.seg"]);
    assert!(repairs.iter().all(|repair| repair.what.contains("torn") && !repair.loss));
    assert_eq!((length(&dir.pack(1)), length(&dir.segment(1))), (pack, log));
    assert_whole(&store, &frames);
    drop(store);
    dir.open();
}

#[test]
fn every_prefix_of_a_pack_opens_with_the_whole_chunks_in_it() {
    let (dir, frames) = filled();
    let whole = fs::read(dir.pack(1)).unwrap();
    let step = whole.len() / 60;
    for end in (0..whole.len()).step_by(step).chain([1, 63, 64, 65, whole.len() - 1]) {
        for with_index in [true, false] {
            fs::write(dir.pack(1), &whole).unwrap();
            dir.remove_index();
            drop(dir.open_mending());
            cut(&dir.pack(1), end as u64);
            if !with_index {
                dir.remove_index();
            }
            let (store, repairs) = dir.open_mending();
            assert!(repairs.iter().any(|repair| repair.loss), "at {end}: {repairs:?}");
            let mut at = 64;
            for frame in &frames {
                at += frame.verified().bytes().len();
                assert_eq!(store.read_frame(&id_of(frame)).unwrap().is_some(), at <= end, "at {end}");
            }
            assert_eq!(store.frontier().iter().count(), 2, "events are not lost with a pack");
            drop(store);
            put(&dir.open_mending().0, &frames);
            let again = dir.open();
            assert_whole(&again, &frames);
            drop(again);
            let _ = fs::remove_file(dir.pack(2));
        }
    }
}

#[test]
fn every_prefix_of_the_log_opens_and_what_was_acknowledged_is_missed_aloud() {
    let (dir, _) = filled();
    let whole = fs::read(dir.segment(1)).unwrap();
    for end in (0..whole.len()).step_by(whole.len() / 60) {
        fs::write(dir.segment(1), &whole[..end]).unwrap();
        let (store, repairs) = dir.open_mending();
        assert!(repairs.iter().any(|repair| repair.loss && repair.file == Path::new("heads")), "at {end}: {repairs:?}");
        let held = store.frontier();
        assert!(held.iter().all(|(_, sequence)| sequence <= 3) && held != store.accepted().frontier());
        drop(store);
        let again = dir.open_mending().1;
        assert!(again.iter().all(|repair| repair.file == Path::new("heads")), "nothing else is left to do at {end}: {again:?}");
    }
}

#[test]
fn lost_events_come_back_from_a_peer_and_the_author_does_not_fork_meanwhile() {
    let (dir, _) = filled();
    let events = all_events(&dir.open());
    let root = dir.open().root();
    cut(&dir.segment(1), 900);
    let (store, _) = dir.open_mending();
    let error = Author::new(1).append(&store, &[]).unwrap_err();
    assert!(matches!(error, StoreError::Rollback { accepted: 3, .. }), "{error}");
    assert!(!store.append_foreign(&events).unwrap().is_empty());
    assert_eq!(store.root(), root);
    Author::new(1).append(&store, &[]).unwrap();
    drop(store);
    dir.open();
}

#[test]
fn damage_in_the_middle_of_the_log_costs_what_follows_it_until_a_peer_gives_it_back() {
    let (dir, _) = filled();
    let events = all_events(&dir.open());
    let root = dir.open().root();
    let mut bytes = fs::read(dir.segment(1)).unwrap();
    bytes[900] ^= 1;
    fs::write(dir.segment(1), &bytes).unwrap();
    dir.remove_index();
    let (store, repairs) = dir.open_mending();
    assert!(repairs.iter().any(|repair| repair.what.contains("are damaged")) && repairs.iter().any(|repair| repair.loss), "{repairs:?}");
    assert_ne!(store.root(), root);
    store.append_foreign(&events).unwrap();
    assert_eq!(store.root(), root);
    drop(store);
    dir.remove_index();
    let (store, repairs) = dir.open_mending();
    assert_eq!(store.root(), root, "the same from the log alone");
    assert!(!repairs.iter().any(|repair| repair.loss), "{repairs:?}");
    assert_eq!(fs::read(dir.segment(1)).unwrap()[..bytes.len()], bytes, "what is damaged in the middle is left as it is");
}

#[test]
fn a_missing_pack_is_named_and_the_others_serve() {
    let dir = Dir::new();
    let store = dir.open();
    let (left, right) = (chunks(0..5), chunks(5..10));
    let mut writer = store.writer();
    writer.append_run(&verified(&left)).unwrap();
    writer.flush().unwrap();
    put(&store, &right);
    writer.checkpoint().unwrap();
    let gone = store.locate(&[id_of(&left[0])]).unwrap()[0].unwrap().pack;
    drop((writer, store));
    fs::remove_file(dir.pack(gone)).unwrap();
    let (store, repairs) = dir.open_mending();
    assert!(matches!(&repairs[..], [Repair { loss: true, what, .. }] if what.contains("5 chunks")), "{repairs:?}");
    assert_eq!(store.missing(&list_of(&left)).unwrap(), Bitmap::full(5), "so that they are asked for again");
    assert!(store.missing(&list_of(&right)).unwrap().is_empty());
    put(&store, &left);
    assert_eq!(store.counts().unwrap().chunks, 10);
}

#[test]
fn an_incomplete_directory_is_never_an_empty_vault() {
    for name in ["packs", "log"] {
        let (dir, _) = filled();
        fs::remove_dir_all(dir.path().join(name)).unwrap();
        let error = Store::open(dir.path(), &VAULT).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged(what) if what.contains("is missing")), "{error}");
        assert!(recover(dir.path(), &VAULT, DryRun::No).is_err());
    }
}

#[test]
fn a_deleted_log_segment_is_named() {
    let (dir, _) = filled();
    fs::remove_file(dir.segment(1)).unwrap();
    let (store, repairs) = dir.open_mending();
    assert!(repairs.iter().any(|repair| repair.loss && repair.file == Path::new("log/00000001.seg")), "{repairs:?}");
    assert!(store.heads().0.is_empty() && store.accepted().0.len() == 2);
}

#[test]
fn heads_that_are_gone_are_made_anew_from_the_log() {
    let (dir, frames) = filled();
    for damage in [None, Some(vec![]), Some(vec![7; 300])] {
        match damage {
            None => fs::remove_file(dir.path().join("heads")).unwrap(),
            Some(bytes) => fs::write(dir.path().join("heads"), bytes).unwrap(),
        }
        let (store, repairs) = dir.open_mending();
        assert!(matches!(&repairs[..], [repair] if repair.file == Path::new("heads")), "{repairs:?}");
        assert_whole(&store, &frames);
        drop(store);
        dir.open();
    }
}

#[test]
fn a_damaged_file_header_costs_nothing() {
    let (dir, frames) = filled();
    for path in [dir.pack(1), dir.segment(1)] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    dir.remove_index();
    let (store, repairs) = dir.open_mending();
    assert_eq!(repairs.iter().filter(|repair| repair.what.contains("header is damaged")).count(), 2);
    assert!(!repairs.iter().any(|repair| repair.loss));
    assert_whole(&store, &frames);
    put(&store, &chunks(50..51));
    assert!(dir.pack(2).exists(), "nothing is added to a pack with a damaged header");
}

#[test]
fn a_header_that_a_power_cut_tore_is_written_anew() {
    let header_bytes = super::super::segment::FILE_HEADER_BYTES as usize;
    for kept in [0, 1, header_bytes - 1] {
        let (dir, frames) = filled();
        let mut bytes = fs::read(dir.pack(1)).unwrap();
        bytes[kept..header_bytes].fill(0);
        fs::write(dir.pack(1), bytes).unwrap();
        dir.remove_index();
        let (store, repairs) = dir.open_mending();
        assert!(repairs.iter().any(|repair| repair.what.contains("torn")), "{repairs:?}");
        assert_whole(&store, &frames);
        let report = store.verify(Depth::Data, &|_, _| ControlFlow::Continue(())).unwrap();
        assert!(report.files.is_empty(), "{report:?}");
        drop(store);
        dir.open();
    }
}

#[test]
fn another_vaults_files_are_refused() {
    let (dir, _) = filled();
    let other = VaultId::from_bytes([9; 32]);
    assert!(matches!(Store::open(dir.path(), &other), Err(StoreError::WrongVault(_))));
}

#[test]
fn a_tail_is_left_alone_while_its_writer_lives() {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..6);
    put(&store, &frames[..3]);
    let mut writer = store.writer();
    writer.append_run(&verified(&frames[3..])).unwrap();
    writer.flush().unwrap();
    append_bytes(&dir.pack(1), b"half a frame, on its way");
    let before = length(&dir.pack(1));
    let other = dir.open();
    assert_eq!((other.counts().unwrap().chunks, length(&dir.pack(1))), (3, before));
}

#[test]
fn recovery_says_what_it_would_do_does_it_and_is_then_done() {
    let (dir, frames) = filled();
    let place = dir.open().locate(&[id_of(&frames[6])]).unwrap()[0].unwrap();
    let mut bytes = fs::read(dir.pack(1)).unwrap();
    bytes[place.offset as usize + 70] ^= 1;
    fs::write(dir.pack(1), &bytes).unwrap();
    append_bytes(&dir.pack(1), b"torn");
    let before = length(&dir.pack(1));
    let described = recover(dir.path(), &VAULT, DryRun::Yes).unwrap();
    assert_eq!(length(&dir.pack(1)), before, "a dry run changes nothing");
    let done = recover(dir.path(), &VAULT, DryRun::No).unwrap();
    assert_eq!(described, done);
    assert!(done.iter().any(|repair| repair.loss && repair.what.contains(&id_of(&frames[6]).to_string())), "{done:?}");
    assert!(done.iter().any(|repair| repair.what.contains("torn")));
    let store = dir.open();
    assert_eq!(store.missing(&list_of(&frames)).unwrap().iter().collect::<Vec<_>>(), [6]);
    put(&store, &frames);
    assert_whole(&store, &frames);
}

#[test]
fn a_read_only_place_is_read_all_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, frames) = filled();
    dir.remove_index();
    fs::create_dir(dir.path().join("index.db")).unwrap();
    fs::set_permissions(dir.path().join("index.db"), fs::Permissions::from_mode(0o500)).unwrap();
    let (store, repairs) = dir.open_mending();
    assert_whole(&store, &frames);
    assert!(matches!(&repairs[..], [Repair { what, loss: false, .. }] if what.contains("cannot be written")), "{repairs:?}");
}

#[test]
fn an_open_store_follows_an_index_that_was_rebuilt_beside_it() {
    let (dir, frames) = filled();
    let store = dir.open();
    let late = chunks(15..18);
    let mut writer = store.writer();
    writer.append_run(&verified(&late)).unwrap();
    writer.checkpoint().unwrap();
    assert!(recover(dir.path(), &VAULT, DryRun::No).unwrap().is_empty());
    let other = dir.open();
    assert!(other.missing(&list_of(&late)).unwrap().is_empty(), "a pack that is being written to is indexed too");
    let later = put(&other, &chunks(18..20));
    let event = Author::new(2).append(&other, std::slice::from_ref(&later)).unwrap();
    store.refresh().unwrap();
    assert!(store.missing(&later).unwrap().is_empty() && store.missing(&list_of(&frames)).unwrap().is_empty());
    assert_eq!(store.event(&event.dot()).unwrap(), Some(event));
    assert_eq!(store.root(), other.root());
}

#[test]
fn stores_and_writers_move_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    fn moved<T: Send + 'static>() {}
    shared::<Store>();
    moved::<crate::store::PackWriter>();
    moved::<crate::store::Spans>();
}
