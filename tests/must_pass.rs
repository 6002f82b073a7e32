//! What must work before anything else matters, by name: real programs, real sockets, real signals.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use support::{Device, Running, Sandbox, Serving, contents, incompressible};

/// Of the bytes of a transfer that was interrupted, so many may travel twice.
const RESENT_MAX: f64 = 0.01;
/// What a process that is killed may hold and has not handed to the system yet: the blocks that are written behind it, and one that
/// fills. So much it is only where the disk is slower than the link.
const WRITTEN_BEHIND_BYTES: u64 = 9 << 20;

fn number(record: &Value, field: &str) -> u64 {
    record[field].as_u64().unwrap_or_else(|| panic!("no {field} in {record}"))
}

/// `command PEER --device ID --transport T` and what else it needs.
fn arguments<'a>(command: &'a str, peer: &'a [String; 5], more: &[&'a str]) -> Vec<&'a str> {
    [&["--json", command][..], &peer.each_ref().map(String::as_str), more].concat()
}

#[track_caller]
fn transfer(device: &Device, command: &str, serving: &Serving, transport: &'static str) -> Value {
    let peer = serving.over(transport);
    let summary = device.run(&arguments(command, &peer, &[])).ok().last("summary");
    assert_eq!((&summary["transport"], &summary["identical"]), (&transport.into(), &true.into()), "{summary}");
    summary
}

/// Begins a pull that is slow enough to be caught in the middle, and lets it come to `share` of its bytes.
fn pull_to(device: &Device, serving: &Serving, transport: &'static str, limit: &str, share: f64) -> (Running, Value) {
    let peer = serving.over(transport);
    let mut pull = device.spawn(&arguments("pull", &peer, &["--bwlimit", limit]));
    let progress = pull.wait_for(|record| {
        let (bytes, total) = (record["bytes"].as_u64(), record["bytes_total"].as_u64());
        record["type"] == "progress" && total > Some(0) && bytes.unwrap_or(0) as f64 >= share * total.unwrap_or(0) as f64
    });
    assert!(number(&progress, "bytes") < number(&progress, "bytes_total"), "nothing is left to interrupt: {progress}");
    (pull, progress)
}

/// Kills it as a power cut would.
fn kill(pull: Running) {
    pull.signal(Signal::KILL);
    assert_eq!(pull.finish().code, None, "it had ended by itself");
}

/// Both replicas list the same keys, set by the same events, and have the same root.
#[track_caller]
fn are_identical(a: &Device, b: &Device) {
    assert_eq!(a.entries(), b.entries());
    assert_eq!(a.status()["root"], b.status()["root"]);
}

#[test]
fn must_pass_1_first_sync_of_an_empty_replica_from_a_populated_vault() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    for number in 0..500_usize {
        sandbox.write(&format!("tree/{}/{number}.bin", number % 7), incompressible(number * 37, number as u64));
    }
    sandbox.write("tree/large", incompressible(64 << 20, 1));
    sandbox.write("tree/empty", "");
    std::os::unix::fs::symlink("large", sandbox.path("tree/link")).unwrap();
    a.run(&["add", "../tree"]).ok();
    a.run_with(&["put", "value"], b"not from a file").ok();
    a.run(&["rm", "tree/3/3.bin"]).ok();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    are_identical(&a, &b);
    b.verify();
    assert_eq!(b.run(&["get", "value"]).ok().text(), "not from a file");
    std::fs::remove_file(sandbox.path("tree/3/3.bin")).unwrap();
    b.run(&["restore", "../back", "tree"]).ok();
    let (back, mut tree) = (contents(&sandbox.path("back/tree")), contents(&sandbox.path("tree")));
    // Taking the file away has changed the time of its directory since.
    let directory = std::path::Path::new("3");
    tree.insert(directory.to_owned(), back[directory].clone());
    assert!(back == tree, "what was restored is not what was added");
}

/// Two members that only ever meet through a keyless replica, which is served.
struct Relayed {
    a: Device,
    b: Device,
    keyless: Device,
    serving: Serving,
    _sandbox: Sandbox,
}

impl Relayed {
    /// Both members hold `keys`, the keyless replica knows both, and neither can reach the other any more.
    fn holding(keys: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let a = sandbox.device_with_vault();
        for key in keys {
            a.run_with(&["put", key], b"before").ok();
        }
        let serving = a.serve();
        let b = sandbox.device("b").clone_of(&a, &serving, "b");
        let ticket = a.invite(&serving, "keyless");
        let keyless = sandbox.device("keyless");
        keyless.run(&["--json", "clone", &ticket, "keyless"]).ok();
        drop(serving);
        let keyless = keyless.within(&sandbox.path("keyless"));
        let device = b.status()["device"].as_str().unwrap().to_owned();
        keyless.run(&["peer", "add", "b", "127.0.0.1:1", "--device", &device]).ok();
        Self { a, b, serving: keyless.serve(), keyless, _sandbox: sandbox }
    }

