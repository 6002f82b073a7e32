//! What two devices sign when they hold the same, and how `status` tells of it.

use crate::support::{Device, Sandbox, Serving, until};
use serde_json::Value;

/// Whether each certificate of this device is of what it holds now, by the peer's device.
fn certificates(device: &Device) -> Vec<(String, bool)> {
    let status = device.status();
    let listed = status["certificates"].as_array().unwrap().iter();
    listed.map(|it| (it["device"].as_str().unwrap().to_owned(), it["current"].as_bool().unwrap())).collect()
}

fn identical_replicas(device: &Device) -> u64 {
    device.status()["identical_replicas"].as_u64().unwrap()
}

fn id(device: &Device) -> String {
    device.status()["device"].as_str().unwrap().to_owned()
}

fn sync(device: &Device, serving: &Serving, transport: &'static str) {
    let peer = serving.over(transport);
    let peer: Vec<&str> = peer.iter().map(String::as_str).collect();
    device.run(&[&["sync"], &peer[..]].concat()).ok();
}

/// The line of `status` that says who is identical.
fn identical_line(device: &Device) -> String {
    let text = device.run(&["status"]).ok().text();
    text.lines().find(|line| line.starts_with("identical")).unwrap_or_default().to_owned()
}

#[test]
fn after_a_sync_both_ends_can_show_that_the_other_signed_what_they_hold() {
    for transport in ["tcp", "quic"] {
        let sandbox = Sandbox::new();
        let a = sandbox.device_with_vault();
        let serving = a.serve();
        let b = sandbox.device("b").clone_of(&a, &serving, "b");
        for device in [&a, &b] {
            device.run_with(&["put", "k"], b"value").ok();
            assert_eq!(identical_replicas(device), 1, "nobody knows of this value yet");
        }
        sync(&b, &serving, transport);
        assert_eq!(certificates(&b), [(id(&a), true)]);
        until(|| certificates(&a) == [(id(&b), true)]);
        for device in [&a, &b] {
            let status = device.status();
            let certificate = &status["certificates"][0];
            assert_eq!((&certificate["root"], &status["identical_replicas"]), (&status["root"], &Value::from(2)), "{status}");
            let root = &status["root"].as_str().unwrap()[..8];
            let line = identical_line(device);
            assert!(line.starts_with(&format!("identical  at {root} since ")) && line.ends_with("with 2 replicas"), "{line}");
        }
    }
}

#[test]
fn a_sync_that_finds_nothing_to_do_keeps_since_when_both_are_the_same() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let before = b.status()["certificates"][0].clone();
    sync(&b, &serving, "tcp");
    let after = b.status()["certificates"][0].clone();
    assert_eq!(after["since_ms"], before["since_ms"]);
    assert!(after["time_ms"].as_u64() > before["time_ms"].as_u64(), "it was signed anew: {before} {after}");
}

#[test]
fn after_a_change_here_the_certificate_is_of_an_older_state() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    b.run_with(&["put", "k"], b"later").ok();
    assert_eq!((certificates(&b), identical_replicas(&b)), (vec![(id(&a), false)], 1));
    assert!(identical_line(&b).ends_with("an older state"), "{}", identical_line(&b));
    sync(&b, &serving, "tcp");
    assert_eq!((certificates(&b), identical_replicas(&b)), (vec![(id(&a), true)], 2));
}

#[test]
fn a_keyless_replica_signs_and_counts_as_any_other() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "k"], b"value").ok();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let ticket = a.invite(&serving, "keyless");
    sandbox.device("c").run(&["--json", "clone", &ticket, "c"]).ok();
    // That another was let in is an event, which the first clone has yet to get.
    sync(&b, &serving, "tcp");
    until(|| identical_replicas(&a) == 3);
    assert_eq!(identical_replicas(&b), 2, "it has never talked with the keyless one");
    let line = identical_line(&a);
    assert!(line.ends_with("with 3 replicas"), "{line}");
}
