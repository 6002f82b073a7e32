//! Who is in a vault, as what, and who decides it: owners, members and keyless replicas over real sockets.

use crate::support::{Device, Sandbox, Serving, contents};

/// Device `a` with a served vault, which it owns.
pub(super) fn owner(sandbox: &Sandbox) -> (Device, Serving) {
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "k"], b"from a").ok();
    let serving = a.serve();
    (a, serving)
}

pub(super) fn join(sandbox: &Sandbox, owner: &Device, serving: &Serving, name: &str, role: &str) -> Device {
    let ticket = owner.invite(serving, role);
    let device = sandbox.device(name);
    let summary = device.run(&["--json", "clone", &ticket, name]).ok().last("summary");
    assert_eq!(summary["identical"], true, "{summary}");
    device.within(&sandbox.path(name))
}

pub(super) fn id(device: &Device) -> String {
    device.status()["device"].as_str().unwrap().to_owned()
}

/// Exit code and last record of a session of `device` with who is served.
pub(super) fn session(device: &Device, command: &str, serving: &Serving) -> (Option<i32>, serde_json::Value) {
    let ran = device.run(&["--json", command, &serving.tcp, "--device", &serving.device, "--transport", "tcp"]);
    (ran.code, ran.json().pop().unwrap())
}

#[track_caller]
pub(super) fn synced(device: &Device, serving: &Serving) {
    let (code, summary) = session(device, "sync", serving);
    assert_eq!((code, &summary["identical"]), (Some(0), &true.into()), "{summary}");
}

fn roles(device: &Device) -> Vec<(String, String)> {
    let listed = device.run(&["--json", "peer", "list"]).ok().json();
    let text = |peer: &serde_json::Value, field: &str| peer[field].as_str().unwrap().to_owned();
    listed.iter().map(|peer| (text(peer, "device"), text(peer, "role"))).collect()
}

#[test]
fn a_keyless_replica_relays_between_members_that_never_meet() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "member");
    let keyless = join(&sandbox, &a, &at_a, "keyless", "keyless");
    synced(&b, &at_a);
    let at_keyless = keyless.serve();
    b.run_with(&["put", "l"], b"from b").ok();
    synced(&b, &at_keyless);
    keyless.run(&["get", "l"]).ended_with(6);
    keyless.verify();
    synced(&a, &at_keyless);
    assert_eq!(a.run(&["get", "l"]).ok().text(), "from b");
    assert_eq!(a.status()["root"], b.status()["root"]);
}

/// The row of the keyless replica in docs/threat-model.md: what it learns, and what it does not.
#[test]
fn a_keyless_replica_learns_what_the_threat_model_says_and_no_more() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "name-of-a-value"], b"what-the-value-says").ok();
    a.run(&["rm", "name-of-a-value", "--reason", "reason-of-a-deletion"]).ok();
    let serving = a.serve();
    join(&sandbox, &a, &serving, "gone", "member");
    let gone = roles(&a)[0].0.clone();
    a.run(&["peer", "remove", &gone, "--reason", "reason-of-a-removal"]).ok();
    let keyless = join(&sandbox, &a, &serving, "keyless", "keyless");
    let held: Vec<_> = ["keyless", "home-keyless"].into_iter().flat_map(|dir| contents(&sandbox.path(dir))).collect();
    assert!(held.len() > 10);
    for secret in ["name-of-a-value", "what-the-value-says", "reason-of-a-deletion"] {
        for (path, (.., bytes)) in &held {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} in {}", path.display());
        }
    }
    assert!(!held.iter().any(|(path, _)| path.to_string_lossy().contains("views/")), "no view of names");
    keyless.run(&["ls"]).ended_with(6);
    let (here, there) = (keyless.status(), a.status());
    assert_eq!((&here["name"], &here["events"], &here["chunks"]), (&there["name"], &there["events"], &there["chunks"]));
    assert_eq!((here["keys"].as_u64(), here["devices"].as_u64()), (Some(0), Some(2)), "who is in, not how many keys");
    keyless.run(&["log"]).ended_with(6);
    keyless.run(&["merge", "--explain", "name-of-a-value"]).ended_with(6);
}

#[test]
fn two_keyless_replicas_sync_with_each_other() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let one = join(&sandbox, &a, &at_a, "one", "keyless");
    let other = join(&sandbox, &a, &at_a, "other", "keyless");
    synced(&one, &at_a);
    a.run_with(&["put", "l"], b"later").ok();
    synced(&one, &at_a);
    drop(at_a);
    let at_one = one.serve();
    synced(&other, &at_one);
    other.verify();
    assert_eq!((other.status()["events"].clone(), other.status()["role"].as_str()), (one.status()["events"].clone(), Some("keyless")));
}

#[test]
fn every_replica_knows_who_is_in_and_as_what() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "owner");
    let c = join(&sandbox, &a, &at_a, "c", "member");
    let d = join(&sandbox, &a, &at_a, "d", "keyless");
    synced(&b, &at_a);
    let mut expected = vec![(id(&a), "owner"), (id(&c), "member"), (id(&d), "keyless")];
    let mut listed = roles(&b);
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected.into_iter().map(|(device, role)| (device, role.to_owned())).collect::<Vec<_>>());
    assert_eq!((b.status()["role"].as_str(), b.status()["devices"].as_u64()), (Some("owner"), Some(4)));
    let at_b = b.serve();
    let e = join(&sandbox, &b, &at_b, "e", "member");
    e.run_with(&["put", "m"], b"from e").ok();
    synced(&e, &at_b);
    synced(&a, &at_b);
    assert_eq!(a.run(&["get", "m"]).ok().text(), "from e", "an owner that an owner let in lets others in");
}

