//! Damage that other replicas make good: what is flipped, cut or deleted on one comes back from the next, whoever holds it, and nothing
//! bad is ever handed on.

use crate::support::{Device, Sandbox, Serving, contents, incompressible};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
};

fn packs(sandbox: &Sandbox, vault: &str) -> Vec<PathBuf> {
    let mut packs: Vec<_> = fs::read_dir(sandbox.path(vault).join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    packs.sort();
    packs
}

/// Flips a bit in the first pack of a vault, at these places of a thousand of its length.
fn flip(sandbox: &Sandbox, vault: &str, places: &[u64]) {
    let file = OpenOptions::new().read(true).write(true).open(&packs(sandbox, vault)[0]).unwrap();
    for at in places.iter().map(|place| file.metadata().unwrap().len() * place / 1_000) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 8], at).unwrap();
    }
}

/// A replica of the vault that is served, as `role`.
fn replica(sandbox: &Sandbox, of: &Device, serving: &Serving, name: &str, role: &str) -> Device {
    let device = sandbox.device(name);
    device.run(&["clone", &of.invite(serving, role), name]).ok();
    device.within(&sandbox.path(name))
}

/// Lets `other` be asked by `device`, at `serving`.
fn scrub_from(device: &Device, serving: &Serving, transport: &'static str) -> crate::support::Ran {
    let [address, rest @ ..] = serving.over(transport);
    device.run(&[&["--json", "scrub", "--rate", "off", "--from", &address][..], &rest.each_ref().map(String::as_str)].concat())
}

fn pull(device: &Device, serving: &Serving) -> crate::support::Ran {
    device.run(&["--json", "pull", &serving.tcp, "--device", &serving.device])
}

fn knows(device: &Device, other: &Device, name: &str) {
    let id = other.status()["device"].as_str().unwrap().to_owned();
    device.run(&["peer", "add", name, "127.0.0.1:1", "--device", &id]).ok();
}

fn keys(summary: &Value) -> usize {
    summary["keys_affected"].as_array().unwrap().len()
}

#[test]
fn bits_flipped_in_a_thousandth_of_the_chunks_heal_from_a_keyless_replica_and_no_bad_byte_is_served() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    for number in 0..3_000_usize {
        sandbox.write(&format!("tree/{}/{number}", number % 20), incompressible(1_000 + number, number as u64));
    }
    a.run(&["add", "../tree"]).ok();
    let serving = a.serve();
    let b = replica(&sandbox, &a, &serving, "b", "keyless");
    flip(&sandbox, "vault", &[120, 510, 870]);
    let damaged = a.run(&["--json", "verify", "--read-data"]).ended_with(13).last("summary");
    assert_eq!((damaged["damaged"].as_array().unwrap().len(), keys(&damaged)), (3, 3), "{damaged}");
    assert!(a.run(&["verify", "--read-data"]).ended_with(13).stderr.contains("mirror scrub --from"));
    // A replica that clones it now gets nothing bad.
    let ticket = a.invite(&serving, "member");
    let c = sandbox.device("c");
    let cloned = c.run(&["--json", "clone", &ticket, "c"]).ended_with(3).last("summary");
    assert_eq!(cloned["chunks_unavailable"], 3, "{cloned}");
    let c = c.within(&sandbox.path("c"));
    c.verify();
    assert_eq!(fs::read_dir(sandbox.path("vault/quarantine")).unwrap().count(), 3, "what was to be served was found damaged");
    assert_eq!(a.status()["chunks_lost"], 3);
    knows(&b, &a, "a");
    let summary = scrub_from(&a, &b.serve(), "tcp").ok().last("summary");
    assert_eq!((&summary["found"], &summary["healed"], &summary["ok"]), (&3.into(), &3.into(), &true.into()), "{summary}");
    assert_eq!((&summary["missing"], &summary["asked"][0]["healed"]), (&Value::Array(vec![]), &3.into()), "{summary}");
    a.verify();
    let status = a.status();
    assert_eq!(
        (&status["chunks_lost"], &status["scrub"]["healed"], &status["scrub"]["lost"]),
        (&0.into(), &3.into(), &0.into()),
        "{status}"
    );
    a.run(&["restore", "../back", "tree"]).ok();
    assert!(contents(&sandbox.path("back/tree")) == contents(&sandbox.path("tree")), "what came back is not what was added");
    // And now the other one can have them, too.
    assert_eq!(pull(&c, &serving).ok().last("summary")["identical"], true);
    c.verify();
}

#[test]
fn a_keyless_replica_verifies_scrubs_and_heals() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "k"], &incompressible(5 << 20, 1)).ok();
    let serving = a.serve();
    let b = replica(&sandbox, &a, &serving, "b", "keyless");
    // In the first chunk and in the last: five mebibytes are more than one.
    flip(&sandbox, "b", &[10, 990]);
    let found = b.run(&["--json", "verify", "--read-data"]).ended_with(13).last("summary");
    assert_eq!((found["damaged"].as_array().unwrap().len(), keys(&found)), (2, 0), "{found}");
    let summary = scrub_from(&b, &serving, "quic").ok().last("summary");
    assert_eq!((&summary["found"], &summary["healed"]), (&2.into(), &2.into()), "{summary}");
    b.verify();
    assert_eq!(b.run(&["--json", "scrub"]).ok().last("summary")["found"], 0);
}

