//! Replicas that stay the same by themselves.

use crate::{
    ask, root, stored,
    support::{Device, Mirord, Sandbox, incompressible, until},
};
use rustix::process::Signal;
use std::time::Instant;

fn put(device: &Device, key: &str) {
    device.run_with(&["put", key], key.as_bytes()).ok();
}

fn get(device: &Device, key: &str) -> Vec<u8> {
    device.run(&["get", key]).ok().stdout
}

/// Two devices, each with a daemon, that hold the same.
fn pair(sandbox: &Sandbox) -> (Device, Mirord, Device, Mirord) {
    let a = sandbox.device_with_vault();
    put(&a, "first");
    let at_a = a.mirord(&[]);
    let b = sandbox.device("b").clone_from(&a, &at_a, "member", "b");
    let at_b = b.mirord(&[]);
    until(|| ask(&b)["vaults"][0]["peers"][0]["connected"] == true);
    (a, at_a, b, at_b)
}

#[test]
fn what_is_put_beside_one_daemon_is_soon_at_the_other_both_ways() {
    let sandbox = Sandbox::new();
    let (a, _at_a, b, _at_b) = pair(&sandbox);
    for (from, to, key) in [(&a, &b, "from a"), (&b, &a, "from b")] {
        put(from, key);
        let (written, wanted) = (Instant::now(), stored(from));
        until(|| root(to) == wanted);
        println!("{key}: the other daemon had it {} ms after the command had ended", written.elapsed().as_millis());
        assert!(written.elapsed().as_secs() < 15, "{key}");
        assert_eq!(get(to, key), key.as_bytes());
    }
    let file = sandbox.write("large", incompressible(3_000_000, 7));
    a.run(&["add", file.to_str().unwrap()]).ok();
    let wanted = stored(&a);
    until(|| root(&b) == wanted);
    assert!(get(&b, "large") == sandbox.read("large"));
    b.verify();
}

#[test]
fn a_change_goes_through_a_replica_that_cannot_read_it() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let at_a = a.mirord(&[]);
    let keyless = sandbox.device("b").clone_from(&a, &at_a, "keyless", "b");
    let c = sandbox.device("c").clone_from(&a, &at_a, "member", "c");
    let between = keyless.mirord(&[]);
    let device = keyless.status()["device"].as_str().unwrap().to_owned();
    c.run(&["peer", "add", "between", between.tcp(), "--device", &device]).ok();
    // It knows where a is, too.
    let _at_c = c.mirord(&["--follow", "between"]);
    until(|| ask(&c)["vaults"][0]["peers"].as_array().is_some_and(|peers| peers.iter().any(|peer| peer["connected"] == true)));
    put(&a, "from a");
    let wanted = stored(&a);
    until(|| root(&c) == wanted);
    assert_eq!(get(&c, "from a"), b"from a");
    put(&c, "from c");
    let wanted = stored(&c);
    until(|| root(&a) == wanted);
    assert_eq!(get(&a, "from c"), b"from c");
    assert_eq!(stored(&keyless), wanted);
    assert_eq!(keyless.run(&["get", "from c"]).code, Some(6), "the one in between cannot read it");
    let met = ask(&c);
    let met: Vec<_> = met["vaults"][0]["peers"].as_array().unwrap().iter().filter(|peer| peer["connected"] == true).collect();
    assert!(met.iter().all(|peer| peer["device"] == *device), "{met:?}");
}

#[test]
fn a_daemon_that_was_killed_is_found_again_and_nothing_is_lost() {
    let sandbox = Sandbox::new();
    let (a, at_a, b, at_b) = pair(&sandbox);
    let address = at_a.tcp().to_owned();
    for (killed, device) in [(at_b, &b), (at_a, &a)] {
        killed.signal(Signal::KILL);
        assert_eq!(killed.finish(), None);
        assert!(device.home().join("mirord.sock").exists(), "it had no time to remove it");
    }
    put(&a, "while away");
    put(&b, "alone");
    let (_at_a, _at_b) = (a.mirord_at(&address, &[]), b.mirord(&[]));
    until(|| root(&a) == root(&b));
    assert_eq!((get(&a, "alone"), get(&b, "while away")), (b"alone".to_vec(), b"while away".to_vec()));
    a.verify();
    b.verify();
}

#[test]
fn status_and_why_say_how_a_peer_stands_now_and_without_a_daemon_how_it_stood() {
    let sandbox = Sandbox::new();
    let (a, at_a, b, at_b) = pair(&sandbox);
    // A session may give way to another one at any time.
    let mut live = b.status();
    until(|| {
        live = b.status();
        live["peers"][0]["connected"] == true
    });
    let peer = &live["peers"][0];
    assert_eq!((&peer["connected"], &live["daemon"]["pid"]), (&true.into(), &at_b.id().into()));
    assert!(["live", "transferring"].contains(&peer["now"]["state"].as_str().unwrap()), "{peer}");
    assert!(["quic", "tcp"].contains(&peer["transport"].as_str().unwrap()), "{peer}");
    until(|| b.run(&["--json", "why", "first"]).ok().last("why")["peers"][0]["connected"] == true);
    until(|| b.run(&["status"]).ok().text().contains("over "));

    at_a.signal(Signal::TERM);
    at_a.finish();
    until(|| ask(&b)["vaults"][0]["peers"][0]["connected"] == false);
    put(&b, "later");
    until(|| b.status()["peers"][0]["lag_events"] == 1);
    // While it dials there is nothing to wait for.
    until(|| {
        let waiting = b.run(&["--json", "why", "later"]).ok().last("why");
        assert_eq!(waiting["peers"][0]["connected"], false);
        waiting["peers"][0]["reason"].is_string()
    });

    at_b.signal(Signal::TERM);
    at_b.finish();
    let files = b.status();
    assert_eq!((&files["daemon"], &files["peers"][0]["connected"]), (&serde_json::Value::Null, &false.into()));
    assert!(files["peers"][0]["last_contact_ms"].is_u64());
    assert_eq!(a.status()["daemon"], serde_json::Value::Null);
}
