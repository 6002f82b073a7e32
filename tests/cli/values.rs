//! Values in and out: `init`, `add`, `put`, `get`, `restore`.

use crate::support::{Sandbox, incompressible, settle};
use std::{fs, os::unix::fs::PermissionsExt};

#[test]
fn init_refuses_a_directory_that_holds_something() {
    let sandbox = Sandbox::new();
    sandbox.write("full/file", "x");
    let device = sandbox.device("a");
    device.run(&["init", "full", "--no-passphrase"]).ended_with(2);
    device.run(&["init", "vault", "--no-passphrase"]).ok();
    device.run(&["init", "vault", "--no-passphrase"]).ended_with(2);
    assert_eq!(sandbox.read("full/file"), b"x");
}

#[test]
fn init_and_clone_make_no_vault_inside_another() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let serving = device.serve();
    let ticket = device.invite(&serving, "member");
    for args in [&["--json", "init", "inner", "--no-passphrase", "--no-recovery-kit"][..], &["--json", "clone", &ticket, "packs/inner"]] {
        let error = device.run(args).ended_with(2).last("error");
        assert!(error["message"].as_str().unwrap().contains("lies inside"), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("apart"), "{error}");
    }
    assert!(!sandbox.path("vault/inner").exists() && !sandbox.path("vault/packs/inner").exists());
}

#[test]
fn the_vault_is_found_from_a_directory_below_it() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    device.run(&["put", "k"]).ok();
    fs::create_dir_all(sandbox.path("vault/below/it")).unwrap();
    assert_eq!(device.within(&sandbox.path("vault/below/it")).run(&["ls"]).ok().text(), "k\n");
}

#[test]
fn a_value_comes_back_as_it_went_in() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    for value in [&b""[..], b"x", &[0xff; 300_000]] {
        device.run_with(&["put", "k"], value).ok();
        assert_eq!(device.run(&["get", "k"]).ok().stdout, value);
    }
}

#[test]
fn get_writes_a_file_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    device.run_with(&["put", "k", "-"], b"new").ok();
    sandbox.write("vault/../out", "old");
    device.run(&["get", "missing", "-o", "../out"]).ended_with(1);
    assert_eq!(sandbox.read("out"), b"old");
    device.run(&["get", "k", "-o", "../out"]).ok();
    assert_eq!(sandbox.read("out"), b"new");
}

#[test]
fn with_json_a_value_needs_a_file() {
    let sandbox = Sandbox::new();
    let ran = sandbox.device_with_vault().run(&["--json", "get", "k"]).ended_with(2);
    assert!(ran.last("error")["hint"].as_str().unwrap().contains("-o FILE"));
}

#[test]
fn a_key_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    let error = sandbox.device_with_vault().run(&["--json", "get", "nothing", "-o", "f"]).ended_with(1).last("error");
    assert!(error["message"].as_str().unwrap().contains("nothing"), "{error}");
}

#[test]
fn what_add_says_at_its_end_names_the_share_of_each_stage() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/large", incompressible(8 << 20, 1));
    sandbox.write("tree/small", b"small");
    let summary = device.run(&["--json", "add", "../tree"]).ok().last("summary");
    let stages = summary["stages"].as_object().unwrap();
    for stage in ["read", "hash", "write", "sync", "index"] {
        let share = stages[stage].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{stage}: {summary}");
    }
    assert!(stages["hash"].as_f64().unwrap() > 0.0 && stages["link"] == 0.0, "{summary}");
    let limiting = summary["limiting_stage"].as_str();
    assert!(limiting.is_none_or(|limiting| stages.contains_key(limiting)), "{summary}");
}

