//! Rewriting over several replicas.

use super::*;
use crate::{
    event::{Content, Operation, ValueKind},
    members::{LastOwner, Role},
    store::LogPosition,
    vault::{
        Unlock, Unwatched,
        replicas::{Devices, keys, pull},
    },
};
use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put(vault: &Vault, name: &str, bytes: &[u8]) {
    vault.put(&key(name), &mut &bytes[..], &Unwatched).unwrap();
}

fn get(vault: &Vault, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    vault.get(&key(name), &mut out).unwrap();
    out
}

fn plan(vault: &Vault) -> Rewrite {
    vault.plan_rewrite(&Unwatched).unwrap().0
}

fn rewrite(vault: &Vault) -> Rewrite {
    vault.rewrite(&Unwatched).unwrap()
}

/// What `ls --json` shows of every key: event, replica, conflict.
fn listing(vault: &Vault) -> Vec<String> {
    let mut entries = Vec::new();
    vault
        .list(b"", true, &mut |entry| {
            entries.push(format!("{entry:?}"));
            ControlFlow::Continue(())
        })
        .unwrap();
    entries
}

/// Damages the one copy of a chunk, which is put aside when it is read.
fn lose(vault: &Vault, chunk: &ChunkId) {
    let place = vault.store().locate(&[*chunk]).unwrap()[0].unwrap();
    let path = vault.dir().join(format!("packs/{:08}.pack", place.pack));
    let mut bytes = fs::read(&path).unwrap();
    bytes[place.offset as usize + HEADER_BYTES + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    vault.store().read_frame(chunk).unwrap_err();
    assert!(vault.store().read_frame(chunk).unwrap().is_none());
}

fn exchange(one: &Vault, other: &Vault) {
    pull(one, other).unwrap();
    pull(other, one).unwrap();
    assert_eq!(one.store().root(), other.store().root());
}

/// Two replicas of members that hold `a`, `b` with the bytes of `a`, and `c`, when a second epoch begins.
fn world() -> (Devices, Vault, Vault) {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Member);
    put(&first, "a", b"first value");
    put(&first, "b", b"first value");
    put(&first, "c", &vec![7; 200_000]);
    first.begin_epoch().unwrap();
    pull(&second, &first).unwrap();
    (devices, first, second)
}

/// Stops after so many chunks.
struct StopsAfter(AtomicU64);

impl Watch for StopsAfter {
    fn advance(&self, items: u64, _: u64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(items)));
    }
    fn expect(&self, _: u64, _: u64) {}
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn a_plan_is_what_happens_and_then_nothing_is_left_to_do() {
    let (_devices, first, _) = world();
    let (before, listed) = (first.store().counts().unwrap(), listing(&first));
    let planned = plan(&first);
    assert_eq!((planned.epoch, planned.keys, planned.chunks), (2, 3, 2), "what two keys share counts once");
    assert_eq!(first.store().counts().unwrap(), before, "a plan writes nothing");
    assert_eq!(rewrite(&first), planned);
    let after = first.store().counts().unwrap();
    assert_eq!((after.chunks - before.chunks, after.events - before.events), (2, 1));
    assert_eq!(after.bytes - before.bytes, planned.stored_bytes);
    assert_eq!(listing(&first), listed, "the same events stand");
    assert_eq!(
        [get(&first, "a"), get(&first, "b"), get(&first, "c")],
        [b"first value".to_vec(), b"first value".to_vec(), vec![7; 200_000]]
    );
    assert_eq!(rewrite(&first), Rewrite { epoch: 2, ..Rewrite::default() });
    assert_eq!(first.store().counts().unwrap(), after, "no event for nothing");
}

#[test]
fn a_vault_whose_keys_never_changed_has_nothing_to_rewrite() {
    let (_devices, first) = Devices::new();
    put(&first, "a", b"value");
    assert_eq!(rewrite(&first), Rewrite { epoch: 1, ..Rewrite::default() });
}

