//! Key epochs over several replicas.

use super::*;
use crate::{
    event::Key,
    frame::HEADER_BYTES,
    id::ChunkId,
    members::LastOwner,
    store::LogPosition,
    vault::{
        InitOptions, Unlock,
        replicas::{Devices, keys, pull, put},
    },
};
use std::{collections::HashSet, fs};

fn number(vault: &Vault) -> u32 {
    vault.epoch_status().unwrap().unwrap().number
}

fn read(vault: &Vault, key: &str) -> Result<Vec<u8>, VaultError> {
    let mut bytes = Vec::new();
    vault.get(&Key::new(key).unwrap(), &mut bytes).map(|_| bytes)
}

fn chunks(vault: &Vault) -> HashSet<ChunkId> {
    let batch = vault.store().events_beyond(&Default::default(), LogPosition::START, usize::MAX).unwrap();
    batch.events.iter().flat_map(|(_, lists)| lists).flat_map(|list| list.entries()).map(|entry| entry.id).collect()
}

fn epoch_of_record(vault: &Vault, chunk: &ChunkId) -> u32 {
    let frame = vault.store().read_frame(chunk).unwrap().unwrap();
    u32::from_le_bytes(frame[HEADER_BYTES + 4..HEADER_BYTES + 8].try_into().unwrap())
}

fn put_more(vault: &Vault, key: &str, content: &[u8]) {
    vault.put(&Key::new(key).unwrap(), &mut &content[..], &crate::vault::Unwatched).unwrap();
}

/// What a removed device holds that was handed the newer packs and log by copying: its own keys and home, everything else of `from`.
fn handed(devices: &Devices, from: &Vault, device: &str) -> Vault {
    let (dir, source) = (devices.dir(device), from.dir().to_owned());
    for part in ["packs", "log"] {
        fs::remove_dir_all(dir.join(part)).unwrap();
        fs::create_dir(dir.join(part)).unwrap();
        for entry in fs::read_dir(source.join(part)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), dir.join(part).join(entry.file_name())).unwrap();
        }
    }
    fs::copy(source.join("heads"), dir.join("heads")).unwrap();
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(dir.join(name));
    }
    Vault::open(&dir, &devices.home(device), Unlock::Device).unwrap().0
}

#[test]
fn a_removed_device_that_is_handed_everything_reads_nothing_written_after() {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Member);
    let third = devices.join(&first, "third", Role::Member);
    put_more(&first, "old", b"written before");
    pull(&second, &first).unwrap();
    pull(&third, &first).unwrap();
    let known = chunks(&first);
    let begun = first.expel(second.info().device, None, LastOwner::Stays).unwrap().unwrap();
    assert_eq!((begun.number, begun.given.as_slice(), begun.without.len()), (2, ["first".to_owned(), "third".to_owned()].as_slice(), 0));
    put_more(&first, "new", b"written after");
    pull(&third, &first).unwrap();
    assert_eq!(read(&third, "new").unwrap(), b"written after", "who is in reads on");
    put_more(&third, "newer", b"by another");
    pull(&first, &third).unwrap();
    assert_eq!(read(&first, "newer").unwrap(), b"by another");
    let new: Vec<ChunkId> = chunks(&first).difference(&known).copied().collect();
    assert_eq!(new.iter().map(|chunk| epoch_of_record(&first, chunk)).collect::<Vec<_>>(), [2, 2]);

    drop(second);
    let second = handed(&devices, &first, "second");
    assert_eq!(read(&second, "old").unwrap(), b"written before");
    let refused = read(&second, "new");
    assert!(
        matches!(&refused, Err(VaultError::NoEpochKey { epoch: 2, why, .. }) if why.contains("removed from the vault by first")),
        "{refused:?}"
    );
    assert_eq!(keys(&second), ["old"], "names are in bodies");
    let status = second.epoch_status().unwrap().unwrap();
    assert_eq!((status.number, status.without_key), (2, vec![2]));
    let ring = second.keys().ring.clone().unwrap();
    for chunk in &new {
        let frame = second.store().read_frame(chunk).unwrap().expect("it has the bytes");
        let (kind, mut out) = (crate::seal::ChunkType::Data, Vec::new());
        let expected = crate::event::ChunkRef { chunk: *chunk, plaintext: crate::id::PlaintextId::from_bytes([0; 32]), length: 14 };
        assert_eq!(ring.open(&frame[HEADER_BYTES..], kind, &expected, &mut out), Err(crate::seal::OpenError::NoKey(2)));
    }
    let batch = second.store().events_beyond(&Default::default(), LogPosition::START, usize::MAX).unwrap();
    let bodies = batch.events.iter().filter(|(event, _)| event.header().kind == crate::event::KIND_OPERATIONS && event.header().epoch == 2);
    let mut closed = 0;
    for (event, _) in bodies {
        crate::vault::history::opened(&ring, event).unwrap_err();
        closed += 1;
    }
    assert_eq!(closed, 2);
    assert!(put(&second, "k").is_err());
}

