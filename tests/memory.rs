//! Memory and descriptors of two nodes that run for long: neither sessions that end nor values that come leave anything behind.
//!
//! What is counted is what was asked for and not given back. An allocator holds more than that, another amount in each run: `perf/soak.sh` looks
//! at it, and at values whose chunks go by lanes, for which a bounded number of buffers is kept.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "other tests of nodes need more of it")]
#[path = "node/world.rs"]
mod world;

use mirror_engine::{
    home::Role,
    io::counting::{Counting, held_bytes},
    node::{Node, NodeOptions},
    vault::Vault,
};
use std::{alloc::System, fs, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use world::{PATIENCE, World, holds, is_live, listening, put};

/// The only test in this program: the counts belong to the process.
#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// With those before no more than a device may begin one right after the other.
const SESSIONS: u64 = 40;
const SESSIONS_BEFORE: u64 = 5;
const PUTS: u64 = 200;
const PUTS_BEFORE: u64 = 50;
/// Far less than a buffer or a task that each session would leave, and more than tables that have grown to their next size.
const LEFT_BYTES_MAX: u64 = 256 << 10;
/// Files of the index that more readers at once have opened: fewer than one for each session.
const OPENED_MAX: usize = SESSIONS as usize / 2;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Two replicas, each with its node; the second one dials.
struct Pair {
    vaults: [Arc<Vault>; 2],
    nodes: [Node; 2],
    puts: u64,
}

impl Pair {
    async fn new(world: &World, a: Arc<Vault>) -> Self {
        let b = world.join(&a, "b", Role::Owner).await;
        let listener = Node::start(a.clone(), listening(), Arc::new(drop)).await.unwrap();
        let dialler = Node::start(b.clone(), NodeOptions::default(), Arc::new(drop)).await.unwrap();
        dialler.addresses(a.device().id(), listener.local_addrs().1);
        let pair = Self { vaults: [a, b], nodes: [listener, dialler], puts: 0 };
        pair.connected(2).await;
        pair
    }

    /// Waits until this many ends see a live session.
    async fn connected(&self, ends: usize) {
        let sees = |node: &&Node| node.status().peers.iter().any(is_live);
        until("connected, or apart", || self.nodes.iter().filter(sees).count() == ends).await;
    }

    async fn meet_again(&self, times: u64) {
        for _ in 0..times {
            self.nodes[1].pause();
            self.connected(0).await;
            self.nodes[1].resume();
            self.connected(2).await;
        }
    }

    /// Values on both sides, at the other side in the end.
    async fn write(&mut self, values: u64) {
        for _ in 0..values {
            self.puts += 1;
            for (n, vault) in self.vaults.iter().enumerate() {
                put(vault, &format!("{n}/{}", self.puts), &[self.puts.to_le_bytes(), [n as u8; 8]].concat());
            }
        }
        let [a, b] = &self.vaults;
        holds(a, &b.store().frontier()).await;
        holds(b, &a.store().frontier()).await;
    }
}

/// Bytes held once what has ended is gone: the least, when it has been the least for a second.
async fn held_at_rest() -> u64 {
    let (mut least, mut looks) = (u64::MAX, 0);
    while looks < 20 {
        sleep(Duration::from_millis(50)).await;
        let held = held_bytes();
        looks = if held < least { 0 } else { looks + 1 };
        least = least.min(held);
    }
    least
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let found = async {
        while !is() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("not {what}: {} bytes, {} descriptors", held_bytes(), descriptors()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_values_leave_neither_memory_nor_descriptors_behind() {
    let (world, a) = World::new();
    let mut pair = Pair::new(&world, a).await;
    pair.write(PUTS_BEFORE).await;
    pair.meet_again(SESSIONS_BEFORE).await;
    let (held, open) = (held_at_rest().await, descriptors());
    pair.meet_again(SESSIONS).await;
    pair.write(PUTS).await;
    let back = || held_bytes() <= held + LEFT_BYTES_MAX && descriptors() <= open + OPENED_MAX;
    // What ends a session may still be on its way.
    until(&format!("back at {held} bytes, {open} descriptors"), back).await;
}
