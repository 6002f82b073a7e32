//! A peer that is a member and breaks the rules, or is none: nothing panics, nothing is believed.

use super::model::{Vault, config};
use crate::{
    bitmap::Bitmap,
    event::{Dot, Frontier, ListRef},
    frame::{FrameBuf, Kind},
    id::{ListId, ReplicaId, Root, VaultId},
    limits::{
        EVENT_LISTS_MAX, HELLO_BYTES_MAX, INLINE_BYTES_MAX, MESSAGE_BYTES_MAX, PARKED_EVENT_BYTES_MAX, PARKED_EVENTS_MAX,
        PENDING_EVENTS_MAX, WANTS_MAX,
    },
    session::{
        Action, Admitted, Config, Direction, Done, Hello, HelloKeys, Message, Outcome, Session, SessionError, SessionEvent, Side, Stay,
        Windows, hello,
        message::{ByeCode, Cause, Promise, Timing},
        phase::Phase,
    },
};
use bytes::Bytes;
use proptest::prelude::*;
use std::time::Instant;

fn hello() -> Hello {
    Hello {
        version: hello::VERSION,
        features: u64::MAX,
        vault: VaultId::from_bytes([7; 32]),
        replica: ReplicaId::from_bytes([66; 32]),
        direction: Direction::Both,
        frontier: Frontier::new(),
        pending: Frontier::new(),
        root: Root::from_bytes([66; 32]),
        inline_bytes_max: u64::MAX,
        early: None,
        extensions: vec![0xff; 8],
    }
}

fn sealed(hello: &Hello) -> Message {
    Message::Hello(hello::seal(&HelloKeys::derive(&[1; 32], &[2; 32]), Side::Dialer, hello).into())
}

/// A listener with something to send.
fn listener() -> Session {
    let mut vault = Vault::new(1);
    vault.write(&[2]);
    Session::new(config(&vault, Side::Listener, Direction::Both, Windows::default()), vault.local(), Instant::now())
}

/// What becomes of a listener that hears these messages: what it says (by type) and how it ends.
fn hears(messages: &[Message]) -> (Vec<u8>, Option<Outcome>) {
    let mut session = listener();
    messages.iter().for_each(|message| session.handle_message(Instant::now(), message.encode()));
    let said = std::iter::from_fn(|| session.poll_message()).map(|message| message[0]).collect();
    let ended = std::iter::from_fn(|| session.poll_event()).find_map(|event| match event {
        SessionEvent::Ended(outcome) => Some(outcome),
        _ => None,
    });
    (said, ended)
}

fn assert_violation(messages: &[Message], what: &str) {
    let (said, ended) = hears(&[&[sealed(&hello())], messages].concat());
    match ended {
        Some(Outcome::Failed(SessionError::Protocol { what: found })) => assert!(found.contains(what), "{found:?} instead of {what:?}"),
        other => panic!("{other:?} instead of {what:?}"),
    }
    assert_eq!((said.first(), said.last()), (Some(&1), Some(&9)), "a member hears a Bye");
}

fn list() -> ListRef {
    ListRef { id: ListId::from_bytes([5; 32]), entries: 8, bytes: 800 }
}

fn event() -> Vec<u8> {
    FrameBuf::new(Kind::Event, b"event").into_bytes()
}

fn events(timing: Timing, frames: Vec<u8>) -> Message {
    Message::Events { timing, promise: Promise::None, frames: frames.into() }
}

fn applied(sequence: u64) -> Message {
    let frontier = [Dot { author: ReplicaId::from_bytes([1; 32]), sequence }].into_iter().collect();
    Message::Applied { frontier, root: Root::from_bytes([0; 32]), parked: Frontier::new() }
}

#[test]
fn a_stranger_hears_nothing_whatever_it_says() {
    let other_key = HelloKeys::derive(&[9; 32], &[2; 32]);
    let strange = [
        Message::Hello(hello::seal(&other_key, Side::Dialer, &hello()).into()),
        Message::Hello(Bytes::new()),
        Message::Finished,
        Message::Want { list: list(), want: Bitmap::full(8) },
        applied(1),
        events(Timing::Known, event()),
        Message::Bye { code: ByeCode::Done, reason: String::new() },
    ];
    for message in strange {
        let (said, ended) = hears(&[message.clone(), sealed(&hello())]);
        assert!(said.is_empty() && ended.is_some(), "{message:?} {said:?} {ended:?}");
    }
}