#[test]
fn nothing_is_stored_or_cut_anew_for_a_new_epoch() {
    let (_devices, first) = Devices::new();
    let content: Vec<u8> = (0..3_000_000u32).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).take(3_000_000).collect();
    put_more(&first, "a", &content);
    let before = chunks(&first);
    first.begin_epoch().unwrap();
    put_more(&first, "b", &content);
    assert_eq!(chunks(&first), before, "the same chunks, under another key");
    assert_eq!(read(&first, "b").unwrap(), content);
}

#[test]
fn a_keyless_replica_is_given_the_replication_key_and_no_more() {
    let (devices, first) = Devices::new();
    let nas = devices.join(&first, "nas", Role::Keyless);
    first.begin_epoch().unwrap();
    pull(&nas, &first).unwrap();
    let (theirs, ours) = (nas.replication_keys(), first.replication_keys());
    let bytes = |keys: &[ReplicationKey]| keys.iter().map(|key| *key.as_bytes()).collect::<Vec<_>>();
    assert_eq!((bytes(&theirs), theirs.len()), (bytes(&ours), 2));
    assert!(nas.keys().known.values().all(|secrets| matches!(secrets, Secrets::Keyless(_))));
}

#[test]
fn who_comes_later_is_given_all_epochs() {
    let (devices, first) = Devices::new();
    for number in 2..6 {
        put_more(&first, &format!("k{number}"), format!("{number}").as_bytes());
        assert_eq!(first.begin_epoch().unwrap().number, number);
    }
    let second = devices.join(&first, "second", Role::Member);
    pull(&second, &first).unwrap();
    for number in 2..6 {
        assert_eq!(read(&second, &format!("k{number}")).unwrap(), format!("{number}").as_bytes());
    }
    assert_eq!(second.epoch_status().unwrap().unwrap(), EpochStatus { number: 5, without_key: vec![], stale: false });
}

#[test]
fn who_comes_back_reads_what_was_written_meanwhile() {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Member);
    pull(&second, &first).unwrap();
    first.expel(second.info().device, None, LastOwner::Stays).unwrap();
    put(&first, "meanwhile").unwrap();
    pull(&second, &first).unwrap();
    assert!(matches!(read(&second, "meanwhile"), Err(VaultError::NoEpochKey { .. })));
    first.admit(second.info().device, Role::Member, "second").unwrap();
    pull(&second, &first).unwrap();
    assert_eq!(read(&second, "meanwhile").unwrap(), b"value", "the view begins again");
    put(&second, "again").unwrap();
}

#[test]
fn owners_that_remove_different_devices_at_once_begin_a_third_epoch() {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Owner);
    let (x, y) = (devices.join(&first, "x", Role::Member), devices.join(&first, "y", Role::Member));
    for vault in [&second, &x, &y] {
        pull(vault, &first).unwrap();
    }
    first.expel(x.info().device, None, LastOwner::Stays).unwrap();
    second.expel(y.info().device, None, LastOwner::Stays).unwrap();
    pull(&first, &second).unwrap();
    pull(&second, &first).unwrap();
    assert!(first.epoch_status().unwrap().unwrap().stale, "each epoch was given to the device that the other removed");
    let known = chunks(&first);
    put(&first, "k").unwrap();
    let new: Vec<u32> = chunks(&first).difference(&known).map(|chunk| epoch_of_record(&first, chunk)).collect();
    assert_eq!(new, [3], "before anything is sealed");
    assert_eq!(first.epoch_status().unwrap().unwrap(), EpochStatus { number: 3, without_key: vec![], stale: false });
    pull(&second, &first).unwrap();
    assert_eq!(read(&second, "k").unwrap(), b"value");
    for (vault, missing) in [(&x, vec![2, 3]), (&y, vec![2, 3])] {
        pull(vault, &first).unwrap();
        assert_eq!(vault.epoch_status().unwrap().unwrap().without_key, missing);
        assert!(matches!(read(vault, "k"), Err(VaultError::NoEpochKey { .. })));
    }
    let third = devices.join(&first, "third", Role::Member);
    pull(&third, &first).unwrap();
    assert_eq!(third.epoch_status().unwrap().unwrap().without_key, Vec::<u32>::new(), "links lead to both");
}

#[test]
fn an_owner_that_leaves_makes_another_begin_an_epoch() {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Owner);
    pull(&second, &first).unwrap();
    assert_eq!(first.expel(first.info().device, None, LastOwner::Stays).unwrap(), None);
    pull(&second, &first).unwrap();
    put(&second, "k").unwrap();
    assert_eq!(number(&second), 2);
    pull(&first, &second).unwrap();
    assert!(matches!(read(&first, "k"), Err(VaultError::NoEpochKey { epoch: 2, .. })));
}

