//! Beginnings and ends: who may run, what is refused before anything is opened, and with which code it ends.

use crate::{
    ask,
    support::{Mirord, Ran, Sandbox, until},
};
use rustix::process::Signal;
use serde_json::Value;
use std::{fs, path::Path};

/// The settings of a daemon, whole at any moment.
fn write_settings(home: &Path, settings: &str) {
    fs::write(home.join("new"), settings).unwrap();
    fs::rename(home.join("new"), home.join("mirord.toml")).unwrap();
}

#[test]
fn a_second_daemon_is_refused_with_the_first_one_s_pid() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let first = a.mirord(&[]);
    let same_device = Ran::from(a.mirord_command(&["--listen", "127.0.0.1:0"]).output().unwrap()).ended_with(5);
    assert!(same_device.stderr.contains(&format!("pid {}", first.id())), "{}", same_device.stderr);
    // Another device, the same directory.
    let other = sandbox.device("other");
    fs::create_dir_all(other.home()).unwrap();
    fs::copy(a.home().join("device.key"), other.home().join("device.key")).unwrap();
    let same_vault = other.within(&sandbox.path("vault")).mirord_command(&["--listen", "127.0.0.1:0"]).output().unwrap();
    let same_vault = Ran::from(same_vault).ended_with(5);
    assert!(same_vault.stderr.contains(&first.id().to_string()), "{}", same_vault.stderr);
    assert_eq!(ask(&a)["pid"], first.id());
}

#[test]
fn signals_end_it_in_order_with_130_and_stop_with_0() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    for signal in [Signal::TERM, Signal::INT] {
        let daemon = a.mirord(&[]);
        daemon.signal(signal);
        assert_eq!(daemon.finish(), Some(130));
        assert!(!a.home().join("mirord.sock").exists());
    }
    let daemon = a.mirord(&[]);
    a.run(&["daemon", "stop"]).ok();
    assert_eq!(daemon.finish(), Some(0));
}

/// Huge pages count as held once a byte of them is used: most of what a daemon at rest held was never used.
#[cfg(target_os = "linux")]
#[test]
fn memory_comes_in_small_pages() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let daemon = a.mirord(&[]);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    assert!(status.lines().any(|line| line == "THP_enabled:\t0"), "{status}");
}

#[test]
fn a_peer_to_follow_that_nobody_is_called_is_said_and_waited_for() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let daemon = a.mirord(&["--follow", "nobody"]);
    daemon.signal(Signal::TERM);
    let said = daemon.ran().ended_with(130).stderr;
    assert!(said.contains("no peer is called so") && said.contains("nobody"), "{said}");
}

#[test]
fn the_log_is_json_when_asked_for_and_says_each_thing_once() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let file = sandbox.path("log");
    let daemon = a.mirord(&["--log-format", "json", "--log-file", file.to_str().unwrap()]);
    daemon.signal(Signal::TERM);
    let ran = daemon.ran().ended_with(130);
    for log in [ran.stderr, fs::read_to_string(file).unwrap()] {
        let lines: Vec<Value> =
            log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
        let said =
            |what: &str| lines.iter().filter(|line| line["fields"]["message"].as_str().is_some_and(|said| said.starts_with(what))).count();
        assert_eq!((said("listening on"), said("ready: 1 vault"), said("stopping")), (1, 1, 1), "{log}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn with_low_priority_all_of_it_lets_others_go_first() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let daemon = a.mirord(&["--low-priority"]);
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap() {
        // One that has ended meanwhile has no priority.
        let Ok(stat) = fs::read_to_string(thread.unwrap().path().join("stat")) else { continue };
        // The 19th field of the line; the second one, in parentheses, may hold spaces.
        let nice = stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().to_owned();
        assert_eq!(nice, "19", "{stat}");
    }
}

#[test]
fn what_contradicts_itself_is_said_before_anything_is_opened() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let two = "[[vault]]\ndir = \"/x\"\n[[vault]]\ndir = \"/y\"\n";
    for (settings, flags, code, said) in [
        ("bwlimt = \"1Mbit\"", &[][..], 2, "did you mean bwlimit?"),
        ("[[vault]]\ndir = \"x\"\nfolow = []", &[], 2, "line 3"),
        ("[[vault]]\ndir = \"x\"\nbwlimit = \"1MB\"", &[], 2, "write it above the first [[vault]]"),
        ("bwlimit = \"10\"", &[], 2, "has no unit"),
        (two, &[], 2, "would both listen on"),
        ("", &["--ui", "0.0.0.0:7741"], 2, "ssh -L"),
        ("", &["--metrics", "0.0.0.0:7741"], 2, "--metrics-remote"),
        ("", &["--lisen", "x"], 2, "--listen"),
        ("", &["--config", "nowhere.toml"], 1, "nowhere.toml"),
        ("", &["-V", "nowhere"], 10, "mirror init"),
        ("listen = []", &[], 2, "line 1"),
    ] {
        write_settings(a.home(), settings);
        let ran = Ran::from(a.mirord_command(flags).output().unwrap()).ended_with(code);
        assert!(ran.stderr.contains(said), "{settings} {flags:?}: {}", ran.stderr);
    }
    assert!(!a.home().join("mirord.sock").exists());
}

#[test]
fn one_vault_that_is_not_there_does_not_keep_the_others_waiting() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let missing = sandbox.path("missing");
    let (dir, gone) = (sandbox.path("vault"), missing.display());
    let settings = format!("[[vault]]\ndir = \"{}\"\nlisten = []\n[[vault]]\ndir = \"{gone}\"\nlisten = []\n", dir.display());
    write_settings(a.home(), &settings);
    let daemon = Mirord::start(a.mirord_command(&["--json", "--no-discovery"]));
    let state = ask(&a);
    assert_eq!((&state["vaults"][0]["name"], &state["vaults"][0]["trouble"]), (&"vault".into(), &serde_json::Value::Null));
    assert!(state["vaults"][1]["trouble"].as_str().unwrap().contains("missing"), "{state}");

    // Settings are read anew: one vault goes, another comes, and the first is not disturbed.
    let since = state["vaults"][0]["since_ms"].clone();
    a.run(&["init", missing.to_str().unwrap(), "--no-passphrase", "--no-recovery-kit"]).ok();
    write_settings(a.home(), &format!("bwlimit = \"8Mbit\"\n{settings}"));
    daemon.signal(Signal::HUP);
    until(|| ask(&a)["limits"]["send"] == 1_000_000 && ask(&a)["vaults"][1]["name"] == "missing");
    assert_eq!(ask(&a)["vaults"][0]["since_ms"], since);
    write_settings(a.home(), &settings.replace("listen", "lisen"));
    daemon.signal(Signal::HUP);
    write_settings(a.home(), &format!("[[vault]]\ndir = \"{gone}\"\nlisten = []\n"));
    daemon.signal(Signal::HUP);
    until(|| ask(&a)["vaults"].as_array().unwrap().len() == 1);
    assert_eq!(ask(&a)["vaults"][0]["name"], "missing");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.finish(), Some(130));
}
