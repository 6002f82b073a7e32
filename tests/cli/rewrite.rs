//! `rekey --rewrite`: what stands, sealed anew under the newest keys.

use super::roles::{id, join, owner, synced};
use crate::support::{Device, Sandbox, incompressible};
use rustix::process::Signal;

const VALUES: u64 = 12;
const VALUE_BYTES: usize = 8 << 20;

fn rewrite(device: &Device, flags: &[&str]) -> serde_json::Value {
    device.run(&[&["--json", "rekey", "--rewrite"], flags].concat()).ok().last("summary")
}

#[test]
fn a_rewrite_that_is_killed_goes_on_and_the_plan_is_what_happens() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let value = |n| incompressible(VALUE_BYTES, n);
    for n in 0..VALUES {
        a.run_with(&["put", &format!("k{n}")], &value(n)).ok();
    }
    assert_eq!((rewrite(&a, &[])["chunks"].as_u64(), rewrite(&a, &[])["epoch"].as_u64()), (Some(0), Some(1)));
    a.run(&["rekey"]).ok();
    let plan = rewrite(&a, &["-n"]);
    assert_eq!((plan["keys"].as_u64(), plan["bytes"].as_u64()), (Some(VALUES), Some(VALUES * VALUE_BYTES as u64)), "{plan}");
    let listed = a.entries();
    let packed =
        || -> u64 { std::fs::read_dir(sandbox.path("vault/packs")).unwrap().map(|pack| pack.unwrap().metadata().unwrap().len()).sum() };
    let before = packed();
    let mut running = a.spawn(&["--json", "rekey", "--rewrite"]);
    running.wait_until(|| packed() > before + (16 << 20));
    running.signal(Signal::KILL);
    drop(running);
    a.verify();
    assert_eq!(a.entries(), listed);
    let left = rewrite(&a, &["-n"]);
    let done = rewrite(&a, &[]);
    for field in ["keys", "chunks", "bytes", "stored_bytes", "epoch"] {
        assert_eq!(done[field], left[field], "{field}");
    }
    assert_eq!(rewrite(&a, &["-n"])["chunks"], 0);
    // Nothing lies there twice that a first run had stored.
    assert!(packed() - before <= plan["stored_bytes"].as_u64().unwrap() + (32 << 20), "{plan}");
    assert_eq!(a.entries(), listed, "the same events stand");
    (0..VALUES).for_each(|n| assert!(a.run(&["get", &format!("k{n}")]).ok().stdout == value(n)));
    a.verify();
}

#[test]
fn a_rewrite_reaches_everyone_and_who_is_out_or_without_key_cannot_do_it() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "member");
    let removed = join(&sandbox, &a, &at_a, "removed", "member");
    let keyless = join(&sandbox, &a, &at_a, "keyless", "keyless");
    synced(&removed, &at_a);
    a.run(&["peer", "remove", &id(&removed)]).ok();
    synced(&b, &at_a);
    assert!(rewrite(&b, &[])["chunks"].as_u64() > Some(0), "a member can");
    synced(&b, &at_a);
    synced(&keyless, &at_a);
    assert_eq!(rewrite(&a, &["-n"])["chunks"], 0);
    assert_eq!(a.run(&["get", "k"]).ok().text(), "from a");
    keyless.verify();
    for flags in [&["rekey", "--rewrite"][..], &["rekey", "--rewrite", "-n"]] {
        keyless.run(flags).ended_with(6);
    }
}

#[test]
fn two_rewrites_at_once_while_a_peer_pulls_take_nothing_away() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    (0..4).for_each(|n| _ = a.run_with(&["put", &format!("k{n}")], &incompressible(VALUE_BYTES / 2, n)).ok());
    a.run(&["rekey"]).ok();
    let peer = serving.over("tcp");
    let pull = [&["--json", "pull"][..], &peer.each_ref().map(String::as_str)].concat();
    let mut pulling = b.spawn(&[&pull[..], &["--bwlimit", "8MiB"]].concat());
    pulling.wait_for(|record| record["type"] == "progress" && record["bytes"].as_u64() > Some(0));
    let rewrites = [a.spawn(&["--json", "rekey", "--rewrite"]), a.spawn(&["--json", "rekey", "--rewrite"])];
    for rewrite in rewrites {
        let ended = rewrite.finish();
        assert!(matches!(ended.code, Some(0 | 5)), "{:?} {} {}", ended.code, ended.text(), ended.stderr);
    }
    pulling.finish().ended_with(0);
    rewrite(&a, &[]);
    assert_eq!(rewrite(&a, &["-n"])["chunks"], 0);
    b.run(&pull).ok();
    assert_eq!(a.entries(), b.entries());
    (0..4).for_each(|n| assert!(b.run(&["get", &format!("k{n}")]).ok().stdout == incompressible(VALUE_BYTES / 2, n)));
    a.verify();
    b.verify();
}
