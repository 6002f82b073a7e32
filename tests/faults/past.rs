//! Replicas that are not as new as they once were: a directory restored from a backup, a machine put back to a snapshot, a log written twice.

use crate::{
    fixture::{PATIENCE, Running, Two, assert_sound, finish, keys, transfer},
    support::{Device, Ran, Serving},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from.join("."), to.to_owned()]).status().unwrap();
    assert!(copied.success());
}

/// Puts the content of `saved` in the place of that of `dir`, which stays the same directory.
fn put_back(saved: &Path, dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    copy(saved, dir);
}

/// Directories as they were at one moment.
struct Snapshot(Vec<(PathBuf, PathBuf)>);

impl Snapshot {
    fn of(two: &Two, names: &[&str]) -> Self {
        let pair = |name: &&str| (two.sandbox.path(name), two.sandbox.path(&format!("saved-{name}")));
        let pairs: Vec<_> = names.iter().map(pair).collect();
        pairs.iter().for_each(|(dir, saved)| {
            fs::create_dir(saved).unwrap();
            copy(dir, saved);
        });
        Self(pairs)
    }

    fn restore(&self) {
        self.0.iter().for_each(|(dir, saved)| put_back(saved, dir));
    }
}

fn names<const N: usize>(keys: [&str; N]) -> BTreeSet<String> {
    keys.map(str::to_owned).into()
}

fn run(from: &Device, command: &str, serving: &Serving) -> Ran {
    Running::start(transfer(from, command, &serving.tcp, serving, &["--transport", "tcp"])).ends_within(PATIENCE)
}

/// The summary of a transfer that found something of the past, and says so.
#[track_caller]
fn found(from: &Device, command: &str, serving: &Serving) -> Value {
    run(from, command, serving).ended_with(9).last("summary")
}

/// The second replica gets what the first one has.
fn exchange(two: &Two) {
    let serving = two.a.serve();
    finish(&two.b, "sync", &serving.tcp, &serving, &[]);
}

fn put(device: &Device, key: &str) -> Ran {
    device.run_with(&["put", key], key.as_bytes())
}

#[track_caller]
fn list(value: &Value, field: &str) -> Vec<Value> {
    value[field].as_array().unwrap_or_else(|| panic!("no {field} in {value}")).clone()
}

#[test]
fn a_directory_restored_from_a_backup_is_read_only_until_a_peer_has_given_back_what_it_lacks() {
    let two = Two::new();
    let backup = Snapshot::of(&two, &["vault"]);
    put(&two.a, "after-backup").ok();
    let replica = two.a.status()["replica"].clone();
    exchange(&two);
    backup.restore();
    for command in [&["put", "x"][..], &["rm", "first"], &["verify"]] {
        let ran = two.a.run_with(command, b"x").ended_with(9);
        assert!(ran.stderr.contains("older than what this device has seen"), "{}", ran.stderr);
        assert!(ran.stderr.contains("mirror pull"), "{}", ran.stderr);
    }
    assert_eq!(keys(&two.a), names(["first"]), "reading goes on");
    let status = two.a.status();
    let [gone] = &list(&status, "rolled_back")[..] else { panic!("{status}") };
    assert_eq!((&gone["author"], &gone["had"], &gone["has"]), (&replica, &4.into(), &3.into()));
    assert_ne!(status["replica"], replica, "it writes on as another author");
    let serving = two.b.serve();
    run(&two.a, "pull", &serving).ok();
    assert_eq!(list(&two.a.status(), "rolled_back"), [] as [Value; 0]);
    put(&two.a, "after-restore").ok();
    finish(&two.a, "sync", &serving.tcp, &serving, &[]);
    assert_eq!(keys(&two.b), names(["after-backup", "after-restore", "first"]));
    assert_sound(&two.a);
    assert_sound(&two.b);
}

#[test]
fn a_loss_that_nobody_can_make_good_can_be_accepted() {
    let two = Two::new();
    let backup = Snapshot::of(&two, &["vault"]);
    put(&two.a, "lost").ok();
    backup.restore();
    put(&two.a, "new").ended_with(9);
    two.a.run(&["recover", "--accept-loss"]).ok();
    put(&two.a, "new").ok();
    let serving = two.a.serve();
    finish(&two.b, "sync", &serving.tcp, &serving, &[]);
    assert_eq!(keys(&two.b), names(["first", "new"]));
    assert_sound(&two.a);
}

