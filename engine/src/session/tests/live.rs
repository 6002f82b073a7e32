//! Sessions that stay: both sides write at any time, other sessions bring what they bring, and either side stops at any time.

use super::{
    convergence::{belief, windows, write_some},
    model::Vault,
    world::{Dice, End, Options, Signing, World},
};
use crate::{
    limits::IDLE_MS,
    session::{Outcome, SessionEvent, Stay, message::ByeCode, phase::Phase},
};
use proptest::prelude::*;
use std::time::Duration;

const STEPS_MAX: usize = 40_000;

fn live(a: Vault, b: Vault, seed: u64) -> World {
    World::new(a, b, &Options { stay: Stay::Live, ..Options::default() }, seed)
}

fn phases(world: &World) -> [Phase; 2] {
    [world.ends[0].session.phase(), world.ends[1].session.phase()]
}

fn roots_are_equal(world: &World) -> bool {
    world.ends[0].driver.vault.root() == world.ends[1].driver.vault.root()
}

/// Something happens at one end, or nothing does for a while. `third` is a replica that both ends talk with in other sessions.
fn live_a_little(world: &mut World, third: &mut Vault, dice: &mut Dice) {
    let end = dice.roll(2);
    match dice.roll(4) {
        0 => world.grow(end, |vault| write_some(vault, dice)),
        1 => world.bring(end, third),
        2 => write_some(third, dice),
        _ => {
            let steps = dice.roll(60);
            let _ = (0..steps).all(|_| world.step());
        }
    }
}

/// A life in several sessions, all but the last one cut or stopped at any time.
fn lives(sessions: usize, seed: u64) {
    let mut dice = Dice(seed);
    let (mut a, mut b, mut third) = (Vault::new(1), Vault::new(2), Vault::new(3));
    for session in 0..=sessions {
        let cached = belief(&a, &b, &mut dice);
        let options = Options { windows: windows(&mut dice), cached, stay: Stay::Live, signing: [Signing::Known; 2], ..Options::default() };
        let before = [a.frontier(), b.frontier()];
        let mut world = World::new(a, b, &options, dice.roll(usize::MAX) as u64);
        (0..dice.roll(20)).for_each(|_| live_a_little(&mut world, &mut third, &mut dice));
        if session == sessions {
            world.run(STEPS_MAX);
            assert_eq!(phases(&world), [Phase::Live, Phase::Live], "{:?}", world.outcomes());
            assert!(roots_are_equal(&world), "the replicas differ although nothing is under way");
            let certified = |end: &End| end.certified() == Some(end.driver.vault.root());
            assert!(world.ends.iter().all(certified), "both are equal and one of them cannot show it");
            assert!(world.ends.iter().all(|end| end.driver.vault.pending() == 0), "events wait in a journal");
        }
        let stopped = dice.roll(2);
        if session == sessions || dice.roll(2) == 0 {
            world.stop(stopped);
            world.run(STEPS_MAX);
            let stop = [world.outcomes()[stopped], world.outcomes()[1 - stopped]];
            assert!(matches!(stop[0], Some(Outcome::Stopped)), "{stop:?}");
            // Who has not even been greeted hears nothing.
            let heard = matches!(stop[1], None | Some(Outcome::PeerEnded { code: ByeCode::Stopped, .. }));
            assert!(heard, "{stop:?}");
        }
        let [mut left, mut right] = world.vaults();
        if dice.roll(3) == 0 {
            [&mut left, &mut right][dice.roll(2)].crash();
        }
        for (vault, before) in [&left, &right].iter().zip(before) {
            vault.check();
            assert!(vault.frontier().covers(&before), "something acknowledged was lost");
        }
        (a, b) = (left, right);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_are_equal_whenever_nothing_is_under_way(seed in any::<u64>(), sessions in 0_usize..4) {
        lives(sessions, seed);
    }
}

#[test]
fn what_another_session_brings_while_chunks_are_on_their_way_ends_in_order() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let (mut a, mut b) = (Vault::new(1), Vault::new(2));
        write_some(&mut a, &mut dice);
        write_some(&mut b, &mut dice);
        let other = a.clone();
        let options = Options { windows: windows(&mut dice), ..Options::default() };
        let mut world = World::new(a, b, &options, seed);
        let steps = dice.roll(60);
        let _ = (0..steps).all(|_| world.step());
        world.bring(1, &other);
        world.run(STEPS_MAX);
        assert_eq!(world.outcomes(), [Some(&Outcome::Complete), Some(&Outcome::Complete)], "seed {seed}");
        assert!(roots_are_equal(&world), "seed {seed}");
    }
}

