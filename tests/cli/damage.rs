//! Vaults with something broken in them: what is broken is named, the rest still works, and nothing that was acknowledged is lost.

use crate::support::{Device, Sandbox, incompressible};
use rustix::process::Signal;
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const VALUE_BYTES: usize = 100_000;

/// A vault with the keys `first` and `second`, in this order in one pack.
fn vault(sandbox: &Sandbox) -> Device {
    let device = sandbox.device_with_vault();
    for (seed, key) in ["first", "second"].into_iter().enumerate() {
        device.run_with(&["put", key], &incompressible(VALUE_BYTES, seed as u64)).ok();
    }
    device
}

#[track_caller]
fn holds(device: &Device, key: &str, seed: u64) {
    assert!(device.run(&["get", key]).ok().stdout == incompressible(VALUE_BYTES, seed), "{key} is not what was put");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn pack(sandbox: &Sandbox) -> PathBuf {
    files(&sandbox.path("vault/packs")).remove(0)
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Exit code 13, `name` among what is wrong, and `second` among the keys that suffer.
#[track_caller]
fn names_the_damage(device: &Device, name: &str) {
    let ran = device.run(&["--json", "verify", "--read-data"]).ended_with(13);
    let summary = ran.last("summary");
    assert_eq!(summary["ok"], false);
    assert!(ran.text().contains(name), "{name} is not named: {}", ran.text());
    let affected: Vec<_> = summary["keys_affected"].as_array().unwrap().iter().map(|key| &key["key"]).collect();
    assert_eq!(affected, ["second"], "{summary}");
}

#[test]
fn every_command_of_a_vault_ends_with_10_where_there_is_none() {
    let sandbox = Sandbox::new();
    let device = sandbox.device("a");
    fs::create_dir(sandbox.path("empty")).unwrap();
    for command in [
        &["add", "."][..],
        &["put", "k"],
        &["get", "k", "-o", "out"],
        &["ls"],
        &["log"],
        &["rm", "k"],
        &["undelete", "k"],
        &["restore", "out"],
        &["status"],
        &["verify"],
        &["scrub"],
        &["recover"],
        &["serve"],
        &["invite"],
        &["peer", "list"],
        &["push", "nas"],
        &["pull", "nas"],
        &["sync", "nas"],
    ] {
        let ran = device.run(&[&["--json", "-V", "empty"], command].concat()).ended_with(10);
        assert!(ran.last("error")["hint"].as_str().unwrap().contains("mirror init"), "{command:?}");
    }
    assert!(files(&sandbox.path("empty")).is_empty() && !sandbox.path("out").exists());
}

#[test]
fn a_truncated_pack_costs_only_the_values_that_lay_behind_the_cut() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    let file = OpenOptions::new().write(true).open(pack(&sandbox)).unwrap();
    file.set_len(file.metadata().unwrap().len() - VALUE_BYTES as u64 / 2).unwrap();
    names_the_damage(&device, "pack");
    holds(&device, "first", 0);
    let error = device.run(&["--json", "get", "second", "-o", "../out"]).ended_with(13).last("error");
    assert!(error["hint"].as_str().unwrap().contains("mirror verify"), "{error}");
    assert!(!sandbox.path("out").exists());
}

#[test]
fn a_torn_tail_is_cut_off_reported_and_nothing_is_lost() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    let log = files(&sandbox.path("vault/log")).remove(0);
    for path in [pack(&sandbox), log] {
        // The beginning of a record whose rest never reached the disk.
        let torn = fs::read(&path).unwrap()[64..64 + 60].to_vec();
        append(&path, &torn);
    }
    device.run_with(&["put", "third"], b"x").ok();
    holds(&device, "first", 0);
    holds(&device, "second", 1);
    assert_eq!(device.run(&["get", "third"]).ok().text(), "x");
    device.verify();
}

#[test]
fn an_index_that_is_deleted_or_garbage_is_made_again() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    let index = sandbox.path("vault/index.db");
    let before = device.status();
    fs::remove_file(&index).unwrap();
    holds(&device, "second", 1);
    fs::write(&index, incompressible(20_000, 7)).unwrap();
    holds(&device, "second", 1);
    fs::write(&index, b"").unwrap();
    device.verify();
    let after = device.status();
    assert_eq!((&before["root"], &before["chunks"], &before["keys"]), (&after["root"], &after["chunks"], &after["keys"]));
}

