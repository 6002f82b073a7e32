//! A member that asks for much and takes nothing, and one that opens more lanes than anybody expects.

use crate::{
    peer::{EvilPeer, new_device},
    world::World,
};
use mirror_engine::{
    bitmap::Bitmap,
    event::{ChunkList, Key},
    frame::{self, HEADER_BYTES, Kind},
    limits::WANTS_MAX,
    replicate::{Options, ReplicateError},
    session::Message,
    transport::{Choice, TransportKind},
    vault::{Unwatched, Vault},
};

/// Bytes that do not shrink.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

fn put(vault: &Vault, key: &str, value: &[u8]) {
    vault.put(&Key::new(key).unwrap(), &mut &value[..], &Unwatched).unwrap();
}

/// The list of at least `bytes` that the server offers.
async fn offered(peer: &mut EvilPeer, bytes: u64) -> ChunkList {
    peer.hear_until(|message| {
        let Message::Events { frames, .. } = message else { return None };
        let lists = frame::split(&frames).filter_map(Result::ok).filter(|(header, _)| header.kind == Kind::List);
        let mut lists = lists.map(|(_, frame)| ChunkList::from_record(&frame[HEADER_BYTES..]).unwrap());
        lists.find(|list| list.reference().bytes >= bytes)
    })
    .await
}

fn want_all(list: &ChunkList) -> Message {
    Message::Want { list: list.reference(), want: Bitmap::full(list.entries().len()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_ends_while_a_peer_takes_nothing_of_what_it_asked_for() {
    for kind in [TransportKind::Quic, TransportKind::Tcp] {
        let mut world = World::start().await;
        put(&world.vault, "large", &noise(40 << 20));
        let device = new_device();
        world.admit(&device);
        let mut peer = EvilPeer::greeted(&world, &device, kind).await;
        let list = offered(&mut peer, 40 << 20).await;
        // More than all queues and windows between the disk and us.
        peer.say(&want_all(&list)).await;
        peer.say(&want_all(&list)).await;
        world.assert_sound().await;
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let mut world = World::start().await;
    put(&world.vault, "inline", &noise(200_000));
    let device = new_device();
    world.admit(&device);
    let mut peer = EvilPeer::connect(&world, &device, TransportKind::Tcp).await;
    peer.greet(|hello| hello.inline_bytes_max = 1 << 20).await;
    let list = offered(&mut peer, 200_000).await;
    // Far more than may wait unread; they count as unanswered until they have left.
    for _ in 0..4 * WANTS_MAX {
        peer.say(&want_all(&list)).await;
    }
    let error = world.next_error().await;
    assert!(matches!(&error, ReplicateError::Peer(reason) if reason.contains("wants")), "{error}");
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lane_is_read_however_many_the_sender_opens() {
    let mut world = World::start().await;
    world.assert_sound().await;
    for (round, kind) in [TransportKind::Quic, TransportKind::Tcp].into_iter().enumerate() {
        let options = Options { choice: Choice::Only(kind), lanes: Some(8), ..Options::default() };
        let mut value = noise(24 << 20);
        value[0] = round as u8;
        value.rotate_left(1 << (10 + round));
        put(world.honest(), &format!("pushed-{round}"), &value);
        assert!(world.sync_honest(&options).await.is_identical());
        put(&world.vault, &format!("pulled-{round}"), &value[round + 1..]);
        assert!(world.sync_honest(&options).await.is_identical());
    }
    world.end_sound().await;
}