    /// Each member meets the keyless replica, and the first once more: what the second brought is new to it.
    fn relay(&self) {
        for (device, transport) in [(&self.a, "tcp"), (&self.b, "quic"), (&self.a, "quic")] {
            transfer(device, "sync", &self.serving, transport);
        }
    }

    /// All three hold the same, and both members say the same of every key, byte for byte.
    #[track_caller]
    fn are_the_same(&self, keys: &[&str]) {
        are_identical(&self.a, &self.b);
        assert_eq!(self.keyless.status()["root"], self.a.status()["root"]);
        let explained = |device: &Device, how: &[&str]| {
            let explain = |key: &&str| device.run(&[how, &["merge", "--explain", *key]].concat()).ok().stdout;
            keys.iter().map(explain).collect::<Vec<_>>()
        };
        for how in [&[][..], &["--json"]] {
            assert!(explained(&self.a, how) == explained(&self.b, how), "they explain it differently");
        }
        let conflicts = |device: &Device| device.run(&["--json", "conflicts"]).ok().json();
        assert_eq!(conflicts(&self.a), conflicts(&self.b));
    }

    /// What both members read under `key`.
    #[track_caller]
    fn value(&self, key: &str) -> String {
        let [a, b] = [&self.a, &self.b].map(|device| device.run(&["get", key]).ok().text());
        assert_eq!(a, b, "{key}");
        a
    }
}

#[test]
fn must_pass_2_two_way_sync_with_conflicting_updates_ends_the_same_on_every_replica() {
    let keys = ["both 1", "both 2", "changed and deleted", "untouched"];
    let replicas = Relayed::holding(&keys);
    let Relayed { a, b, keyless, .. } = &replicas;
    for (device, name) in [(a, "a"), (b, "b")] {
        for key in &keys[..2] {
            device.run_with(&["put", key], format!("{key} by {name}").as_bytes()).ok();
        }
        device.run_with(&["put", &format!("only {name}")], name.as_bytes()).ok();
    }
    a.run_with(&["put", keys[2]], b"changed").ok();
    b.run(&["rm", keys[2]]).ok();
    replicas.relay();
    replicas.are_the_same(&keys);
    assert_eq!(number(&a.status(), "conflicts"), 3);
    assert_eq!((replicas.value("only a"), replicas.value("only b")), ("a".into(), "b".into()));

    // Decided on one member for what had lost; the other hears of it through the keyless replica, and no conflict is left of that key.
    let conflicts = b.run(&["--json", "conflicts", keys[0]]).ok().json();
    b.run(&["merge", "--resolve", keys[0], "--select", conflicts[0]["losers"][0]["event"].as_str().unwrap()]).ok();
    let chosen = b.run(&["get", keys[0]]).ok().text();
    assert_ne!(chosen, a.run(&["get", keys[0]]).ok().text(), "a has not heard of it");
    for (device, transport) in [(b, "tcp"), (a, "quic")] {
        transfer(device, "sync", &replicas.serving, transport);
    }
    replicas.are_the_same(&keys);
    assert_eq!((replicas.value(keys[0]), number(&a.status(), "conflicts")), (chosen, 2));

    // It dominates what it chose between, and not what comes after.
    a.run_with(&["put", keys[0]], b"after the decision").ok();
    replicas.relay();
    replicas.are_the_same(&keys);
    assert_eq!((replicas.value(keys[0]).as_str(), number(&b.status(), "conflicts")), ("after the decision", 2));
    keyless.run(&["get", keys[0]]).ended_with(6);
    [a, b, keyless].into_iter().for_each(Device::verify);
}

#[test]
fn three_members_that_change_the_same_keys_end_the_same() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let keys = ["both 1", "both 2", "both 3", "changed and deleted", "untouched"];
    for key in keys {
        a.run_with(&["put", key], b"before").ok();
    }
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let c = sandbox.device("c").clone_of(&a, &serving, "c");
    for (device, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        for key in &keys[..3] {
            device.run_with(&["put", key], format!("{key} by {name}").as_bytes()).ok();
        }
        device.run_with(&["put", &format!("only {name}")], name.as_bytes()).ok();
    }
    b.run_with(&["put", keys[3]], b"changed").ok();
    c.run(&["rm", keys[3]]).ok();
    // Twice around: the first time, a has yet to hear of c what b is to hear of it.
    for transport in ["tcp", "quic"] {
        for device in [&b, &c] {
            transfer(device, "sync", &serving, transport);
        }
    }
    are_identical(&a, &b);
    are_identical(&a, &c);
    for device in [&a, &b, &c] {
        assert!(number(&device.status(), "conflicts") >= 4, "{}", device.status());
        for key in &keys[..3] {
            assert_eq!(device.run(&["get", key]).ok().text(), a.run(&["get", key]).ok().text());
        }
        device.verify();
    }
}

