//! Who dials, and which session stays.

use crate::world::{LOOPBACK, Running, World, holds, is_live, knows, listening, put};
use mirror_engine::{
    home::Role,
    node::{Dialled, NodeOptions, NodeStatus, State},
};

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
        let smaller_dials = a.device().id() < b.device().id();
        let (of_first, of_second) = if smaller_dials { (Dialled::ByUs, Dialled::ByThem) } else { (Dialled::ByThem, Dialled::ByUs) };
        let settled = |status: &NodeStatus, by| dialled(status) == Some(by);
        first.live().await;
        second.live().await;
        put(&a, "one", b"1");
        holds(&b, &a.store().frontier()).await;
        put(&b, "two", b"2");
        holds(&a, &b.store().frontier()).await;
        // Where only one had time to dial there is nothing to settle; where both had, it is settled alike.
        let (one, two) = (first.node.status(), second.node.status());
        let both = one.peers[0].sessions > 1 || two.peers[0].sessions > 1;
        if both {
            first.until("settled", |status| settled(status, of_first)).await;
            second.until("settled", |status| settled(status, of_second)).await;
        }
        assert!(first.node.status().peers.iter().all(is_live), "round {round}");
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