#[test]
fn a_tree_is_added_once_and_then_found_unchanged() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/a.txt", "a");
    settle(&sandbox.write("tree/sub/b.txt", incompressible(1 << 20, 1)));
    let first = device.run(&["--json", "add", "../tree"]).ok().last("summary");
    assert_eq!(first["operation"], "add");
    assert!(first["added"].as_u64().unwrap() >= 2, "{first}");
    let before = device.status();
    let again = device.run(&["--json", "add", "../tree"]).ok().last("summary");
    assert_eq!((&again["added"], &again["changed"], &again["bytes_read"]), (&0.into(), &0.into(), &0.into()), "{again}");
    let after = device.status();
    assert_eq!((&before["root"], &before["bytes"]), (&after["root"], &after["bytes"]), "nothing is stored twice");
    let keys = device.run(&["ls"]).ok().text();
    assert!(keys.contains("tree/a.txt\n") && keys.contains("tree/sub/b.txt\n"), "{keys}");
}

#[test]
fn add_leaves_out_what_is_excluded_and_puts_a_prefix_before_keys() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/a.txt", "a");
    sandbox.write("tree/b.tmp", "b");
    device.run(&["add", "../tree", "--prefix", "old/", "--exclude", "*.tmp"]).ok();
    let keys = device.run(&["ls"]).ok().text();
    assert!(keys.contains("old/tree/a.txt") && !keys.contains("b.tmp"), "{keys}");
}

#[test]
fn a_dry_run_of_add_changes_nothing() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/a.txt", "a");
    let summary = device.run(&["--json", "add", "-n", "../tree"]).ok().last("summary");
    assert_eq!(summary["dry_run"], true);
    assert_eq!(device.run(&["ls"]).ok().text(), "");
}

#[test]
fn what_cannot_be_added_is_named_and_the_rest_is_added() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("here", "x");
    let summary = device.run(&["--json", "add", "../here", "../not-here"]).ended_with(3).last("summary");
    assert!(summary["skipped"][0]["path"].as_str().unwrap().contains("not-here"), "{summary}");
    assert!(device.run(&["ls"]).ok().text().contains("here"));
    device.run(&["add", "../not-here"]).ended_with(1);
}

#[test]
fn a_vault_does_not_swallow_itself() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("beside", "x");
    device.run(&["add", "..", "--exclude", "home-*"]).ok();
    assert_eq!(device.run(&["ls"]).ok().text(), "beside\n");
    device.run(&["add", "vault.toml"]).ended_with(2);
    device.run(&["add", "."]).ended_with(2);
    device.run(&["restore", "below"]).ended_with(2);
    assert!(!sandbox.path("vault/below").exists());
}

#[test]
fn restore_brings_back_bytes_modes_and_links() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let script = sandbox.write("tree/run.sh", "#!/bin/sh\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("run.sh", sandbox.path("tree/link")).unwrap();
    device.run(&["add", "../tree"]).ok();
    let summary = device.run(&["--json", "restore", "../back"]).ok().last("summary");
    assert_eq!(summary["operation"], "restore");
    assert_eq!(sandbox.read("back/tree/run.sh"), b"#!/bin/sh\n");
    assert_eq!(sandbox.path("back/tree/run.sh").metadata().unwrap().permissions().mode() & 0o777, 0o750);
    assert_eq!(fs::read_link(sandbox.path("back/tree/link")).unwrap().to_str(), Some("run.sh"));
}

#[test]
fn restore_does_not_overwrite_unless_told_to() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/a.txt", "old");
    device.run(&["add", "../tree"]).ok();
    sandbox.write("back/tree/a.txt", "mine");
    let ran = device.run(&["restore", "../back"]);
    assert!(ran.code == Some(1) || ran.code == Some(3), "{ran:?}");
    assert_eq!(sandbox.read("back/tree/a.txt"), b"mine");
    device.run(&["restore", "../back", "--overwrite"]).ok();
    assert_eq!(sandbox.read("back/tree/a.txt"), b"old");
}

#[test]
fn restore_takes_only_what_it_is_asked_for() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/a.txt", "a");
    sandbox.write("tree/sub/b.txt", "b");
    device.run(&["add", "../tree"]).ok();
    device.run(&["restore", "../back", "tree/sub"]).ok();
    assert!(sandbox.path("back/tree/sub/b.txt").exists() && !sandbox.path("back/tree/a.txt").exists());
}
