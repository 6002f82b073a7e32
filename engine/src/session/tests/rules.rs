//! Each rule of the session on its own.

use super::{
    model::{Vault, config},
    world::{Options, World},
};
use crate::{
    event::Frontier,
    limits::{HANDSHAKE_MS, IDLE_MS},
    session::{Action, Direction, Done, Outcome, Session, SessionError, SessionEvent, Side, Windows, message::ByeCode, phase::Phase},
};
use std::time::{Duration, Instant};

const STEPS_MAX: usize = 5_000;
const COMPLETE: [Option<&Outcome>; 2] = [Some(&Outcome::Complete), Some(&Outcome::Complete)];
const HELLO: u8 = 1;
const EVENTS: u8 = 2;
const WANT: u8 = 3;
const SERVED: u8 = 4;
const CHUNKS: u8 = 5;
const APPLIED: u8 = 6;
const FINISHED: u8 = 7;
const DAMAGED: u8 = 8;
const BYE: u8 = 9;

fn vault(name: u8, events: &[&[u32]]) -> Vault {
    let mut vault = Vault::new(name);
    events.iter().for_each(|lists| vault.write(lists));
    vault
}

/// A world after its sessions have ended.
fn ran(dialer: Vault, listener: Vault, options: &Options) -> World {
    let mut world = World::new(dialer, listener, options, 1);
    world.run(STEPS_MAX);
    world
}

fn only_lanes() -> Windows {
    Windows { inline_bytes_max: 0, wanted_chunks_max: 4, ..Windows::default() }
}

#[test]
fn a_session_without_changes_is_one_small_message_each_way() {
    let [a, b] = ran(vault(1, &[&[3], &[2]]), Vault::new(2), &Options::default()).vaults();
    let world = ran(a, b, &Options::default());
    assert_eq!(world.outcomes(), COMPLETE);
    for end in &world.ends {
        assert_eq!(end.heard.len(), 1);
        assert!(end.heard[0].len() < 512, "{} bytes", end.heard[0].len());
        assert_eq!(end.driver.lanes_asked, 0);
        assert!(end.events.iter().any(|event| matches!(event, SessionEvent::Identical { .. })));
    }
}

#[test]
fn a_small_push_takes_its_chunks_along_and_needs_no_lane() {
    let world = ran(vault(1, &[&[3]]), Vault::new(2), &Options::default());
    assert_eq!(world.outcomes(), COMPLETE);
    assert_eq!(world.heard_kinds(1), [HELLO, EVENTS, CHUNKS, FINISHED, BYE]);
    assert_eq!(world.heard_kinds(0), [HELLO, FINISHED, APPLIED, BYE]);
    assert_eq!(world.ends[0].driver.lanes_asked + world.ends[1].driver.lanes_asked, 0);
    assert!(world.ends.iter().all(|end| end.events.iter().any(|event| matches!(event, SessionEvent::Identical { .. }))));
}

#[test]
fn with_the_peers_frontier_at_hand_events_and_chunks_follow_the_hello_at_once() {
    let (a, b) = (vault(1, &[&[3]]), Vault::new(2));
    let now = Instant::now();
    let mut dialer = config(&a, Side::Dialer, Direction::Push, Windows::default());
    dialer.cached_peer_frontier = Some(b.frontier());
    let mut session = Session::new(dialer, a.local(), now);
    let mut driver = super::model::Driver::new(a);
    while let Some(action) = session.poll_action() {
        for done in driver.carry_out(action).done {
            session.handle_done(now, done);
        }
    }
    let said: Vec<u8> = std::iter::from_fn(|| session.poll_message()).map(|message| message[0]).collect();
    assert_eq!(said, [HELLO, EVENTS, CHUNKS], "before anything was heard");
}

