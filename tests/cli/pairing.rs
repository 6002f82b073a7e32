//! Two devices: `serve`, `invite`, `clone`, `peer`, `push`, `pull`, `sync`.

use crate::support::{Closed, Device, Sandbox, Serving};

/// Device `a` with a vault that is served, and device `b` with a replica of it.
struct Pair {
    a: Device,
    b: Device,
    serving: Serving,
}

fn pair(sandbox: &Sandbox, role: &str) -> Pair {
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "k"], b"from a").ok();
    let serving = a.serve();
    let ticket = a.invite(&serving, role);
    let b = sandbox.device("b");
    let summary = b.run(&["--json", "clone", &ticket, "replica"]).ok().last("summary");
    assert_eq!((&summary["operation"], &summary["identical"]), (&"clone".into(), &true.into()), "{summary}");
    Pair { a, b: b.within(&sandbox.path("replica")), serving }
}

fn transfer(pair: &Pair, command: &str, more: &[&str]) -> serde_json::Value {
    let peer = [command, pair.serving.tcp.as_str(), "--device", pair.serving.device.as_str(), "--json"];
    pair.b.run(&[&peer[..], more].concat()).ok().last("summary")
}

#[test]
fn a_clone_has_everything_and_later_changes_go_both_ways() {
    let sandbox = Sandbox::new();
    let pair = pair(&sandbox, "member");
    assert_eq!(pair.b.run(&["get", "k"]).ok().text(), "from a");
    pair.b.run_with(&["put", "l"], b"from b").ok();
    pair.a.run_with(&["put", "m"], b"from a").ok();
    let summary = transfer(&pair, "sync", &[]);
    assert_eq!((&summary["identical"], &summary["root"]), (&true.into(), &summary["peer_root"]), "{summary}");
    assert_eq!(pair.a.run(&["ls"]).ok().text(), "k\nl\nm\n");
    assert_eq!(pair.b.run(&["ls"]).ok().text(), "k\nl\nm\n");
}

#[test]
fn push_and_pull_work_over_the_transport_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let pair = pair(&sandbox, "member");
    for transport in ["tcp", "quic"] {
        pair.b.run_with(&["put", transport], b"x").ok();
        let address = if transport == "tcp" { &pair.serving.tcp } else { &pair.serving.quic };
        let args = ["push", address, "--device", &pair.serving.device, "--transport", transport, "--json"];
        let summary = pair.b.run(&args).ok().last("summary");
        assert_eq!((&summary["operation"], &summary["transport"]), (&"push".into(), &transport.into()));
    }
    assert_eq!(transfer(&pair, "pull", &[])["events_received"], 0);
}

#[test]
fn a_dry_run_transfers_nothing() {
    let sandbox = Sandbox::new();
    let pair = pair(&sandbox, "member");
    pair.b.run_with(&["put", "l"], b"x").ok();
    assert_eq!(transfer(&pair, "push", &["-n"])["dry_run"], true);
    assert_eq!(pair.a.run(&["ls"]).ok().text(), "k\n");
}

#[test]
fn a_keyless_replica_holds_everything_and_reads_nothing() {
    let sandbox = Sandbox::new();
    let pair = pair(&sandbox, "keyless");
    pair.b.run(&["get", "k"]).ended_with(6);
    assert_eq!(pair.b.run(&["--json", "verify", "--read-data"]).ok().last("summary")["ok"], true);
}

#[test]
fn a_ticket_is_good_once() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let ticket = a.invite(&serving, "member");
    sandbox.write("ticket", format!("{ticket}\n"));
    sandbox.device("b").run(&["clone", "--ticket-file", "ticket", "b"]).ok();
    sandbox.device("c").run_with(&["clone", "-", "c"], ticket.as_bytes()).ended_with(6);
}

#[test]
fn a_stranger_is_refused() {
    let sandbox = Sandbox::new();
    let serving = sandbox.device_with_vault().serve();
    let stranger = sandbox.device("stranger");
    stranger.run(&["init", "own", "--no-passphrase", "--no-recovery-kit"]).ok();
    stranger.run(&["-V", "own", "pull", &serving.tcp, "--device", &serving.device]).ended_with(6);
}

#[test]
fn a_peer_that_does_not_answer_is_unreachable_and_each_try_is_a_cause() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let closed = Closed::new();
    let args = ["--json", "pull", &closed.address.to_string(), "--device", &"0".repeat(64), "--transport", "tcp"];
    let error = device.run(&args).ended_with(16).last("error");
    assert!(!error["causes"].as_array().unwrap().is_empty(), "{error}");
}

#[test]
fn peers_are_remembered_listed_and_forgotten() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let id = "7".repeat(64);
    device.run(&["peer", "add", "nas", "10.0.0.7", "--device", &id]).ok();
    let peer = device.run(&["--json", "peer", "list"]).ok().last("peer");
    assert_eq!((&peer["name"], &peer["device"], &peer["addresses"][0]), (&"nas".into(), &id.as_str().into(), &"10.0.0.7:7740".into()));
    assert_eq!(device.run(&["--json", "status"]).ok().last("status")["peers"][0]["name"], "nas");
    assert!(device.run(&["push", "nsa"]).ended_with(2).stderr.contains("did you mean nas?"));
    device.run(&["peer", "remove", "nas"]).ok();
    assert_eq!(device.run(&["peer", "list"]).ok().text(), "");
}

#[test]
fn serve_ends_with_130_at_the_first_signal() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let serving = device.serve();
    assert_eq!(serving.terminate(), Some(130));
}
