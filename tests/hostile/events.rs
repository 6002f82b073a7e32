//! A member that offers events and lists which break the rules of the log.

use crate::{
    peer::{Author, EvilPeer, chunk, frames_of, list_of},
    world::World,
};
use mirror_engine::{
    event::{Dot, Event, EventHeader, Frontier},
    frame::{FrameBuf, Kind},
    id::{ReplicaId, VaultId},
    keys::DeviceKey,
    limits::{EVENT_LISTS_MAX, HOLES_MAX},
    replicate::{Options, ReplicateError},
    session::{
        ByeCode, Message,
        message::{Promise, Timing},
    },
    transport::TransportKind,
};

/// Offers `frames` and returns the server's last word and its error.
async fn offered(world: &mut World, device: &DeviceKey, frames: Vec<u8>) -> (Option<ByeCode>, ReplicateError) {
    let mut peer = EvilPeer::greeted(world, device, TransportKind::Tcp).await;
    peer.offer(frames).await;
    let (heard, _) = peer.until_the_end().await;
    let bye = heard.into_iter().find_map(|message| if let Message::Bye { code, .. } = message { Some(code) } else { None });
    (bye, world.next_error().await)
}

async fn assert_refused(world: &mut World, device: &DeviceKey, frames: Vec<u8>, what: &str) {
    let before = world.vault.store().root();
    let (bye, error) = offered(world, device, frames).await;
    assert_eq!(bye, Some(ByeCode::Violation), "{what}: {error}");
    assert!(matches!(error, ReplicateError::Peer(_)), "{what}: {error}");
    assert_eq!(world.vault.store().root(), before, "{what}");
    assert!(world.vault.store().journal_pending().unwrap().is_empty(), "{what}");
}

