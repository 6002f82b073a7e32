//! What a vault does when the files around it are not what they were.

mod clocks;
mod flips;

use super::{replicas::keys, view::ViewError, *};
use crate::{
    event::{Content, Incarnation, KIND_OPERATIONS, Value, ValueKind},
    home::Continuity,
    id::ChunkId,
    keys::random_bytes,
    members::Role,
};
use std::fs;
use tempfile::TempDir;

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> (Self, Vault) {
        let place = Self { dir: TempDir::new().unwrap() };
        let options = InitOptions::for_this_device("vault", "first");
        let vault = Vault::init(&place.vault_dir(), &place.home(), options).unwrap().vault;
        (place, vault)
    }

    /// A vault that holds `kept`, opened after its files were copied to the place returned last.
    fn backed_up() -> (Self, Vault, PathBuf) {
        let (place, vault, backup, ()) = Self::backed_up_after(|_| ());
        (place, vault, backup)
    }

    /// The same, copied after something more was done.
    fn backed_up_after<T>(more: impl FnOnce(&Vault) -> T) -> (Self, Vault, PathBuf, T) {
        let (place, vault) = Self::new();
        put(&vault, "kept");
        let done = more(&vault);
        drop(vault);
        let backup = place.dir.path().join("backup");
        place.copy(&place.vault_dir(), &backup);
        let vault = place.open();
        (place, vault, backup, done)
    }

    fn home(&self) -> Home {
        Home::open(&self.dir.path().join("home")).unwrap()
    }

    fn vault_dir(&self) -> PathBuf {
        self.dir.path().join("vault")
    }

    fn open(&self) -> Vault {
        Vault::open(&self.vault_dir(), &self.home(), Unlock::Device).unwrap().0
    }

    /// Copies the files of the vault to `to`, or back: file by file, so that the directory stays the same one.
    fn copy(&self, from: &Path, to: &Path) {
        if to.exists() {
            for entry in walkdir::WalkDir::new(to).into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file()) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        for entry in walkdir::WalkDir::new(from).into_iter().filter_map(Result::ok) {
            let place = to.join(entry.path().strip_prefix(from).unwrap());
            if entry.file_type().is_dir() {
                fs::create_dir_all(place).unwrap();
            } else {
                fs::copy(entry.path(), place).unwrap();
            }
        }
    }

    fn view_file(&self) -> PathBuf {
        let views = walkdir::WalkDir::new(self.dir.path().join("home")).into_iter().filter_map(Result::ok);
        views.map(|entry| entry.into_path()).find(|path| path.extension().is_some_and(|extension| extension == "db")).unwrap()
    }
}

fn put(vault: &Vault, key: &str) {
    vault.put(&Key::new(key).unwrap(), &mut key.as_bytes(), &Unwatched).unwrap();
}

/// A device that is in.
fn admitted(vault: &Vault) -> DeviceKey {
    let device = DeviceKey::generate().unwrap();
    vault.admit(device.id(), Role::Member, "other").unwrap();
    device
}

/// An event of another replica that holds what `vault` holds, whose body is `body`.
fn foreign(vault: &Vault, device: &DeviceKey, body: &[u8]) -> Event {
    let newest =
        vault.store().heads().0.values().map(|head| vault.store().event_by_id(&head.event).unwrap().unwrap().header().lamport).max();
    let header = EventHeader {
        vault: vault.id,
        device: device.id(),
        incarnation: Incarnation(random_bytes().unwrap()),
        sequence: 1,
        lamport: 1 + newest.unwrap_or(0),
        previous: None,
        deps: vault.store().frontier(),
        epoch: crate::members::FIRST_EPOCH,
        lists: Vec::new(),
        kind: KIND_OPERATIONS,
        body_hash: [0; 32],
        wall_ms: 1,
    };
    Event::sign(header, body, device).unwrap()
}