#[test]
fn an_interrupted_rewrite_goes_on_where_it_was() {
    let (devices, first) = Devices::new();
    let value = |n: u8| vec![n; 300_000];
    (0..8).for_each(|n| put(&first, &format!("{n}"), &value(n)));
    first.begin_epoch().unwrap();
    let mut first = first;
    // Two chunks are under way at once.
    first.limit_memory(0);
    let planned = plan(&first);
    assert!(matches!(first.rewrite(&StopsAfter(AtomicU64::new(0))), Err(VaultError::Cancelled)));
    assert_eq!(plan(&first), planned, "nothing was done");
    assert!(matches!(first.rewrite(&StopsAfter(AtomicU64::new(3))), Err(VaultError::Cancelled)));
    let left = plan(&first);
    assert!(left.chunks > 0 && left.chunks < planned.chunks, "{left:?}");
    // As if killed between the chunks and the event that names them: the same chunks are found in the pack, and named.
    let ring = first.seal_keys().unwrap();
    let mut killed = Resealer::new(&first, &Unwatched).unwrap();
    survey(&first, &ring, &Unwatched, &mut |window| killed.take(window)).unwrap();
    killed.pack.checkpoint().unwrap();
    drop(killed);
    drop(first);
    let (first, _) = Vault::open(&devices.dir("first"), &devices.home("first"), Unlock::Device).unwrap();
    let before = first.store().counts().unwrap();
    assert_eq!(rewrite(&first), left);
    assert_eq!(first.store().counts().unwrap().chunks, before.chunks, "none is there twice");
    let second = devices.join(&first, "second", Role::Member);
    pull(&second, &first).unwrap();
    assert_eq!(plan(&second).chunks, 0, "every chunk is named, so it came");
    (0..8).for_each(|n| assert_eq!(get(&second, &format!("{n}")), value(n)));
}

#[test]
fn replicas_that_rewrite_at_once_make_the_same_chunks_and_no_conflict() {
    let (_devices, first, second) = world();
    let listed = listing(&first);
    rewrite(&first);
    rewrite(&second);
    let chunks = first.store().counts().unwrap().chunks;
    exchange(&first, &second);
    for vault in [&first, &second] {
        assert_eq!((listing(vault), plan(vault).chunks, vault.store().counts().unwrap().chunks), (listed.clone(), 0, chunks));
        assert_eq!(vault.status().unwrap().conflicts, 0);
    }
}

#[test]
fn an_edit_that_did_not_know_of_a_rewrite_stands_without_a_conflict() {
    let (_devices, first, second) = world();
    put(&second, "a", b"edited meanwhile");
    second.remove(&[key("b")], None).unwrap();
    // Later in logical time than the edit.
    put(&first, "x", b"1");
    put(&first, "y", b"2");
    rewrite(&first);
    exchange(&first, &second);
    for vault in [&first, &second] {
        assert_eq!((get(vault, "a"), keys(vault)), (b"edited meanwhile".to_vec(), ["a", "c", "x", "y"].map(String::from).to_vec()));
        assert_eq!(vault.status().unwrap().conflicts, 0);
    }
}

