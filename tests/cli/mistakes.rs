//! What people type by mistake: each is told what is wrong, what to do next, and ends with its code.

use crate::support::Sandbox;
use std::net::{TcpListener, UdpSocket};

/// What is typed, the exit code, what the message says, and what the hint says.
type Mistake<'a> = (&'a [&'a str], i32, &'a str, &'a str);

#[test]
fn a_mistake_is_named_with_what_to_do_about_it() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let file = sandbox.write("file", "text").display().to_string();
    let below_file = format!("{file}/below");
    let mistakes: &[Mistake<'_>] = &[
        (&["add", "nowhere"], 1, "nowhere", "check the path"),
        (&["put", "key", "nowhere"], 1, "cannot read nowhere", "check the path"),
        (&["put", "key", &below_file], 1, "below", "check the path"),
        (&["--passphrase-file", "nowhere", "ls"], 1, "cannot read nowhere", "check the path"),
        (&["log", "nokey"], 1, "no such key: nokey", "mirror ls"),
        (&["restore", &file], 1, "opening", "in the way"),
        (&["serve", "--listen", "host"], 2, "'host'", "192.168.1.5:7740"),
        (&["--recovery-phrase-file", &file, "ls"], 2, "it has 1 words", "--help"),
        (&["clone", "-", "elsewhere"], 2, "the ticket is empty", "mirror invite"),
        (&["push", "nobody"], 2, "no peer is called nobody", "mirror peer list"),
        (&["daemon", "status"], 16, "mirord is not running", "mirord -V"),
    ];
    for (typed, code, message, hint) in mistakes {
        let said = device.run(typed).ended_with(*code).stderr;
        let (says, hints) = said.split_once("hint: ").unwrap_or_else(|| panic!("no hint: {typed:?}: {said}"));
        assert!(says.contains(message) && hints.contains(hint), "{typed:?}: {said}");
    }
}

#[test]
fn a_port_that_somebody_has_is_named_with_the_ways_out() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let _other = UdpSocket::bind(address);
    let said = device.run(&["serve", "--listen", &address.to_string()]).ended_with(1).stderr;
    assert!(said.contains(&address.to_string()) && said.contains("hint: ") && said.contains("--listen"), "{said}");
}

#[test]
fn a_clone_says_what_the_other_is_called_and_how_to_go_on() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let serving = device.serve();
    let (ticket, second) = (device.invite(&serving, "keyless"), sandbox.device("b"));
    let said = second.run(&["clone", &ticket, "copy"]).ok().stderr;
    let name = said.split(" is called ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_else(|| panic!("{said}"));
    assert!(said.contains(&format!("mirror -V copy sync {name}")), "{said}");
    let there = second.within(&sandbox.path("copy"));
    assert!(there.run(&["status"]).ok().text().contains("keys       not known here"));
    there.run(&["sync", name]).ok();
}

#[test]
fn a_new_vault_counts_devices_and_not_the_ways_to_open_it() {
    let sandbox = Sandbox::new();
    let device = sandbox.device("a");
    let pass = sandbox.write("pass", "a passphrase\n").display().to_string();
    device.run(&["--passphrase-file", &pass, "init", "v", "--recovery-file", "phrase"]).ok();
    let there = device.within(&sandbox.path("v"));
    assert_eq!(there.status()["devices"].as_u64(), Some(1));
    assert!(there.run(&["status"]).ok().text().contains("owner, of 1 device\n"));
}