#[test]
fn other_vaults_and_the_same_replica_are_refused() {
    let elsewhere = Hello { vault: VaultId::from_bytes([8; 32]), ..hello() };
    assert!(matches!(hears(&[sealed(&elsewhere)]).1, Some(Outcome::Failed(SessionError::Protocol { .. }))));
    for refused in [Hello { replica: Vault::new(1).replica(), ..hello() }, Hello { version: 0, ..hello() }] {
        let (said, ended) = hears(&[sealed(&refused)]);
        assert_eq!(said.last(), Some(&9));
        assert!(matches!(ended, Some(Outcome::Failed(SessionError::Refused { .. }))), "{ended:?}");
    }
}

#[test]
fn a_newer_version_and_unknown_extensions_are_welcome() {
    let newer = Hello { version: 9, ..hello() };
    assert_eq!(hears(&[sealed(&newer), Message::Extension(0x80), Message::Extension(0xff)]).1, None);
}

#[test]
fn every_broken_rule_ends_the_session_with_its_name() {
    let served = Message::Served { list: list().id, unavailable: Bitmap::empty(8) };
    let chunks = |cause| Message::Chunks { cause, list: list().id, frames: Bytes::new() };
    assert_violation(&[sealed(&hello())], "second Hello");
    assert_violation(&[Message::Finished, Message::Finished], "second Finished");
    assert_violation(&[Message::Finished, events(Timing::Known, event())], "after Finished");
    assert_violation(&[served], "nobody asked");
    assert_violation(&[chunks(Cause::Asked)], "nobody asked");
    assert_violation(&[events(Timing::Early, event())], "no Hello announced");
    assert_violation(&[events(Timing::Known, vec![])], "holds none");
    assert_violation(&[events(Timing::Known, b"no frame".to_vec())], "malformed");
    assert_violation(&[events(Timing::Known, FrameBuf::new(Kind::Chunk, b"x").into_bytes())], "chunk came among events");
    assert_violation(&[events(Timing::Known, event().repeat(PENDING_EVENTS_MAX + 1))], "more events");
    let lists = events(Timing::Known, FrameBuf::new(Kind::List, b"list").into_bytes().repeat(EVENT_LISTS_MAX / 2 + 1));
    assert_violation(&[lists.clone(), lists], "no event names");
    assert_violation(&[applied(2), applied(1)], "went backwards");
    assert_violation(&vec![Message::Want { list: list(), want: Bitmap::full(8) }; WANTS_MAX + 1], "too many wants");
}

/// A listener in a session that stays.
fn live_listener() -> Session {
    let mut vault = Vault::new(1);
    vault.write(&[2]);
    let config = Config { stay: Stay::Live, ..config(&vault, Side::Listener, Direction::Both, Windows::default()) };
    let mut session = Session::new(config, vault.local(), Instant::now());
    session.handle_message(Instant::now(), sealed(&hello()).encode());
    assert_eq!(session.phase(), Phase::Live);
    session
}

#[test]
fn a_flood_in_a_session_that_stays_meets_the_same_limits() {
    let wants = Message::Want { list: list(), want: Bitmap::full(8) };
    for (flood, rounds) in [(events(Timing::Known, event()), PENDING_EVENTS_MAX), (wants, WANTS_MAX - 1)] {
        let mut session = live_listener();
        for round in 0..=rounds {
            assert!(!session.is_finished(), "{round} of {rounds}: {flood:?}");
            session.handle_message(Instant::now(), flood.encode());
            if round == rounds {
                session.handle_message(Instant::now(), flood.encode());
            }
        }
        assert!(session.is_finished(), "{flood:?}");
    }
    let mut session = live_listener();
    session.handle_message(Instant::now(), Message::Finished.encode());
    assert!(session.is_finished());
}