#[test]
fn a_side_that_does_not_stay_ends_as_ever() {
    let mut a = Vault::new(1);
    a.write(&[2]);
    let mut world = World::new(a, Vault::new(2), &Options::default(), 1);
    world.run(STEPS_MAX);
    assert_eq!(world.outcomes(), [Some(&Outcome::Complete), Some(&Outcome::Complete)]);
}

#[test]
fn equal_replicas_stay_and_are_told_each_time_that_they_are_equal_again() {
    let mut world = live(Vault::new(1), Vault::new(2), 1);
    for round in 1..4 {
        world.run(STEPS_MAX);
        for end in &world.ends {
            let equal = end.events.iter().filter(|event| matches!(event, SessionEvent::Identical { .. })).count();
            assert_eq!(equal, round);
        }
        world.grow(round % 2, |vault| vault.write(&[2]));
    }
}

#[test]
fn an_event_that_another_session_has_brought_is_acknowledged() {
    let mut a = Vault::new(1);
    a.write(&[2]);
    let both = a.clone();
    for stay in [Stay::UntilEqual, Stay::Live] {
        let mut world = World::new(a.clone(), Vault::new(2), &Options { stay, ..Options::default() }, 1);
        while !world.heard_kinds(1).contains(&1) {
            assert!(world.step());
        }
        world.bring(1, &both);
        world.run(STEPS_MAX);
        let known = world.ends[0].events.iter().any(|event| matches!(event, SessionEvent::PeerApplied { .. }));
        assert!(known && roots_are_equal(&world), "{stay:?}");
    }
}

#[test]
fn nothing_piles_up_however_long_a_session_lives() {
    let mut world = live(Vault::new(1), Vault::new(2), 1);
    let mut third = Vault::new(3);
    let sizes = |world: &World| world.ends.each_ref().map(|end| format!("{:?} {:?}", end.session, end.driver.wants).len());
    let mut live_on = |world: &mut World, rounds: usize| {
        for round in 0..rounds {
            world.grow(round % 2, |vault| vault.write(&[3, 2]));
            third.write(&[1]);
            world.bring((round / 2) % 2, &third);
            world.run(STEPS_MAX);
            world.ends.iter_mut().for_each(|end| {
                end.events.clear();
                end.heard.clear();
            });
        }
    };
    live_on(&mut world, 10);
    let early = sizes(&world);
    live_on(&mut world, 300);
    let late = sizes(&world);
    // Sequence numbers have more digits by then.
    assert!(late.iter().zip(early).all(|(late, early)| *late < early + 400), "{early:?} {late:?}");
}

#[test]
fn a_quiet_session_has_no_timers_and_a_peer_that_owes_an_answer_has() {
    let mut world = live(Vault::new(1), Vault::new(2), 1);
    world.run(STEPS_MAX);
    assert!(world.ends.iter().all(|end| end.session.poll_timeout().is_none()));
    world.now += Duration::from_secs(86_400);
    world.grow(0, |vault| vault.write(&[1]));
    while world.carry_out_one(0) {}
    let at = world.ends[0].session.poll_timeout().expect("the peer owes an answer");
    assert_eq!(at, world.now + Duration::from_millis(2 * IDLE_MS), "the quiet day does not count");
    world.ends[0].session.handle_timeout(at);
    assert!(world.ends[0].session.is_finished());
}
