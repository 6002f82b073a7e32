//! A member that sends other chunks than it was asked for.

use crate::{
    peer::{Author, EvilPeer, chunk, frames_of, list_of, nothing_of},
    world::World,
};
use bytes::Bytes;
use mirror_engine::{
    event::{ChunkList, Dot, Entry, Key},
    frame::FrameBuf,
    id::ChunkId,
    keys::DeviceKey,
    replicate::ReplicateError,
    session::{Hello, Message, hello, message::Cause},
    transport::TransportKind,
    vault::Unwatched,
};
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
};

/// Offers an event with `list`, and waits until the server asks for its chunks.
pub(crate) async fn make_it_want(world: &World, peer: &mut EvilPeer, device: &DeviceKey, list: &ChunkList) -> Dot {
    let author = Author::new(world, device).naming(list);
    peer.offer(frames_of(&author.event(), &[list])).await;
    let id = list.id();
    peer.hear_until(|message| matches!(message, Message::Want { list, .. } if list.id == id).then_some(())).await;
    author.dot()
}

async fn send_on_a_lane(peer: &EvilPeer, frames: &[&[u8]]) {
    let mut lane = peer.connection.open_lane().await.unwrap();
    lane.send(Bytes::from(frames.concat())).await.unwrap();
    lane.finish().await.unwrap();
}

/// The same frame with one bit of its record flipped: header and id stay.
fn spoiled(chunk: &FrameBuf) -> Vec<u8> {
    let mut bytes = chunk.clone().into_bytes();
    bytes[500] ^= 1;
    bytes
}

fn holds(world: &World, chunk: &FrameBuf) -> bool {
    world.vault.store().contains(&[ChunkId::from_bytes(chunk.id())]).unwrap()[0]
}