#[test]
fn a_wrong_belief_about_the_peer_costs_bytes_and_nothing_else() {
    let a = vault(1, &[&[3], &[1], &[2]]);
    let [_, b] = ran(a.clone(), Vault::new(2), &Options::default()).vaults();
    for (listener, cached) in [(Vault::new(2), b.frontier()), (b.clone(), Frontier::new())] {
        let mut a = a.clone();
        a.write(&[2]);
        let world = ran(a, listener, &Options { cached: Some(cached), ..Options::default() });
        assert_eq!(world.outcomes(), COMPLETE);
        let [a, b] = world.vaults();
        assert_eq!(a.root(), b.root());
    }
}

#[test]
fn bulk_goes_over_lanes_that_are_asked_for_once() {
    let world = ran(vault(1, &[&[30, 5], &[40]]), Vault::new(2), &Options { windows: only_lanes(), ..Options::default() });
    assert_eq!(world.outcomes(), COMPLETE);
    assert_eq!([world.ends[0].driver.lanes_asked, world.ends[1].driver.lanes_asked], [1, 1]);
    assert!(!world.heard_kinds(1).contains(&CHUNKS));
    assert!(world.heard_kinds(0).iter().filter(|kind| **kind == WANT).count() >= 75 / 4, "a list is asked for through the window");
}