#[test]
fn a_removed_device_is_refused_by_everyone_who_has_heard_of_it() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "member");
    let keyless = join(&sandbox, &a, &at_a, "keyless", "keyless");
    synced(&b, &at_a);
    let device = id(&b);
    let old_ticket = a.invite(&at_a, "member");
    a.run(&["peer", "remove", &device, "--reason", "stolen"]).ok();
    for transport in ["tcp", "quic"] {
        let address = if transport == "tcp" { &at_a.tcp } else { &at_a.quic };
        let error = b.run(&["--json", "pull", address, "--device", &at_a.device, "--transport", transport]).ended_with(6).last("error");
        assert!(!error.to_string().contains(a.status()["vault"].as_str().unwrap()), "{error}");
    }
    b.run(&["clone", &old_ticket, "again"]).ended_with(6);
    let at_keyless = keyless.serve();
    b.run_with(&["put", "unseen"], b"x").ok();
    synced(&b, &at_keyless);
    synced(&a, &at_keyless);
    assert_eq!(a.run(&["ls"]).ok().text(), "k\n", "kept, so that logs agree, and without effect");
    assert_eq!(a.status()["events_without_effect"], 1);
    assert_eq!(session(&b, "pull", &at_keyless).0, Some(6), "the keyless replica has heard of it now");
    assert!(a.run(&["push", &at_keyless.tcp, "--device", &device]).ended_with(6).stderr.contains("removed"));
    let new_ticket = a.invite(&at_a, "member");
    let again = b.within(&sandbox.path(""));
    again.run(&["clone", &new_ticket, "again"]).ok();
    assert_eq!(again.within(&sandbox.path("again")).run(&["get", "k"]).ok().text(), "from a", "a new ticket lets it in again");
}

#[test]
fn owners_that_are_no_devices_are_listed_as_what_they_are() {
    let sandbox = Sandbox::new();
    sandbox.write("pass", "correct horse");
    let a = sandbox.device("a");
    a.run(&["init", "vault", "--recovery-file", "kit", "--passphrase-file", "pass"]).ok();
    let a = a.within(&sandbox.path("vault"));
    let text = a.run(&["peer", "list"]).ok().text();
    assert!(
        text.lines().count() == 2 && text.lines().all(|line| line.ends_with("no device: whoever opens the vault with it  owner")),
        "{text}"
    );
    let listed = a.run(&["--json", "peer", "list"]).ok().json();
    let mut secrets: Vec<&str> = listed.iter().map(|peer| peer["secret"].as_str().unwrap()).collect();
    secrets.sort_unstable();
    assert_eq!(secrets, ["passphrase", "recovery phrase"]);
    let b = join(&sandbox, &a, &a.serve(), "b", "member");
    let devices = a.run(&["--json", "peer", "list"]).ok().json().into_iter().filter(|peer| peer["secret"].is_null());
    assert_eq!(devices.map(|peer| peer["device"].clone()).collect::<Vec<_>>(), [id(&b)]);
}

#[test]
fn a_member_neither_invites_nor_removes_and_is_told_who_can() {
    let sandbox = Sandbox::new();
    let (a, at_a) = owner(&sandbox);
    let b = join(&sandbox, &a, &at_a, "b", "member");
    let c = join(&sandbox, &a, &at_a, "c", "member");
    synced(&b, &at_a);
    let error = b.run(&["--json", "invite"]).ended_with(6).last("error");
    let owners_name = b.run(&["--json", "peer", "list"]).ok().json()[0]["name"].as_str().unwrap().to_owned();
    assert!(error["hint"].as_str().unwrap().ends_with(&format!("on {owners_name}")), "{error}");
    b.run(&["peer", "add", "c", "127.0.0.1:1", "--device", &id(&c)]).ok();
    let told = b.run(&["peer", "remove", "c"]).ok().stderr;
    assert!(told.contains("only its address is forgotten") && told.contains("mirror peer remove c on"), "{told}");
    assert_eq!(session(&c, "pull", &b.serve()).0, Some(0), "it is in all the same");
}

#[test]
fn the_last_owner_goes_only_by_force() {
    let sandbox = Sandbox::new();
    let (a, _serving) = owner(&sandbox);
    let own = id(&a);
    assert!(a.run(&["peer", "remove", &own]).ended_with(6).stderr.contains("last owner"));
    assert_eq!(a.status()["role"], "owner");
    a.run(&["peer", "remove", &own, "--force"]).ok();
    assert_eq!(a.status()["role"], serde_json::Value::Null);
    a.run_with(&["put", "l"], b"x").ended_with(6);
    assert_eq!(a.run(&["get", "k"]).ok().text(), "from a", "reading goes on");
}

#[test]
fn the_passphrase_makes_an_owner_of_a_member_when_the_owner_is_lost() {
    let sandbox = Sandbox::new();
    sandbox.write("pass", "correct horse");
    let a = sandbox.device("a");
    a.run(&["init", "vault", "--no-recovery-kit", "--passphrase-file", "pass"]).ok();
    let a = a.within(&sandbox.path("vault"));
    let serving = a.serve();
    let b = join(&sandbox, &a, &serving, "b", "member");
    let lost = id(&a);
    b.run(&["peer", "remove", &lost]).ok();
    assert_eq!(session(&b, "pull", &serving).0, Some(0), "a member only forgets an address");
    b.run(&["--passphrase-file", "../pass", "peer", "remove", &lost]).ok();
    assert_eq!((b.status()["role"].as_str(), session(&b, "pull", &serving).0), (Some("owner"), Some(6)));
    assert!(roles(&b).iter().all(|(device, _)| *device != lost));
}
