//! What is written anywhere is everywhere, through whoever is in between.

use crate::world::{Running, World, holds, knows, listening, put, value};
use mirror_engine::{home::Role, node::NodeOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_crosses_a_keyless_node_both_ways_and_back_after_it_was_restarted() {
    let (world, a) = World::new();
    let b = world.join(&a, "b", Role::Keyless).await;
    let c = world.join(&a, "c", Role::Member).await;
    let middle = Running::start(&b, listening()).await;
    for end in [&a, &c] {
        knows(end, &b, &middle.at());
        knows(&b, end, &[]);
    }
    // The two ends dial nobody but the middle, and do not listen.
    let (mut first, mut last) = (Running::start(&a, NodeOptions::default()).await, Running::start(&c, NodeOptions::default()).await);
    let name_of = |status: &mirror_engine::node::NodeStatus| status.peers.iter().filter(|peer| crate::world::is_live(peer)).count();
    first.until("connected", |status| name_of(status) == 1).await;
    last.until("connected", |status| name_of(status) == 1).await;

    put(&a, "from a", b"through b");
    holds(&c, &a.store().frontier()).await;
    let large: Vec<u8> = (0..2_000_000_u32).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect();
    put(&c, "from c", &large);
    holds(&a, &c.store().frontier()).await;
    assert!(value(&c, "from a") == b"through b" && value(&a, "from c") == large);

    let port = middle.at();
    middle.node.stop().await;
    put(&a, "meanwhile", b"b was away");
    let _middle = Running::start(&b, NodeOptions { listen: port, ..listening() }).await;
    holds(&c, &a.store().frontier()).await;
    assert_eq!(a.store().root(), c.store().root());
    first
        .until("identical with the middle", |status| status.peers.iter().any(|peer| peer.lag.age == Some(std::time::Duration::ZERO)))
        .await;
}