/// Bytes of a vault's first event as it travels.
fn event_bytes(vault: Vault) -> usize {
    let load = Action::LoadEvents { beyond: Frontier::new(), after: None, bytes_max: 1, events_max: 1 };
    match super::model::Driver::new(vault).carry_out(load).done.as_slice() {
        [Done::Events { events, .. }] => events[0].bytes(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_more_events_are_sent_than_the_receiver_may_hold_unapplied() {
    let event_bytes = event_bytes(vault(1, &[&[2]]));
    let narrow = [
        (1, Windows { pending_events_max: 1, ..only_lanes() }),
        (1, Windows { pending_event_bytes_max: 1, ..only_lanes() }),
        (1, Windows { pending_event_bytes_max: 1, ..Windows::default() }),
        (2, Windows { pending_event_bytes_max: event_bytes * 5 / 2, ..only_lanes() }),
    ];
    for (events, windows) in narrow {
        let mut world = World::new(vault(1, &[[2].as_slice(); 6]), Vault::new(2), &Options { windows, ..Options::default() }, 1);
        while world.step() {
            assert!(world.ends[1].driver.vault.pending() <= events, "{windows:?}");
        }
        assert_eq!(world.outcomes(), COMPLETE);
    }
}

#[test]
fn events_flow_only_where_both_sides_allow() {
    for (direction, dialer_gains, listener_gains) in
        [(Direction::Push, false, true), (Direction::Pull, true, false), (Direction::Both, true, true)]
    {
        let (a, b) = (vault(1, &[&[2]]), vault(2, &[&[2]]));
        let (at_a, at_b) = (a.frontier(), b.frontier());
        let world = ran(a, b, &Options { direction, ..Options::default() });
        assert_eq!(world.outcomes(), COMPLETE, "{direction:?}");
        let [a, b] = world.vaults();
        assert_eq!([a.frontier() != at_a, b.frontier() != at_b], [dialer_gains, listener_gains], "{direction:?}");
    }
}

#[test]
fn after_a_cut_the_events_are_not_sent_again() {
    let options = Options { windows: only_lanes(), ..Options::default() };
    let mut world = World::new(vault(1, &[&[30]]), Vault::new(2), &options, 1);
    while world.ends[1].driver.landed_chunks < 10 {
        assert!(world.step());
    }
    let [a, b] = world.vaults();
    assert_eq!((b.frontier(), b.pending()), (Frontier::new(), 1));
    let world = ran(a, b, &options);
    assert_eq!(world.outcomes(), COMPLETE);
    assert!(!world.heard_kinds(1).contains(&EVENTS));
    assert_eq!((world.ends[0].driver.sent_chunks, world.ends[1].driver.unwanted_chunks), (20, 0));
}

/// Holds events of two authors that know nothing of each other; the first one's chunks are lost.
fn damaged_vault() -> Vault {
    let (a, c) = (vault(1, &[&[3], &[1]]), vault(3, &[&[2]]));
    let mut a = ran(a, c, &Options { direction: Direction::Pull, ..Options::default() }).vaults().into_iter().next().unwrap();
    a.damage(0);
    a
}

#[test]
fn an_event_without_its_chunks_holds_up_only_what_builds_on_it() {
    for windows in [Windows::default(), only_lanes()] {
        let world = ran(damaged_vault(), Vault::new(2), &Options { windows, ..Options::default() });
        assert_eq!(world.outcomes()[0], Some(&Outcome::Partial { here: vec![], there: 2, lost_here: 0, lost_there: 0 }));
        let Some(Outcome::Partial { here, there: 0, .. }) = world.outcomes()[1] else { panic!("{:?}", world.outcomes()) };
        assert_eq!(here.iter().map(|waiting| (waiting.event.sequence, waiting.chunks)).collect::<Vec<_>>(), [(1, 3), (2, 0)]);
        let [_, b] = world.vaults();
        assert_eq!(b.frontier().len(), 1, "the other author's event is applied");
        let [_, whole] = ran(vault(1, &[&[3], &[1]]), b, &Options::default()).vaults();
        assert_eq!((whole.frontier().len(), whole.pending()), (2, 0), "a replica that has the chunks completes it");
    }
}

#[test]
fn a_sender_does_not_fill_the_journal_of_a_peer_that_cannot_apply() {
    let mut a = vault(1, &[[2].as_slice(); 9]);
    a.damage(0);
    let windows = Windows { pending_events_max: 2, ..Windows::default() };
    let world = ran(a, Vault::new(2), &Options { windows, ..Options::default() });
    assert!(matches!(world.outcomes()[0], Some(Outcome::Partial { there: 2, .. })), "{:?}", world.outcomes());
    assert_eq!(world.ends[1].driver.vault.pending(), 2);
}

#[test]
fn a_frame_that_does_not_match_is_reported_to_the_side_that_holds_it() {
    let mut world = World::new(vault(1, &[&[8]]), Vault::new(2), &Options { windows: only_lanes(), ..Options::default() }, 1);
    world.ends[0].driver.spoil = 2;
    world.run(STEPS_MAX);
    assert!(matches!(world.outcomes(), [Some(Outcome::Partial { there: 1, .. }), Some(Outcome::Partial { .. })]));
    assert_eq!(world.heard_kinds(0).iter().filter(|kind| **kind == DAMAGED).count(), 2);
    assert!(world.ends[0].events.iter().any(|event| matches!(event, SessionEvent::DamagedHere { .. })));
    assert!(world.heard_kinds(1).contains(&SERVED));
}

#[test]
fn a_stop_waits_for_the_commit_that_runs_and_acknowledges_it() {
    let (a, b) = (vault(1, &[&[1]]), Vault::new(2));
    let now = Instant::now();
    let mut world = World::new(a, b, &Options::default(), 1);
    while !world.ends[1].events.iter().any(|event| matches!(event, SessionEvent::Applied { .. })) {
        let before = world.ends[1].session.phase();
        assert!(world.step() && before != Phase::Ended);
    }
    drop(world);

    let mut listener = Stopped::new(now);
    listener.session.handle_stop(now);
    assert!(!listener.session.is_finished(), "a commit runs");
    let vault = &listener.vault;
    listener.session.handle_done(now, Done::Committed { frontier: vault.frontier(), root: vault.root() });
    assert!(listener.session.is_finished());
    let said: Vec<u8> = std::iter::from_fn(|| listener.session.poll_message()).map(|message| message[0]).collect();
    assert_eq!(said.last_chunk::<2>(), Some(&[APPLIED, BYE]));
    let last = std::iter::from_fn(|| listener.session.poll_event()).last();
    assert_eq!(last, Some(SessionEvent::Ended(Outcome::Stopped)));
}

/// A listener whose first commit runs.
struct Stopped {
    session: Session,
    vault: Vault,
}

impl Stopped {
    fn new(now: Instant) -> Self {
        let (a, b) = (vault(1, &[&[1]]), Vault::new(2));
        let mut dialer = config(&a, Side::Dialer, Direction::Push, Windows::default());
        dialer.cached_peer_frontier = Some(b.frontier());
        let mut dialer = (Session::new(dialer, a.local(), now), super::model::Driver::new(a));
        let config = config(&b, Side::Listener, Direction::Both, Windows::default());
        let mut listener = (Session::new(config, b.local(), now), super::model::Driver::new(b));
        loop {
            while let Some(action) = dialer.0.poll_action() {
                dialer.1.carry_out(action).done.into_iter().for_each(|done| dialer.0.handle_done(now, done));
            }
            while let Some(message) = dialer.0.poll_message() {
                listener.0.handle_message(now, message);
            }
            while let Some(action) = listener.0.poll_action() {
                if matches!(action, Action::Commit { .. }) {
                    let _ = listener.1.carry_out(action);
                    return Self { session: listener.0, vault: listener.1.vault };
                }
                listener.1.carry_out(action).done.into_iter().for_each(|done| listener.0.handle_done(now, done));
            }
        }
    }
}

#[test]
fn a_stop_is_a_goodbye_that_the_peer_hears() {
    let mut world = World::new(vault(1, &[&[30]]), Vault::new(2), &Options { windows: only_lanes(), ..Options::default() }, 1);
    while world.ends[1].driver.landed_chunks < 3 {
        assert!(world.step());
    }
    let now = world.now;
    world.ends[1].session.handle_stop(now);
    world.collect(1);
    world.run(STEPS_MAX);
    assert_eq!(world.outcomes()[1], Some(&Outcome::Stopped));
    assert!(matches!(world.outcomes()[0], Some(Outcome::PeerEnded { code: ByeCode::Stopped, .. })));
}

#[test]
fn trouble_on_this_side_ends_the_session_and_keeps_its_reason_here() {
    let mut world = World::new(vault(1, &[&[1]]), Vault::new(2), &Options::default(), 1);
    while world.ends[1].session.phase() == Phase::Greeting {
        assert!(world.step());
    }
    world.ends[1].session.handle_done(world.now, Done::Failed { reason: "no space in /home/me".into() });
    world.collect(1);
    world.run(STEPS_MAX);
    assert!(matches!(world.outcomes()[1], Some(Outcome::Failed(SessionError::Here { reason })) if reason.contains("/home/me")));
    assert_eq!(world.outcomes()[0], Some(&Outcome::PeerEnded { code: ByeCode::Trouble, reason: String::new() }));
}

#[test]
fn a_peer_that_says_no_hello_is_left_in_time_and_in_silence() {
    let now = Instant::now();
    let b = Vault::new(2);
    let mut session = Session::new(config(&b, Side::Listener, Direction::Both, Windows::default()), b.local(), now);
    let at = now + Duration::from_millis(HANDSHAKE_MS);
    assert_eq!(session.poll_timeout(), Some(at));
    session.handle_timeout(at - Duration::from_millis(1));
    assert!(!session.is_finished(), "too early");
    session.handle_timeout(at);
    assert!(session.is_finished());
    assert_eq!(session.poll_message(), None);
}

#[test]
fn a_peer_that_owes_chunks_is_left_in_time_and_told_until_then_that_we_wait() {
    let options = Options { windows: only_lanes(), ..Options::default() };
    let mut world = World::new(vault(1, &[&[3]]), Vault::new(2), &options, 1);
    while !world.heard_kinds(0).contains(&WANT) {
        assert!(world.step());
    }
    let receiver = &mut world.ends[1].session;
    let mut said = Vec::new();
    while let Some(at) = receiver.poll_timeout() {
        assert!(at <= world.now + Duration::from_millis(2 * IDLE_MS));
        receiver.handle_timeout(at);
        said.extend(std::iter::from_fn(|| receiver.poll_message()).map(|message| message[0]));
    }
    assert_eq!(said, [APPLIED, BYE]);
    assert!(receiver.is_finished());
}
