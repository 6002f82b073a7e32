//! Many connections in a row, and what is left of them at the server.
#![cfg(target_os = "linux")]

use crate::{
    fixture::Two,
    support::{Serving, until},
};
use mirror_engine::{
    home::Home,
    limits::SESSION_PER_DEVICE_MS,
    replicate::{self, Options, ReplicateError, Target, Unobserved},
    transport::{Choice, TransportKind},
    vault::{Unlock, Vault},
};
use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

/// What a process has open, and its own memory.
#[derive(Debug, Clone, Copy)]
struct Usage {
    files: usize,
    memory_kib: u64,
}

fn usage(process: u32) -> Usage {
    let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    Usage { files, memory_kib: memory.trim().trim_end_matches(" kB").parse().unwrap() }
}

/// A device that connects, finds both sides the same, and goes.
struct Caller {
    vault: Vault,
    target: Target,
    /// What it prints is not read: it waits for nobody.
    serving: Serving,
    served: u32,
    turned_away: u32,
}

impl Caller {
    async fn call(&mut self, times: u32) {
        for n in 0..times {
            let kind = if n % 2 == 0 { TransportKind::Tcp } else { TransportKind::Quic };
            let options = Options { choice: Choice::Only(kind), ..Options::default() };
            match replicate::sync(&self.vault, &self.target, &options, Arc::new(Unobserved)).await {
                Ok(_) => self.served += 1,
                Err(ReplicateError::Transport(_)) => self.turned_away += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_connections_in_a_row_are_held_back_and_leave_nothing_behind() {
    let two = Two::new();
    let serving = two.a.serve();
    let home = Home::open(&two.sandbox.path("home-b")).unwrap();
    let (vault, _) = Vault::open(&two.sandbox.path("replica"), &home, Unlock::Device).unwrap();
    let device = vault.home().peers().unwrap()[0].device;
    let target = Target { name: "a".into(), device, addresses: vec![serving.tcp.parse().unwrap()] };
    let mut caller = Caller { vault, target, serving, served: 0, turned_away: 0 };
    let begun = Instant::now();
    caller.call(20).await;
    let server = caller.serving.id();
    let before = usage(server);
    caller.call(200).await;
    // Who needs so long for each comes seldom by itself.
    let seldom = begun.elapsed() > Duration::from_millis(160 * SESSION_PER_DEVICE_MS);
    until(|| usage(server).files <= before.files);
    let after = usage(server);
    assert!(after.memory_kib < before.memory_kib + 8 * 1_024, "{before:?} {after:?}");
    assert!(caller.served >= 60, "a device may come sixty times at once: {}", caller.served);
    assert!(caller.turned_away > 0 || seldom, "and then seldom: {}", caller.served);
    // It is let in again after a while, and so is everybody else.
    let served = caller.served;
    while caller.served == served {
        caller.call(1).await;
    }
    assert_eq!(two.a.run(&["get", "first"]).ok().text(), "first");
}
