//! Who dials, and which session stays.

use crate::world::{LOOPBACK, Running, World, holds, knows, listening, put};
use mirror_engine::{
    home::Role,
    keys::DeviceKey,
    node::{Dialled, NodeOptions, NodeStatus, State},
    replicate::{self, Observer, Options, Progress, Server, Target, Unobserved},
    vault::Vault,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

fn dialled(status: &NodeStatus) -> Option<Dialled> {
    match &status.peers[0].state {
        State::Live(path) | State::Transferring(path) => Some(path.dialled),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_that_dial_each_other_one_session_stays_and_both_know_which() {
    for round in 0..5 {
        let (world, a) = World::new();
        let b = world.join(&a, "b", Role::Owner).await;
        let (mut first, mut second) = (Running::start(&a, listening()).await, Running::start(&b, listening()).await);
        knows(&a, &b, &second.at());
        knows(&b, &a, &first.at());
        first.node.addresses(b.device().id(), second.at());
        second.node.addresses(a.device().id(), first.at());
        first.live().await;
        second.live().await;
        put(&a, "one", b"1");
        holds(&b, &a.store().frontier()).await;
        put(&b, "two", b"2");
        holds(&a, &b.store().frontier()).await;
        let agree = |status: &NodeStatus| dialled(status).is_some_and(|by| dialled(&second.node.status()).is_some_and(|other| other != by));
        first.until(&format!("of one mind with the other in round {round}"), agree).await;
        first.node.stop().await;
        second.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_dialled_who_has_no_address_until_one_is_found() {
    let (world, a) = World::new();
    let b = world.join(&a, "b", Role::Owner).await;
    knows(&b, &a, &[]);
    let first = Running::start(&a, listening()).await;
    let mut second = Running::start(&b, NodeOptions::default()).await;
    let waits = |status: &NodeStatus| matches!(status.peers.first().map(|peer| &peer.state), Some(State::Waiting { next_in: None, .. }));
    second.until("waiting for an address", waits).await;
    second.node.addresses(a.device().id(), first.at());
    second.live().await;
    // What was written into `peers.toml` beside the node counts as well.
    knows(&b, &a, &[LOOPBACK]);
    second.until("looked up", |status| status.peers[0].lag.events_out == Some(0)).await;
}

/// Counts how often a follower was sent away.
#[derive(Default)]
struct Counting(AtomicU32);

impl Observer for Counting {
    fn progress(&self, progress: Progress) {
        if matches!(progress, Progress::Waiting { .. }) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// `mirror sync --follow`, beside whatever else runs on the device.
fn follow_plainly(vault: &Arc<Vault>, node: &Vault, at: Vec<SocketAddr>, counting: &Arc<Counting>) -> JoinHandle<()> {
    let target = Target { name: "node".into(), device: node.device().id(), addresses: at };
    let (vault, counting) = (vault.clone(), counting.clone());
    tokio::spawn(async move {
        let find = move || Ok(target.clone());
        replicate::keep_following(&vault, &find, &Options::default(), counting).await.unwrap();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_makes_room_for_a_program_that_follows_it_and_knows_no_rule() {
    let (world, a) = World::new();
    let b = world.join(&a, "b", Role::Owner).await;
    // Whichever has the smaller device id: one of the two nodes would have kept its own session for a while.
    for (node, other) in [(&a, &b), (&b, &a)] {
        let counting = Arc::default();
        let mut running = Running::start(node, listening()).await;
        let server = Server::bind(other.clone(), &[LOOPBACK], "plain", &Options::default()).await.unwrap();
        running.node.addresses(other.device().id(), server.local_addrs().1);
        let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop)));
        running.until("live by itself", |status| dialled(status) == Some(Dialled::ByUs)).await;
        let following = follow_plainly(other, node, running.at(), &counting);
        running.until("live by the other", |status| dialled(status) == Some(Dialled::ByThem)).await;
        put(node, "one", b"1");
        holds(other, &node.store().frontier()).await;
        assert_eq!(counting.0.load(Relaxed), 0, "the program was never sent away");
        following.abort();
        serving.abort();
        running.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_had_not_heard_of_a_new_one_takes_it_soon_after_it_has() {
    let (world, a) = World::new();
    let c = world.join(&a, "c", Role::Owner).await;
    let b = world.join(&a, "b", Role::Owner).await;
    let first = Running::start(&c, listening()).await;
    knows(&b, &a, &[]);
    knows(&b, &c, &first.at());
    let mut second = Running::start(&b, NodeOptions::default()).await;
    let of_c = |status: &NodeStatus| status.peers.iter().find(|peer| peer.device == c.device().id()).map(|peer| peer.state.clone());
    let soon = Duration::from_secs(2);
    let is_refused = |status: &NodeStatus| matches!(of_c(status), Some(State::Refused { next_in: Some(next), .. }) if next <= soon);
    second.until("refused, and soon to try again", is_refused).await;
    let server = Server::bind(a.clone(), &[LOOPBACK], "a", &Options::default()).await.unwrap();
    let target = Target { name: "a".into(), device: a.device().id(), addresses: server.local_addrs().1 };
    let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop)));
    replicate::sync(&c, &target, &Options::default(), Arc::new(Unobserved)).await.unwrap();
    serving.abort();
    second.until("live", |status| matches!(of_c(status), Some(State::Live(_) | State::Transferring(_)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_sent_away_asks_at_once_when_it_hears_who_is_in() {
    let (world, a) = World::new();
    let c = world.join(&a, "c", Role::Owner).await;
    let b = world.join(&a, "b", Role::Owner).await;
    let first = Running::start(&c, listening()).await;
    knows(&b, &a, &[]);
    knows(&b, &c, &first.at());
    let mut second = Running::start(&b, NodeOptions::default()).await;
    let next_of_c = |status: &NodeStatus| {
        let state = status.peers.iter().find(|peer| peer.device == c.device().id()).map(|peer| &peer.state);
        match state {
            Some(State::Refused { next_in, .. }) => *next_in,
            _ => None,
        }
    };
    let later = |status: &NodeStatus| next_of_c(status).is_some_and(|next| next > Duration::from_secs(3));
    second.until("refused for the third time", later).await;
    // Whoever it is: it says that who is in has changed.
    let device = DeviceKey::generate().unwrap();
    b.admit(device.id(), Role::Keyless, "another").unwrap();
    second.until("asking again", |status| next_of_c(status).is_some_and(|next| next <= Duration::from_secs(1))).await;
}
