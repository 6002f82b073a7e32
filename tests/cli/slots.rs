//! Files in `keys/` that are damaged, hostile, replaced or gone: the exact error, and which other way still opens the vault.

use crate::support::{Device, Sandbox, contents};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A vault with a slot of each kind, and what opens it.
fn vault(sandbox: &Sandbox) -> Device {
    sandbox.write("pw", "correct horse");
    let device = sandbox.device("a");
    device.run(&["init", "vault", "--passphrase-file", "pw", "--recovery-file", "kit"]).ok();
    device.within(&sandbox.path("vault"))
}

fn slot(sandbox: &Sandbox, kind: &str) -> PathBuf {
    let mut files = fs::read_dir(sandbox.path("vault/keys")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(kind)).unwrap()
}

/// Replaces the first `from` in a file.
fn patch(file: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is there");
    bytes.splice(at..at + from.len(), to.iter().copied());
    fs::write(file, bytes).unwrap();
}

#[track_caller]
fn assert_error(device: &Device, args: &[&str], code: i32, said: &str, remedy: &str) {
    let error = device.run(&[&["--json", "ls"], args].concat()).ended_with(code).last("error");
    assert!(error["message"].as_str().unwrap().contains(said) && error["hint"].as_str().unwrap().contains(remedy), "{error}");
}

#[test]
fn a_slot_that_asks_for_64_gib_is_refused_at_once_and_other_slots_still_open_the_vault() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    // 64 MiB in KiB, as CBOR.
    patch(&slot(&sandbox, "passphrase"), &[0x1a, 0, 1, 0, 0], &[0x1a, 4, 0, 0, 0]);
    let begun = Instant::now();
    let said = "asks for a key derivation outside the bounds (67108864 KiB, 3 passes, 1 lanes)";
    assert_error(&device, &["--passphrase-file", "../pw"], 13, said, "--recovery-phrase-file");
    assert!(begun.elapsed() < Duration::from_secs(30));
    device.run(&["ls"]).ok();
    device.run(&["ls", "--recovery-phrase-file", "../kit"]).ok();
}

#[test]
fn a_slot_of_a_newer_format_is_too_new_and_is_not_changed() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    patch(&slot(&sandbox, "passphrase"), b"key slot 1", b"key slot 2");
    let before = contents(&sandbox.path("vault/keys"));
    assert_error(&device, &["--passphrase-file", "../pw"], 8, "has format 2, this program reads up to 1", "update mirror");
    assert_eq!(contents(&sandbox.path("vault/keys")), before);
}

#[test]
fn a_vault_of_a_newer_format_is_too_new_and_is_not_changed() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    patch(&sandbox.path("vault/vault.toml"), b"format = 1", b"format = 2");
    let before = contents(&sandbox.path("vault"));
    assert_error(&device, &[], 8, "vault.toml has format 2, this program reads up to 1", "update mirror");
    device.run_with(&["put", "k"], b"x").ended_with(8);
    assert_eq!(contents(&sandbox.path("vault")), before);
}

#[test]
fn slots_that_somebody_has_replaced_open_nothing() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    sandbox.write("theirs", "battery staple");
    sandbox.device("attacker").run(&["init", "other", "--passphrase-file", "theirs", "--no-recovery-kit"]).ok();
    let other = fs::read_dir(sandbox.path("other/keys")).unwrap().map(|entry| entry.unwrap().path());
    for theirs in other.collect::<Vec<_>>() {
        let kind = theirs.file_name().unwrap().to_str().unwrap().split('-').next().unwrap().to_owned();
        fs::copy(theirs, slot(&sandbox, &kind)).unwrap();
    }
    assert_error(&device, &[], 12, "wrong passphrase", "--recovery-phrase-file");
    for passphrase in ["../pw", "../theirs"] {
        assert_error(&device, &["--passphrase-file", passphrase], 12, "wrong passphrase", "--recovery-phrase-file");
    }
    device.run(&["ls", "--recovery-phrase-file", "../kit"]).ok();
}

#[test]
fn a_damaged_slot_of_the_device_is_named_and_the_passphrase_still_opens_the_vault() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    let own = slot(&sandbox, "device");
    fs::write(&own, "garbage").unwrap();
    assert_error(&device, &[], 13, "it is not a key slot", "--passphrase-file");
    device.run(&["ls", "--passphrase-file", "../pw"]).ok();
    fs::remove_file(&own).unwrap();
    assert_error(&device, &[], 11, "locked for this device", "--passphrase-file");
    device.run(&["ls", "--passphrase-file", "../pw"]).ok();
}

#[test]
fn without_its_keys_a_vault_is_damaged_and_not_empty() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    fs::remove_dir_all(sandbox.path("vault/keys")).unwrap();
    assert_error(&device, &[], 13, "keys is missing", "another member");
}
