//! What tests of the program need: directories of their own, devices of their own, and children that do not outlive them.
//!
//! Nothing waits for time to pass: tests wait for something to be so ([`until`]), with a limit that only a bug reaches.
#![allow(dead_code, unused_imports, reason = "each program of tests uses its part")]

mod children;
mod data;
mod relay;

pub(crate) use children::{Mirord, Running, Serving, run_by};
pub(crate) use data::{contents, incompressible, settle, until};
pub(crate) use relay::{Closed, Relay, Silence};

use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    rc::Rc,
};
use tempfile::TempDir;

/// A directory in which everything of one test happens; gone when the last of it and its devices is.
pub(crate) struct Sandbox {
    dir: Rc<TempDir>,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { dir: Rc::new(TempDir::new().unwrap()) }
    }

    /// A path in the sandbox.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, with the directories above it.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// A device: a `MIRROR_HOME` of its own.
    pub(crate) fn device(&self, name: &str) -> Device {
        Device { home: self.path(&format!("home-{name}")), cwd: self.dir.path().to_owned(), _sandbox: Rc::clone(&self.dir) }
    }

    /// A device with a vault `vault` that it can open without asking.
    pub(crate) fn device_with_vault(&self) -> Device {
        let device = self.device("a");
        device.run(&["init", "vault", "--no-passphrase", "--no-recovery-kit"]).ok();
        device.within(&self.path("vault"))
    }
}

/// One machine as far as `mirror` is concerned. Commands run in `cwd`.
#[derive(Clone)]
pub(crate) struct Device {
    home: PathBuf,
    cwd: PathBuf,
    _sandbox: Rc<TempDir>,
}

impl Device {
    /// The same device, in another working directory.
    pub(crate) fn within(&self, dir: &Path) -> Self {
        Self { cwd: dir.to_owned(), ..self.clone() }
    }

    /// The program with nothing of this machine's settings but the IO backend under test, and nobody to ask.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_mirror"), args)
    }

    /// The daemon, in the same way.
    pub(crate) fn mirord_command(&self, args: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_mirord"), args)
    }

    fn program(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MIRROR_") && name != "MIRROR_IO" {
                command.env_remove(name);
            }
        }
        command.args(args).env("MIRROR_HOME", &self.home).env("MIRROR_NO_DISCOVERY", "1").current_dir(&self.cwd).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// Runs with `input` on stdin.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that does not read its input closes the pipe; that is for the test to judge.
        drop(child.stdin.take().unwrap().write_all(input));
        Ran::from(child.wait_with_output().unwrap())
    }

    /// Starts the program and leaves it running.
    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Keys and the events that set them, as `ls --json` prints them.
    pub(crate) fn entries(&self) -> Vec<Value> {
        self.run(&["--json", "ls", "--deleted"]).ok().json()
    }

    pub(crate) fn status(&self) -> Value {
        self.run(&["--json", "status"]).ok().last("status")
    }

    /// Every byte is as it should be.
    #[track_caller]
    pub(crate) fn verify(&self) {
        assert_eq!(self.run(&["--json", "verify", "--read-data"]).ok().last("summary")["ok"], true);
    }

    /// A ticket for a new replica of the vault that is served.
    pub(crate) fn invite(&self, serving: &Serving, role: &str) -> String {
        let addresses = ["--addr", serving.tcp.as_str(), "--addr", serving.quic.as_str()];
        let ran = self.run(&[&["--json", "invite", "--role", role], &addresses[..]].concat()).ok();
        ran.last("ticket")["ticket"].as_str().unwrap().to_owned()
    }

    /// A new replica `dir` of the vault that is served, on this device.
    pub(crate) fn clone_of(&self, other: &Self, serving: &Serving, dir: &str) -> Self {
        let ticket = other.invite(serving, "member");
        self.run(&["--json", "clone", &ticket, dir]).ok();
        self.within(&self.cwd.join(dir))
    }

    /// A new replica `dir` of the vault that a daemon keeps, on this device.
    pub(crate) fn clone_from(&self, owner: &Self, daemon: &Mirord, role: &str, dir: &str) -> Self {
        let addresses = ["--addr", daemon.tcp(), "--addr", daemon.quic()];
        let ran = owner.run(&[&["--json", "invite", "--role", role], &addresses[..]].concat()).ok();
        let ticket = ran.last("ticket")["ticket"].as_str().unwrap().to_owned();
        self.run(&["--json", "clone", &ticket, dir]).ok();
        self.within(&self.cwd.join(dir))
    }

    /// Keeps the vault of the working directory, with free ports of the loopback interface, until the guard is dropped.
    pub(crate) fn mirord(&self, flags: &[&str]) -> Mirord {
        Mirord::start(self.mirord_command(&[&["--json", "--no-discovery", "--listen", "127.0.0.1:0"], flags].concat()))
    }

    /// The same at an address that was free a moment ago, as soon as it is again: another test may have got it meanwhile.
    pub(crate) fn mirord_at(&self, address: &str, flags: &[&str]) -> Mirord {
        let flags = [&["--json", "--no-discovery", "--listen", address], flags].concat();
        when_free(|| Mirord::try_start(self.mirord_command(&flags)))
    }

    /// This device's directory.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Serves a vault on free ports of the loopback interface until the guard is dropped.
    pub(crate) fn serve(&self) -> Serving {
        self.serve_with(&[])
    }

    /// The same at an address that was free a moment ago, as soon as it is again: another test may have got it meanwhile.
    pub(crate) fn serve_at(&self, address: &str) -> Serving {
        when_free(|| Serving::try_start(self.command(&["--json", "serve", "--listen", address])))
    }

    /// The same with more flags.
    pub(crate) fn serve_with(&self, flags: &[&str]) -> Serving {
        Serving::start(self.command(&[&["--json", "serve", "--listen", "127.0.0.1:0"], flags].concat()))
    }
}

/// What `start` comes to at last.
fn when_free<T>(mut start: impl FnMut() -> Option<T>) -> T {
    let mut started = None;
    until(|| {
        started = start();
        started.is_some()
    });
    started.unwrap()
}

/// What a run has left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self { code: output.status.code(), stdout: output.stdout, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }
}

impl Ran {
    /// It must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ended_with(0)
    }

    /// It must have ended with this code.
    #[track_caller]
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stdout as JSON lines, which it must be from first to last.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.text().lines().map(parse).collect()
    }

    /// The last record, which must be of this type.
    #[track_caller]
    pub(crate) fn last(&self, kind: &str) -> Value {
        let last = self.json().pop().expect("at least one record");
        assert_eq!(last["type"], kind, "{last}");
        last
    }
}
