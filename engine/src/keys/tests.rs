//! What opens a slot and what does not, what is never allocated, and answers computed elsewhere.

use super::{
    kdf::DERIVATIONS,
    slot::{Lock, Slot},
    slots::*,
    *,
};
use crate::{
    id::{AgreementKey, EpochId},
    limits::{KEY_SLOT_BYTES_MAX, KEY_SLOTS_MAX, PASSPHRASE_BYTES_MAX},
    vectors::{self, array, bytes},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const VAULT: VaultId = VaultId::from_bytes([7; 32]);

fn master() -> MasterKey {
    MasterKey::from_bytes([1; 32])
}

fn dir() -> TempDir {
    TempDir::new().unwrap()
}

fn passphrase_slot(dir: &Path, vault: &VaultId, master: &MasterKey, passphrase: &str) {
    write_passphrase_at(dir, vault, master, passphrase.as_bytes(), KdfCost::LEAST).unwrap();
}

/// The only file of the directory.
fn only_file(dir: &Path) -> PathBuf {
    let files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// Derivations that `work` costs this thread.
fn derivations(work: impl FnOnce()) -> u32 {
    let before = DERIVATIONS.get();
    work();
    DERIVATIONS.get() - before
}

#[test]
fn a_passphrase_opens_its_slot_and_another_costs_one_derivation() {
    let dir = dir();
    passphrase_slot(dir.path(), &VAULT, &master(), "right");
    assert_eq!(unlock_passphrase(dir.path(), &VAULT, b"right").unwrap().master.as_bytes(), master().as_bytes());
    let wrong = || assert!(matches!(unlock_passphrase(dir.path(), &VAULT, b"wrong"), Err(KeyError::Wrong)));
    assert_eq!(derivations(wrong), 1);
}

#[test]
fn a_passphrase_is_neither_empty_nor_longer_than_1_mib() {
    let dir = dir();
    for passphrase in [vec![], vec![b'x'; PASSPHRASE_BYTES_MAX + 1]] {
        let wrote = write_passphrase_at(dir.path(), &VAULT, &master(), &passphrase, KdfCost::LEAST);
        assert!(matches!(wrote, Err(KeyError::PassphraseLength)));
    }
    let longest = vec![b'x'; PASSPHRASE_BYTES_MAX];
    write_passphrase_at(dir.path(), &VAULT, &master(), &longest, KdfCost::LEAST).unwrap();
    assert!(unlock_passphrase(dir.path(), &VAULT, &longest).is_ok());
}

#[test]
fn costs_outside_the_bounds_are_refused_before_anything_is_derived() {
    let dir = dir();
    let cost = |memory_kib, passes, lanes| KdfCost { memory_kib, passes, lanes };
    let hostile = [cost(64 << 20, 3, 1), cost(64 << 10, 1_000_000, 1), cost(8, 3, 1), cost(u32::MAX, u32::MAX, u32::MAX), cost(0, 0, 0)];
    for cost in hostile {
        let slot = Slot::wrap(&VAULT, Lock::Passphrase(cost), &Secrets::Member(master()), |_| Ok(Zeroizing::new([9; 32]))).unwrap();
        let file = dir.path().join(slot.file_name());
        fs::write(&file, slot.to_file()).unwrap();
        let open = || match unlock_passphrase(dir.path(), &VAULT, b"any") {
            Err(error @ KeyError::Bounds { .. }) => {
                assert_eq!(error.to_string(), format!("{} asks for a key derivation outside the bounds ({cost})", file.display()));
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(derivations(open), 0);
        let import = import_portable(&dir.path().join("other"), &VAULT, &[(slot.file_name(), slot.to_file())]);
        assert!(matches!(import, Err(KeyError::Bounds { .. })));
        assert!(matches!(write_passphrase_at(dir.path(), &VAULT, &master(), b"x", cost), Err(KeyError::Bounds { .. })));
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_hostile_slot_beside_a_good_one_keeps_nobody_out() {
    let dir = dir();
    let cost = KdfCost { memory_kib: 64 << 20, ..KdfCost::DEFAULT };
    let slot = Slot::wrap(&VAULT, Lock::Passphrase(cost), &Secrets::Member(master()), |_| Ok(Zeroizing::new([9; 32]))).unwrap();
    fs::write(dir.path().join("passphrase-0000000000000000.slot"), slot.to_file()).unwrap();
    fs::write(dir.path().join("passphrase-0000000000000001.slot"), "garbage").unwrap();
    passphrase_slot(dir.path(), &VAULT, &master(), "right");
    assert!(unlock_passphrase(dir.path(), &VAULT, b"right").is_ok());
    assert_eq!(list(dir.path()).unwrap().iter().filter(|slot| matches!(slot.kind, SlotKind::Unreadable(_))).count(), 2);
}

#[test]
fn every_flipped_bit_of_a_slot_opens_nothing() {
    let dir = dir();
    let (phrase, _) = write_recovery(dir.path(), &VAULT, &master()).unwrap();
    let file = only_file(dir.path());
    let good = fs::read(&file).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, bad).unwrap();
        let error = unlock_recovery(dir.path(), &VAULT, &phrase).unwrap_err();
        assert!(matches!(error, KeyError::Wrong | KeyError::Damaged { .. } | KeyError::TooNew { .. } | KeyError::Bounds { .. }), "{error}");
    }
    fs::write(&file, good).unwrap();
    assert!(unlock_recovery(dir.path(), &VAULT, &phrase).is_ok());
}

#[test]
fn a_slot_of_a_newer_format_is_told_apart_from_a_damaged_one() {
    let dir = dir();
    passphrase_slot(dir.path(), &VAULT, &master(), "right");
    let file = only_file(dir.path());
    let newer = String::from_utf8_lossy(&fs::read(&file).unwrap()).replacen("slot 1", "slot 2", 1).into_bytes();
    fs::write(&file, newer).unwrap();
    assert!(matches!(unlock_passphrase(dir.path(), &VAULT, b"right"), Err(KeyError::TooNew { .. })));
    fs::write(&file, vec![0; KEY_SLOT_BYTES_MAX + 1]).unwrap();
    assert!(matches!(unlock_passphrase(dir.path(), &VAULT, b"right"), Err(KeyError::Io { .. })), "too long to be read");
}

#[test]
fn a_slot_that_an_attacker_has_put_there_does_not_open() {
    let dir = dir();
    passphrase_slot(dir.path(), &VAULT, &MasterKey::from_bytes([66; 32]), "the attacker's");
    assert!(matches!(unlock_passphrase(dir.path(), &VAULT, b"the user's"), Err(KeyError::Wrong)));
    let elsewhere = self::dir();
    passphrase_slot(elsewhere.path(), &VaultId::from_bytes([8; 32]), &master(), "the user's");
    fs::copy(only_file(elsewhere.path()), only_file(dir.path())).unwrap();
    let other_vault = || assert!(matches!(unlock_passphrase(dir.path(), &VAULT, b"the user's"), Err(KeyError::Wrong)));
    assert_eq!(derivations(other_vault), 0, "a slot of another vault is not tried");
}

#[test]
fn a_commitment_that_is_not_the_key_s_is_refused_before_anything_is_decrypted() {
    let slot = |key: [u8; 32]| Slot::wrap(&VAULT, Lock::Recovery, &Secrets::Member(master()), |_| Ok(Zeroizing::new(key))).unwrap();
    let bytes = slot([9; 32]).to_file();
    // The commitment is the 32 bytes before the sealed secrets: a string of 49 bytes with a head of two.
    let at = bytes.len() - 49 - 2 - 32;
    let mut forged = bytes.clone();
    forged[at..at + 32].fill(0);
    let open = |bytes: &[u8], key| Slot::from_file(Path::new("slot"), bytes).unwrap().unwrap_with(&Zeroizing::new(key));
    assert!(open(&bytes, [9; 32]).is_ok());
    assert!(matches!(open(&forged, [9; 32]), Err(KeyError::Wrong)));
    assert!(matches!(open(&bytes, [8; 32]), Err(KeyError::Wrong)));
}

#[test]
fn a_device_opens_its_own_slot_and_no_other_s() {
    let (dir, device, other) = (dir(), DeviceKey::from_seed(&[3; 32]), DeviceKey::from_seed(&[4; 32]));
    assert!(unlock_device(dir.path(), &VAULT, &device).unwrap().is_none());
    write_device(dir.path(), &VAULT, &Secrets::Member(master()), &device).unwrap();
    assert!(matches!(unlock_device(dir.path(), &VAULT, &device), Ok(Some(Secrets::Member(_)))));
    let file = only_file(dir.path());
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    fs::rename(&file, file.with_file_name(format!("device-{}.slot", other.id()))).unwrap();
    assert!(matches!(unlock_device(dir.path(), &VAULT, &other), Err(KeyError::Wrong)));
    assert!(unlock_device(dir.path(), &VAULT, &device).unwrap().is_none());
}

#[test]
fn a_recovery_phrase_is_read_in_any_case_and_spacing_and_a_wrong_word_is_noticed() {
    let dir = dir();
    let (phrase, spare) = write_recovery(dir.path(), &VAULT, &master()).unwrap();
    let typed = format!("  {}\n", phrase.to_uppercase().replace(' ', " \t"));
    let opened = unlock_recovery(dir.path(), &VAULT, &typed).unwrap();
    assert_eq!((opened.master.as_bytes(), opened.spare.id()), (master().as_bytes(), spare.device));
    let words: Vec<&str> = phrase.split(' ').collect();
    for wrong in [words[1..].join(" "), format!("{} mirror", words[1..].join(" ")), "not words".into(), String::new()] {
        assert!(matches!(unlock_recovery(dir.path(), &VAULT, &wrong), Err(KeyError::Phrase(_))), "{wrong}");
    }
    let said = |wrong: &str| unlock_recovery(dir.path(), &VAULT, wrong).unwrap_err().to_string();
    assert!(said("not words").contains("it has 2 words"), "{}", said("not words"));
    assert!(said(&format!("{} mirrorr", words[1..].join(" "))).contains("word 24"));
}

#[test]
fn only_slots_that_people_can_open_leave_the_device_and_what_comes_is_checked_first() {
    let (dir, theirs, device) = (dir(), dir(), DeviceKey::from_seed(&[3; 32]));
    passphrase_slot(dir.path(), &VAULT, &master(), "right");
    write_device(dir.path(), &VAULT, &Secrets::Member(master()), &device).unwrap();
    let slots = export_portable(dir.path()).unwrap();
    assert_eq!(slots.len(), 1);
    let (name, bytes) = slots[0].clone();
    let own = fs::read(dir.path().join(format!("device-{}.slot", device.id()))).unwrap();
    let refused: [Vec<PortableSlot>; 6] = [
        vec![("../../escape.slot".into(), bytes.clone())],
        vec![(name.clone(), bytes[..bytes.len() - 1].to_vec())],
        vec![(name.clone(), [&bytes[..], b"x"].concat())],
        vec![(name.clone(), vec![0; KEY_SLOT_BYTES_MAX + 1])],
        vec![(name.clone(), bytes.clone()), (format!("device-{}.slot", device.id()), own)],
        vec![(name.clone(), bytes.clone()); KEY_SLOTS_MAX + 1],
    ];
    for slots in refused {
        let imported = import_portable(theirs.path(), &VAULT, &slots);
        assert!(matches!(imported, Err(KeyError::Damaged { .. } | KeyError::TooMany)), "{imported:?}");
        assert_eq!(fs::read_dir(theirs.path()).unwrap().count(), 0, "none is written if one is refused");
    }
    assert!(import_portable(theirs.path(), &VaultId::from_bytes([8; 32]), &slots).is_err());
    import_portable(theirs.path(), &VAULT, &slots).unwrap();
    assert!(unlock_passphrase(theirs.path(), &VAULT, b"right").is_ok());
}

#[test]
fn there_are_only_so_many_slots() {
    let dir = dir();
    for _ in 0..KEY_SLOTS_MAX {
        write_recovery(dir.path(), &VAULT, &master()).unwrap();
    }
    assert!(matches!(write_recovery(dir.path(), &VAULT, &master()), Err(KeyError::TooMany)));
}

#[test]
fn a_generator_that_gives_equal_bytes_makes_no_key() {
    for byte in [0, 0xff, 0x5a] {
        let constant = random_bytes_from::<32>(|bytes| {
            bytes.fill(byte);
            Ok(())
        });
        assert!(matches!(constant, Err(KeyError::Randomness)));
    }
    let none = random_bytes_from::<32>(|_| Err(Unspecified));
    assert_eq!(none.unwrap_err().to_string(), "the system's random number generator does not work");
    assert_ne!(random_bytes::<32>().unwrap(), random_bytes::<32>().unwrap());
}

#[test]
fn keys_are_not_shown_by_debug() {
    let device = DeviceKey::from_seed(&[0xab; 32]);
    let shown = format!("{:?} {:?} {:?} {device:?}", master(), master().replication_key(&VAULT), Secrets::Member(master()));
    for secret in [[1; 32], *master().replication_key(&VAULT).as_bytes(), [0xab; 32]] {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(&hex) && !shown.contains(&format!("{secret:?}")), "{shown}");
    }
}

#[test]
fn secrets_of_another_form_are_none() {
    let bytes = Secrets::Member(master()).to_bytes();
    for other in [&bytes[..32], &[&bytes[..], b"x"].concat(), &[&[3], &bytes[1..]].concat(), b""] {
        assert!(Secrets::from_bytes(other).is_none());
    }
    assert!(matches!(Secrets::from_bytes(&bytes), Some(Secrets::Member(_))));
}

#[test]
fn slots_and_derived_keys_are_what_an_independent_implementation_computes() {
    let answers = vectors::parse(vectors::KEYS);
    let (vault, master) = (VaultId::from_bytes(array(&answers, "vault")), MasterKey::from_bytes(array(&answers, "master")));
    assert_eq!(*master.replication_key(&vault).as_bytes(), array(&answers, "replication"));
    let device = DeviceKey::from_seed(&array(&answers, "seed"));
    assert_eq!(*device.id().as_bytes(), array(&answers, "device"));
    let dir = dir();
    for slot in ["passphrase_slot", "recovery_slot", "device_slot"] {
        let file = bytes(&answers[slot], "file");
        let read = Slot::from_file(Path::new(slot), &file).unwrap();
        assert_eq!(read.to_file(), file);
        fs::write(dir.path().join(read.file_name()), file).unwrap();
    }
    let phrase = bip39::Mnemonic::from_entropy(&bytes(&answers, "entropy")).unwrap().to_string();
    let by_passphrase = unlock_passphrase(dir.path(), &vault, answers["passphrase"].as_str().unwrap().as_bytes()).unwrap();
    let by_phrase = unlock_recovery(dir.path(), &vault, &phrase).unwrap();
    for (opened, slot) in [(by_passphrase, "passphrase_slot"), (by_phrase, "recovery_slot")] {
        assert_eq!(opened.master.as_bytes(), master.as_bytes());
        assert_eq!(*opened.spare.id().as_bytes(), array(&answers[slot], "spare"));
    }
    let Some(Secrets::Keyless(key)) = unlock_device(dir.path(), &vault, &device).unwrap() else { panic!("the slot is keyless") };
    assert_eq!(*key.as_bytes(), array(&answers, "replication"));
}

#[test]
fn epochs_are_what_an_independent_implementation_computes() {
    let answers = vectors::parse(vectors::EPOCHS);
    let vault = VaultId::from_bytes(array(&answers, "vault"));
    let key = |field| MasterKey::from_bytes(array(&answers, field));
    let (master, earlier, taker) = (key("master"), key("earlier_master"), DeviceKey::from_seed(&array(&answers, "taker_seed")));
    let giver = Giver::from_seed(&array(&answers, "giver_seed"));
    let agreement = |field| AgreementKey::from_bytes(array(&answers, field));
    assert_eq!((giver.public(), taker.agreement_key()), (agreement("giver_agreement"), agreement("taker_agreement")));
    let epoch = epoch_id(&master.replication_key(&vault));
    assert_eq!(epoch, EpochId::from_bytes(array(&answers, "epoch")));
    let occasion = Occasion { vault, epoch, device: taker.id() };
    let grant = giver.grant(&occasion, &taker.agreement_key(), &Secrets::Member(master.clone())).unwrap();
    assert_eq!(grant, bytes(&answers, "grant"));
    assert!(taker.open_grant(&occasion, &giver.public(), &grant).is_some());
    assert_eq!(link(&master, &vault, &earlier), bytes(&answers, "link"));
    let earlier_epoch = EpochId::from_bytes(array(&answers, "earlier_epoch"));
    assert_eq!(unlink(&master, &vault, &earlier_epoch, &bytes(&answers, "link")).unwrap().as_bytes(), earlier.as_bytes());
}
