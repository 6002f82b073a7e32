//! `sync --follow --watch DIR --materialize DIR`: files of a folder that are the same on two devices, as users see it.

use crate::support::{Device, Running, Sandbox, Serving, incompressible, until};
use rustix::process::Signal;
use serde_json::Value;
use std::{fs, path::Path};

const FILES: usize = 60;

fn following(device: &Device, serving: &Serving, flags: &[&str]) -> Running {
    let peer = serving.over("tcp");
    let peer: Vec<&str> = peer.iter().map(String::as_str).collect();
    device.spawn(&[&["--json", "sync", "--follow"], &peer[..], flags].concat())
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |record| record["type"] == "folder" && record["state"] == state
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn is_half(name: &str) -> bool {
    name.ends_with(".part")
}

/// A vault with files, served, and a second replica of it that holds nothing yet.
fn replicas(sandbox: &Sandbox) -> (Device, Serving, Device) {
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    (a, serving, b)
}

#[test]
fn a_folder_is_the_same_as_the_vault_both_ways_until_ctrl_c() {
    let sandbox = Sandbox::new();
    let (a, serving, b) = replicas(&sandbox);
    a.run_with(&["put", "from-a"], b"put on a").ok();
    let dir = sandbox.write("files/from-b", "saved on b").parent().unwrap().to_owned();
    let folder = dir.display().to_string();
    let mut follower = following(&b, &serving, &["--watch", &folder, "--materialize", &folder]);
    follower.wait_until(|| fs::read(dir.join("from-a")).is_ok_and(|bytes| bytes == b"put on a"));
    follower.wait_until(|| a.run(&["get", "from-b"]).stdout == b"saved on b");
    follower.wait_for(is("followed"));
    fs::rename(&dir, sandbox.path("away")).unwrap();
    let paused = follower.wait_for(is("paused"));
    assert!(paused["reason"].as_str().unwrap().contains("not there"), "{paused}");
    fs::rename(sandbox.path("away"), &dir).unwrap();
    follower.wait_for(is("followed"));
    follower.signal(Signal::INT);
    assert_eq!(follower.finish().code, Some(130));
    assert_eq!(a.run(&["get", "from-b"]).ok().stdout, b"saved on b");
}

/// Each round is killed at another moment: at the first sign of life in the folder, and when the first file is there.
#[test]
fn a_kill_in_the_middle_of_writing_out_leaves_no_half_file_and_the_next_start_goes_on() {
    let sandbox = Sandbox::new();
    let (a, serving, b) = replicas(&sandbox);
    let value = |n: usize| incompressible(700_000 + n, n as u64);
    (0..FILES).for_each(|n| _ = sandbox.write(&format!("data/file-{n}"), value(n)));
    a.run(&["add", &format!("{}/", sandbox.path("data").display())]).ok();
    for round in 0..2 {
        let dir = sandbox.path(&format!("out-{round}"));
        fs::create_dir(&dir).unwrap();
        let folder = dir.display().to_string();
        let mut follower = following(&b, &serving, &["--materialize", &folder]);
        follower.wait_until(|| names(&dir).iter().any(|name| round == 0 || !is_half(name)));
        follower.signal(Signal::KILL);
        follower.finish();
        for name in names(&dir).into_iter().filter(|name| !is_half(name)) {
            let number = name.strip_prefix("file-").unwrap().parse().unwrap();
            assert!(fs::read(dir.join(&name)).unwrap() == value(number), "{name} is whole");
        }
        let mut again = following(&b, &serving, &["--watch", &folder, "--materialize", &folder]);
        again.wait_until(|| {
            let names = names(&dir);
            names.len() == FILES && !names.iter().any(|name| is_half(name))
        });
        (0..FILES).for_each(|n| assert!(fs::read(dir.join(format!("file-{n}"))).unwrap() == value(n)));
        // All may have been there before: a signal to a program that has not yet begun just ends it.
        again.wait_for(is("followed"));
        again.signal(Signal::INT);
        assert_eq!(again.finish().code, Some(130));
    }
    let keys: Vec<Value> = b.entries().into_iter().filter(|entry| entry["key"].as_str().unwrap().contains("conflict")).collect();
    assert!(keys.is_empty(), "{keys:?}");
    until(|| a.status()["root"] == b.status()["root"]);
}

#[test]
fn a_folder_that_cannot_be_followed_is_refused_before_anything_is_done() {
    let sandbox = Sandbox::new();
    let (a, serving, b) = replicas(&sandbox);
    let ran = |device: &Device, flags: &[&str]| {
        let peer = serving.over("tcp");
        let peer: Vec<&str> = peer.iter().map(String::as_str).collect();
        device.run(&[&["--json", "sync", "--follow"], &peer[..], flags].concat())
    };
    let inside = sandbox.path("b/packs").display().to_string();
    for dir in [&inside, "..", "."] {
        let refused = ran(&b, &["--watch", dir]).ended_with(2);
        assert!(refused.last("error")["message"].as_str().unwrap().contains("lies inside"), "{dir}");
    }
    ran(&b, &["--prefix", "x"]).ended_with(2);
    assert_eq!(b.run(&["sync", "a", "--watch", "."]).code, Some(2), "--watch goes with --follow");
    ran(&b, &["--watch", &sandbox.path("absent").display().to_string()]).ended_with(1);
    let ticket = a.invite(&serving, "keyless");
    let keyless = sandbox.device("k");
    keyless.run(&["--json", "clone", &ticket, "k"]).ok();
    let elsewhere = sandbox.write("other/file", "").parent().unwrap().display().to_string();
    let refused = ran(&keyless.within(&sandbox.path("k")), &["--watch", &elsewhere]).ended_with(6);
    assert!(refused.last("error")["message"].as_str().unwrap().contains("keyless"));
}
