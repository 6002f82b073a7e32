//! Full and read-only disks: a small tmpfs, which only root may mount.

use crate::{
    fixture::{
        MIB, PATIENCE, Random, Running, Two, assert_restores, assert_same_trees, assert_sound, durable_bytes, finish, keys, skipped,
        ticket, transfer, tree,
    },
    support::{Device, Sandbox},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A file system of its own, gone when dropped.
struct Tmpfs {
    dir: PathBuf,
}

impl Tmpfs {
    /// None, loudly, where mounting is not allowed.
    fn mount(dir: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&dir).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&dir).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { dir });
        }
        skipped("full disks", "mounting a tmpfs needs root");
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn remount(&self, options: &str) {
        let remounted = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.dir).status();
        assert!(remounted.unwrap().success(), "remount {options}");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.dir).status());
    }
}

fn vault_at(sandbox: &Sandbox, dir: &Path) -> Device {
    let device = sandbox.device("a");
    device.run(&["init", dir.to_str().unwrap(), "--no-passphrase", "--no-recovery-kit"]).ok();
    device.within(dir)
}

/// `megabytes` in files of one MiB, and a hundred small ones.
fn write_tree(sandbox: &Sandbox, megabytes: u64) -> PathBuf {
    let mut random = Random::new(megabytes);
    (0..megabytes).for_each(|file| drop(sandbox.write(&format!("tree/large-{file}"), random.bytes(MIB))));
    (0..100).for_each(|file| drop(sandbox.write(&format!("tree/small-{file}"), random.bytes(2_000))));
    sandbox.path("tree")
}

#[test]
fn an_add_that_fills_the_disk_is_finished_when_there_is_space() {
    let sandbox = Sandbox::new();
    let Some(disk) = Tmpfs::mount(sandbox.path("disk"), "size=12m") else { return };
    let device = vault_at(&sandbox, &disk.path("vault"));
    device.run_with(&["put", "before"], b"safe").ok();
    let original = write_tree(&sandbox, 20);
    for _ in 0..2 {
        let error = device.run(&["--json", "add", original.to_str().unwrap()]).ended_with(14).last("error");
        assert!(error["message"].as_str().unwrap().contains("space"), "{error}");
        assert_sound(&device);
        assert_eq!(device.run(&["get", "before"]).ok().text(), "safe");
    }
    disk.remount("size=64m");
    device.run(&["add", original.to_str().unwrap()]).ok();
    assert_sound(&device);
    assert_restores(&device, "tree", &original, &sandbox.path("restored"));
}

#[test]
fn an_add_while_the_device_has_no_space_for_its_view_is_finished_later() {
    let sandbox = Sandbox::new();
    let Some(disk) = Tmpfs::mount(sandbox.path("home-a"), "size=1m,mode=700") else { return };
    let device = vault_at(&sandbox, &sandbox.path("vault"));
    let mut random = Random::new(12);
    (0..6_000).for_each(|file| drop(sandbox.write(&format!("tree/{}/{file}", file % 10), random.bytes(40))));
    device.run(&["add", "../tree"]).ended_with(14);
    disk.remount("size=64m");
    assert_sound(&device);
    device.run(&["add", "../tree"]).ok();
    assert_restores(&device, "tree", &sandbox.path("tree"), &sandbox.path("restored"));
}

#[test]
fn a_pull_that_fills_the_disk_goes_on_when_there_is_space() {
    let sandbox = Sandbox::new();
    let Some(disk) = Tmpfs::mount(sandbox.path("disk"), "size=12m") else { return };
    let two = Two::with_replica_at(sandbox, &disk.path("replica"));
    two.a.run(&["add", write_tree(&two.sandbox, 20).to_str().unwrap()]).ok();
    let serving = two.a.serve();
    Running::start(transfer(&two.b, "pull", &serving.tcp, &serving, &[])).ends_within(PATIENCE).ended_with(14);
    assert_sound(&two.b);
    assert_eq!(two.b.run(&["get", "first"]).ok().text(), "first");
    disk.remount("size=64m");
    let missing = durable_bytes(&two.a) - durable_bytes(&two.b);
    let summary = finish(&two.b, "pull", &serving.tcp, &serving, &[]);
    assert!(summary["bytes_received"].as_u64().unwrap() <= missing + missing / 100, "{missing} were missing: {summary}");
    assert_sound(&two.b);
    assert_eq!(keys(&two.a), keys(&two.b));
}

#[test]
fn a_push_to_a_full_disk_is_temporary_here_and_goes_on_when_there_is_space() {
    let sandbox = Sandbox::new();
    let Some(disk) = Tmpfs::mount(sandbox.path("disk"), "size=12m") else { return };
    let two = Two::with_replica_at(sandbox, &disk.path("replica"));
    two.a.run(&["add", write_tree(&two.sandbox, 20).to_str().unwrap()]).ok();
    let serving = two.b.serve();
    Running::start(transfer(&two.a, "push", &serving.tcp, &serving, &[])).ends_within(PATIENCE).ended_with(5);
    disk.remount("size=64m");
    // The server has lived through it and takes the rest.
    finish(&two.a, "push", &serving.tcp, &serving, &[]);
    assert_sound(&two.b);
    assert_eq!(keys(&two.a), keys(&two.b));
}