#[test]
fn a_peer_that_was_put_back_with_its_home_is_named_heals_and_signs_as_a_new_author() {
    let two = Two::new();
    let snapshot = Snapshot::of(&two, &["vault", "home-a"]);
    put(&two.a, "after-snapshot").ok();
    let replica = two.a.status()["replica"].clone();
    exchange(&two);
    snapshot.restore();
    assert_eq!(two.a.status()["replica"], replica, "it cannot know");
    let summary = {
        let mut serving = two.a.serve();
        let summary = found(&two.b, "sync", &serving);
        let there = serving.tells("session");
        assert_eq!((&there["own_rolled_back"]["had"], &there["own_rolled_back"]["has"]), (&4.into(), &3.into()), "{there}");
        summary
    };
    assert_eq!(summary["identical"], true, "{summary}");
    let [gone] = &list(&summary, "rolled_back")[..] else { panic!("{summary}") };
    assert_eq!((&gone["author"], &gone["had"], &gone["has"]), (&replica, &4.into(), &3.into()));
    assert_ne!(two.a.status()["replica"], replica, "nothing more is signed in that name");
    put(&two.a, "by-another-author").ok();
    let serving = two.a.serve();
    finish(&two.b, "sync", &serving.tcp, &serving, &[]);
    assert_eq!(keys(&two.b), names(["after-snapshot", "by-another-author", "first"]));
    assert_eq!((two.a.status()["forks"].clone(), two.b.status()["forks"].clone()), (0.into(), 0.into()));
}

#[test]
fn who_was_put_back_learns_it_from_the_peer_that_it_asks() {
    let two = Two::new();
    let snapshot = Snapshot::of(&two, &["vault", "home-a"]);
    put(&two.a, "after-snapshot").ok();
    exchange(&two);
    snapshot.restore();
    let serving = two.b.serve();
    let summary = found(&two.a, "sync", &serving);
    assert_eq!((&summary["own_rolled_back"]["had"], &summary["identical"]), (&4.into(), &true.into()), "{summary}");
    put(&two.a, "new").ok();
    finish(&two.a, "sync", &serving.tcp, &serving, &[]);
}

#[test]
fn a_log_written_twice_is_proved_to_every_replica_keyless_or_not_and_the_rest_goes_on() {
    let two = Two::new();
    let keyless = {
        let serving = two.a.serve();
        let keyless = two.sandbox.device("c");
        keyless.run(&["clone", &two.a.invite(&serving, "keyless"), "c"]).ok();
        keyless.within(&two.sandbox.path("c"))
    };
    let snapshot = Snapshot::of(&two, &["vault", "home-a"]);
    put(&two.a, "one-branch").ok();
    let forked = two.a.status()["replica"].clone();
    exchange(&two);
    let serving_b = two.b.serve();
    run(&keyless, "pull", &serving_b).ok();
    snapshot.restore();
    put(&two.a, "other-branch").ok();
    assert_eq!(two.a.status()["replica"], forked, "nobody has told it yet");
    let summary = found(&two.a, "sync", &serving_b);
    let [fork] = &list(&summary, "forks")[..] else { panic!("{summary}") };
    assert_eq!((&fork["author"], &fork["sequence"]), (&forked, &5.into()));
    assert_ne!(two.a.status()["replica"], forked, "the forked log is ended");
    for device in [&two.a, &two.b] {
        assert_eq!(device.status()["forks"], 1);
        let shown = device.run(&["--json", "log", "--forks"]).ok().json();
        assert_eq!((&shown[0]["type"], &shown[0]["replica"]), (&"fork".into(), &forked), "{shown:?}");
        assert_eq!(shown[1]["type"], "log", "{shown:?}");
    }
    // What a branch says stays readable where the branch is, and what it did is readable everywhere.
    let aside = two.b.run(&["--json", "log", "--forks"]).ok().json()[1].clone();
    assert_eq!(aside["key"], "other-branch");
    let event = aside["event"].as_str().unwrap();
    assert_eq!(two.a.run(&["get", "other-branch"]).ok().stdout, b"other-branch");
    assert_eq!(two.a.run(&["get", "other-branch", "--event", event]).ok().stdout, b"other-branch");
    // Everything else goes on, both ways, by authors that have seen one branch or the other.
    put(&two.a, "later-in-a").ok();
    put(&two.b, "later-in-b").ok();
    found(&two.a, "sync", &serving_b);
    assert!(keys(&two.a).is_superset(&names(["later-in-a", "later-in-b"])), "{:?}", keys(&two.a));
    assert!(keys(&two.b).is_superset(&names(["later-in-a", "later-in-b"])), "{:?}", keys(&two.b));
    // A third replica, without keys, learns of it although its own log is the same as that of who tells it.
    assert_eq!(keyless.status()["forks"], 0);
    run(&keyless, "pull", &serving_b);
    assert_eq!(keyless.status()["forks"], 1);
    let shown = keyless.run(&["--json", "log", "--forks"]).ok().json();
    assert_eq!(shown.len(), 1, "{shown:?}");
    run(&keyless, "pull", &serving_b).ok();
    for device in [&two.a, &two.b, &keyless] {
        assert_sound(device);
    }
}

