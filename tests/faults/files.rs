//! Files of a vault, or of this device, that are gone, garbage, old, or copied.

use crate::{
    fixture::{
        MIB, PATIENCE, Random, Running, Two, assert_restores, assert_sound, durable_bytes, finish, keys, pack_bytes, transfer, wait_until,
    },
    support::{Device, Sandbox},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A vault with a tree in it and the history of three commands.
fn vault(sandbox: &Sandbox) -> Device {
    let device = sandbox.device_with_vault();
    let mut random = Random::new(7);
    for file in 0..50 {
        let bytes = random.bytes(20_000);
        sandbox.write(&format!("tree/{file}"), bytes);
    }
    sandbox.write("tree/large", random.bytes(3 * MIB));
    device.run_with(&["put", "first"], b"1").ok();
    device.run(&["add", "../tree"]).ok();
    device.run_with(&["put", "last"], b"2").ok();
    device
}

fn remove_index(vault: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        drop(fs::remove_file(vault.join(format!("index.db{suffix}"))));
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
}

/// Everything is as it was, the vault takes more, and the content is the one that went in.
fn assert_unharmed(sandbox: &Sandbox, device: &Device, before: &std::collections::BTreeSet<String>, name: &str) {
    assert_eq!(&keys(device), before, "{name}");
    assert_sound(device);
    device.run_with(&["put", "last"], b"3").ok();
    assert_restores(device, "tree", &sandbox.path("tree"), &sandbox.path(&format!("restored-{name}")));
}

#[test]
fn an_index_that_is_gone_garbage_empty_or_old_is_rebuilt() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let index = sandbox.path("vault/index.db");
    let old = fs::read(&index).unwrap();
    drop(device);
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    let (dir, before) = (sandbox.path("vault"), keys(&device));
    let index = dir.join("index.db");
    let own_old = fs::read(&index).unwrap();
    device.run_with(&["put", "last"], b"newer").ok();
    for (name, bytes) in [
        ("gone", None),
        ("garbage", Some(Random::new(8).bytes(50_000))),
        ("empty", Some(Vec::new())),
        ("of-another-vault", Some(old)),
        ("of-before", Some(own_old)),
    ] {
        remove_index(&dir);
        if let Some(bytes) = bytes {
            fs::write(&index, bytes).unwrap();
        }
        assert_unharmed(&sandbox, &device, &before, name);
    }
}

#[test]
fn heads_that_are_gone_or_garbage_cost_nothing() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    let before = keys(&device);
    fs::remove_file(sandbox.path("vault/heads")).unwrap();
    assert_unharmed(&sandbox, &device, &before, "gone");
    fs::write(sandbox.path("vault/heads"), Random::new(9).bytes(500)).unwrap();
    assert_unharmed(&sandbox, &device, &before, "garbage");
}

/// SQLite files of the device: only the view is one.
fn views(home: &Path) -> Vec<PathBuf> {
    crate::fixture::tree(home)
        .into_iter()
        .filter(|(_, bytes)| bytes.starts_with(b"SQLite format 3"))
        .map(|(path, _)| home.join(path))
        .collect()
}

#[test]
fn a_view_that_is_gone_or_garbage_is_derived_again() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    let before = keys(&device);
    let views = views(&sandbox.path("home-a"));
    assert_eq!(views.len(), 1, "{views:?}");
    for bytes in [None, Some(Random::new(10).bytes(40_000)), Some(Vec::new())] {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = views[0].clone().into_os_string();
            name.push(suffix);
            drop(fs::remove_file(name));
        }
        let name = bytes.as_ref().map_or("gone".to_owned(), |bytes| format!("garbage-{}", bytes.len()));
        if let Some(bytes) = bytes {
            fs::write(&views[0], bytes).unwrap();
        }
        assert_unharmed(&sandbox, &device, &before, &name);
    }
}

#[test]
fn a_lost_home_is_replaced_by_the_passphrase_as_a_new_author() {
    let sandbox = Sandbox::new();
    let device = sandbox.device("a");
    sandbox.write("phrase", "correct horse battery staple\n");
    device.run(&["--passphrase-file", "phrase", "init", "vault", "--no-recovery-kit"]).ok();
    let device = device.within(&sandbox.path("vault"));
    device.run_with(&["put", "k"], b"1").ok();
    let replica =
        |device: &Device| device.run(&["--json", "--passphrase-file", "../phrase", "status"]).ok().last("status")["replica"].clone();
    let before = replica(&device);
    fs::remove_dir_all(sandbox.path("home-a")).unwrap();
    device.run(&["ls"]).ended_with(11);
    assert_ne!(replica(&device), before);
    assert_eq!(device.run(&["--passphrase-file", "../phrase", "get", "k"]).ok().text(), "1");
    device.run_with(&["--passphrase-file", "../phrase", "put", "k"], b"2").ok();
    assert_eq!(device.run(&["--passphrase-file", "../phrase", "get", "k"]).ok().text(), "2");
}

#[test]
fn a_journal_that_is_lost_in_the_middle_of_a_transfer_costs_no_bytes() {
    let two = Two::new();
    let replica = two.sandbox.path("replica");
    let file = two.sandbox.write("large", Random::new(11).bytes(32 * MIB));
    two.a.run(&["add", file.to_str().unwrap()]).ok();
    let serving = two.a.serve();
    let before = pack_bytes(&replica);
    let more = ["--transport", "tcp", "--bwlimit", "40MiB:40MiB"];
    let mut running = Running::start(transfer(&two.b, "pull", &serving.tcp, &serving, &more));
    wait_until("some of it has arrived", || running.has_ended() || pack_bytes(&replica) > before + 8 * MIB);
    running.kill();
    remove_index(&replica);
    let missing = durable_bytes(&two.a) - durable_bytes(&two.b);
    assert!(missing < 28 * MIB, "{missing} bytes are missing");
    let summary = finish(&two.b, "pull", &serving.tcp, &serving, &["--transport", "tcp"]);
    assert!(summary["bytes_received"].as_u64().unwrap() <= missing + missing / 100, "{missing} were missing: {summary}");
    assert_sound(&two.b);
}

#[test]
fn a_copied_vault_directory_writes_as_another_author_and_nothing_forks() {
    let two = Two::new();
    let copied = two.sandbox.path("copied");
    copy(&two.sandbox.path("vault"), &copied);
    let copy = two.a.within(&copied);
    let replica = |device: &Device| device.run(&["--json", "status"]).ok().last("status")["replica"].clone();
    assert_ne!(replica(&two.a), replica(&copy));
    two.a.run_with(&["put", "in-original"], b"o").ok();
    copy.run_with(&["put", "in-copy"], b"c").ok();
    for device in [&two.a, &copy, &two.a] {
        let serving = device.serve();
        let ran = Running::start(transfer(&two.b, "sync", &serving.tcp, &serving, &[])).ends_within(PATIENCE);
        assert_eq!(ran.ok().last("summary")["identical"], true);
    }
    let expected = ["first", "in-copy", "in-original"].map(str::to_owned).into();
    assert_eq!(keys(&two.b), expected);
    assert_eq!(keys(&two.a), expected);
    assert_sound(&two.b);
}