async fn parked(peer: &mut EvilPeer, dot: Dot) {
    peer.hear_until(|message| matches!(message, Message::Applied { parked, .. } if parked.contains(&dot)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_on_a_lane_is_reported_once_and_never_stored() {
    let (mut world, device) = World::with_member().await;
    for (kind, byte) in [(TransportKind::Quic, 1), (TransportKind::Tcp, 2)] {
        let chunk = chunk(byte);
        let list = list_of(&[&chunk]);
        let mut peer = EvilPeer::greeted(&world, &device, kind).await;
        let dot = make_it_want(&world, &mut peer, &device, &list).await;
        let bad = spoiled(&chunk);
        send_on_a_lane(&peer, &[&bad, &bad, &bad]).await;
        let reported = peer.hear_until(|message| if let Message::Damaged(chunks) = message { Some(chunks) } else { None }).await;
        assert_eq!(reported, [ChunkId::from_bytes(chunk.id())]);
        peer.say(&nothing_of(&list)).await;
        parked(&mut peer, dot).await;
        assert!(!holds(&world, &chunk));
        assert!(!world.vault.store().frontier().contains(&dot), "the event is not visible");
        drop(peer);
        world.next_served().await;
    }
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_inline_is_never_stored() {
    let (mut world, device) = World::with_member().await;
    let chunk = chunk(1);
    let list = list_of(&[&chunk]);
    let mut peer = EvilPeer::connect(&world, &device, TransportKind::Tcp).await;
    peer.greet(|hello| hello.inline_bytes_max = 1 << 20).await;
    let dot = make_it_want(&world, &mut peer, &device, &list).await;
    peer.say(&Message::Chunks { cause: Cause::Asked, list: list.id(), frames: spoiled(&chunk).into() }).await;
    peer.say(&nothing_of(&list)).await;
    parked(&mut peer, dot).await;
    assert!(!holds(&world, &chunk));
    drop(peer);
    world.next_served().await;
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_nobody_asked_for_are_dropped_and_the_session_goes_on() {
    let (mut world, device) = World::with_member().await;
    let (wanted, unasked) = (chunk(1), chunk(2));
    let list = list_of(&[&wanted]);
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Quic).await;
    let dot = make_it_want(&world, &mut peer, &device, &list).await;
    send_on_a_lane(&peer, &[unasked.verified().bytes(), wanted.verified().bytes(), wanted.verified().bytes()]).await;
    peer.say(&nothing_of(&list)).await;
    peer.hear_until(|message| matches!(message, Message::Applied { frontier, .. } if frontier.contains(&dot)).then_some(())).await;
    assert!(holds(&world, &wanted) && !holds(&world, &unasked));
    drop(peer);
    world.next_served().await;
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_chunks_that_nobody_asked_for_end_the_session() {
    let (mut world, device) = World::with_member().await;
    let chunk = chunk(1);
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
    let (list, frames) = (list_of(&[&chunk]).id(), chunk.clone().into_bytes().into());
    peer.say(&Message::Chunks { cause: Cause::Asked, list, frames }).await;
    peer.until_the_end().await;
    assert!(matches!(world.next_error().await, ReplicateError::Peer(_)));
    assert!(!holds(&world, &chunk));
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_whose_length_its_list_lies_about_is_not_stored() {
    let (mut world, device) = World::with_member().await;
    let chunk = chunk(1);
    let list = ChunkList::new(vec![Entry { id: ChunkId::from_bytes(chunk.id()), length: 7 }]).unwrap();
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Quic).await;
    let dot = make_it_want(&world, &mut peer, &device, &list).await;
    send_on_a_lane(&peer, &[chunk.verified().bytes()]).await;
    peer.say(&nothing_of(&list)).await;
    parked(&mut peer, dot).await;
    assert!(!holds(&world, &chunk));
    drop(peer);
    world.next_served().await;
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chunk_parks_every_event_that_needs_it() {
    let (mut world, device) = World::with_member().await;
    let (shared, left, right) = (chunk(1), chunk(2), chunk(3));
    let lists = [list_of(&[&shared, &left]), list_of(&[&shared, &right])];
    let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Quic).await;
    let dots = [make_it_want(&world, &mut peer, &device, &lists[0]).await, make_it_want(&world, &mut peer, &device, &lists[1]).await];
    send_on_a_lane(&peer, &[&spoiled(&shared), left.verified().bytes(), right.verified().bytes()]).await;
    for list in &lists {
        peer.say(&nothing_of(list)).await;
    }
    let both = |message| matches!(message, Message::Applied { parked, .. } if dots.iter().all(|dot| parked.contains(dot))).then_some(());
    peer.hear_until(both).await;
    drop(peer);
    world.next_served().await;
    world.end_sound().await;
}

/// The server's disk loses its only chunk, and notices.
fn lose_a_chunk(world: &World) -> ChunkId {
    let pack = world.vault.dir().join("packs/00000001.pack");
    let file = OpenOptions::new().read(true).write(true).open(&pack).unwrap();
    let mut last = [0];
    let at = file.metadata().unwrap().len() - 1;
    file.read_exact_at(&mut last, at).unwrap();
    file.write_all_at(&[last[0] ^ 1], at).unwrap();
    world.vault.scrub(None, &Unwatched).unwrap();
    let lost = world.vault.store().lost_chunks().unwrap();
    assert_eq!(lost.len(), 1);
    lost.into_iter().next().unwrap()
}

/// What the server has put aside.
fn quarantined(world: &World) -> Vec<u8> {
    let mut kept = fs::read_dir(world.vault.dir().join("quarantine")).unwrap();
    fs::read(kept.next().unwrap().unwrap().path()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_lies_about_what_was_lost_heals_nothing_and_harms_nothing() {
    let (mut world, device) = World::with_member().await;
    let id = lose_a_chunk(&world);
    let (frontier, root) = (world.vault.store().frontier(), world.vault.store().root());
    for lie in 0..3 {
        let mut peer = EvilPeer::connect(&world, &device, TransportKind::Tcp).await;
        let claim = |hello: &mut Hello| {
            (hello.frontier, hello.root, hello.features) = (frontier.clone(), root, hello::HEALS | hello::LOST);
            hello.inline_bytes_max = 1 << 20;
        };
        assert_ne!(peer.greet(claim).await.features & hello::LOST, 0, "equal roots are not the end");
        let (list, want) =
            peer.hear_until(|message| if let Message::Want { list, want } = message { Some((list, want)) } else { None }).await;
        let frames: Bytes = match lie {
            // A whole frame with the right id and a flipped bit, another chunk, and nothing at all.
            0 => quarantined(&world).into(),
            1 => chunk(2).into_bytes().into(),
            _ => Bytes::new(),
        };
        if !frames.is_empty() {
            peer.say(&Message::Chunks { cause: Cause::Asked, list: list.id, frames }).await;
        }
        peer.say(&Message::Served { list: list.id, unavailable: want }).await;
        let lost = peer.hear_until(|message| if let Message::Healed { lost } = message { Some(lost) } else { None }).await;
        assert_eq!(lost, 1, "lie {lie}");
        peer.say(&Message::Healed { lost: u64::MAX }).await;
        peer.say(&Message::Healed { lost: 0 }).await;
        peer.until_the_end().await;
        assert!(world.next_error().await.to_string().contains("did not heal"));
        assert_eq!(world.vault.store().lost_chunks().unwrap().into_iter().collect::<Vec<_>>(), [id]);
    }
    // Who has it gives it back: here, the user.
    world.vault.put(&Key::new("first").unwrap(), &mut &b"value"[..], &Unwatched).unwrap();
    assert!(world.vault.store().is_whole().unwrap());
    world.assert_sound().await;
    world.end().await;
}
