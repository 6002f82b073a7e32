//! Several processes on one vault at the same time: all succeed, and nothing of anybody is lost.

use crate::{
    fixture::{MIB, PATIENCE, Random, Running, Two, assert_restores, assert_sound, finish, keys, ticket},
    support::{Device, Sandbox},
};
use std::collections::BTreeSet;

/// Starts all, then waits for all.
fn together(device: &Device, commands: &[Vec<&str>]) {
    let running: Vec<_> = commands.iter().map(|args| Running::start(device.command(args))).collect();
    running.into_iter().for_each(|running| drop(running.ends_within(PATIENCE).ok()));
}

/// Keys, and events in the log, each with its place in its author's log.
fn assert_events_are_numbered_without_gaps(device: &Device, at_least: usize) {
    let entries = device.run(&["--json", "log"]).ok().json();
    let numbers: BTreeSet<u64> = entries.iter().filter_map(|entry| entry["sequence"].as_u64()).collect();
    let events = device.run(&["--json", "status"]).ok().last("status")["events"].as_u64().unwrap();
    assert!(events >= at_least as u64, "{events} events");
    // The first event says who founded the vault, and nothing of a key.
    if let Some(last) = numbers.last() {
        assert_eq!(numbers.len() as u64 + 1, *last, "{numbers:?}");
    }
}

#[test]
fn eight_puts_at_once_all_get_in() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let names: Vec<String> = (0..8).map(|number| format!("k{number}")).collect();
    let file = sandbox.write("value", "value");
    together(&device, &names.iter().map(|name| vec!["put", name, file.to_str().unwrap()]).collect::<Vec<_>>());
    assert_eq!(keys(&device), names.iter().cloned().collect());
    assert_events_are_numbered_without_gaps(&device, 8);
    names.iter().for_each(|name| assert_eq!(device.run(&["get", name]).ok().text(), "value"));
    assert_sound(&device);
}

#[test]
fn two_adds_at_once_both_get_in() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let mut random = Random::new(6);
    for file in 0..400 {
        // Half of the files are in both trees, so that both processes store the same chunks.
        let bytes = random.bytes(5_000);
        sandbox.write(&format!("one/{file}"), &bytes);
        let bytes = if file % 2 == 0 { bytes } else { random.bytes(3_000) };
        sandbox.write(&format!("two/{file}"), bytes);
    }
    let large = random.bytes(8 * MIB);
    sandbox.write("one/large", &large);
    sandbox.write("two/large", &large);
    together(&device, &[vec!["add", "../one"], vec!["add", "../two"]]);
    assert_sound(&device);
    assert_events_are_numbered_without_gaps(&device, 2);
    for name in ["one", "two"] {
        assert_restores(&device, name, &sandbox.path(name), &sandbox.path(&format!("restored-{name}")));
    }
}

#[test]
fn what_is_added_beside_a_server_is_served_at_once() {
    let two = Two::new();
    let serving = two.a.serve();
    for round in 0..3 {
        let file = two.sandbox.write(&format!("file-{round}"), Random::new(round).bytes(2 * MIB));
        // One adds while another clones, and both while the server serves.
        let adding = Running::start(two.a.command(&["add", file.to_str().unwrap()]));
        let name = format!("c{round}");
        let invitation = ticket(&two.a, &serving);
        let cloning = Running::start(two.sandbox.device(&name).command(&["clone", &invitation, &name]));
        adding.ends_within(PATIENCE).ok();
        cloning.ends_within(PATIENCE).ok();
        finish(&two.b, "pull", &serving.tcp, &serving, &[]);
        assert_eq!(keys(&two.a), keys(&two.b));
    }
    // The other way: what a peer has pushed to the server is seen by commands beside it.
    two.b.run_with(&["put", "from-b"], b"b").ok();
    finish(&two.b, "push", &serving.tcp, &serving, &[]);
    assert_eq!(two.a.run(&["get", "from-b"]).ok().text(), "b");
    assert_sound(&two.a);
}
