//! `sync --follow`: two programs that keep two replicas the same, through changes on either side and a peer that goes and comes back.

use crate::support::{Device, Running, Sandbox, Serving, incompressible, until};
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

/// A replica that serves, and another that follows it and is identical.
fn followed() -> (Sandbox, Device, Serving, Device, Running) {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let mut follower = following(&b, &serving);
    follower.wait_for(is("identical"));
    (sandbox, a, serving, b, follower)
}

#[test]
fn changes_go_both_ways_at_once_and_a_peer_that_comes_back_is_found() {
    let (_sandbox, a, serving, b, mut follower) = followed();
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

/// It stays for days, as a daemon does.
#[cfg(target_os = "linux")]
#[test]
fn a_follower_takes_its_memory_in_small_pages() {
    let (_sandbox, _a, _serving, _b, follower) = followed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", follower.id())).unwrap();
    assert!(status.lines().any(|line| line == "THP_enabled:\t0"), "{status}");
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

#[test]
fn a_follower_that_was_killed_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    for round in 0..3 {
        let key = format!("large {round}");
        let mut follower = following(&b, &serving);
        follower.wait_for(is("identical"));
        let before = packed(&sandbox);
        a.run_with(&["put", &key], &incompressible(16 << 20, round)).ok();
        // In the middle, or a little later if the machine is fast.
        follower.wait_until(|| packed(&sandbox) > before + (round << 20));
        follower.signal(Signal::KILL);
        drop(follower);
        b.verify();
        put(&b, &format!("meanwhile {round}"));
    }
    let mut follower = following(&b, &serving);
    follower.wait_for(is("identical"));
    for round in 0..3 {
        assert!(has(&b, &format!("large {round}")) && has(&a, &format!("meanwhile {round}")));
    }
    b.verify();
}

fn packed(sandbox: &Sandbox) -> u64 {
    let packs = std::fs::read_dir(sandbox.path("b/packs")).into_iter().flatten().flatten();
    packs.filter_map(|pack| pack.metadata().ok()).map(|pack| pack.len()).sum()
}

#[test]
fn two_that_follow_each_other_at_once_become_the_same_and_disturb_each_other_in_nothing() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let at_a = a.serve();
    let b = sandbox.device("b").clone_of(&a, &at_a, "b");
    let at_b = b.serve();
    let mut followers = [following(&b, &at_a), following(&a, &at_b)];
    followers.iter_mut().for_each(|follower| _ = follower.wait_for(is("identical")));
    for round in 0..4 {
        let (from_a, from_b) = (format!("a {round}"), format!("b {round}"));
        let large = sandbox.write(&from_a, incompressible(3 << 20, round));
        a.run(&["put", &from_a, large.to_str().unwrap()]).ok();
        put(&b, &from_b);
        until(|| has(&b, &from_a) && has(&a, &from_b));
    }
    until(|| a.status()["root"] == b.status()["root"]);
    for follower in followers {
        follower.signal(Signal::INT);
        let ended = follower.finish().ended_with(130);
        assert!(!ended.text().contains("waiting"), "a connection was lost: {}", ended.text());
    }
    assert_eq!(a.entries(), b.entries());
    a.verify();
    b.verify();
}

#[test]
fn a_vault_that_is_unplugged_while_it_is_followed_is_named_and_goes_on_when_it_is_back() {
    let (sandbox, a, serving, b, follower) = followed();
    let (plugged, unplugged) = (sandbox.path("b"), sandbox.path("unplugged"));
    std::fs::rename(&plugged, &unplugged).unwrap();
    // Nothing changes anywhere that would have to be written.
    let error = follower.finish().ended_with(1).last("error");
    assert_eq!(error["message"], format!("the vault {} is gone: was its disk unplugged?", plugged.display()));
    assert!(error["hint"].as_str().unwrap().contains("then run the same command again"), "{error}");
    put(&a, "meanwhile");
    std::fs::rename(&unplugged, &plugged).unwrap();
    let mut follower = following(&b, &serving);
    follower.wait_for(is("identical"));
    assert!(has(&b, "meanwhile"));
    // The same with something to write, whichever is noticed first.
    std::fs::rename(&plugged, &unplugged).unwrap();
    put(&a, "once more");
    let error = follower.finish().ended_with(1).last("error");
    assert!(error["message"].as_str().unwrap().contains(" is gone: "), "{error}");
    std::fs::rename(&unplugged, &plugged).unwrap();
    b.verify();
}
