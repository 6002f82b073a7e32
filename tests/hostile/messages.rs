//! A member that says what may not be said, or claims what it does not send.

use crate::{
    peer::{EvilPeer, chunk, list_of},
    world::World,
};
use bytes::Bytes;
use mirror_engine::{
    bitmap::Bitmap,
    codec,
    event::ListRef,
    frame::{Header, Kind},
    limits::LIST_ENTRIES_MAX,
    replicate::ReplicateError,
    session::Message,
    transport::TransportKind,
};

const EVENTS: u8 = 2;
const WANT: u8 = 3;
const SERVED: u8 = 4;

#[derive(minicbor::Encode, minicbor::Decode)]
struct Claim {
    #[n(0)]
    list: ListRef,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    bitmap: Vec<u8>,
}

fn want(entries: u32, bitmap: &[u8]) -> Bytes {
    let list = ListRef { entries, ..list_of(&[&chunk(1)]).reference() };
    [&[WANT][..], &codec::encode(&Claim { list, bitmap: bitmap.to_vec() })].concat().into()
}

/// The header of a frame of 4 GiB, with nothing behind it.
fn endless(kind: Kind) -> [u8; 48] {
    let mut header = Header { kind, length: 1, id: [1; 32] }.to_bytes();
    header[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    let check = hasher.update(&header[..12]).update(&[1; 32]).finalize();
    header[12..16].copy_from_slice(&check.as_bytes()[..4]);
    header
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_ends_its_session_and_no_other() {
    let (mut world, device) = World::with_member().await;
    let bits = LIST_ENTRIES_MAX as u32;
    let cases: Vec<(&str, Bytes)> = vec![
        ("an empty message", Bytes::new()),
        ("an unknown type", Bytes::from_static(&[77, 1, 2, 3])),
        ("an event of 4 GiB", [&[EVENTS, 0][..], &endless(Kind::Event)].concat().into()),
        ("a list of 4 GiB", [&[EVENTS, 0][..], &endless(Kind::List)].concat().into()),
        ("CBOR that claims 2^64 bytes", [&[WANT, 0x82, 0x5b][..], &[0xff; 8]].concat().into()),
        ("an array that claims 2^32 items", [&[SERVED, 0x9a][..], &[0xff; 4]].concat().into()),
        ("a bitmap of more bits than any list has", want(u32::MAX, &[0xff; 64])),
        ("a bitmap that is longer than its list", want(1, &[0xff; 100_000])),
        ("a bitmap that is shorter than its list", want(bits, &[])),
        ("a want of nothing", want(1, &Bitmap::empty(1).encode())),
        ("a want of a list that nobody has", want(1, &Bitmap::full(1).encode())),
        ("an answer that nobody asked for", Message::Served { list: list_of(&[&chunk(1)]).id(), unavailable: Bitmap::full(1) }.encode()),
    ];
    for (what, bytes) in cases {
        let mut peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
        peer.say_bytes(bytes).await;
        peer.until_the_end().await;
        let error = world.next_error().await;
        assert!(matches!(error, ReplicateError::Peer(_)), "{what}: {error}");
    }
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_claims_4_gib_ends_its_session() {
    let (mut world, device) = World::with_member().await;
    for kind in [TransportKind::Quic, TransportKind::Tcp] {
        let mut peer = EvilPeer::greeted(&world, &device, kind).await;
        crate::chunks::make_it_want(&world, &mut peer, &device, &list_of(&[&chunk(1)])).await;
        let mut lane = peer.connection.open_lane().await.unwrap();
        lane.send(Bytes::copy_from_slice(&endless(Kind::Chunk))).await.unwrap();
        peer.until_the_end().await;
        let error = world.next_error().await;
        assert!(matches!(error, ReplicateError::Peer(_)), "{error}");
    }
    world.end_sound().await;
}
