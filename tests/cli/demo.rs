//! `demo`: the main job from end to end, with the link cut half-way.

use crate::support::{Ran, Sandbox};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

/// Runs `demo` with its temporary directory in the sandbox, where nothing of it may stay.
fn demo(sandbox: &Sandbox, args: &[&str]) -> Ran {
    let tmp = sandbox.path("tmp");
    fs::create_dir_all(&tmp).unwrap();
    let ran: Ran = sandbox.device("any").command(&[&["--json", "demo"], args].concat()).env("TMPDIR", &tmp).output().unwrap().into();
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "something stayed in the temporary directory");
    ran
}

#[test]
fn two_replicas_survive_a_cut_and_everything_comes_back_equal() {
    // Large enough that buffers on the way cannot hold the second half.
    let ran = demo(&Sandbox::new(), &["--size", "64MiB"]).ok();
    let steps: Vec<String> =
        ran.json().iter().filter(|record| record["type"] == "step").map(|record| record["step"].as_str().unwrap().into()).collect();
    assert_eq!(steps, ["generate", "add", "pair", "cut", "resume", "verify", "restore", "compare"]);
    let summary = ran.last("summary");
    for field in ["ok", "resumed", "identical"] {
        assert_eq!(summary[field], true, "{field}: {summary}");
    }
    let number = |field: &str| summary[field].as_u64().unwrap();
    assert_eq!((number("entries_different"), number("entries_skipped")), (0, 0), "{summary}");
    assert_eq!(number("entries_equal"), number("entries"), "{summary}");
    assert!(number("cut_bytes") * 2 >= number("sealed_bytes") && number("resume_bytes") > 0, "{summary}");
    assert!(number("resent_bytes") * 100 <= number("sealed_bytes"), "more than 1 % came twice: {summary}");
    assert_eq!((&summary["cut_transport"], &summary["resume_transport"]), (&"tcp".into(), &"quic".into()));
}

#[test]
fn a_tree_of_the_user_is_only_read_and_what_is_kept_can_be_opened() {
    let sandbox = Sandbox::new();
    sandbox.write("tree/sub/file", "bytes");
    let ran = demo(&sandbox, &["tree", "--keep", "kept"]).ok();
    assert_eq!(ran.last("summary")["ok"], true);
    assert_eq!(sandbox.read("tree/sub/file"), b"bytes");
    let server = sandbox.device("any");
    let mut get = server.command(&["-V", "kept/server", "get", "tree/sub/file"]);
    let got: Ran = get.env("MIRROR_HOME", sandbox.path("kept/server-home")).output().unwrap().into();
    assert_eq!(got.ok().text(), "bytes");
}

#[test]
fn what_cannot_be_copied_makes_the_result_partial() {
    let sandbox = Sandbox::new();
    sandbox.write("tree/file", "bytes");
    let _socket = std::os::unix::net::UnixListener::bind(sandbox.path("tree/socket")).unwrap();
    let summary = demo(&sandbox, &["tree"]).ended_with(3).last("summary");
    assert_eq!((&summary["ok"], &summary["entries_skipped"], &summary["entries_different"]), (&false.into(), &1.into(), &0.into()));
}

#[test]
fn a_directory_with_something_in_it_is_not_worked_in() {
    let sandbox = Sandbox::new();
    sandbox.write("kept/file", "bytes");
    demo(&sandbox, &["--keep", "kept"]).ended_with(2);
    demo(&sandbox, &["."]).ended_with(2);
    assert_eq!(sandbox.read("kept/file"), b"bytes");
}

#[test]
fn a_signal_ends_it_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let tmp = sandbox.path("tmp");
    fs::create_dir_all(&tmp).unwrap();
    let mut child = sandbox.device("any").command(&["--json", "demo"]).env("TMPDIR", &tmp).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    // The first step is done: there is something to clean up, and the most is still to come.
    stdout.read_line(&mut line).unwrap();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    stdout.read_to_string(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{line}");
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
}
