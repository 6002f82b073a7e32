//! Short histories: some changes, sessions and misfortunes, and then all must be well.

use super::{
    Dice, play,
    world::{Talk, World},
};
use std::time::Duration;
use tokio::time::sleep;

#[test]
fn two_replicas_become_equal_in_virtual_time() {
    let shape = play(1, async {
        let mut world = World::new(Dice::new(1), 2).await;
        world.put(0, 1_000).unwrap();
        world.connect(1, 0, Talk::Follow);
        for _ in 0..20 {
            sleep(Duration::from_millis(100)).await;
            world.check().await;
        }
        assert!(world.are_equal());
        world.heal().await;
        world.check_end().await;
        world.net.shape()
    });
    eprintln!("{shape:?}");
}
