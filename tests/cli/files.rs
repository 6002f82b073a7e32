//! Files of every kind, into a vault and back.

use crate::support::{Sandbox, contents, incompressible, settle, until};
use std::{
    collections::BTreeSet,
    fs::{self, File, FileTimes, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, SystemTime},
};

fn set_modified(path: &Path, seconds: u64, nanoseconds: u32) {
    let at = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(at)).unwrap();
}

#[test]
fn every_kind_of_file_comes_back_as_it_was() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/empty", "");
    sandbox.write("tree/large", incompressible(9 << 20, 1));
    sandbox.write("tree/deep/er/file", "x");
    fs::create_dir(sandbox.path("tree/no files")).unwrap();
    symlink("deep/er/file", sandbox.path("tree/link")).unwrap();
    symlink("/nowhere/at all", sandbox.path("tree/dangling")).unwrap();
    symlink("deep", sandbox.path("tree/link to a directory")).unwrap();
    for (name, mode) in [("tree/empty", 0o4755), ("tree/large", 0o400), ("tree/deep/er/file", 0o2710), ("tree/no files", 0o1777)] {
        fs::set_permissions(sandbox.path(name), Permissions::from_mode(mode)).unwrap();
    }
    set_modified(&sandbox.path("tree/large"), 981_173_106, 123_456_789);
    set_modified(&sandbox.path("tree/deep/er"), 1, 0);
    // Nobody may write into it, restore must all the same.
    fs::set_permissions(sandbox.path("tree/deep/er"), Permissions::from_mode(0o555)).unwrap();
    device.run(&["add", "../tree"]).ok();
    device.run(&["restore", "../back"]).ok();
    assert_eq!(contents(&sandbox.path("back/tree")), contents(&sandbox.path("tree")));
}

#[test]
#[cfg(target_os = "linux")]
fn names_that_are_not_utf8_come_back_byte_for_byte() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    fs::create_dir(sandbox.path("tree")).unwrap();
    for name in [&b"\xff\xfe"[..], b"new\nline", b" ", b"-n", b"caf\xc3\xa9", b"cafe\xcc\x81", b"\x1b[2J", b"a\\b"] {
        fs::write(sandbox.path("tree").join(OsStr::from_bytes(name)), name).unwrap();
    }
    device.run(&["add", "../tree"]).ok();
    device.run(&["restore", "../back"]).ok();
    assert_eq!(
        contents(&sandbox.path("back")),
        contents(&sandbox.path("")).into_iter().filter(|(path, _)| path.starts_with("tree")).collect()
    );
}

#[test]
fn a_sparse_file_comes_back_sparse() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let path = sandbox.write("tree/sparse", "head");
    OpenOptions::new().write(true).open(&path).unwrap().set_len(48 << 20).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"tail").unwrap();
    let summary = device.run(&["--json", "add", "../tree"]).ok().last("summary");
    assert!(summary["bytes_stored"].as_u64().unwrap() < 16 << 20, "equal pieces are stored once: {summary}");
    device.run(&["restore", "../back"]).ok();
    let back = sandbox.path("back/tree/sparse");
    assert!(fs::read(&back).unwrap() == fs::read(&path).unwrap());
    assert!(back.metadata().unwrap().blocks() * 512 < 16 << 20, "holes are filled");
}

#[test]
fn a_file_that_grows_while_it_is_added_is_a_prefix_of_itself() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let path = sandbox.write("tree/growing", incompressible(4 << 20, 1));
    sandbox.write("tree/other", "x");
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let ran = thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            while !done.load(Ordering::Relaxed) {
                file.write_all(&incompressible(4096, rounds.fetch_add(1, Ordering::Relaxed))).unwrap();
            }
        });
        until(|| rounds.load(Ordering::Relaxed) > 0);
        let ran = device.run(&["--json", "add", "../tree"]);
        done.store(true, Ordering::Relaxed);
        ran
    });
    assert!(matches!(ran.code, Some(0 | 3)), "{ran:?}");
    assert_eq!(device.run(&["get", "tree/other"]).ok().text(), "x");
    let whole = fs::read(&path).unwrap();
    let stored = device.run(&["get", "tree/growing"]);
    assert!(stored.code == Some(1) || (stored.code == Some(0) && whole.starts_with(&stored.stdout)), "what is stored was never there");
    settle(&path);
    device.run(&["add", "../tree"]).ok();
    assert!(device.run(&["get", "tree/growing"]).ok().stdout == whole);
}