#[test]
fn a_flipped_bit_in_a_record_is_found_and_never_handed_out() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    let file = OpenOptions::new().read(true).write(true).open(pack(&sandbox)).unwrap();
    let at = file.metadata().unwrap().len() - VALUE_BYTES as u64 / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    names_the_damage(&device, "pack");
    holds(&device, "first", 0);
    let ran = device.run(&["get", "second"]).ended_with(13);
    assert!(ran.stdout.is_empty(), "unverified bytes were handed out");
    let report = device.run(&["--json", "restore", "../back"]).ended_with(3).last("summary");
    assert_eq!((&report["restored"], &report["failed"][0]["key"]), (&1.into(), &"second".into()), "{report}");
    assert!(sandbox.path("back/first").exists() && !sandbox.path("back/second").exists());
}

#[test]
fn a_missing_pack_is_named_and_what_lies_elsewhere_is_still_there() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    // While one command holds its pack, another writes to a pack of its own.
    let mut writer = device.spawn(&["put", "first", "-"]);
    let first = incompressible(VALUE_BYTES, 0);
    let packs = sandbox.path("vault/packs");
    let long = incompressible(16 << 20, 9);
    writer.stdin.as_mut().unwrap().write_all(&long).unwrap();
    writer.wait_until(|| files(&packs).iter().any(|pack| pack.metadata().unwrap().len() > 1 << 20));
    let before = files(&packs);
    device.run_with(&["put", "second"], &incompressible(VALUE_BYTES, 1)).ok();
    writer.stdin.as_mut().unwrap().write_all(&first).unwrap();
    writer.finish().ok();
    let others: Vec<_> = files(&packs).into_iter().filter(|pack| !before.contains(pack)).collect();
    let [second] = others.as_slice() else { panic!("the second value has no pack of its own: {others:?}") };
    fs::remove_file(second).unwrap();
    names_the_damage(&device, second.file_name().unwrap().to_str().unwrap());
    assert!(device.run(&["get", "first"]).ok().stdout == [long, first].concat());
    device.run(&["get", "second"]).ended_with(13);
    device.run_with(&["put", "second"], &incompressible(VALUE_BYTES, 1)).ok();
    holds(&device, "second", 1);
}

#[test]
fn what_a_peer_has_lost_is_left_out_counted_and_fetched_once_it_is_back() {
    let sandbox = Sandbox::new();
    let a = vault(&sandbox);
    let file = OpenOptions::new().read(true).write(true).open(pack(&sandbox)).unwrap();
    let at = file.metadata().unwrap().len() - VALUE_BYTES as u64 / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let serving = a.serve();
    let ticket = a.invite(&serving, "member");
    let b = sandbox.device("b");
    let summary = b.run(&["--json", "clone", &ticket, "b"]).ended_with(3).last("summary");
    assert_eq!((&summary["chunks_unavailable"], &summary["identical"]), (&1.into(), &false.into()), "{summary}");
    let b = b.within(&sandbox.path("b"));
    holds(&b, "first", 0);
    b.run(&["get", "second"]).ended_with(1);
    b.verify();
    // What was found damaged is not served again, whatever its bytes are, until it was looked at anew.
    file.write_all_at(&byte, at).unwrap();
    a.run(&["recover"]).ok();
    let summary = b.run(&["--json", "pull", &serving.tcp, "--device", &serving.device]).ok().last("summary");
    assert_eq!((&summary["chunks_received"], &summary["identical"]), (&1.into(), &true.into()), "{summary}");
    holds(&b, "second", 1);
}

#[test]
fn a_command_that_is_killed_leaves_a_vault_that_is_whole() {
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    let mut writer = device.spawn(&["put", "third", "-"]);
    // Far more than what is written behind the command, which may wait in memory as long as nothing follows.
    writer.stdin.as_mut().unwrap().write_all(&incompressible(64 << 20, 3)).unwrap();
    let pack = pack(&sandbox);
    writer.wait_until(|| pack.metadata().unwrap().len() > 4 << 20);
    writer.signal(Signal::KILL);
    assert_eq!(writer.finish().code, None);
    device.run(&["get", "third"]).ended_with(1);
    holds(&device, "second", 1);
    device.verify();
}

#[test]
#[cfg(target_os = "linux")]
fn a_stdout_that_is_closed_ends_every_command_without_a_word() {
    use std::{fs::File, os::fd::OwnedFd, process::Stdio};
    let sandbox = Sandbox::new();
    let device = vault(&sandbox);
    for args in [&["get", "first"][..], &["ls", "-l"], &["log"], &["--json", "log"], &["status"], &["--json", "verify"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = device.command(args).stdout(File::from(OwnedFd::from(writer))).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    }
}
