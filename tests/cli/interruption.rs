//! Ctrl-C: the first ends a command at its next commit point, the second at once; either way nothing is lost and it goes on.

use crate::support::{Device, Running, Sandbox, Serving, incompressible};
use rustix::process::Signal;
use std::io::Write;

const VALUE_BYTES: usize = 48 << 20;

/// Bytes in the packs of a vault.
fn packed(sandbox: &Sandbox, vault: &str) -> u64 {
    let packs = std::fs::read_dir(sandbox.path(vault).join("packs")).unwrap();
    packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum()
}

/// The first signal, or both: of two kinds, because the system may deliver two of one kind as one.
fn interrupt(running: &Running, times: u32) {
    running.signal(Signal::INT);
    if times == 2 {
        running.signal(Signal::TERM);
    }
}

fn interrupted_add(times: u32) {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/large", incompressible(4 * VALUE_BYTES, 1));
    sandbox.write("tree/small", "x");
    let mut add = device.spawn(&["--json", "add", "../tree"]);
    add.wait_until(|| packed(&sandbox, "vault") > 4 << 20);
    interrupt(&add, times);
    add.finish().ended_with(130);
    device.verify();
    device.run(&["add", "../tree"]).ok();
    assert!(device.run(&["get", "tree/large"]).ok().stdout == incompressible(4 * VALUE_BYTES, 1));
    device.verify();
}

#[test]
fn an_add_that_is_interrupted_once_stops_and_goes_on() {
    interrupted_add(1);
}

#[test]
fn an_add_that_is_interrupted_twice_stops_at_once_and_goes_on() {
    interrupted_add(2);
}

#[test]
fn a_second_signal_ends_a_command_that_waits_for_its_input() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let mut put = device.spawn(&["put", "k", "-"]);
    put.stdin.as_mut().unwrap().write_all(&incompressible(16 << 20, 1)).unwrap();
    put.wait_until(|| packed(&sandbox, "vault") > 1 << 20);
    let input = put.stdin.take();
    interrupt(&put, 2);
    put.finish().ended_with(130);
    drop(input);
    device.run(&["get", "k"]).ended_with(1);
    device.verify();
}

/// Pulls slowly enough that the signal comes in the middle.
fn begin_pull(device: &Device, serving: &Serving) -> Running {
    let [address, rest @ ..] = serving.over("tcp");
    let limited = [&["--json", "pull", &address][..], &rest.each_ref().map(String::as_str), &["--bwlimit", "off:16MiB"]].concat();
    let mut pull = device.spawn(&limited);
    pull.wait_for(|record| record["type"] == "progress" && record["bytes"].as_u64() > Some(4 << 20));
    pull
}

fn interrupted_pull(times: u32) {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    a.run_with(&["put", "large"], &incompressible(VALUE_BYTES, 1)).ok();
    let pull = begin_pull(&b, &serving);
    interrupt(&pull, times);
    let error = pull.finish().ended_with(130);
    if times == 1 {
        assert_eq!(error.last("error")["code"], 130);
    }
    b.run(&["get", "large"]).ended_with(1);
    b.verify();
    let [address, rest @ ..] = serving.over("quic");
    let summary = b.run(&[&["--json", "pull", &address][..], &rest.each_ref().map(String::as_str)].concat()).ok().last("summary");
    assert_eq!((&summary["resumed"], &summary["identical"]), (&true.into(), &true.into()), "{summary}");
    assert!(summary["bytes_received"].as_u64().unwrap() < VALUE_BYTES as u64 - (4 << 20), "{summary}");
    assert!(b.run(&["get", "large"]).ok().stdout == incompressible(VALUE_BYTES, 1));
    b.verify();
}

#[test]
fn a_pull_that_is_interrupted_once_stops_and_goes_on() {
    interrupted_pull(1);
}

#[test]
fn a_pull_that_is_interrupted_twice_stops_at_once_and_goes_on() {
    interrupted_pull(2);
}