/// How many events of `bytes` a live listener keeps whose chunks never come.
fn kept_in_vain(bytes: usize) -> usize {
    let mut session = live_listener();
    let author = ReplicaId::from_bytes([66; 32]);
    let together = 64;
    for round in 0_u64..10_000 {
        session.handle_message(Instant::now(), events(Timing::Known, event().repeat(together)).encode());
        let lists = vec![(ListRef { id: ListId::from_bytes(*blake3::hash(&round.to_le_bytes()).as_bytes()), ..list() }, Bitmap::full(8))];
        let waits = |n| Admitted { dot: Dot { author, sequence: n }, deps: Frontier::new(), bytes, lists: lists.clone() };
        let first = round * together as u64 + 1;
        session.handle_done(Instant::now(), Done::Admitted { events: (first..first + together as u64).map(waits).collect() });
        if session.is_finished() {
            return round as usize * together;
        }
        let served = Message::Served { list: lists[0].0.id, unavailable: Bitmap::full(8) };
        session.handle_message(Instant::now(), served.encode());
    }
    panic!("it keeps all of them");
}

#[test]
fn what_another_session_has_brought_no_longer_counts_as_under_way() {
    let window = || events(Timing::Known, event().repeat(PENDING_EVENTS_MAX)).encode();
    let mut session = live_listener();
    session.handle_message(Instant::now(), window());
    // The peer is told that these are applied, and sends more, while the driver still looks at its copies.
    let mut vault = Vault::new(1);
    vault.write(&[2]);
    let mut applied = vault.frontier();
    applied.raise(Dot { author: ReplicaId::from_bytes([66; 32]), sequence: PENDING_EVENTS_MAX as u64 });
    session.handle_local(Instant::now(), applied, Root::from_bytes([7; 32]));
    session.handle_message(Instant::now(), window());
    assert!(!session.is_finished());
    session.handle_message(Instant::now(), window());
    assert!(session.is_finished(), "beyond a window that nobody has applied");
}

#[test]
fn events_whose_chunks_never_come_are_kept_up_to_a_limit() {
    let kept = kept_in_vain(5);
    assert!(kept > PENDING_EVENTS_MAX && kept <= PARKED_EVENTS_MAX + 64, "{kept}");
    let long = PARKED_EVENT_BYTES_MAX / 200;
    let kept = kept_in_vain(long);
    assert!(kept <= 200 + 64, "{kept}");
}

#[test]
fn a_want_of_an_unknown_list_is_a_violation_and_its_driver_says_so() {
    let mut session = listener();
    for message in [sealed(&hello()), Message::Want { list: list(), want: Bitmap::full(8) }] {
        session.handle_message(Instant::now(), message.encode());
    }
    let serve = std::iter::from_fn(|| session.poll_action()).find(|action| matches!(action, Action::Serve { .. }));
    assert!(serve.is_some());
    session.handle_done(Instant::now(), Done::UnknownList { list: list().id });
    assert!(session.is_finished());
}

#[test]
fn a_peer_can_not_finish_while_its_events_wait_for_chunks() {
    let mut session = listener();
    for message in [sealed(&hello()), events(Timing::Known, event())] {
        session.handle_message(Instant::now(), message.encode());
    }
    let dot = Dot { author: ReplicaId::from_bytes([66; 32]), sequence: 1 };
    let waits = Admitted { dot, deps: Frontier::new(), bytes: 5, lists: vec![(list(), Bitmap::full(8))] };
    session.handle_done(Instant::now(), Done::Admitted { events: vec![waits] });
    session.handle_message(Instant::now(), Message::Finished.encode());
    assert!(session.is_finished());
    let last = std::iter::from_fn(|| session.poll_event()).last();
    assert!(matches!(last, Some(SessionEvent::Ended(Outcome::Failed(SessionError::Protocol { what }))) if what.contains("acknowledged")));
}

#[test]
fn malformed_bytes_are_refused_before_they_are_believed() {
    let long_hello = [vec![1], vec![0; HELLO_BYTES_MAX + 1]].concat();
    let long_chunks = [vec![5, 0], vec![0; 33 + INLINE_BYTES_MAX]].concat();
    let beyond = {
        let mut want = Message::Want { list: ListRef { entries: 9, ..list() }, want: Bitmap::full(9) }.encode().to_vec();
        let at = want.iter().position(|byte| *byte == 9).unwrap();
        want[at] = 8;
        want
    };
    let malformed = [vec![], vec![0], vec![10], vec![0x7f], vec![2], vec![2, 4], vec![5], vec![7, 0], vec![3, 0x80], beyond];
    for bytes in malformed.into_iter().chain([long_hello, long_chunks, vec![2; MESSAGE_BYTES_MAX + 1]]) {
        let shown = bytes[..bytes.len().min(60)].to_vec();
        assert!(Message::decode(bytes.into()).is_err(), "{shown:?}");
    }
}

