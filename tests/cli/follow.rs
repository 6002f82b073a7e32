//! `sync --follow`: two programs that keep two replicas the same, through changes on either side and a peer that goes and comes back.

use crate::support::{Device, Running, Sandbox, Serving, until};
use rustix::process::Signal;
use serde_json::Value;

fn put(device: &Device, key: &str) {
    device.run_with(&["put", key], key.as_bytes()).ok();
}

fn has(device: &Device, key: &str) -> bool {
    device.run(&["get", key]).code == Some(0)
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |record| record["type"] == "following" && record["state"] == state
}

fn following(device: &Device, serving: &Serving) -> Running {
    let peer = serving.over("tcp");
    let peer: Vec<&str> = peer.iter().map(String::as_str).collect();
    device.spawn(&[&["--json", "sync", "--follow"], &peer[..]].concat())
}

#[test]
fn changes_go_both_ways_at_once_and_a_peer_that_comes_back_is_found() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let mut follower = following(&b, &serving);
    follower.wait_for(is("identical"));
    put(&a, "from a");
    follower.wait_for(is("identical"));
    assert!(has(&b, "from a"));
    // Another process beside the follower.
    put(&b, "from b");
    follower.wait_for(is("identical"));
    assert!(has(&a, "from b"));

    let address = serving.tcp.clone();
    serving.terminate();
    follower.wait_for(is("waiting"));
    put(&a, "while away");
    put(&b, "alone");
    let _again = a.serve_at(&address);
    follower.wait_for(is("identical"));
    until(|| has(&a, "alone"));
    assert!(has(&b, "while away"));
    follower.signal(Signal::INT);
    assert_eq!(follower.finish().code, Some(130));
}

#[test]
fn a_mass_deletion_ends_a_follower_and_nothing_of_it_is_taken_over() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    (0..150).for_each(|n| _ = sandbox.write(&format!("data/file-{n}"), format!("{n}")));
    a.run(&["add", &sandbox.path("data").display().to_string()]).ok();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let mut follower = following(&b, &serving);
    follower.wait_for(is("identical"));
    a.run(&["rm", "data"]).ok();
    let ended = follower.finish();
    assert_eq!(ended.code, Some(15), "{}", ended.text());
    assert!(has(&b, "data/file-7"));
}
