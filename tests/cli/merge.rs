//! `conflicts`, `merge`, `get --event`: what two replicas wrote without knowing of each other, explained and decided.

use crate::support::{Device, Sandbox, Serving};
use serde_json::Value;

/// Two replicas of one vault; the first serves.
struct Two {
    _sandbox: Sandbox,
    a: Device,
    b: Device,
    serving: Serving,
}

impl Two {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let a = sandbox.device_with_vault();
        let serving = a.serve();
        let b = sandbox.device("b").clone_of(&a, &serving, "b");
        Self { a, b, serving, _sandbox: sandbox }
    }

    fn sync(&self) {
        let peer = self.serving.over("tcp");
        let peer: Vec<&str> = peer.iter().map(String::as_str).collect();
        self.b.run(&[&["sync"], &peer[..]].concat()).ok();
    }

    /// `key` written on both sides, and both told.
    fn conflict(&self, keys: &[&str]) {
        for key in keys {
            put(&self.a, key, &format!("{key} of a"));
            put(&self.b, key, &format!("{key} of b"));
        }
        self.sync();
    }
}

fn put(device: &Device, key: &str, value: &str) {
    device.run_with(&["put", key], value.as_bytes()).ok();
}

fn conflicts(device: &Device) -> Vec<Value> {
    device.run(&["--json", "conflicts"]).ok().json()
}

fn value(device: &Device, key: &str) -> String {
    device.run(&["get", key]).ok().text()
}

#[test]
fn a_conflict_is_listed_and_explained_the_same_on_every_replica() {
    let two = Two::new();
    two.conflict(&["plan"]);
    assert_eq!(conflicts(&two.a), conflicts(&two.b));
    let conflict = &conflicts(&two.a)[0];
    assert_eq!((&conflict["key"], conflict["losers"].as_array().unwrap().len()), (&"plan".into(), 1));
    let explain = |device: &Device| device.run(&["merge", "--explain", "plan"]).ok().stdout;
    assert_eq!(explain(&two.a), explain(&two.b));
    let explained = two.a.run(&["--json", "merge", "--explain", "plan"]).ok().last("explanation");
    assert!(explained["rule"].as_str().unwrap().starts_with("conflict: "), "{explained}");
    two.a.run(&["conflicts", "--fail-on-conflict"]).ended_with(4);
    two.a.run(&["conflicts", "other", "--fail-on-conflict"]).ok();
}

#[test]
fn a_decision_reaches_the_other_replica_and_a_later_edit_beats_it() {
    let two = Two::new();
    two.conflict(&["plan"]);
    let loser = conflicts(&two.a)[0]["losers"][0]["event"].as_str().unwrap().to_owned();
    let lost = two.a.run(&["get", "plan", "--event", &loser]).ok().text();
    assert_ne!(lost, value(&two.a, "plan"));
    two.b.run(&["merge", "--resolve", "plan", "--select", &loser[..8]]).ok();
    two.sync();
    for device in [&two.a, &two.b] {
        assert_eq!((value(device, "plan"), conflicts(device)), (lost.clone(), Vec::new()));
    }
    let explained = two.a.run(&["--json", "merge", "--explain", "plan"]).ok().last("explanation");
    let decision = explained["versions"].as_array().unwrap().last().unwrap();
    assert_eq!((&decision["action"], decision["follows"].as_array().unwrap().len()), (&"resolve".into(), 2));
    put(&two.a, "plan", "later");
    two.sync();
    assert_eq!((value(&two.b, "plan").as_str(), conflicts(&two.b)), ("later", Vec::new()));
}

#[test]
fn the_same_value_written_on_both_sides_is_no_conflict() {
    let two = Two::new();
    put(&two.a, "k", "same");
    put(&two.b, "k", "same");
    two.sync();
    assert_eq!((conflicts(&two.a), conflicts(&two.b)), (Vec::new(), Vec::new()));
    assert_eq!(two.a.status()["conflicts"], 0);
}

#[test]
fn conflicts_are_decided_in_bulk_by_a_rule() {
    let two = Two::new();
    two.conflict(&["x/1", "x/2", "y"]);
    let tried = two.a.run(&["--json", "merge", "--resolve", "--prefer", "newest", "-n"]).ok().last("summary");
    assert_eq!((&tried["resolved"], conflicts(&two.a).len()), (&3.into(), 3));
    // The name by which a knows b is the other device's own.
    let b = two.a.run(&["--json", "peer", "list"]).ok().last("peer")["name"].as_str().unwrap().to_owned();
    two.a.run(&["merge", "--resolve", "x/", "--prefer", "replica", &b]).ok();
    assert_eq!((value(&two.a, "x/1").as_str(), value(&two.a, "x/2").as_str()), ("x/1 of b", "x/2 of b"));
    two.a.run(&["merge", "--resolve", "--prefer", "replica", "here"]).ok();
    assert_eq!((value(&two.a, "y").as_str(), conflicts(&two.a)), ("y of a", Vec::new()));
    two.sync();
    assert_eq!((value(&two.b, "y").as_str(), conflicts(&two.b)), ("y of a", Vec::new()));
}

#[test]
fn what_cannot_be_decided_says_why_and_what_to_type() {
    let two = Two::new();
    two.conflict(&["k"]);
    let error = |args: &[&str], code| two.a.run(&[&["--json"], args].concat()).ended_with(code).last("error");
    assert!(error(&["merge", "--resolve", "k", "--select", "ffffffffff"], 1)["hint"].as_str().unwrap().contains("--explain"));
    assert!(error(&["merge", "--resolve", "k"], 2)["hint"].as_str().unwrap().contains("--select"));
    assert!(error(&["merge", "--resolve"], 2)["hint"].as_str().unwrap().contains("--prefer"));
    assert!(error(&["merge", "--resolve", "--prefer", "oldest"], 2)["hint"].as_str().unwrap().contains("newest"));
    error(&["merge", "--resolve", "--prefer", "replica", "nobody"], 2);
    error(&["merge", "--explain", "nothing"], 1);
    error(&["merge"], 2);
}