/// `a` and `b` on two branches of one log, `three` in each that the other never gets by itself.
fn apart(two: &Two) -> (Value, Serving) {
    let snapshot = Snapshot::of(two, &["vault", "home-a"]);
    for key in ["k", "b-only", "both"] {
        two.a.run_with(&["put", key], format!("{key} of b").as_bytes()).ok();
    }
    let forked = two.a.status()["replica"].clone();
    exchange(two);
    snapshot.restore();
    for key in ["k", "a-only", "a-deleted"] {
        two.a.run_with(&["put", key], format!("{key} of a").as_bytes()).ok();
    }
    two.a.run(&["rm", "a-deleted"]).ok();
    let serving = two.b.serve();
    // The first contradiction that they see may not be the first that there is: a few sessions find where the log forks.
    for _ in 0..4 {
        found(&two.a, "sync", &serving);
    }
    assert_ne!(two.a.status()["root"], two.b.status()["root"]);
    (forked, serving)
}

#[test]
fn replicas_on_two_branches_come_together_when_one_leaves_its_own() {
    let two = Two::new();
    let (forked, serving) = apart(&two);
    let replica = &forked.as_str().unwrap()[..12];
    // Somebody who has seen the branch that will be left, and one who changes what it says without having seen it.
    put(&two.a, "by-a-later").ok();
    found(&two.a, "sync", &serving);
    two.b.run(&["recover", "--leave-branch", "ffff"]).ended_with(2);
    let plan = two.a.run(&["--json", "recover", "--leave-branch", replica, "-n"]).ok().last("summary");
    assert_eq!((&plan["dry_run"], &plan["events"], &plan["keys"]), (&true.into(), &4.into(), &3.into()), "{plan}");
    assert_ne!(two.a.status()["root"], two.b.status()["root"], "a dry run leaves nothing");
    let left = two.a.run(&["--json", "recover", "--leave-branch", replica]).ok().last("summary");
    assert_eq!((&left["replica"], &left["events"], &left["written"]), (&forked, &4.into(), &3.into()), "{left}");
    assert_eq!(list(&left, "undecided"), [] as [Value; 0]);
    assert_eq!(keys(&two.a), names(["a-only", "by-a-later", "first", "k"]), "nothing of it is lost");
    two.a.run(&["recover", "--leave-branch", replica]).ended_with(2);
    // One session, and they are the same again, with nothing to report.
    finish(&two.a, "sync", &serving.tcp, &serving, &[]);
    finish(&two.a, "sync", &serving.tcp, &serving, &[]);
    assert_eq!(two.a.status()["root"], two.b.status()["root"]);
    for device in [&two.a, &two.b] {
        assert_eq!(keys(device), names(["a-only", "b-only", "both", "by-a-later", "first", "k"]));
        assert_eq!((device.status()["forks"].clone(), device.status()["conflicts"].clone()), (1.into(), 1.into()), "k, by both branches");
        assert_eq!(list(&device.status(), "rolled_back"), [] as [Value; 0]);
        assert_eq!(device.run(&["get", "a-only"]).ok().stdout, b"a-only of a");
        assert_eq!(device.run(&["get", "both"]).ok().stdout, b"both of b");
        // Also what stands no more is there, with its bytes, wherever the events are kept.
        let aside = device.run(&["--json", "log", "--forks"]).ok().json();
        let deleted =
            aside.iter().find(|said| said["key"] == "a-deleted" && said["action"] == "put").unwrap_or_else(|| panic!("{aside:?}"));
        let ran = device.run(&["get", "a-deleted", "--event", deleted["event"].as_str().unwrap()]).ok();
        assert_eq!(ran.stdout, b"a-deleted of a");
        assert_sound(device);
    }
    put(&two.a, "afterwards").ok();
    put(&two.b, "afterwards-too").ok();
    finish(&two.a, "sync", &serving.tcp, &serving, &[]);
    assert!(keys(&two.b).is_superset(&names(["afterwards", "afterwards-too"])));
}

#[test]
fn a_branch_that_was_left_does_not_come_back_from_who_still_holds_it() {
    let two = Two::new();
    let (forked, serving) = apart(&two);
    let third = {
        let at_a = two.a.serve();
        let third = two.sandbox.device("c");
        third.run(&["clone", &two.a.invite(&at_a, "keyless"), "c"]);
        third.within(&two.sandbox.path("c"))
    };
    two.a.run(&["recover", "--leave-branch", forked.as_str().unwrap()]).ok();
    // The third replica holds the branch that a has left, and is heard before the one that holds the other.
    let at_third = third.serve();
    found(&two.a, "sync", &at_third);
    finish(&two.a, "sync", &serving.tcp, &serving, &[]);
    finish(&two.a, "sync", &serving.tcp, &serving, &[]);
    found(&two.a, "sync", &at_third);
    drop(at_third);
    let left = third.run(&["--json", "recover", "--leave-branch", forked.as_str().unwrap()]).ok().last("summary");
    assert_eq!((&left["events"], &left["written"]), (&4.into(), &0.into()), "{left}");
    run(&third, "sync", &serving);
    run(&third, "sync", &serving).ok();
    for device in [&two.a, &third] {
        assert_eq!(device.status()["root"], two.b.status()["root"]);
        assert_sound(device);
    }
}
