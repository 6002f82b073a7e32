//! What there is and was, and whether it is whole: `ls`, `log`, `rm`, `undelete`, `status`, `verify`, `recover`.

use crate::support::{Device, Sandbox};
use std::fs;

fn put(device: &Device, keys: &[&str]) {
    keys.iter().for_each(|key| drop(device.run_with(&["put", key], key.as_bytes()).ok()));
}

#[test]
fn keys_are_listed_in_order_one_a_line() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    put(&device, &["b", "a/2", "a/1"]);
    assert_eq!(device.run(&["ls"]).ok().text(), "a/1\na/2\nb\n");
    assert_eq!(device.run(&["ls", "a/"]).ok().text(), "a/1\na/2\n");
}

#[test]
fn entries_in_json_have_the_fields_of_the_contract() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    put(&device, &["k"]);
    let entry = device.run(&["--json", "ls"]).ok().last("entry");
    assert_eq!((&entry["key"], &entry["size"], &entry["deleted"]), (&"k".into(), &1.into(), &false.into()));
    for field in ["event", "replica"] {
        assert_eq!(entry[field].as_str().unwrap().len(), 64, "{entry}");
    }
    assert!(entry["modified"].as_str().unwrap().ends_with('Z'), "{entry}");
}

#[test]
#[cfg(target_os = "linux")]
fn keys_cannot_steer_the_terminal_and_are_exact_in_json() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let key = b"a\x1b[2J\n\xff";
    assert!(device.command(&["put"]).arg(OsStr::from_bytes(key)).status().unwrap().success());
    assert_eq!(device.run(&["ls"]).ok().text(), "a\\x1b[2J\\n\\xff\n");
    assert_eq!(device.run(&["--json", "ls"]).ok().last("entry")["key_hex"], "611b5b324a0aff");
}

#[test]
fn a_deleted_key_is_gone_stays_in_the_history_and_comes_back() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    put(&device, &["k"]);
    device.run(&["rm", "k", "--reason", "not needed"]).ok();
    assert_eq!(device.run(&["ls"]).ok().text(), "");
    assert_eq!(device.run(&["--json", "ls", "--deleted"]).ok().last("entry")["deleted"], true);
    let deletion = device.run(&["--json", "log", "k"]).ok().last("log");
    assert_eq!((&deletion["action"], &deletion["reason"]), (&"delete".into(), &"not needed".into()));
    device.run(&["undelete", "k"]).ok();
    assert_eq!(device.run(&["get", "k"]).ok().text(), "k");
}

#[test]
fn keys_that_are_not_there_are_reported_and_the_others_deleted() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    put(&device, &["k", "l"]);
    let summary = device.run(&["--json", "rm", "k", "nothing"]).ended_with(3).last("summary");
    assert_eq!((&summary["done"], &summary["missing"][0]["key"]), (&1.into(), &"nothing".into()));
    device.run(&["rm", "nothing"]).ended_with(1);
    assert_eq!(device.run(&["ls"]).ok().text(), "l\n");
}

#[test]
fn status_counts_what_is_there() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    put(&device, &["k"]);
    let status = device.run(&["--json", "status"]).ok().last("status");
    assert_eq!((&status["keys"], &status["conflicts"], &status["peers"]), (&1.into(), &0.into(), &serde_json::json!([])));
    assert_eq!(status["root"].as_str().unwrap().len(), 64);
}

#[test]
fn a_whole_vault_verifies_and_a_damaged_one_ends_with_13() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    device.run_with(&["put", "k"], &[7; 100_000]).ok();
    let clean = device.run(&["--json", "verify", "--read-data"]).ok().last("summary");
    assert_eq!((&clean["operation"], &clean["ok"]), (&"verify".into(), &true.into()));
    let pack = fs::read_dir(sandbox.path("vault/packs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let damaged = device.run(&["--json", "verify", "--read-data"]).ended_with(13).last("summary");
    assert_eq!(damaged["ok"], false);
    assert_eq!(damaged["keys_affected"][0]["key"], "k", "{damaged}");
}

#[test]
fn an_index_that_is_lost_is_rebuilt() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    put(&device, &["k"]);
    fs::remove_file(sandbox.path("vault/index.db")).unwrap();
    let summary = device.run(&["--json", "recover"]).ok().last("summary");
    assert_eq!((&summary["operation"], &summary["ok"]), (&"recover".into(), &true.into()));
    assert_eq!(device.run(&["get", "k"]).ok().text(), "k");
}

#[test]
fn a_listing_whose_reader_goes_away_is_no_failure() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    put(&device, &["k"]);
    let mut child = device.command(&["ls"]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
