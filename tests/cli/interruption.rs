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
    pull.wait_for(|record| record["type"] == "progress" && record["bytes"].as_u64() > Some(16 << 20));
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

/// A terminal that goes away tells it twice: the system does, and the shell.
#[test]
#[cfg(target_os = "linux")]
fn a_terminal_that_goes_away_stops_an_add_which_goes_on_unless_nohup_has_it_outlive_that() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    // What these tests are to ignore, the programs that they start ignore.
    let outlives = u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1;
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/large", incompressible(2 * VALUE_BYTES, 1));
    let mut add = device.spawn(&["--json", "add", "../tree"]);
    add.wait_until(|| packed(&sandbox, "vault") > 4 << 20);
    add.signal(Signal::HUP);
    add.signal(Signal::HUP);
    add.finish().ended_with(if outlives { 0 } else { 130 });
    device.verify();

    sandbox.write("tree/other", incompressible(VALUE_BYTES, 2));
    let plain = device.command(&["--json", "add", "../tree"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" --json add ../tree"]).arg(plain.get_program());
    command.current_dir(plain.get_current_dir().unwrap());
    plain.get_envs().for_each(|(name, value)| _ = value.map(|value| command.env(name, value)));
    let before = packed(&sandbox, "vault");
    let mut add = Running::start(command);
    add.wait_until(|| packed(&sandbox, "vault") > before + (4 << 20));
    add.signal(Signal::HUP);
    add.finish().ended_with(0);
    assert!(device.run(&["get", "tree/large"]).ok().stdout == incompressible(2 * VALUE_BYTES, 1));
}
