//! The property that everything else is for: whatever the links do, replicas become equal, and nothing acknowledged is lost.

use super::{
    model::Vault,
    world::{Dice, Options, Signing, World},
};
use crate::{
    event::Frontier,
    session::{Outcome, Windows},
};
use proptest::prelude::*;

const STEPS_MAX: usize = 20_000;

/// Small enough that every window is hit by a handful of events.
pub(super) fn windows(dice: &mut Dice) -> Windows {
    Windows {
        inline_bytes_max: [0, 300, 2_000][dice.roll(3)],
        wanted_bytes_max: [1, 1_000, 1_000_000][dice.roll(3)],
        wanted_chunks_max: 1 + dice.roll(8),
        wants_max: 1 + dice.roll(3),
        pending_events_max: 1 + dice.roll(5),
        pending_event_bytes_max: [1, 600, 100_000][dice.roll(3)],
    }
}

pub(super) fn write_some(vault: &mut Vault, dice: &mut Dice) {
    for _ in 0..dice.roll(5) {
        let lists: Vec<u32> = (0..dice.roll(3)).map(|_| 1 + dice.roll(7) as u32).collect();
        vault.write(&lists);
    }
}

/// Right, out of date, or about a replica that never was.
pub(super) fn belief(dialer: &Vault, listener: &Vault, dice: &mut Dice) -> Option<Frontier> {
    match dice.roll(4) {
        0 => Some(listener.frontier()),
        1 => Some(Frontier::new()),
        2 => {
            let mut wrong = listener.frontier();
            wrong.raise(crate::event::Dot { author: [dialer, listener][dice.roll(2)].replica(), sequence: 1 + dice.roll(9) as u64 });
            Some(wrong)
        }
        _ => None,
    }
}

/// One session between two of the replicas, cut after some steps or run to its end.
fn meet(vaults: &mut [Vault], pair: (usize, usize), cut: Option<usize>, dice: &mut Dice) {
    let (dialer, listener) = (vaults[pair.0].clone(), vaults[pair.1].clone());
    let before = [dialer.frontier(), listener.frontier()];
    let options =
        Options { windows: windows(dice), cached: belief(&dialer, &listener, dice), signing: [Signing::Known; 2], ..Options::default() };
    let early = options.cached.is_some();
    let mut world = World::new(dialer, listener, &options, dice.roll(usize::MAX) as u64);
    match cut {
        Some(steps) => {
            let _ = (0..steps).all(|_| world.step());
        }
        None => {
            world.run(STEPS_MAX);
            assert_eq!(world.outcomes(), [Some(&Outcome::Complete), Some(&Outcome::Complete)], "{options:?}");
            // What waited for chunks that this peer happened to have is sent on in another session only.
            let [root, other] = world.ends.each_ref().map(|end| end.driver.vault.root());
            let shown = world.ends.iter().all(|end| end.certified() == Some(root));
            assert!(root != other || shown, "both are equal and one of them cannot show it");
        }
    }
    for end in &world.ends {
        assert!(early || end.driver.unwanted_chunks == 0, "a chunk was sent twice in one session");
    }
    let [mut dialer, mut listener] = world.vaults();
    if cut.is_some() && dice.roll(2) == 0 {
        [&mut dialer, &mut listener][dice.roll(2)].crash();
    }
    for (vault, before) in [&dialer, &listener].iter().zip(before) {
        vault.check();
        assert!(vault.frontier().covers(&before), "something acknowledged was lost");
    }
    (vaults[pair.0], vaults[pair.1]) = (dialer, listener);
}

fn random_pair(replicas: usize, dice: &mut Dice) -> (usize, usize) {
    let left = dice.roll(replicas - 1);
    if dice.roll(2) == 0 { (left, left + 1) } else { (left + 1, left) }
}

/// Cut sessions among writes, then whole ones along the chain there and back.
fn converge(replicas: usize, rounds: usize, seed: u64) {
    let mut dice = Dice(seed);
    let mut vaults: Vec<Vault> = (0..replicas).map(|name| Vault::new(name as u8 + 1)).collect();
    vaults.iter_mut().for_each(|vault| write_some(vault, &mut dice));
    for _ in 0..rounds {
        let pair = random_pair(replicas, &mut dice);
        let cut = dice.roll(120);
        meet(&mut vaults, pair, Some(cut), &mut dice);
        let writer = dice.roll(replicas);
        write_some(&mut vaults[writer], &mut dice);
    }
    let there = (1..replicas).map(|right| (right - 1, right));
    let back = (1..replicas).rev().map(|right| (right, right - 1));
    for pair in there.chain(back) {
        meet(&mut vaults, pair, None, &mut dice);
    }
    assert!(vaults.windows(2).all(|pair| pair[0].root() == pair[1].root()), "the replicas differ");
    assert!(vaults.iter().all(|vault| vault.pending() == 0), "events wait in a journal");
}

/// A replica that has lost chunks of some events meets one that has none: neither waits for ever, neither blames the other.
fn meet_damaged(seed: u64) {
    let mut dice = Dice(seed);
    let mut vaults = vec![Vault::new(1), Vault::new(2)];
    for _ in 0..3 {
        vaults.iter_mut().for_each(|vault| write_some(vault, &mut dice));
        meet(&mut vaults, (0, 1), None, &mut dice);
    }
    let events = vaults[0].events();
    (0..dice.roll(3).min(events)).for_each(|_| vaults[0].damage(dice.roll(events)));
    let options = Options { windows: windows(&mut dice), ..Options::default() };
    let mut world = World::new(vaults.swap_remove(0), Vault::new(3), &options, seed);
    world.run(STEPS_MAX);
    match world.outcomes() {
        [Some(Outcome::Complete), Some(Outcome::Complete)] => {}
        [Some(Outcome::Partial { there, .. }), Some(Outcome::Partial { here, .. })] => {
            // A sender stops once the peer keeps a window full of what it can't apply.
            assert!(*there <= here.len() as u64 && !here.is_empty());
        }
        outcomes => panic!("{outcomes:?}"),
    }
    world.ends[1].driver.vault.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_replicas_become_equal_whatever_was_cut(seed in any::<u64>(), rounds in 0_usize..6) {
        converge(2, rounds, seed);
    }

    #[test]
    fn three_replicas_in_a_chain_become_equal_whatever_was_cut(seed in any::<u64>(), rounds in 0_usize..8) {
        converge(3, rounds, seed);
    }

    #[test]
    fn damage_at_the_sender_ends_in_a_partial_session(seed in any::<u64>()) {
        meet_damaged(seed);
    }
}