fn changed(author: &Author<'_>, change: impl FnOnce(&mut EventHeader)) -> Event {
    let mut header = author.header.clone();
    change(&mut header);
    Event::sign(header, b"body", author.device).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_break_a_rule_are_refused_and_leave_nothing() {
    let (mut world, device) = World::with_member().await;
    let author = Author::new(&world, &device);
    let mut forged = author.event().record().to_vec();
    // The signature ends where the body of four bytes begins.
    let signature_end = forged.len() - 5;
    forged[signature_end] ^= 1;
    let cases = [
        ("a forged signature", FrameBuf::new(Kind::Event, &forged)),
        ("another vault", changed(&author, |header| header.vault = VaultId::from_bytes([4; 32])).to_frame()),
        ("a leap in time", changed(&author, |header| header.lamport = 1 << 40).to_frame()),
        ("half of all time", changed(&author, |header| header.lamport = 1 << 63).to_frame()),
        ("nearly all time", changed(&author, |header| header.lamport = u64::MAX - 1).to_frame()),
        ("no event at all", FrameBuf::new(Kind::Event, b"nonsense")),
        ("nothing", FrameBuf::new(Kind::Event, b"")),
        ("a chunk among events", chunk(1)),
    ];
    for (what, frame) in cases {
        assert_refused(&mut world, &device, frame.into_bytes(), what).await;
    }
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_lie_are_refused() {
    let (mut world, device) = World::with_member().await;
    let (a, b) = (chunk(1), chunk(2));
    let list = list_of(&[&a, &b]);
    let author = Author::new(&world, &device).naming(&list);
    let entry = &list.record()[..36];
    let raw = |record: &[u8]| FrameBuf::new(Kind::List, record).into_bytes();
    let cases = [
        ("no list", author.event().to_frame().into_bytes()),
        ("too few entries", frames_of(&changed(&author, |header| header.lists[0].entries = 1), &[&list])),
        ("more bytes than its chunks have", frames_of(&changed(&author, |header| header.lists[0].bytes = u64::MAX), &[&list])),
        ("another list", frames_of(&author.event(), &[&list_of(&[&a])])),
        ("a chunk twice", raw(&[entry, entry].concat())),
        ("a chunk without bytes", raw(&[&entry[..32], &[0; 4]].concat())),
        ("a chunk of 4 GiB", raw(&[&entry[..32], &[0xff; 4]].concat())),
        ("no entries", raw(&[])),
        ("half an entry", raw(&entry[..18])),
    ];
    for (what, frames) in cases {
        assert_refused(&mut world, &device, frames, what).await;
    }
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_no_event_names_end_the_session() {
    let (mut world, device) = World::with_member().await;
    let lists = |from: usize, count: usize| {
        let list = move |n: usize| list_of(&[&FrameBuf::new(Kind::Chunk, &n.to_le_bytes())]).to_frame().into_bytes();
        (from..from + count).flat_map(list).collect::<Vec<u8>>()
    };
    assert_refused(&mut world, &device, lists(0, EVENT_LISTS_MAX + 1), "too many at once").await;
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
    for n in 0..=EVENT_LISTS_MAX {
        peer.offer(lists(n, 1)).await;
    }
    peer.until_the_end().await;
    assert!(matches!(world.next_error().await, ReplicateError::Peer(_)));
    world.end_sound().await;
}

/// The server has `author`'s first event in its log.
async fn taken(world: &mut World, author: &Author<'_>) {
    let mut peer = EvilPeer::greeted(world, author.device, TransportKind::Tcp).await;
    peer.offer(author.event().to_frame().into_bytes()).await;
    let dot = author.dot();
    peer.hear_until(|message| matches!(message, Message::Applied { frontier, .. } if frontier.contains(&dot)).then_some(())).await;
    drop(peer);
    world.next_served().await;
}

fn proof_of(message: Message) -> Option<Vec<u8>> {
    if let Message::Fork(proof) = message { Some(proof.to_vec()) } else { None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_event_with_the_same_number_is_kept_as_proof_and_whoever_sent_it_gets_the_proof() {
    let (mut world, device) = World::with_member().await;
    let author = Author::new(&world, &device);
    taken(&mut world, &author).await;
    let (dot, held) = (author.dot(), author.event().id());
    let other = changed(&author, |header| header.wall_ms = 2);
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
    peer.offer(other.to_frame().into_bytes()).await;
    let proof = peer.hear_until(proof_of).await;
    assert_eq!(proof, [frames_of(&author.event(), &[]), frames_of(&other, &[])].concat());
    drop(peer);
    world.next_served().await;
    assert_eq!(world.vault.store().event(&dot).unwrap().unwrap().id(), held, "the one that was here first stays");
    let [fork] = &world.vault.forks()[..] else { panic!("one fork") };
    assert_eq!((fork.dot, fork.device, fork.events), (dot, device.id(), [held, other.id()]));
    assert_eq!(world.vault.store().event_anywhere(&other.id()).unwrap(), Some(other));
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_events_with_one_number_in_one_session_are_a_fork() {
    let (mut world, device) = World::with_member().await;
    let chunk = chunk(3);
    let list = list_of(&[&chunk]);
    let author = Author::new(&world, &device).naming(&list);
    // The first waits for its chunk when the second comes.
    let both = [frames_of(&author.event(), &[&list]), frames_of(&changed(&author, |header| header.wall_ms = 2), &[&list])].concat();
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
    peer.offer(both).await;
    peer.hear_until(proof_of).await;
    drop(peer);
    world.next_served().await;
    assert_eq!(world.vault.forks().len(), 1);
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_taken_from_anybody_and_what_proves_nothing_ends_the_session() {
    let (mut world, device) = World::with_member().await;
    let author = Author::new(&world, &device);
    let (first, second) = (author.event(), changed(&author, |header| header.wall_ms = 2));
    let stranger = Author::new(&world, &device).event();
    let frames = |events: &[&Event]| events.iter().flat_map(|event| event.to_frame().into_bytes()).collect::<Vec<u8>>();
    let cases = [
        ("nothing", vec![]),
        ("one event", frames(&[&first])),
        ("the same twice", frames(&[&first, &first])),
        ("two authors", frames(&[&first, &stranger])),
        ("one of them twice", frames(&[&first, &second, &first])),
        ("another author's behind it", frames(&[&first, &second, &stranger])),
        ("a chunk", [frames(&[&first]), chunk(1).into_bytes()].concat()),
        ("half a frame", frames(&[&first, &second])[..200].to_vec()),
    ];
    for (what, proof) in cases {
        let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
        peer.say(&Message::Fork(proof.into())).await;
        peer.until_the_end().await;
        assert!(matches!(world.next_error().await, ReplicateError::Peer(_)), "{what}");
        assert_eq!(world.vault.forks(), [], "{what}");
    }
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
    peer.say(&Message::Fork(frames(&[&first, &second]).into())).await;
    peer.offer(stranger.to_frame().into_bytes()).await;
    let dot = stranger.dot();
    peer.hear_until(|message| matches!(message, Message::Applied { frontier, .. } if frontier.contains(&dot)).then_some(())).await;
    drop(peer);
    world.next_served().await;
    assert_eq!(world.vault.forks()[0].dot, author.dot());
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_behind_a_hole_waits_until_somebody_has_what_is_missing() {
    let (mut world, device) = World::with_member().await;
    let author = Author::new(&world, &device);
    taken(&mut world, &author).await;
    let (first, lamport) = (author.event().id(), author.event().header().lamport);
    let second = changed(&author, |header| (header.sequence, header.lamport, header.previous) = (2, lamport + 1, Some(first)));
    let third = changed(&author, |header| (header.sequence, header.lamport, header.previous) = (3, lamport + 2, Some(second.id())));
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
    peer.offer(third.to_frame().into_bytes()).await;
    let dot = third.dot();
    peer.hear_until(|message| matches!(message, Message::Applied { parked, .. } if parked.contains(&dot)).then_some(())).await;
    drop(peer);
    world.next_served().await;
    let holes = world.vault.status().unwrap().holes;
    let [hole] = &holes[..] else { panic!("{holes:?}") };
    assert_eq!((hole.event, hole.missing, hole.device), (third.dot(), second.dot(), Some(device.id())));
    world.assert_sound().await;
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
    peer.offer(second.to_frame().into_bytes()).await;
    let dot = second.dot();
    peer.hear_until(|message| matches!(message, Message::Applied { frontier, .. } if frontier.contains(&dot)).then_some(())).await;
    drop(peer);
    world.next_served().await;
    // Whoever it is with, the next session takes it out of the journal.
    world.sync_honest(&Options::default()).await;
    assert!(world.vault.store().frontier().contains(&third.dot()));
    world.assert_sound().await;
    assert_eq!(world.vault.status().unwrap().holes, []);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_holes_than_a_fault_leaves_are_refused() {
    let (mut world, device) = World::with_member().await;
    let behind = |n: usize| {
        let missing = Dot { author: ReplicaId::from_bytes([n as u8 + 1; 32]), sequence: 3 };
        changed(&Author::new(&world, &device), |header| header.deps = Frontier::from_iter([missing])).to_frame().into_bytes()
    };
    let frames: Vec<u8> = (0..=HOLES_MAX).flat_map(behind).collect();
    let (bye, error) = offered(&mut world, &device, frames).await;
    assert_eq!(bye, Some(ByeCode::Violation), "{error}");
    assert_eq!(world.vault.store().journal_pending().unwrap().len(), HOLES_MAX);
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_no_hello_announced_are_refused() {
    let (mut world, device) = World::with_member().await;
    let frames = Author::new(&world, &device).event().to_frame().into_bytes().into();
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Quic).await;
    peer.say(&Message::Events { timing: Timing::Early, promise: Promise::None, frames }).await;
    peer.until_the_end().await;
    assert!(matches!(world.next_error().await, ReplicateError::Peer(_)));
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_waited_for_chunks_does_not_stand_in_the_way_of_the_true_log() {
    let (mut world, device) = World::with_member().await;
    let list = list_of(&[&chunk(3)]);
    let author = Author::new(&world, &device).naming(&list);
    let first = author.event();
    let second = changed(&author, |header| (header.sequence, header.lamport, header.previous) = (2, header.lamport + 1, Some(first.id())));
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
    // Their chunk never comes, so both stay in the journal.
    peer.offer([frames_of(&first, &[&list]), frames_of(&second, &[&list])].concat()).await;
    peer.hear_until(|message| matches!(message, Message::Want { .. }).then_some(())).await;
    drop(peer);
    world.next_served().await;
    assert_eq!(world.vault.store().journal_pending().unwrap().len(), 2);
    let other = changed(&author, |header| header.lists.clear());
    world.vault.store().append_foreign(&[(other, vec![])]).unwrap();
    world.assert_sound().await;
    assert!(world.vault.store().journal_pending().unwrap().is_empty());
    world.end().await;
}