#[test]
fn an_event_whose_body_makes_no_sense_keeps_nobody_from_the_others() {
    let (_place, vault) = Place::new();
    put(&vault, "before");
    let event = foreign(&vault, &admitted(&vault), b"sealed by nobody who has the key");
    vault.store().append_foreign(&[(event, vec![])]).unwrap();
    put(&vault, "after");
    assert_eq!(keys(&vault), ["after", "before"]);
    let mut changes = 0;
    vault
        .log(None, &mut |_| {
            changes += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(changes, 2);
}

#[test]
fn a_vault_put_back_to_a_backup_is_read_and_written_only_once_its_loss_is_accepted() {
    let (place, vault, backup) = Place::backed_up();
    let author = vault.info().replica;
    put(&vault, "lost");
    assert_eq!(keys(&vault), ["kept", "lost"]);
    drop(vault);
    place.copy(&backup, &place.vault_dir());
    let vault = place.open();
    assert_eq!(keys(&vault), ["kept"]);
    assert_ne!(vault.info().replica, author, "the old author's log would fork");
    let refused = vault.put(&Key::new("new").unwrap(), &mut &b"new"[..], &Unwatched).unwrap_err();
    assert!(matches!(&refused, VaultError::RolledBack(lost) if (lost.author, lost.accepted, lost.held) == (author, 3, 2)), "{refused}");
    assert_eq!(vault.status().unwrap().behind.len(), 1);
    vault.accept_loss().unwrap();
    put(&vault, "new");
    assert_eq!(keys(&vault), ["kept", "new"]);
    drop(vault);
    place.open().check_whole().unwrap();
}

#[test]
fn a_directory_in_the_place_of_a_newer_one_is_known_to_be_older_whatever_its_inode() {
    let (place, vault, backup) = Place::backed_up();
    let author = vault.info().replica;
    put(&vault, "lost");
    drop(vault);
    fs::remove_dir_all(place.vault_dir()).unwrap();
    place.copy(&backup, &place.vault_dir());
    let lost = place.open().status().unwrap().behind;
    assert_eq!(lost, [crate::store::Lost { author, accepted: 3, held: 2 }]);
}

#[test]
fn events_of_others_that_a_backup_lacks_are_missed_as_well() {
    let (place, vault, backup, device) = Place::backed_up_after(admitted);
    let event = foreign(&vault, &device, b"of another");
    vault.store().append_foreign(&[(event.clone(), vec![])]).unwrap();
    drop(vault);
    drop(place.open());
    place.copy(&backup, &place.vault_dir());
    let vault = place.open();
    assert_eq!(vault.status().unwrap().behind, [crate::store::Lost { author: event.author(), accepted: 1, held: 0 }]);
    vault.store().append_foreign(&[(event, vec![])]).unwrap();
    vault.check_whole().unwrap();
    put(&vault, "new");
}

#[test]
fn an_author_that_a_peer_has_more_of_signs_nothing_more_in_any_process() {
    let (place, vault) = Place::new();
    put(&vault, "first");
    let other = place.open();
    let author = vault.info().replica;
    vault.own().retire(2).unwrap();
    for vault in [&vault, &other] {
        let refused = vault.put(&Key::new("new").unwrap(), &mut &b"new"[..], &Unwatched).unwrap_err();
        assert!(matches!(refused, VaultError::Retired(2)), "{refused}");
    }
    let renewed = place.open();
    assert!(matches!(renewed.own.continuity(), Continuity::Renewed(crate::home::RenewalReason::PeerAhead { sequence: 2 })));
    assert_ne!(renewed.info().replica, author);
    put(&renewed, "new");
    assert_eq!(place.open().info().replica, renewed.info().replica, "once");
}

#[test]
fn a_view_of_events_that_the_log_has_lost_is_begun_again() {
    let (place, vault, backup, device) = Place::backed_up_after(admitted);
    // Another replica's event: losing it does not make this one a new author, so its view stays.
    let author = vault.info().replica;
    vault.store().append_foreign(&[(foreign(&vault, &device, b"long enough to be noticed when it is gone"), vec![])]).unwrap();
    assert_eq!(keys(&vault), ["kept"]);
    drop(vault);
    place.copy(&backup, &place.vault_dir());
    let vault = place.open();
    assert_eq!(vault.info().replica, author);
    put(&vault, "new");
    assert_eq!(keys(&vault), ["kept", "new"], "what was written where the lost event lay is seen");
}

#[test]
fn a_log_that_lost_what_only_the_vault_remembers_gets_a_new_author() {
    let (place, vault) = Place::new();
    put(&vault, "first");
    let author = vault.info().replica;
    let before: Vec<_> = fs::read_dir(place.vault_dir().join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    drop(vault);
    // The log is gone, and so is this device's record of how far it went.
    before
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .for_each(|path| fs::remove_file(path).unwrap());
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(place.vault_dir().join(name));
    }
    let records = walkdir::WalkDir::new(place.dir.path().join("home")).into_iter().filter_map(Result::ok);
    records
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "head"))
        .for_each(|entry| fs::remove_file(entry.path()).unwrap());
    let vault = place.open();
    assert_ne!(vault.info().replica, author);
    assert!(matches!(vault.own.continuity(), Continuity::Renewed(_)));
    vault.accept_loss().unwrap();
    put(&vault, "second");
    assert_eq!(keys(&vault), ["second"]);
}

#[test]
fn a_view_that_proves_damaged_while_it_is_read_is_rebuilt_once() {
    let (place, vault) = Place::new();
    put(&vault, "a");
    put(&vault, "b");
    let spoil = || {
        let connection = rusqlite::Connection::open(place.view_file()).unwrap();
        assert_eq!(connection.execute("UPDATE maximal SET said = x'ff'", []).unwrap(), 2);
    };
    spoil();
    assert_eq!(keys(&vault), ["a", "b"]);
    let always = vault.ask::<()>(|_| Err(ViewError::Damaged("again".into())));
    assert!(matches!(always, Err(VaultError::Damaged(_))), "{always:?}");
    assert_eq!(keys(&vault), ["a", "b"]);
}

#[test]
fn operations_that_do_not_fit_one_event_become_several() {
    let (_place, vault) = Place::new();
    let piece = |n: usize| ChunkRef {
        chunk: ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes()),
        plaintext: PlaintextId::from_bytes(*blake3::hash(&n.to_be_bytes()).as_bytes()),
        length: 1 << 20,
    };
    let references: Vec<ChunkRef> = (0..256).map(piece).collect();
    let value = |content| Value { kind: ValueKind::File(0o644), modified_s: 0, modified_ns: 0, content };
    let content = Content { bytes: 256 << 20, depth: 0, references };
    let operations: Vec<Operation> =
        (0..600).map(|n| Operation::Put(Key::new(format!("{n:03}")).unwrap(), value(content.clone()))).collect();
    assert!(encode_operations(&operations).unwrap().len() > EVENT_BODY_BYTES_MAX);
    vault.append(&operations, Vec::new()).unwrap();
    assert!(vault.store().counts().unwrap().events > 1);
    assert_eq!(keys(&vault).len(), 600);
}
