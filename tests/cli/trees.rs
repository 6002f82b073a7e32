//! Changes that do not fit together in a tree: a file where another replica has a directory, a deletion against an edit.

use super::roles::{join, owner, synced};
use crate::support::{Device, Sandbox};

fn put(device: &Device, key: &str, value: &str) {
    device.run_with(&["put", key], value.as_bytes()).ok();
}

fn lists(devices: [&Device; 2]) -> [String; 2] {
    devices.map(|device| device.run(&["ls"]).ok().text())
}

#[test]
fn a_file_here_and_a_directory_there_are_both_kept_and_a_restore_says_what_it_could_not_place() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "member");
    put(&a, "d", "a file");
    put(&b, "d/inner", "in a directory");
    synced(&b, &at_a);
    assert_eq!(lists([&a, &b]), ["d\nd/inner\nk\n", "d\nd/inner\nk\n"]);
    for (device, to) in [(&a, "../out-a"), (&b, "../out-b")] {
        let out = device.run(&["--json", "restore", to]).ended_with(3).last("summary");
        let failed = out["failed"].as_array().unwrap();
        assert_eq!(failed.len(), 1, "{out}");
        assert_eq!(
            (&failed[0]["key"], &failed[0]["reason"]),
            (&"d/inner".into(), &"something else stands where a directory must be".into())
        );
        assert_eq!(device.run(&["get", "d/inner"]).ok().text(), "in a directory", "nothing is lost");
    }
}

#[test]
fn a_deletion_that_had_not_seen_an_edit_and_the_edit_are_a_conflict_and_both_stay_in_the_history() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "member");
    a.run(&["rm", "k"]).ok();
    put(&b, "k", "edited");
    synced(&b, &at_a);
    let conflicts = [&a, &b].map(|device| device.run(&["--json", "conflicts"]).ok().json());
    assert_eq!(conflicts[0], conflicts[1]);
    assert_eq!((conflicts[0].len(), &conflicts[0][0]["key"]), (1, &"k".into()));
    let explained = [&a, &b].map(|device| device.run(&["merge", "--explain", "k"]).ok().text());
    assert_eq!(explained[0], explained[1]);
    assert_eq!(lists([&a, &b])[0], lists([&a, &b])[1]);
    let log = a.run(&["log", "k"]).ok().text();
    assert_eq!(log.lines().count(), 3, "the put, the deletion, the edit: {log}");
    let edit = b.run(&["--json", "log", "k"]).ok().json();
    let edit = edit.iter().find(|entry| entry["replica"] == b.status()["replica"]).unwrap();
    assert_eq!(a.run(&["get", "k", "--event", edit["event"].as_str().unwrap()]).ok().text(), "edited", "nothing is purged");
}

#[test]
fn a_rename_here_and_an_edit_there_leave_the_edit_under_the_old_name_and_the_copy_under_the_new() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "member");
    put(&a, "renamed", "from a");
    a.run(&["rm", "k"]).ok();
    put(&b, "k", "edited");
    put(&b, "k", "edited again");
    synced(&b, &at_a);
    for device in [&a, &b] {
        assert_eq!(device.run(&["get", "renamed"]).ok().text(), "from a");
        // Two edits are later in logical time than one deletion and as late as a put and a deletion; whichever stands, it is the same.
        assert_eq!(device.run(&["--json", "conflicts"]).ok().json().len(), 1);
    }
    assert_eq!(lists([&a, &b])[0], lists([&a, &b])[1]);
}