#[test]
fn a_conflict_stays_one_and_both_sides_are_sealed_anew() {
    let (_devices, first, second) = world();
    let (first_value, second_value) = (vec![1; 70_000], vec![2; 70_000]);
    put(&first, "a", &first_value);
    put(&second, "a", &second_value);
    exchange(&first, &second);
    first.begin_epoch().unwrap();
    let listed = listing(&first);
    let planned = plan(&first);
    assert_eq!((planned.keys, planned.losers, planned.chunks), (3, 1, 4));
    assert_eq!(rewrite(&first), planned);
    assert_eq!(plan(&first).chunks, 0);
    exchange(&first, &second);
    for vault in [&first, &second] {
        assert_eq!((vault.status().unwrap().conflicts, listing(vault)), (1, listed.clone()));
        let mut sides = Vec::new();
        vault
            .conflicts(b"", &mut |conflict| {
                for side in std::iter::once(&conflict.winner).chain(&conflict.losers) {
                    let mut out = Vec::new();
                    vault.get_version(&conflict.key, &side.place.event.to_string(), &mut out).unwrap();
                    sides.push(out);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        sides.sort();
        assert_eq!(sides, [first_value.clone(), second_value.clone()]);
    }
}

#[test]
fn a_removed_device_opens_none_of_the_new_records_and_still_its_old_ones() {
    let (devices, first) = Devices::new();
    let removed = devices.join(&first, "removed", Role::Member);
    put(&first, "a", b"value");
    pull(&removed, &first).unwrap();
    assert_eq!(get(&removed, "a"), b"value");
    first.expel(removed.device().id(), None, LastOwner::Stays).unwrap();
    rewrite(&first);
    let rewritten = first.current_value(&key("a")).unwrap().unwrap().1.content.references[0];
    let chunk = first.newest_chunks(&[rewritten]).unwrap()[0];
    assert_ne!(chunk, rewritten.chunk);
    // A copy of everything reaches it all the same.
    pull(&removed, &first).unwrap();
    assert_eq!(get(&removed, "a"), b"value", "from the record that it always had");
    let (frame, mut out) = (removed.store().read_frame(&chunk).unwrap().unwrap(), Vec::new());
    let opened = removed.seal_keys().unwrap().open(&frame[HEADER_BYTES..], ChunkType::Data, &ChunkRef { chunk, ..rewritten }, &mut out);
    assert_eq!(opened, Err(crate::seal::OpenError::NoKey(2)));
    assert!(removed.newest_chunks(&[rewritten]).unwrap() == [rewritten.chunk], "nor does it learn which record is which");
    assert!(matches!(removed.rewrite(&Unwatched), Err(VaultError::NotAllowed(_))));
    let keyless = devices.join(&first, "keyless", Role::Keyless);
    pull(&keyless, &first).unwrap();
    assert!(matches!(
        (keyless.rewrite(&Unwatched), keyless.plan_rewrite(&Unwatched)),
        (Err(VaultError::Keyless), Err(VaultError::Keyless))
    ));
}

#[test]
fn the_same_content_is_known_again_afterwards_under_the_current_epoch() {
    let (_devices, first, second) = world();
    rewrite(&first);
    exchange(&first, &second);
    for (vault, name) in [(&first, "again"), (&second, "once more")] {
        let before = vault.store().counts().unwrap().chunks;
        put(vault, name, b"first value");
        assert_eq!(vault.store().counts().unwrap().chunks, before);
        assert_eq!(plan(vault).chunks, 0, "it names the chunk of the current epoch");
    }
}

#[test]
fn a_value_is_read_without_its_older_chunks_once_it_is_rewritten() {
    let (_devices, first, _) = world();
    rewrite(&first);
    let (_, value) = first.current_value(&key("a")).unwrap().unwrap();
    let old = value.content.references[0].chunk;
    lose(&first, &old);
    assert_eq!(get(&first, "a"), b"first value");
    assert!(first.keys_with(&[old].into()).unwrap().is_empty(), "no key needs it any more");
}

#[test]
fn what_lies_below_nodes_is_rewritten_as_well() {
    let (_devices, first) = Devices::new();
    let ring = first.seal_keys().unwrap();
    let seal = |plaintext: &[u8], kind| ring.current().seal(ring.current().draft(plaintext, Vec::new()), kind, Compression::Never);
    let pieces = [seal(b"one ", ChunkType::Data), seal(b"two", ChunkType::Data)];
    let node = seal(&crate::codec::encode(&pieces.iter().map(|piece| piece.reference).collect::<Vec<_>>()), ChunkType::Node);
    let content = Content { bytes: 7, depth: 1, references: vec![node.reference] };
    let all: Vec<&SealedChunk> = pieces.iter().chain([&node]).collect();
    let mut pack = first.store().writer();
    pack.append_run(&all.iter().map(|chunk| chunk.frame.verified()).collect::<Vec<_>>()).unwrap();
    pack.checkpoint().unwrap();
    let entry = |chunk: &&SealedChunk| Entry { id: chunk.reference.chunk, length: chunk.frame.verified().header().length };
    let list = ChunkList::new(all.iter().map(entry).collect()).unwrap();
    let value = Value { kind: ValueKind::Blob, modified_s: 0, modified_ns: 0, content };
    first.append(&[Operation::Put(key("k"), value)], vec![list]).unwrap();
    first.begin_epoch().unwrap();
    let planned = plan(&first);
    assert_eq!((planned.chunks, planned.keys), (3, 1));
    assert_eq!(rewrite(&first), planned);
    assert_eq!(plan(&first).chunks, 0);
    for chunk in all {
        lose(&first, &chunk.reference.chunk);
    }
    assert_eq!(get(&first, "k"), b"one two");
}

#[test]
fn an_event_that_lies_about_a_plaintext_changes_no_value() {
    let (_devices, first, second) = world();
    let named = first.current_value(&key("a")).unwrap().unwrap().1.content.references[0];
    let other = first.current_value(&key("c")).unwrap().unwrap().1.content.references[0];
    let mut liar = Resealer::new(&second, &Unwatched).unwrap();
    liar.batch.push((ChunkRef { chunk: other.chunk, ..named }, Entry { id: other.chunk, length: 1 }));
    // Its list would not be believed by a store; what counts here is what the body says.
    let body = encode_resealed(&[liar.batch.remove(0).0]).unwrap();
    second
        .commit(KIND_RESEALED, &[], &mut |slot| {
            Ok(second.seal_keys()?.current().seal_body(&body, &body_context(&second.own.id(), slot.sequence)))
        })
        .unwrap();
    pull(&first, &second).unwrap();
    assert_eq!(get(&first, "a"), b"first value");
    assert_eq!(first.newest_chunks(&[named]).unwrap(), [other.chunk], "the lie is there");
    assert_eq!(rewrite(&first).chunks, 2, "and a later true word takes its place");
    assert_eq!(plan(&first).chunks, 0);
    assert_eq!(get(&first, "a"), b"first value");
}

#[test]
fn what_is_resealed_is_the_same_in_a_view_made_anew_and_in_whatever_order_events_came() {
    let (devices, first, second) = world();
    rewrite(&first);
    second.begin_epoch().unwrap_err();
    pull(&second, &first).unwrap();
    first.begin_epoch().unwrap();
    pull(&second, &first).unwrap();
    rewrite(&second);
    put(&first, "z", b"later than it in logical time");
    let batch = first.store().events_beyond(&second.store().frontier(), LogPosition::START, usize::MAX).unwrap();
    assert_eq!(batch.events.len(), 1);
    exchange(&first, &second);
    let pieces: Vec<ChunkRef> =
        ["a", "c"].iter().map(|name| first.current_value(&key(name)).unwrap().unwrap().1.content.references[0]).collect();
    assert_eq!((plan(&first).chunks, plan(&second).chunks), (0, 0));
    assert_eq!(first.newest_chunks(&pieces).unwrap(), second.newest_chunks(&pieces).unwrap());
    let known = first.newest_chunks(&pieces).unwrap();
    drop(first);
    let views = walkdir::WalkDir::new(devices.dir("home-first")).into_iter().filter_map(Result::ok).map(|entry| entry.into_path());
    views.filter(|path| path.extension().is_some_and(|extension| extension == "db")).for_each(|path| fs::remove_file(path).unwrap());
    let (first, _) = Vault::open(&devices.dir("first"), &devices.home("first"), Unlock::Device).unwrap();
    assert_eq!((plan(&first).chunks, first.newest_chunks(&pieces).unwrap()), (0, known));
}

#[test]
fn a_disk_that_clearly_has_not_enough_room_is_said_before_anything_is_written() {
    let planned = Rewrite { stored_bytes: 11, ..Rewrite::default() };
    planned.require_space(11).unwrap();
    let refused = planned.require_space(10).unwrap_err();
    assert!(matches!(&refused, VaultError::NoSpace(why) if why.contains("11 bytes") && why.contains("10 are free")), "{refused}");
}

#[test]
fn a_value_whose_chunk_is_lost_is_named_and_keeps_nobody_from_the_others() {
    let (_devices, first, _) = world();
    let lost = first.current_value(&key("c")).unwrap().unwrap().1.content.references[0].chunk;
    lose(&first, &lost);
    let planned = plan(&first);
    assert_eq!((planned.chunks, planned.keys, planned.unreadable.len()), (1, 2, 1));
    assert_eq!((&planned.unreadable[0].0, planned.unreadable[0].1.as_str()), (&key("c"), format!("chunk {lost} is missing").as_str()));
    assert_eq!(rewrite(&first), planned);
}