#[test]
fn a_pull_brings_back_a_pack_that_was_deleted_or_cut() {
    for keep in [None, Some(64), Some(1 << 20)] {
        let sandbox = Sandbox::new();
        let a = sandbox.device_with_vault();
        a.run_with(&["put", "first"], &incompressible(6 << 20, 1)).ok();
        a.run_with(&["put", "second"], &incompressible(300, 2)).ok();
        let serving = a.serve();
        let b = sandbox.device("b").clone_of(&a, &serving, "b");
        for pack in packs(&sandbox, "b") {
            match keep {
                None => fs::remove_file(pack).unwrap(),
                Some(bytes) => OpenOptions::new().write(true).open(pack).unwrap().set_len(bytes).unwrap(),
            }
        }
        let ran = b.run(&["get", "first"]).ended_with(13);
        assert!(ran.stderr.contains("chunk") && ran.stderr.contains("mirror scrub"), "{}", ran.stderr);
        let lost = b.status()["chunks_lost"].clone();
        assert!(lost.as_u64() > Some(1) && b.status()["root"] == a.status()["root"], "the events are all there");
        let summary = pull(&b, &serving).ok().last("summary");
        assert_eq!(
            (&summary["chunks_healed"], &summary["chunks_lost"], &summary["identical"]),
            (&lost, &0.into(), &true.into()),
            "{summary}"
        );
        assert!(b.run(&["get", "first"]).ok().stdout == incompressible(6 << 20, 1));
        b.verify();
        let again = pull(&b, &serving).ok().last("summary");
        assert_eq!((&again["chunks_received"], &again["identical"]), (&0.into(), &true.into()), "{again}");
    }
}

#[test]
fn one_session_heals_both_sides() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "k"], &incompressible(8 << 20, 1)).ok();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    flip(&sandbox, "vault", &[200]);
    flip(&sandbox, "b", &[800]);
    // Nobody can be asked: what is damaged is put aside, and named.
    let alone = a.run(&["--json", "scrub"]).ended_with(13).last("summary");
    assert_eq!((&alone["found"], &alone["healed"], alone["missing"].as_array().unwrap().len()), (&1.into(), &0.into(), 1), "{alone}");
    assert_eq!(alone["keys_affected"][0]["key"], "k", "{alone}");
    let summary = scrub_from(&b, &serving, "tcp").ok().last("summary");
    assert_eq!((&summary["found"], &summary["healed"]), (&1.into(), &1.into()), "{summary}");
    b.run(&["sync", &serving.tcp, "--device", &serving.device]).ok();
    [a, b].iter().for_each(Device::verify);
}

#[test]
fn what_no_replica_holds_is_named_with_its_keys_and_the_rest_heals() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "gone"], &incompressible(60_000, 1)).ok();
    a.run_with(&["put", "kept"], &incompressible(60_000, 2)).ok();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    flip(&sandbox, "vault", &[250]);
    flip(&sandbox, "b", &[250, 750]);
    let ran = scrub_from(&b, &serving, "tcp").ended_with(13);
    let summary = ran.last("summary");
    assert_eq!((&summary["found"], &summary["healed"], &summary["ok"]), (&2.into(), &1.into(), &false.into()), "{summary}");
    assert_eq!((keys(&summary), &summary["keys_affected"][0]["key"]), (1, &"gone".into()), "{summary}");
    assert_eq!(pull(&b, &serving).ended_with(3).last("summary")["chunks_lost"], 1, "and still asked for each time");
    assert_eq!(b.run(&["get", "kept"]).ok().stdout, incompressible(60_000, 2));
    b.run(&["get", "gone"]).ended_with(13);
    // The user still has it: it is stored again, and travels.
    b.run_with(&["put", "gone"], &incompressible(60_000, 1)).ok();
    b.verify();
    b.run(&["sync", &serving.tcp, "--device", &serving.device]).ok();
    a.verify();
}

#[test]
fn a_peer_that_cannot_be_reached_is_named_and_the_damage_stays_known() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "k"], &incompressible(60_000, 1)).ok();
    let device = a.status()["device"].as_str().unwrap().replace(|_: char| true, "0");
    flip(&sandbox, "vault", &[500]);
    let args = ["--json", "scrub", "--from", "127.0.0.1:1", "--device", &device, "--transport", "tcp"];
    let summary = a.run(&args).ended_with(13).last("summary");
    assert!(summary["asked"][0]["error"].is_string() && summary["missing"].as_array().unwrap().len() == 1, "{summary}");
    assert_eq!((&a.status()["chunks_lost"], &a.status()["scrub"]["lost"]), (&1.into(), &1.into()));
    a.run(&["scrub", "--from", "nobody"]).ended_with(2);
}

#[test]
fn an_interrupted_scrub_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "k"], &incompressible(48 << 20, 1)).ok();
    let total = a.status();
    let mut scrub = a.spawn(&["--json", "scrub", "--rate", "16MiB"]);
    scrub.wait_for(|record| record["type"] == "progress" && record["bytes"].as_u64() > Some(4 << 20));
    scrub.signal(Signal::INT);
    scrub.finish().ended_with(130);
    let half = a.status();
    let read = half["scrub"]["bytes"].as_u64().unwrap();
    assert!(half["scrub"]["ended_ms"].is_null() && read > 0 && read < total["bytes"].as_u64().unwrap(), "{half}");
    let mut again = a.spawn(&["--json", "scrub", "--rate", "off"]);
    let first = again.wait_for(|record| record["type"] == "progress" || record["type"] == "summary");
    assert!(first["bytes"].as_u64().unwrap() >= read, "{first}");
    again.finish().ok();
    let scrub = &a.status()["scrub"];
    assert_eq!(
        (&scrub["chunks"], &scrub["bytes"], &scrub["found"]),
        (&total["chunks"], &total["bytes"], &0.into()),
        "read once, all of it"
    );
}
