//! Several peers at once: some die and come back, some hardly read.

use crate::world::{LOOPBACK, PATIENCE, Running, World, holds, knows, listening, put, value};
use mirror_engine::{
    home::Role,
    node::{NodeOptions, NodeStatus},
    replicate::{self, Limits, Options, Server, Summary, Target, Unobserved},
    vault::Vault,
};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::timeout};

const MIB: usize = 1 << 20;

/// Bytes that nothing makes smaller, others for each seed.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as u8
    };
    (0..bytes).map(next).collect()
}

fn received(status: &NodeStatus) -> u64 {
    status.peers.iter().map(|peer| peer.traffic.bytes_received).sum()
}

/// One node gives little a second, so that it is in the middle when it dies.
async fn scarce(vault: &Arc<Vault>) -> Running {
    let running = Running::start(vault, listening()).await;
    running.node.limits().send.set(Some(4 * MIB as u64));
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_peers_that_die_in_turn_a_third_gets_everything_that_both_have() {
    let (world, a) = World::new();
    // The second has heard of the third when it comes.
    let c = world.join(&a, "c", Role::Owner).await;
    let b = world.join(&a, "b", Role::Owner).await;
    knows(&c, &b, &[]);
    (0..4).for_each(|n| put(&a, &format!("from a {n}"), &noise(MIB, n)));
    (0..4).for_each(|n| put(&b, &format!("from b {n}"), &noise(MIB, 100 + n)));
    let mut third = Running::start(&c, NodeOptions::default()).await;
    let sources = [&a, &b];
    let mut at_work = [Some(scarce(&a).await), Some(scarce(&b).await)];
    for round in 0..6 {
        for (running, vault) in at_work.iter().zip(sources) {
            let addresses = running.as_ref().map(Running::at).unwrap_or_default();
            third.node.addresses(vault.device().id(), addresses);
        }
        let so_far = received(&third.node.status());
        let has_all_of = |source: &Vault| c.store().frontier().covers(&source.store().frontier());
        let has_all = || at_work.iter().zip(sources).all(|(running, source)| running.is_none() || has_all_of(source));
        third.until("further", |status| received(status) > so_far || has_all()).await;
        // The one dies without a word, the other is back.
        let (dies, returns) = (round % 2, (round + 1) % 2);
        at_work[dies] = None;
        if at_work[returns].is_none() {
            at_work[returns] = Some(scarce(sources[returns]).await);
        }
    }
    for (running, source) in at_work.iter_mut().zip(sources) {
        if running.is_none() {
            *running = Some(Running::start(source, listening()).await);
        }
        let running = running.as_ref().unwrap();
        running.node.limits().send.set(None);
        third.node.addresses(source.device().id(), running.at());
    }
    for (source, name) in sources.iter().zip(["a", "b"]) {
        holds(&c, &source.store().frontier()).await;
        assert!(value(&c, &format!("from {name} 3")) == value(source, &format!("from {name} 3")));
    }
}

/// A replica that takes `bytes_per_s`.
async fn read(reader: Arc<Vault>, target: Target, bytes_per_s: Option<u64>) -> Summary {
    let options = Options { limits: Limits::new(None, bytes_per_s), ..Options::default() };
    replicate::sync(&reader, &target, &options, Arc::new(Unobserved)).await.unwrap()
}

/// Nobody is given much less than another.
fn alike(took: &[Duration]) -> bool {
    let (least, most) = (*took.iter().min().unwrap(), *took.iter().max().unwrap());
    most < 3 * least + Duration::from_secs(2)
}

/// How long each of the `slow` has taken for another value, which the `quick` one has got meanwhile.
async fn read_by_all(a: &Arc<Vault>, target: &Target, quick: &Arc<Vault>, slow: &[Arc<Vault>], round: u64) -> Vec<Duration> {
    put(a, "value", &noise(2 * MIB, 7 + round));
    // Two seconds of each: whoever is not held back is done long before.
    let reads = slow.iter().map(|reader| read(reader.clone(), target.clone(), Some(MIB as u64)));
    let reading: JoinSet<Summary> = reads.collect();
    let summary = timeout(PATIENCE, read(quick.clone(), target.clone(), None)).await.expect("the slow ones keep it waiting");
    assert!(summary.bytes_received >= 2 * MIB as u64);
    let took = timeout(PATIENCE, reading.join_all()).await.expect("all are served").iter().map(|one| one.elapsed).collect();
    slow.iter().for_each(|reader| assert_eq!(reader.store().root(), a.store().root()));
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_slow_readers_get_on_alike_and_keep_nobody_waiting() {
    const READERS: usize = 12;
    const ROUNDS: usize = 4;
    let (world, a) = World::new();
    let mut readers = Vec::new();
    for n in 0..READERS {
        readers.push(world.join(&a, &format!("slow {n}"), Role::Member).await);
    }
    let quick = world.join(&a, "quick", Role::Member).await;
    let server = Server::bind(a.clone(), &[LOOPBACK], "server", &Options::default()).await.unwrap();
    let target = Target { name: "a".into(), device: a.device().id(), addresses: server.local_addrs().1 };
    let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop)));
    // Other load holds one or the other up in some rounds; a server that prefers somebody does so in all.
    let mut took: Vec<Vec<Duration>> = Vec::new();
    while took.len() < ROUNDS && !took.last().is_some_and(|took| alike(took)) {
        took.push(read_by_all(&a, &target, &quick, &readers, took.len() as u64).await);
    }
    assert!(took.last().is_some_and(|took| alike(took)), "{took:?}");
    serving.abort();
}
