//! Chunks that were lost come back, whatever the peer is like; what nobody has ends the session all the same.

use super::{
    convergence::{windows, write_some},
    model::{Vault, config},
    world::{Dice, Options, World},
};
use crate::{
    bitmap::Bitmap,
    event::{Dot, Frontier, ListRef},
    id::{ListId, ReplicaId, VaultId},
    limits::LOST_LISTS_MAX,
    session::{
        Action, Direction, Done, Hello, HelloKeys, Message, Outcome, Session, SessionError, SessionEvent, Side, Stay, Windows, hello,
        phase::Phase,
    },
};
use proptest::prelude::*;
use std::time::Instant;

const STEPS_MAX: usize = 20_000;
const COMPLETE: [Option<&Outcome>; 2] = [Some(&Outcome::Complete), Some(&Outcome::Complete)];

/// Two replicas with the same events, of both of them, and every chunk.
fn pair(events: &[&[u32]]) -> [Vault; 2] {
    let (mut a, mut b) = (Vault::new(1), Vault::new(2));
    events.iter().for_each(|lists| a.write(lists));
    b.write(&[3]);
    let mut world = World::new(a, b, &Options::default(), 1);
    world.run(STEPS_MAX);
    world.vaults()
}

fn ran([a, b]: [Vault; 2], options: &Options) -> World {
    let mut world = World::new(a, b, options, 1);
    world.run(STEPS_MAX);
    world
}

fn lost(world: &World) -> [usize; 2] {
    [world.ends[0].driver.vault.lost(), world.ends[1].driver.vault.lost()]
}

fn healed(world: &World, end: usize) -> Option<(u64, u64)> {
    world.ends[end].events.iter().find_map(|event| match event {
        SessionEvent::Healed { chunks, lost } => Some((*chunks, *lost)),
        _ => None,
    })
}

fn says_identical(world: &World, end: usize) -> bool {
    world.ends[end].events.iter().any(|event| matches!(event, SessionEvent::Identical { .. }))
}

#[test]
fn equal_logs_with_lost_chunks_are_not_the_end() {
    for windows in [Windows::default(), Windows { inline_bytes_max: 0, wanted_chunks_max: 2, wants_max: 1, ..Windows::default() }] {
        for damaged in [0, 1] {
            let mut vaults = pair(&[&[3], &[2, 2], &[5], &[1]]);
            (1..=4).for_each(|event| vaults[damaged].lose(1, event));
            let before = vaults[damaged].lost() as u64;
            let world = ran(vaults, &Options { windows, ..Options::default() });
            assert_eq!((world.outcomes(), lost(&world)), (COMPLETE, [0, 0]));
            assert_eq!((healed(&world, damaged), healed(&world, 1 - damaged)), (Some((before, 0)), None));
            assert!(says_identical(&world, 0) && says_identical(&world, 1));
            assert_eq!(world.ends[damaged].driver.unwanted_chunks, 0);
        }
    }
}

#[test]
fn both_sides_heal_in_one_session_and_new_events_come_along() {
    let mut vaults = pair(&[&[3], &[4]]);
    vaults[0].lose(1, 1);
    vaults[1].lose(1, 2);
    vaults[1].write(&[6]);
    let world = ran(vaults, &Options::default());
    assert_eq!((world.outcomes(), lost(&world)), (COMPLETE, [0, 0]));
    let [a, b] = world.vaults();
    assert_eq!(a.root(), b.root());
}

#[test]
fn what_neither_side_has_is_named_by_both_and_nobody_waits_for_it() {
    let mut vaults = pair(&[&[3], &[4]]);
    vaults.iter_mut().for_each(|vault| vault.lose(1, 1));
    vaults[0].lose(1, 2);
    let world = ran(vaults, &Options::default());
    assert_eq!(lost(&world), [3, 3]);
    let partial = Outcome::Partial { here: vec![], there: 0, lost_here: 3, lost_there: 3 };
    assert_eq!(world.outcomes(), [Some(&partial), Some(&partial)]);
    assert_eq!(healed(&world, 0), Some((4, 3)));
    assert!(!says_identical(&world, 0) && !says_identical(&world, 1));
}

#[test]
fn chunks_flow_only_where_both_sides_allow() {
    for (direction, left) in [(Direction::Push, [3, 0]), (Direction::Pull, [0, 4]), (Direction::Both, [0, 0])] {
        let mut vaults = pair(&[&[3], &[4]]);
        vaults[0].lose(1, 1);
        vaults[1].lose(1, 2);
        let world = ran(vaults, &Options { direction, ..Options::default() });
        assert_eq!((world.outcomes(), lost(&world)), (COMPLETE, left), "{direction:?}");
    }
}

