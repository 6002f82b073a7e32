//! Key epochs over real sockets: what a removed device can do no more, and what everyone else goes on doing.

use super::roles::{id, join, owner, session, synced};
use crate::support::{Device, Sandbox, contents};
use std::fs;

fn epoch(device: &Device) -> Option<u64> {
    device.status()["epoch"].as_u64()
}

/// Hands `to` the packs and the log of `from`, as a backup or a disk would: everything but keys.
fn hand(sandbox: &Sandbox, from: &str, to: &str) {
    for part in ["packs", "log"] {
        let (source, target) = (sandbox.path(from).join(part), sandbox.path(to).join(part));
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir(&target).unwrap();
        for (path, (.., bytes)) in contents(&source) {
            fs::write(target.join(path), bytes).unwrap();
        }
    }
    fs::copy(sandbox.path(from).join("heads"), sandbox.path(to).join("heads")).unwrap();
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(sandbox.path(to).join(name));
    }
}

#[test]
fn a_removed_device_cannot_connect_and_reads_nothing_written_after_whatever_copy_it_gets() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "member");
    let c = join(&sandbox, &a, &at_a, "c", "member");
    let keyless = join(&sandbox, &a, &at_a, "keyless", "keyless");
    assert_eq!([&a, &b, &c, &keyless].map(epoch), [Some(1); 4]);

    let removed = a.run(&["--json", "peer", "remove", &id(&b)]).ok().last("peer");
    let begun = &removed["epoch_begun"];
    assert_eq!((begun["epoch"].as_u64(), begun["given"].as_array().map(Vec::len)), (Some(2), Some(3)), "{removed}");
    a.run_with(&["put", "new"], b"written after").ok();
    synced(&keyless, &at_a);
    drop(at_a);
    // Behind dials ahead, and the news reaches c by a replica that cannot read.
    let at_keyless = keyless.serve();
    synced(&c, &at_keyless);
    assert_eq!(c.run(&["get", "new"]).ok().text(), "written after");
    c.run_with(&["put", "newer"], b"by another").ok();
    synced(&c, &at_keyless);
    synced(&a, &at_keyless);
    assert_eq!(a.run(&["get", "newer"]).ok().text(), "by another");
    assert_eq!([&a, &c, &keyless].map(epoch), [Some(2); 3]);

    assert_eq!(session(&b, "pull", &at_keyless).0, Some(6));
    hand(&sandbox, "keyless", "b");
    assert_eq!(b.run(&["get", "k"]).ok().text(), "from a", "old keys still read");
    let refused = b.run(&["--json", "get", "new", "-o", "out"]).ended_with(12).json().pop().unwrap();
    assert!(refused["message"].as_str().unwrap().contains("key epoch 2 cannot be read here: this device was removed"), "{refused}");
    assert_eq!(b.run(&["ls"]).ok().text(), "k\n");
    let status = b.status();
    assert_eq!((status["epoch"].as_u64(), &status["epochs_without_key"]), (Some(2), &serde_json::json!([2])));
    b.run_with(&["put", "x"], b"y").ended_with(6);
}

#[test]
fn replicas_that_have_not_heard_of_an_epoch_hear_of_it_whoever_dials() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "member");
    synced(&b, &at_a);
    assert_eq!(a.run(&["--json", "rekey", "-n"]).ok().last("rekey")["epoch"], 2);
    assert_eq!(epoch(&a), Some(1), "a dry run begins nothing");
    a.run(&["rekey"]).ok();
    a.run(&["rekey"]).ok();
    drop(at_a);
    let at_b = b.serve();
    synced(&a, &at_b);
    assert_eq!((epoch(&a), epoch(&b)), (Some(3), Some(3)), "ahead dialed behind");
    drop(at_b);
    a.run(&["rekey"]).ok();
    let at_a = a.serve();
    synced(&b, &at_a);
    b.run_with(&["put", "l"], b"from b").ok();
    synced(&b, &at_a);
    assert_eq!((epoch(&b), a.run(&["get", "l"]).ok().text().as_str()), (Some(4), "from b"), "behind dialed ahead");
    b.run(&["rekey"]).ended_with(6);
}
