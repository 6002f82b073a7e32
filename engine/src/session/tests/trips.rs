//! Round trips of a small object, counted: work at the ends takes no time, and all that is under way arrives at once.
//!
//! A session begins when the connection stands, which takes one round trip over QUIC and two over TCP.

use super::{
    model::Vault,
    world::{Options, World},
};
use crate::{
    event::{Dot, Frontier},
    limits::EARLY_BYTES_MAX,
    session::{SessionEvent, Stay, Windows},
};

/// Half round trips until an end knows that its peer has applied all that it holds.
fn half_trips(world: &mut World, end: usize) -> usize {
    let applied = |world: &World| {
        let held = world.ends[end].driver.vault.frontier();
        let covers = |event: &SessionEvent| matches!(event, SessionEvent::PeerApplied { frontier, .. } if frontier.covers(&held));
        world.ends[end].events.iter().any(covers)
    };
    (1..20)
        .find(|_| {
            world.half_trip();
            applied(world)
        })
        .expect("it is applied at some time")
}

/// Two that hold the same, and then one small object more at the dialer.
fn one_more(lists: &[u32]) -> (Vault, Vault) {
    let mut a = Vault::new(1);
    a.write(&[3]);
    let mut b = Vault::new(2);
    b.receive_all(&a);
    a.write(lists);
    (a, b)
}

fn cold(cached: Option<Frontier>, a: Vault, b: Vault) -> usize {
    half_trips(&mut World::new(a, b, &Options { cached, ..Options::default() }, 1), 0)
}

#[test]
fn a_small_object_to_a_peer_that_is_remembered_takes_one_round_trip_beside_the_handshake() {
    let (a, b) = one_more(&[1]);
    assert_eq!(cold(Some(b.frontier()), a, b), 2);
}

#[test]
fn to_a_peer_that_is_not_remembered_it_takes_two() {
    let (a, b) = one_more(&[1]);
    assert_eq!(cold(None, a, b), 4);
}

#[test]
fn an_old_memory_costs_bytes_and_a_wrong_one_a_round_trip() {
    let (a, b) = one_more(&[1]);
    assert_eq!(cold(Some(Frontier::new()), a.clone(), b.clone()), 2, "the peer holds more than we remember");
    let mut wrong = b.frontier();
    wrong.raise(Dot { author: b.replica(), sequence: 9 });
    assert_eq!(cold(Some(wrong), a, b), 4, "the peer does not hold what we remember");
}

#[test]
fn while_both_stay_it_takes_one_in_either_direction() {
    let (a, b) = one_more(&[1]);
    let mut world = World::new(a, b, &Options { stay: Stay::Live, ..Options::default() }, 1);
    (0..8).for_each(|_| world.half_trip());
    for end in [0, 1, 1, 0] {
        world.ends[end].events.clear();
        world.grow(end, |vault| vault.write(&[1]));
        assert_eq!(half_trips(&mut world, end), 2);
        (0..4).for_each(|_| world.half_trip());
    }
}

#[test]
fn what_goes_ahead_of_the_peers_hello_is_little() {
    let mut a = Vault::new(1);
    (0..2_000).for_each(|_| a.write(&[4]));
    let options = Options { cached: Some(Frontier::new()), windows: Windows::default(), ..Options::default() };
    let mut world = World::new(a, Vault::new(2), &options, 1);
    world.ends[0].events.clear();
    let early = world.ahead();
    assert!(early > 1 && early as u64 <= EARLY_BYTES_MAX + 2_000, "{early} bytes");
}