#[test]
fn promised_chunks_that_no_event_names_are_dropped() {
    let chunks = Message::Chunks { cause: Cause::Promised, list: list().id, frames: FrameBuf::new(Kind::Chunk, b"x").into_bytes().into() };
    let mut session = listener();
    for message in [sealed(&hello()), chunks] {
        session.handle_message(Instant::now(), message.encode());
    }
    let stored = std::iter::from_fn(|| session.poll_action()).any(|action| matches!(action, Action::StoreInline { .. }));
    assert!(!stored && session.phase() == Phase::Exchanging);
}

fn frontiers() -> impl Strategy<Value = Frontier> {
    let dots = proptest::collection::vec((0_u8..4, prop_oneof![1..5_u64, Just(u64::MAX)]), 0..4);
    dots.prop_map(|dots| dots.into_iter().map(|(name, sequence)| Dot { author: ReplicaId::from_bytes([name; 32]), sequence }).collect())
}

fn messages() -> impl Strategy<Value = Message> {
    let bitmap = proptest::collection::vec(0_u32..8, 1..5).prop_map(|bits| {
        let mut bitmap = Bitmap::empty(8);
        bits.into_iter().for_each(|bit| {
            bitmap.insert(bit);
        });
        bitmap
    });
    let timing = prop_oneof![Just(Timing::Known), Just(Timing::Early)];
    let promise = prop_oneof![Just(Promise::None), Just(Promise::Chunks)];
    let cause = prop_oneof![Just(Cause::Asked), Just(Cause::Promised)];
    prop_oneof![
        (timing, promise, 0_usize..4).prop_map(|(timing, promise, n)| Message::Events {
            timing,
            promise,
            frames: event().repeat(n).into()
        }),
        bitmap.clone().prop_map(|want| Message::Want { list: list(), want }),
        bitmap.prop_map(|unavailable| Message::Served { list: list().id, unavailable }),
        cause.prop_map(|cause| Message::Chunks { cause, list: list().id, frames: Bytes::new() }),
        (frontiers(), frontiers()).prop_map(|(frontier, parked)| Message::Applied { frontier, root: Root::from_bytes([0; 32]), parked }),
        Just(Message::Finished),
        Just(Message::Damaged(vec![])),
        any::<u64>().prop_map(|lost| Message::Healed { lost }),
        Just(Message::Extension(0x83)),
        any::<Vec<u8>>().prop_map(|frames| Message::Fork(frames.into())),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|sealed| Message::Hello(sealed.into())),
    ]
}

proptest! {
    #[test]
    fn a_message_survives_a_round_trip(message in messages()) {
        prop_assert_eq!(Message::decode(message.encode()), Ok(message));
    }

    #[test]
    fn no_bytes_panic(kind in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 0..100), greeted in any::<bool>()) {
        let mut session = listener();
        if greeted {
            session.handle_message(Instant::now(), sealed(&hello()).encode());
        }
        session.handle_message(Instant::now(), [vec![kind], rest].concat().into());
    }

    #[test]
    fn no_run_of_well_formed_messages_panics(
        frontier in frontiers(),
        pending in frontiers(),
        early in proptest::option::of(frontiers()),
        messages in proptest::collection::vec(messages(), 0..12),
    ) {
        let mut session = listener();
        session.handle_message(Instant::now(), sealed(&Hello { frontier, pending, early, ..hello() }).encode());
        for message in messages {
            session.handle_message(Instant::now(), message.encode());
            for action in std::iter::from_fn(|| session.poll_action()).collect::<Vec<_>>() {
                match action {
                    Action::LoadEvents { .. } => session.handle_done(Instant::now(), Done::Events { events: vec![], next: None }),
                    Action::Admit { .. } => session.handle_done(Instant::now(), Done::Admitted { events: vec![] }),
                    _ => {}
                }
            }
            if let Some(at) = session.poll_timeout() {
                session.handle_timeout(at - std::time::Duration::from_millis(1));
            }
        }
    }
}