#[test]
fn only_events_that_the_peer_has_are_asked_about() {
    let mut vaults = pair(&[&[3]]);
    vaults[0].write(&[4]);
    vaults[0].lose(1, 1);
    vaults[0].lose(1, 2);
    let world = ran(vaults, &Options::default());
    assert_eq!(healed(&world, 0), Some((3, 0)));
    assert_eq!(world.ends[0].driver.vault.lost(), 4, "the peer never had the newest event");
    assert!(matches!(world.outcomes()[0], Some(Outcome::Partial { there: 1, lost_here: 0, .. })), "{:?}", world.outcomes());
}

#[test]
fn in_a_session_that_stays_identical_is_said_once_all_has_come() {
    let mut vaults = pair(&[&[3], &[4]]);
    vaults[1].lose(1, 1);
    let world = ran(vaults, &Options { stay: Stay::Live, ..Options::default() });
    assert_eq!(lost(&world), [0, 0]);
    for end in [0, 1] {
        assert_eq!(world.ends[end].session.phase(), Phase::Live);
        let identical = world.ends[end].events.iter().filter(|event| matches!(event, SessionEvent::Identical { .. })).count();
        assert_eq!(identical, 1, "{:?}", world.ends[end].events);
    }
}

#[test]
fn what_comes_damaged_is_lost_still_and_never_taken() {
    let mut vaults = pair(&[&[8]]);
    vaults[1].lose(1, 1);
    let mut world = World::new(vaults[0].clone(), vaults[1].clone(), &Options::default(), 1);
    world.ends[0].driver.spoil = 2;
    world.run(STEPS_MAX);
    assert_eq!((lost(&world), healed(&world, 1)), ([0, 2], Some((6, 2))));
    assert!(matches!(world.outcomes()[1], Some(Outcome::Partial { lost_here: 2, .. })));
    assert!(matches!(world.outcomes()[0], Some(Outcome::Partial { lost_there: 2, .. })));
    let [_, b] = world.vaults();
    let world = ran([vaults[0].clone(), b], &Options::default());
    assert_eq!((world.outcomes(), lost(&world)), (COMPLETE, [0, 0]), "the next session asks again");
}

/// A listener that holds what `peer` holds, but has lost chunks of its first event; and a Hello of `peer`.
fn damaged_listener(features: u64) -> (Session, Vault, Message) {
    let [peer, mut vault] = pair(&[&[3]]);
    vault.lose(1, 1);
    let session = Session::new(config(&vault, Side::Listener, Direction::Both, Windows::default()), vault.local(), Instant::now());
    (session, vault, hello_of(&peer, features))
}

fn hello_of(peer: &Vault, features: u64) -> Message {
    let hello = Hello {
        version: hello::VERSION,
        features,
        vault: VaultId::from_bytes([7; 32]),
        replica: peer.replica(),
        direction: Direction::Both,
        frontier: peer.frontier(),
        pending: Frontier::new(),
        root: peer.root(),
        inline_bytes_max: u64::MAX,
        early: None,
        extensions: vec![],
    };
    Message::Hello(hello::seal(&HelloKeys::derive(&[1; 32], &[2; 32]), Side::Dialer, &hello).into())
}

fn outcome(session: &mut Session) -> Option<Outcome> {
    std::iter::from_fn(|| session.poll_event()).find_map(|event| match event {
        SessionEvent::Ended(outcome) => Some(outcome),
        _ => None,
    })
}

fn violates(session: &mut Session, expected: &str) {
    match outcome(session) {
        Some(Outcome::Failed(SessionError::Protocol { what })) => assert!(what.contains(expected), "{what:?}"),
        other => panic!("{other:?} instead of {expected:?}"),
    }
}

#[test]
fn a_peer_that_does_not_know_healing_is_not_asked() {
    let (mut session, _, hello) = damaged_listener(hello::LOST);
    session.handle_message(Instant::now(), hello.encode());
    assert_eq!(outcome(&mut session), Some(Outcome::Complete));
    assert!(std::iter::from_fn(|| session.poll_action()).next().is_none());
}

#[test]
fn a_peer_must_not_finish_while_it_is_asked() {
    let (mut session, _, hello) = damaged_listener(hello::HEALS);
    session.handle_message(Instant::now(), hello.encode());
    session.handle_message(Instant::now(), Message::Finished.encode());
    violates(&mut session, "Finished");
}

#[test]
fn a_peer_that_says_served_and_sends_nothing_is_left_in_time() {
    let (mut session, vault, hello) = damaged_listener(hello::HEALS);
    let now = Instant::now();
    session.handle_message(now, hello.encode());
    let mut driver = super::model::Driver::new(vault);
    while let Some(action) = session.poll_action() {
        driver.carry_out(action).done.into_iter().for_each(|done| session.handle_done(now, done));
    }
    let wanted = std::iter::from_fn(|| session.poll_message()).find_map(|message| match Message::decode(message) {
        Ok(Message::Want { list, .. }) => Some(list),
        _ => None,
    });
    let list = wanted.expect("it asks");
    session.handle_message(now, Message::Served { list: list.id, unavailable: Bitmap::empty(list.entries as usize) }.encode());
    while let Some(at) = session.poll_timeout().filter(|_| !session.is_finished()) {
        session.handle_timeout(at);
    }
    assert_eq!(outcome(&mut session), Some(Outcome::Failed(SessionError::TimedOut { what: "send chunks" })));
    assert_eq!(driver.vault.lost(), 3);
}

