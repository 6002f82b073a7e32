//! A disk that fails to sync or to read: strace makes calls of a real process return EIO.

use crate::{
    fixture::{Random, Two, assert_sound, finish, keys, skipped},
    support::{Device, Ran, Sandbox},
};
use std::{path::Path, process::Command};

/// Syncs are refused one after the other until a run needs fewer than this many.
const SYNCS_MAX: usize = 12;

fn strace_works() -> bool {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let works = tried.is_ok_and(|output| output.status.success());
    if !works {
        skipped("failing syncs", "strace is not installed or not allowed here");
    }
    works
}

/// Runs `command` with its `nth` call of `call` refused.
fn run_with_failing(command: &Command, call: &str, nth: usize) -> Ran {
    run_with(command, call, &["-e", &format!("inject={call}:error=EIO:when={nth}")])
}

/// Runs `command` under strace, which does to `call` what `how` says.
fn run_with(command: &Command, call: &str, how: &[&str]) -> Ran {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]).args(how);
    traced.arg(command.get_program()).args(command.get_args()).current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    command.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(traced.env(name, value)),
        None => drop(traced.env_remove(name)),
    });
    Ran::from(traced.output().unwrap())
}

/// After a failed sync: exit 1 (or the sync was of a cache and did not matter), nothing lost, and the next run works.
fn check(device: &Device, ran: &Ran, key: &str, before: &std::collections::BTreeSet<String>) {
    assert!(matches!(ran.code, Some(0 | 1)), "{key}: {:?} {} {}", ran.code, ran.text(), ran.stderr);
    let after = keys(device);
    assert!(after.is_superset(before), "{key}");
    assert!(ran.code != Some(0) || after.contains(key), "{key} was acknowledged");
    assert_sound(device);
}

#[test]
fn a_failed_sync_fails_the_command_and_loses_nothing() {
    if !strace_works() {
        return;
    }
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let mut failures = 0;
    for call in ["fdatasync", "fsync"] {
        for nth in 1..=SYNCS_MAX {
            let before = keys(&device);
            let key = format!("{call}-{nth}");
            let file = sandbox.write(&key, Random::new(nth as u64).bytes(100_000));
            let ran = run_with_failing(&device.command(&["put", &key, file.to_str().unwrap()]), call, nth);
            check(&device, &ran, &key, &before);
            failures += usize::from(ran.code == Some(1));
            device.run(&["put", &key, file.to_str().unwrap()]).ok();
            assert_eq!(device.run(&["get", &key]).ok().stdout, std::fs::read(&file).unwrap());
        }
    }
    assert!(failures >= 2, "only {failures} syncs mattered: the packs' and the log's must");
}

#[test]
fn a_failed_sync_of_a_receiver_acknowledges_nothing_and_the_next_pull_works() {
    if !strace_works() {
        return;
    }
    let two = Two::new();
    let mut failures = 0;
    for nth in 1..=4 {
        let file = two.sandbox.write(&format!("file-{nth}"), Random::new(nth as u64).bytes(300_000));
        two.a.run(&["add", file.to_str().unwrap()]).ok();
        let serving = two.a.serve();
        let command = crate::fixture::transfer(&two.b, "pull", &serving.tcp, &serving, &["--transport", "tcp"]);
        let before = keys(&two.b);
        let ran = run_with_failing(&command, "fdatasync", nth);
        assert!(matches!(ran.code, Some(0 | 1)), "{:?} {}", ran.code, ran.text());
        failures += usize::from(ran.code == Some(1));
        assert!(keys(&two.b).is_superset(&before));
        assert_sound(&two.b);
        finish(&two.b, "pull", &serving.tcp, &serving, &["--transport", "tcp"]);
        assert_sound(&two.b);
        assert_eq!(keys(&two.a), keys(&two.b));
    }
    assert!(failures >= 1, "no sync of the receiver mattered");
}

#[test]
fn reads_of_a_pack_that_fail_send_nothing_wrong_and_lose_nothing() {
    if !strace_works() {
        return;
    }
    let two = Two::new();
    let file = two.sandbox.write("file", Random::new(1).bytes(3 << 20));
    two.b.run(&["add", file.to_str().unwrap()]).ok();
    let serving = two.a.serve();
    let command = crate::fixture::transfer(&two.b, "push", &serving.tcp, &serving, &["--transport", "tcp"]);
    let pack = two.sandbox.path("replica/packs/00000001.pack");
    assert!(pack.exists());
    let ran = run_with(&command, "pread64", &["-P", pack.to_str().unwrap(), "-e", "inject=pread64:error=EIO"]);
    assert!(matches!(ran.code, Some(0 | 1 | 3 | 13)), "{:?} {}", ran.code, ran.text());
    assert_sound(&two.a);
    finish(&two.b, "push", &serving.tcp, &serving, &["--transport", "tcp"]);
    assert_sound(&two.b);
    assert_eq!(two.a.run(&["get", "file"]).ok().stdout, std::fs::read(&file).unwrap());
}
