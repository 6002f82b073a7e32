//! What the tests of faults share: two replicas, data from a seed, conditions with deadlines, and the questions asked afterwards.

use crate::support::{Device, Ran, Sandbox, Serving};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub(crate) const MIB: u64 = 1 << 20;
/// Longer than any healthy step takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A sequence that depends on its seed alone (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Bytes that nothing can compress.
    pub(crate) fn bytes(&mut self, count: u64) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count as usize);
        bytes
    }
}

/// Says past the test harness that something was not tested here.
pub(crate) fn skipped(what: &str, reason: &str) {
    // Only print macros are captured; this is to be seen. When stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "SKIPPED: {what}: {reason}");
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A command under way, its output kept; killed when dropped.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child().try_wait().unwrap().is_some()
    }

    /// SIGKILL, and gone on return.
    pub(crate) fn kill(mut self) {
        drop(self.child().kill());
        self.child().wait().unwrap();
    }

    /// What it came to, which must be within `limit`.
    #[track_caller]
    pub(crate) fn ends_within(mut self, limit: Duration) -> Ran {
        let begun = Instant::now();
        while !self.has_ended() {
            assert!(begun.elapsed() < limit, "the command has not ended within {limit:?}");
            thread::sleep(Duration::from_millis(2));
        }
        Ran::from(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Two replicas of one vault that know each other: `a` made it, `b` cloned it.
pub(crate) struct Two {
    pub(crate) sandbox: Sandbox,
    pub(crate) a: Device,
    pub(crate) b: Device,
}

impl Two {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new();
        let replica = sandbox.path("replica");
        Self::with_replica_at(sandbox, &replica)
    }

    pub(crate) fn with_replica_at(sandbox: Sandbox, replica: &Path) -> Self {
        let a = sandbox.device_with_vault();
        a.run_with(&["put", "first"], b"first").ok();
        let b = sandbox.device("b");
        b.run(&["clone", &ticket(&a, &a.serve()), replica.to_str().unwrap()]).ok();
        Self { b: b.within(replica), a, sandbox }
    }
}

/// An invitation of `device`, which is served.
pub(crate) fn ticket(device: &Device, serving: &Serving) -> String {
    device.run(&["invite", "--addr", &serving.tcp]).ok().text().trim().to_owned()
}

/// A transfer with what `serving` serves, at `address`.
pub(crate) fn transfer(from: &Device, command: &str, address: &str, serving: &Serving, more: &[&str]) -> Command {
    from.command(&[&["--json", command, address, "--device", &serving.device], more].concat())
}

/// Runs a transfer that must succeed and leave both replicas identical. Returns its summary.
#[track_caller]
pub(crate) fn finish(from: &Device, command: &str, address: &str, serving: &Serving, more: &[&str]) -> Value {
    let summary = Running::start(transfer(from, command, address, serving, more)).ends_within(PATIENCE).ok().last("summary");
    assert_eq!(summary["identical"], true, "{summary}");
    summary
}

/// Every byte of the vault is as it should be.
#[track_caller]
pub(crate) fn assert_sound(device: &Device) {
    let ran = device.run(&["--json", "verify", "--read-data"]);
    assert_eq!(ran.code, Some(0), "verify: {} {}", ran.text(), ran.stderr);
    assert_eq!(ran.last("summary")["ok"], true);
}

#[track_caller]
pub(crate) fn keys(device: &Device) -> BTreeSet<String> {
    let entries = device.run(&["--json", "ls"]).ok().json();
    entries.iter().filter(|record| record["type"] == "entry").map(|entry| entry["key"].as_str().unwrap().to_owned()).collect()
}

/// Bytes of chunks that the vault calls durable.
#[track_caller]
pub(crate) fn durable_bytes(device: &Device) -> u64 {
    device.run(&["--json", "status"]).ok().last("status")["bytes"].as_u64().unwrap()
}

/// Bytes in the pack files of a vault directory, as the file system has them.
pub(crate) fn pack_bytes(vault: &Path) -> u64 {
    let packs = fs::read_dir(vault.join("packs"));
    packs.into_iter().flatten().flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Each file below `dir` with its bytes.
pub(crate) fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            } else {
                found.insert(entry.path().strip_prefix(dir).unwrap().to_owned(), fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// Both directories hold the same files; names what differs, not the bytes.
#[track_caller]
pub(crate) fn assert_same_trees(left: &Path, right: &Path) {
    let (left, right) = (tree(left), tree(right));
    let names = left.keys().chain(right.keys()).collect::<BTreeSet<_>>();
    let different: Vec<_> = names.into_iter().filter(|name| left.get(*name) != right.get(*name)).collect();
    assert!(different.is_empty(), "these differ: {different:?}");
}

/// Restores `prefix` of the vault and compares it with the directory that it was added from.
#[track_caller]
pub(crate) fn assert_restores(device: &Device, prefix: &str, original: &Path, destination: &Path) {
    device.run(&["restore", destination.to_str().unwrap(), prefix]).ok();
    assert_same_trees(&destination.join(prefix), original);
}