#[test]
fn a_peer_that_never_says_it_has_healed_is_left_in_time() {
    let [peer, vault] = pair(&[&[3]]);
    let mut session = Session::new(config(&vault, Side::Listener, Direction::Both, Windows::default()), vault.local(), Instant::now());
    session.handle_message(Instant::now(), hello_of(&peer, hello::HEALS | hello::LOST).encode());
    while let Some(at) = session.poll_timeout().filter(|_| !session.is_finished()) {
        session.handle_timeout(at);
    }
    assert_eq!(outcome(&mut session), Some(Outcome::Failed(SessionError::TimedOut { what: "answer" })));
}

#[test]
fn healed_from_a_side_that_did_not_heal_breaks_the_protocol() {
    for (features, times) in [(hello::HEALS, 1), (hello::HEALS | hello::LOST, 2)] {
        let [mut peer, vault] = pair(&[&[3]]);
        peer.write(&[1]);
        let mut session = Session::new(config(&vault, Side::Listener, Direction::Both, Windows::default()), vault.local(), Instant::now());
        session.handle_message(Instant::now(), hello_of(&peer, features).encode());
        for _ in 0..times {
            session.handle_message(Instant::now(), Message::Healed { lost: 0 }.encode());
        }
        violates(&mut session, "did not heal");
    }
}

#[test]
fn a_page_of_lost_lists_is_bounded() {
    let (mut session, _, hello) = damaged_listener(hello::HEALS);
    session.handle_message(Instant::now(), hello.encode());
    assert!(std::iter::from_fn(|| session.poll_action()).any(|action| matches!(action, Action::FindLost { after: None, .. })));
    let list = |n: usize| ListRef { id: ListId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes()), entries: 8, bytes: 800 };
    let lists = (0..=LOST_LISTS_MAX).map(|n| (list(n), Bitmap::full(8))).collect();
    session.handle_done(Instant::now(), Done::Lost { lists, next: None });
    assert!(matches!(outcome(&mut session), Some(Outcome::Failed(SessionError::Here { .. }))));
}

/// Whatever two replicas with the same events have lost, a session brings back what one of them still has, also when it is cut before.
fn heal(seed: u64) {
    let mut dice = Dice(seed);
    let mut vaults = [Vault::new(1), Vault::new(2)];
    for _ in 0..3 {
        vaults.iter_mut().for_each(|vault| write_some(vault, &mut dice));
        vaults = ran(vaults, &Options { windows: windows(&mut dice), ..Options::default() }).vaults();
    }
    let one_in = 1 + dice.roll(5);
    vaults.iter_mut().for_each(|vault| vault.rot(&mut dice, one_in));
    let nowhere = vaults[0].lost_in_both(&vaults[1]);
    write_some(&mut vaults[dice.roll(2)], &mut dice);
    for cut in [Some(dice.roll(60)), None] {
        let options = Options { windows: windows(&mut dice), ..Options::default() };
        let [a, b] = vaults;
        let mut world = World::new(a, b, &options, dice.roll(usize::MAX) as u64);
        match cut {
            Some(steps) => _ = (0..steps).all(|_| world.step()),
            None => {
                world.run(STEPS_MAX);
                assert_eq!(world.outcomes() == COMPLETE, nowhere == 0, "{:?}", world.outcomes());
                assert_eq!(lost(&world), [nowhere, nowhere]);
            }
        }
        vaults = world.vaults();
        if cut.is_some() {
            vaults[dice.roll(2)].crash();
        }
        vaults.iter().for_each(Vault::check);
    }
    assert_eq!(vaults[0].root(), vaults[1].root());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_one_replica_still_has_comes_back_to_the_other(seed in any::<u64>()) {
        heal(seed);
    }

    #[test]
    fn no_claim_of_what_was_lost_panics(
        features in any::<u64>(),
        sequence in any::<u64>(),
        healed in proptest::collection::vec(any::<u64>(), 0..3),
    ) {
        let (mut session, _, _) = damaged_listener(0);
        let peer = Vault::new(9);
        let frontier: Frontier = [Dot { author: ReplicaId::from_bytes([1; 32]), sequence }].into_iter().collect();
        let Message::Hello(sealed) = hello_of(&peer, features) else { unreachable!() };
        let opened = hello::open(&HelloKeys::derive(&[1; 32], &[2; 32]), Side::Dialer, &sealed).unwrap();
        let sealed = hello::seal(&HelloKeys::derive(&[1; 32], &[2; 32]), Side::Dialer, &Hello { frontier, ..opened });
        session.handle_message(Instant::now(), Message::Hello(sealed.into()).encode());
        for lost in healed {
            session.handle_message(Instant::now(), Message::Healed { lost }.encode());
        }
    }
}