#[test]
fn a_change_that_keeps_size_and_time_is_noticed() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let path = sandbox.write("tree/file", "one");
    set_modified(&path, 1_000_000, 0);
    settle(&path);
    device.run(&["add", "../tree"]).ok();
    fs::write(&path, "two").unwrap();
    set_modified(&path, 1_000_000, 0);
    device.run(&["add", "../tree"]).ok();
    assert_eq!(device.run(&["get", "tree/file"]).ok().text(), "two");
}

#[test]
fn sockets_and_pipes_are_named_and_left_out() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    sandbox.write("tree/file", "x");
    let _socket = std::os::unix::net::UnixListener::bind(sandbox.path("tree/socket")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(sandbox.path("tree/pipe")).status().unwrap();
    assert!(made.success());
    let summary = device.run(&["--json", "add", "../tree"]).ended_with(3).last("summary");
    let skipped: BTreeSet<_> =
        summary["skipped"].as_array().unwrap().iter().map(|left| left["path"].as_str().unwrap().rsplit('/').next()).collect();
    assert_eq!(skipped, BTreeSet::from([Some("pipe"), Some("socket")]));
    assert_eq!(device.run(&["get", "tree/file"]).ok().text(), "x");
}

#[test]
fn a_key_that_climbs_out_of_the_destination_is_refused_and_the_others_are_restored() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let absolute = sandbox.path("absolute");
    let keys = ["good", "../climbed", "../../climbed", "a/../../climbed", absolute.to_str().unwrap(), "a//b", "./c", "nul"];
    for key in keys {
        device.run_with(&["put", "--", key], b"x").ok();
    }
    let ran = device.run(&["--json", "restore", "../below/dest"]).ended_with(3);
    let summary = ran.last("summary");
    let failed: BTreeSet<_> = summary["failed"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap()).collect();
    assert_eq!(failed, BTreeSet::from(["../climbed", "../../climbed", "a/../../climbed", keys[4], "a//b", "./c"]));
    let there: Vec<_> = contents(&sandbox.path("below")).into_keys().collect();
    assert_eq!(there, ["dest", "dest/good", "dest/nul"].map(std::path::PathBuf::from));
    assert!(!absolute.exists() && !sandbox.path("climbed").exists());
}

#[test]
fn restore_never_writes_through_a_link_that_the_vault_or_the_destination_holds() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    fs::create_dir(sandbox.path("outside")).unwrap();
    fs::create_dir(sandbox.path("tree")).unwrap();
    symlink(sandbox.path("outside"), sandbox.path("tree/way out")).unwrap();
    device.run(&["add", "../tree/"]).ok();
    device.run_with(&["put", "way out/file"], b"x").ok();
    device.run(&["restore", "../one"]).ended_with(3);
    fs::create_dir(sandbox.path("two")).unwrap();
    symlink(sandbox.path("outside"), sandbox.path("two/way out")).unwrap();
    device.run(&["restore", "../two", "--overwrite"]).ended_with(3);
    assert!(contents(&sandbox.path("outside")).is_empty());
}

#[test]
fn restore_over_existing_files_writes_nothing_at_all() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    for name in ["a", "b", "sub/c", "z"] {
        sandbox.write(&format!("tree/{name}"), "vault");
    }
    device.run(&["add", "../tree/"]).ok();
    sandbox.write("back/sub/c", "mine");
    sandbox.write("back/own", "mine");
    let before = contents(&sandbox.path("back"));
    let error = device.run(&["--json", "restore", "../back"]).ended_with(1).last("error");
    assert!(error["message"].as_str().unwrap().contains("sub/c"), "{error}");
    assert_eq!(contents(&sandbox.path("back")), before);
    device.run(&["restore", "../back", "--overwrite"]).ok();
    assert_eq!((sandbox.read("back/sub/c"), sandbox.read("back/own")), (b"vault".to_vec(), b"mine".to_vec()));
}

#[test]
fn thousands_of_empty_directories_go_in_and_come_back() {
    const DIRECTORIES: usize = 3_000;
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    (0..DIRECTORIES).for_each(|n| fs::create_dir_all(sandbox.path(&format!("tree/{}/{n}", n % 100))).unwrap());
    let summary = device.run(&["--json", "add", "../tree"]).ok().last("summary");
    assert_eq!(summary["bytes_stored"], 0, "{summary}");
    assert_eq!(device.run(&["--json", "add", "../tree"]).ok().last("summary")["added"], 0);
    device.run(&["restore", "../back"]).ok();
    assert_eq!(contents(&sandbox.path("back/tree")), contents(&sandbox.path("tree")));
    device.verify();
}