#[test]
fn a_clone_that_fills_the_disk_goes_on_as_a_pull() {
    let sandbox = Sandbox::new();
    let Some(disk) = Tmpfs::mount(sandbox.path("disk"), "size=8m") else { return };
    let a = sandbox.device_with_vault();
    a.run(&["add", write_tree(&sandbox, 16).to_str().unwrap()]).ok();
    let serving = a.serve();
    let replica = disk.path("replica");
    let b = sandbox.device("b");
    let error = b.run(&["--json", "clone", &ticket(&a, &serving), replica.to_str().unwrap()]).ended_with(14).last("error");
    assert!(error["causes"].to_string().contains("pull"), "says how to go on: {error}");
    let b = b.within(&replica);
    assert_sound(&b);
    disk.remount("size=64m");
    finish(&b, "pull", &serving.tcp, &serving, &[]);
    assert_sound(&b);
    assert_eq!(keys(&a), keys(&b));
}

#[test]
fn a_restore_that_fills_the_disk_leaves_whole_files_only_and_goes_on() {
    let sandbox = Sandbox::new();
    let Some(disk) = Tmpfs::mount(sandbox.path("disk"), "size=8m") else { return };
    let device = sandbox.device_with_vault();
    let original = write_tree(&sandbox, 16);
    device.run(&["add", original.to_str().unwrap()]).ok();
    let destination = disk.path("restored");
    device.run(&["restore", destination.to_str().unwrap()]).ended_with(14);
    let expected = tree(&original);
    for (path, bytes) in tree(&destination.join("tree")) {
        assert!(expected.get(&path) == Some(&bytes), "{} is not what it should be", path.display());
    }
    disk.remount("size=64m");
    device.run(&["restore", destination.to_str().unwrap(), "--overwrite"]).ok();
    assert_same_trees(&destination.join("tree"), &original);
}

#[test]
fn a_disk_without_inodes_is_full_and_says_what_of() {
    let sandbox = Sandbox::new();
    let Some(disk) = Tmpfs::mount(sandbox.path("disk"), "size=64m,nr_inodes=60") else { return };
    let device = vault_at(&sandbox, &disk.path("vault"));
    device.run_with(&["put", "before"], b"safe").ok();
    let fillers: Vec<PathBuf> =
        (0..100).map(|file| disk.path(&format!("filler-{file}"))).take_while(|path| fs::write(path, "").is_ok()).collect();
    let ran = device.run_with(&["--json", "put", "more"], b"more").ended_with(14);
    assert!(ran.text().contains("inode"), "{}", ran.text());
    assert_eq!(device.run(&["get", "before"]).ok().text(), "safe");
    fillers.iter().for_each(|path| fs::remove_file(path).unwrap());
    device.run_with(&["put", "more"], b"more").ok();
    assert_sound(&device);
    let original = write_tree(&sandbox, 1);
    device.run(&["add", original.to_str().unwrap()]).ok();
    let ran = device.run(&["--json", "restore", disk.path("restored").to_str().unwrap()]).ended_with(14);
    assert!(ran.text().contains("inode"), "{}", ran.text());
}

#[test]
fn a_disk_that_turns_read_only_is_read_and_served_all_the_same() {
    let sandbox = Sandbox::new();
    let Some(disk) = Tmpfs::mount(sandbox.path("disk"), "size=32m") else { return };
    let a = vault_at(&sandbox, &disk.path("vault"));
    a.run_with(&["put", "k"], b"value").ok();
    let b = sandbox.device("b");
    {
        let serving = a.serve();
        b.run(&["clone", &ticket(&a, &serving), "replica"]).ok();
    }
    let b = b.within(&sandbox.path("replica"));
    let file = sandbox.write("file", Random::new(13).bytes(MIB));
    a.run(&["add", file.to_str().unwrap()]).ok();
    disk.remount("ro");
    a.run_with(&["put", "l"], b"x").ended_with(1);
    assert_eq!(a.run(&["get", "k"]).ok().text(), "value");
    assert_eq!(keys(&a).len(), 2);
    assert_sound(&a);
    {
        let serving = a.serve();
        finish(&b, "pull", &serving.tcp, &serving, &[]);
    }
    assert_eq!(keys(&b).len(), 2);
    disk.remount("rw");
    a.run_with(&["put", "l"], b"x").ok();
    assert_sound(&a);
}

#[test]
fn a_follower_whose_disk_is_filled_by_others_waits_and_goes_on_by_itself() {
    let sandbox = Sandbox::new();
    let Some(disk) = Tmpfs::mount(sandbox.path("disk"), "size=48m") else { return };
    let two = Two::with_replica_at(sandbox, &disk.path("replica"));
    let serving = two.a.serve();
    let mut follower = two.b.spawn(&["--json", "sync", "--follow", &serving.tcp, "--device", &serving.device]);
    let is = |state: &'static str| move |record: &serde_json::Value| record["type"] == "following" && record["state"] == state;
    follower.wait_for(is("identical"));
    let filler = disk.path("filler");
    let written = fs::write(&filler, vec![1; 64 << 20]).unwrap_err();
    assert_eq!(written.kind(), std::io::ErrorKind::StorageFull);
    two.a.run(&["add", write_tree(&two.sandbox, 4).to_str().unwrap()]).ok();
    let waiting = follower.wait_for(is("waiting"));
    assert!(waiting["reason"].as_str().unwrap().contains("space"), "{waiting}");
    fs::remove_file(filler).unwrap();
    follower.wait_for(is("identical"));
    assert_eq!(keys(&two.a), keys(&two.b));
    assert_sound(&two.b);
}