#[test]
fn must_pass_3_a_500_mb_transfer_survives_an_interruption_in_mid_stream_and_resumes() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let file = incompressible(500_000_000, 1);
    sandbox.write("tree/file", &file);
    a.run(&["add", "../tree"]).ok();
    let total = a.status();
    // Killed over one transport, gone on with over the other, each way round.
    let mut kept = number(&b.status(), "bytes");
    for (transport, share) in [("quic", 0.3), ("tcp", 0.4)] {
        let (pull, progress) = pull_to(&b, &serving, transport, "off:100MB", share);
        kill(pull);
        assert_eq!(b.run(&["get", "tree/file"]).code, Some(1), "what is not all there shows");
        let now = number(&b.status(), "bytes");
        let lost = number(&progress, "bytes") as f64 - (now - kept) as f64;
        assert!(lost <= WRITTEN_BEHIND_BYTES as f64, "{transport}: {lost} bytes of {progress} are gone");
        kept = now;
    }
    let before = b.status();
    let summary = transfer(&b, "pull", &serving, "quic");
    assert_eq!(summary["resumed"], true);
    assert_eq!(number(&summary, "chunks_present") + number(&summary, "chunks_received"), number(&total, "chunks"), "{summary}");
    let twice = (number(&before, "chunks") + number(&summary, "chunks_received")) as f64 - number(&total, "chunks") as f64;
    assert!(twice.abs() <= RESENT_MAX * number(&total, "chunks") as f64, "{twice} chunks of {total} came twice: {before} {summary}");
    are_identical(&a, &b);
    b.verify();
    b.run(&["get", "tree/file", "-o", "../file"]).ok();
    assert!(sandbox.read("file") == file, "the file is not what was sent");
}

#[test]
fn what_a_killed_pull_had_reported_is_not_sent_again() {
    const VALUE_BYTES: usize = 128 << 20;
    for (first, then) in [("tcp", "quic"), ("quic", "tcp")] {
        let sandbox = Sandbox::new();
        let a = sandbox.device_with_vault();
        let serving = a.serve();
        let b = sandbox.device("b").clone_of(&a, &serving, "b");
        a.run_with(&["put", "k"], &incompressible(VALUE_BYTES, 1)).ok();
        let (pull, progress) = pull_to(&b, &serving, first, "off:64MiB", 0.3);
        kill(pull);
        let summary = transfer(&b, "pull", &serving, then);
        let moved = number(&progress, "bytes") + number(&summary, "bytes_received");
        let most = number(&progress, "bytes_total") + WRITTEN_BEHIND_BYTES;
        assert!(moved <= most, "{first} then {then}: {moved} bytes moved of {progress}");
        assert!(b.run(&["get", "k"]).ok().stdout == incompressible(VALUE_BYTES, 1));
    }
}

#[test]
fn a_serving_side_that_is_killed_is_found_again_and_the_rest_moves() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    a.run_with(&["put", "k"], &incompressible(64 << 20, 1)).ok();
    let (pull, progress) = pull_to(&b, &serving, "tcp", "off:32MiB", 0.3);
    drop(serving);
    let ran = pull.finish();
    assert!(matches!(ran.code, Some(5 | 16)), "{ran:?}");
    let summary = transfer(&b, "pull", &a.serve(), "quic");
    let moved = number(&progress, "bytes") + number(&summary, "bytes_received");
    assert!(moved as f64 <= number(&progress, "bytes_total") as f64 * (1.0 + RESENT_MAX), "{progress} {summary}");
    are_identical(&a, &b);
    b.verify();
}

#[test]
fn a_third_replica_takes_half_from_one_peer_that_dies_and_the_rest_from_another() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let c = sandbox.device("c").clone_of(&a, &serving, "c");
    a.run_with(&["put", "k"], &incompressible(96 << 20, 1)).ok();
    transfer(&b, "pull", &serving, "quic");
    let (pull, progress) = pull_to(&c, &serving, "tcp", "off:48MiB", 0.4);
    drop(serving);
    pull.finish();
    let device = c.status()["device"].as_str().unwrap().to_owned();
    b.run(&["peer", "add", "c", "127.0.0.1:1", "--device", &device]).ok();
    let summary = transfer(&c, "pull", &b.serve(), "quic");
    assert_eq!(summary["resumed"], true, "{summary}");
    let moved = number(&progress, "bytes") + number(&summary, "bytes_received");
    assert!(moved as f64 <= number(&progress, "bytes_total") as f64 * (1.0 + RESENT_MAX), "{progress} {summary}");
    are_identical(&b, &c);
    c.verify();
    assert!(c.run(&["get", "k"]).ok().stdout == incompressible(96 << 20, 1));
}