#[test]
fn who_was_let_in_while_an_epoch_began_is_given_it_by_the_next_owner_that_writes() {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Owner);
    pull(&second, &first).unwrap();
    let third = devices.join(&second, "third", Role::Member);
    first.begin_epoch().unwrap();
    pull(&third, &second).unwrap();
    pull(&third, &first).unwrap();
    let refused = put(&third, "k");
    assert!(matches!(&refused, Err(VaultError::NotAllowed(why)) if why.contains("no owner has given")), "{refused:?}");
    pull(&first, &third).unwrap();
    put(&first, "l").unwrap();
    pull(&third, &first).unwrap();
    put(&third, "k").unwrap();
    assert_eq!(keys(&third), ["k", "l"]);
}

#[test]
fn a_member_that_becomes_keyless_reads_nothing_new() {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Member);
    first.admit(second.info().device, Role::Keyless, "second").unwrap();
    put(&first, "k").unwrap();
    pull(&second, &first).unwrap();
    assert_eq!((number(&first), read(&second, "k").is_err()), (2, true));
    assert_eq!(second.replication_keys().len(), 2, "it goes on storing and serving");
}

#[test]
fn the_passphrase_opens_the_grants_on_another_device() {
    let devices = tempfile::TempDir::new().unwrap();
    let home = |name: &str| crate::home::Home::open(&devices.path().join(name)).unwrap();
    let passphrase = zeroize::Zeroizing::new(b"correct horse".to_vec());
    let options = InitOptions { passphrase: Some(passphrase.clone()), ..InitOptions::for_this_device("v", "first") };
    let dir = devices.path().join("first");
    let first = Vault::init(&dir, &home("home"), options).unwrap().vault;
    first.begin_epoch().unwrap();
    put(&first, "k").unwrap();
    drop(first);
    let (lost, _) = Vault::open(&dir, &home("another"), Unlock::Passphrase(passphrase)).unwrap();
    assert_eq!(read(&lost, "k").unwrap(), b"value");
    put(&lost, "l").unwrap();
    assert_eq!(keys(&lost), ["k", "l"], "and writes, let in by the passphrase");
}

#[test]
fn a_device_of_before_epochs_is_named_and_given_none() {
    let (devices, first) = Devices::new();
    let device = DeviceKey::generate().unwrap();
    first.admit(device.id(), Role::Member, "old").unwrap();
    let begun = first.begin_epoch().unwrap();
    assert_eq!((begun.given, begun.without), (vec!["first".to_owned()], vec!["old".to_owned()]));
    drop(devices);
}

#[test]
fn a_removed_owner_can_neither_begin_an_epoch_nor_spoil_one() {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Owner);
    pull(&second, &first).unwrap();
    first.expel(second.info().device, None, LastOwner::Stays).unwrap();
    // It acts on as if it had not heard: begins epochs of higher numbers, and says that it was given the true one.
    let true_epoch = first.membership().unwrap().unwrap().newest_epoch().unwrap().id;
    second.begin_epoch().unwrap();
    second.begin_epoch().unwrap();
    let giver = Giver::generate().unwrap().public();
    let claim = EpochGrants { number: 4, epoch: true_epoch, giver, grants: Vec::new(), links: Vec::new() };
    second.declare(&[Change::Epoch(claim)]).unwrap();
    pull(&first, &second).unwrap();
    let status = first.epoch_status().unwrap().unwrap();
    assert_eq!((status.number, status.stale), (2, false));
    put(&first, "k").unwrap();
    pull(&second, &first).unwrap();
    assert!(matches!(read(&second, "k"), Err(VaultError::NoEpochKey { .. })));
}

#[test]
fn replicas_know_the_same_newest_epoch_in_whatever_order_they_hear() {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Owner);
    let third = devices.join(&first, "third", Role::Keyless);
    pull(&second, &first).unwrap();
    first.begin_epoch().unwrap();
    second.begin_epoch().unwrap();
    pull(&third, &second).unwrap();
    pull(&third, &first).unwrap();
    pull(&first, &second).unwrap();
    pull(&second, &first).unwrap();
    let newest = |vault: &Vault| vault.membership().unwrap().unwrap().newest_epoch().unwrap().id;
    assert_eq!((newest(&first), newest(&second)), (newest(&second), newest(&third)));
    put(&first, "a").unwrap();
    put(&second, "b").unwrap();
    pull(&first, &second).unwrap();
    assert_eq!(keys(&first), ["a", "b"]);
}

#[test]
fn the_fuse_counts_deletions_under_an_epoch_that_comes_with_them() {
    let (devices, first) = Devices::new();
    let second = devices.join(&first, "second", Role::Member);
    put(&first, "k").unwrap();
    pull(&second, &first).unwrap();
    assert_eq!(keys(&second), ["k"]);
    first.begin_epoch().unwrap();
    first.remove(&[Key::new("k").unwrap()], None).unwrap();
    let fuse = second.fuse(crate::vault::DeleteLimit::Keys(0)).unwrap().unwrap();
    let news = first.store().events_beyond(&second.store().frontier(), LogPosition::START, usize::MAX).unwrap();
    assert_eq!(fuse.deletions(news.events.iter().map(|(event, _)| event)).unwrap(), 1);
}
