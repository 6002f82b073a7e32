//! SIGKILL at random points: of whoever receives, of whoever sends, of both, and in the middle of `add`.

use crate::{
    fixture::{MIB, Random, Running, Two, assert_restores, assert_sound, durable_bytes, finish, keys, pack_bytes, transfer, wait_until},
    support::{Device, Sandbox},
};
use std::{fs, path::Path};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Receiver,
    Sender,
    Both,
}

/// Events of one round, so that some are acknowledged at the receiver before the kill and some are not.
const EVENTS: u64 = 3;
/// A frame and the buffer before it: what a receiver may have taken in and not yet written.
const IN_FLIGHT: u64 = 5 * MIB;

/// Who sends and who receives; `client` runs the command, the other serves.
struct Roles<'a> {
    command: &'a str,
    transport: &'a str,
    sender: &'a Device,
    receiver: &'a Device,
    receiver_dir: &'a Path,
}

impl Roles<'_> {
    fn client(&self) -> &Device {
        if self.command == "push" { self.sender } else { self.receiver }
    }

    fn server(&self) -> &Device {
        if self.command == "push" { self.receiver } else { self.sender }
    }

    /// Runs the transfer and kills when the receiver has written so many bytes more; or it was faster.
    fn interrupt(&self, victim: Victim, after_bytes: u64) {
        let before = pack_bytes(self.receiver_dir);
        let serving = self.server().serve();
        let more = ["--transport", self.transport];
        let mut running = Running::start(transfer(self.client(), self.command, &serving.tcp, &serving, &more));
        wait_until("so much has arrived", || running.has_ended() || pack_bytes(self.receiver_dir) >= before + after_bytes);
        let client_dies = victim == Victim::Both || (victim == Victim::Sender) == (self.command == "push");
        // Dropping a server is SIGKILL, too.
        if client_dies {
            running.kill();
            if victim != Victim::Both {
                assert_eq!(serving.terminate(), Some(130), "the server outlives its client");
            }
        } else {
            drop(serving);
            let ran = running.ends_within(crate::fixture::PATIENCE);
            let expected = [0, 5, 16].map(Some).contains(&ran.code);
            assert!(expected, "the survivor of {victim:?} ended with {:?}: {} {}", ran.code, ran.text(), ran.stderr);
        }
    }

    fn round(&self, victim: Victim, random: &mut Random, sandbox: &Sandbox, name: &str) {
        for event in 0..EVENTS {
            let size = MIB + random.below(6 * MIB);
            let file = sandbox.write(&format!("{name}/{event}"), random.bytes(size));
            self.sender.run(&["add", file.to_str().unwrap(), "--prefix", name]).ok();
        }
        let (base, total) = (durable_bytes(self.receiver), durable_bytes(self.sender));
        let (promised, had) = (keys(self.sender), keys(self.receiver));
        self.interrupt(victim, random.below(total - base));
        let on_disk = pack_bytes(self.receiver_dir);
        assert_sound(self.sender);
        assert_sound(self.receiver);
        assert_eq!(keys(self.sender), promised);
        assert!(keys(self.receiver).is_superset(&had));
        let held = durable_bytes(self.receiver);
        assert!(held + IN_FLIGHT >= on_disk, "of {on_disk} bytes on the disk only {held} were taken over");
        self.resume(total - held, (total - base) / 100);
        assert_eq!(keys(self.receiver), promised);
    }

    fn resume(&self, missing: u64, tolerance: u64) {
        let serving = self.server().serve();
        let summary = finish(self.client(), self.command, &serving.tcp, &serving, &["--transport", self.transport]);
        let field = if self.command == "push" { "bytes_sent" } else { "bytes_received" };
        let moved = summary[field].as_u64().unwrap();
        assert!(moved <= missing + tolerance, "{moved} bytes moved where {missing} were missing");
    }
}

fn kill_rounds(command: &str, transport: &str, seed: u64) {
    let two = Two::new();
    let (sender, receiver_dir, receiver) = (&two.a, two.sandbox.path("replica"), &two.b);
    let roles = Roles { command, transport, sender, receiver, receiver_dir: &receiver_dir };
    let mut random = Random::new(seed);
    for (round, victim) in [Victim::Receiver, Victim::Sender, Victim::Both].into_iter().enumerate() {
        roles.round(victim, &mut random, &two.sandbox, &format!("round-{round}"));
    }
    assert_sound(receiver);
}

#[test]
fn a_killed_pull_over_tcp_loses_nothing_and_goes_on() {
    kill_rounds("pull", "tcp", 1);
}

#[test]
fn a_killed_pull_over_quic_loses_nothing_and_goes_on() {
    kill_rounds("pull", "quic", 2);
}

#[test]
fn a_killed_push_over_tcp_loses_nothing_and_goes_on() {
    kill_rounds("push", "tcp", 3);
}

#[test]
fn a_killed_push_over_quic_loses_nothing_and_goes_on() {
    kill_rounds("push", "quic", 4);
}

#[test]
fn a_killed_add_is_finished_by_the_next_one() {
    let sandbox = Sandbox::new();
    let mut random = Random::new(5);
    for file in 0..300 {
        let bytes = random.below(16_384);
        sandbox.write(&format!("tree/{}/{file}", file % 7), random.bytes(bytes));
    }
    sandbox.write("tree/large", random.bytes(12 * MIB));
    for round in 0..6 {
        let name = format!("vault-{round}");
        sandbox.device("a").run(&["init", &name, "--no-passphrase", "--no-recovery-kit"]).ok();
        let vault = sandbox.path(&name);
        let device = sandbox.device("a").within(&vault);
        let after_bytes = random.below(14 * MIB);
        let mut running = Running::start(device.command(&["add", "../tree"]));
        wait_until("so much was added", || running.has_ended() || pack_bytes(&vault) >= after_bytes);
        running.kill();
        assert_sound(&device);
        device.run(&["add", "../tree"]).ok();
        assert_sound(&device);
        let again = device.run(&["--json", "add", "../tree"]).ok().last("summary");
        assert_eq!(again["chunks_stored"], 0, "{again}");
        assert_restores(&device, "tree", &sandbox.path("tree"), &sandbox.path(&format!("restored-{round}")));
        fs::remove_dir_all(vault).unwrap();
    }
}
