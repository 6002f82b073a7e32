//! `mirror-bench`, the real program, on tiny amounts: every command measures something, says it in JSON, and leaves nothing behind.

#[path = "bench/gate.rs"]
mod gate;
#[path = "bench/measure.rs"]
mod measure;
#[path = "bench/report.rs"]
mod report;
mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};
use support::{Ran, Sandbox};

/// Runs `mirror-bench --json` with its temporary directory in the sandbox, where nothing of it may stay.
fn bench(sandbox: &Sandbox, args: &[&str]) -> Ran {
    let tmp = sandbox.path("tmp");
    fs::create_dir_all(&tmp).unwrap();
    let ran: Ran = command(args).current_dir(sandbox.path("")).env("TMPDIR", &tmp).output().unwrap().into();
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "something stayed in the temporary directory");
    ran
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_mirror-bench")));
    command.arg("--json").args(args).stdin(Stdio::null());
    command
}
