//! Who does not belong: unknown devices, and known ones without the vault's key.

use crate::{
    peer::{EvilPeer, dial, new_device},
    world::World,
};
use mirror_engine::{
    id::VaultId,
    keys::{DeviceKey, random_bytes},
    replicate::ReplicateError,
    session::{Hello, Message},
    transport::{CloseReason, Protocol, TransportError, TransportKind},
};

const KINDS: [TransportKind; 2] = [TransportKind::Quic, TransportKind::Tcp];

/// What a device that is not known hears, in words.
async fn refusal(world: &World, device: &DeviceKey, kind: TransportKind, protocol: Protocol) -> String {
    let connection = match dial(device, world.addr, world.server_device(), protocol, kind).await {
        Ok(connection) => connection,
        Err(error) => return error.to_string(),
    };
    let (_sender, mut receiver) = connection.take_control().unwrap();
    match receiver.recv().await {
        Ok(said) => panic!("a stranger was told {said:?}"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_device_hears_the_same_wherever_it_knocks() {
    let (mut world, other, device) = (World::start().await, World::start().await, new_device());
    for kind in KINDS {
        for protocol in [Protocol::Session, Protocol::Pairing] {
            let here = refusal(&world, &device, kind, protocol).await;
            assert_eq!(here, refusal(&other, &device, kind, protocol).await);
            assert_eq!(here, TransportError::Refused.to_string(), "{kind} {protocol:?}");
        }
    }
    world.assert_sound().await;
    other.end().await;
    world.end().await;
}

/// What a session that is no member's hears: nothing, and the end that an unknown device gets, too.
async fn assert_refused_in_silence(world: &mut World, peer: EvilPeer) {
    let (heard, ended) = peer.until_the_end().await;
    assert_eq!(heard, []);
    assert!(matches!(ended, TransportError::Refused), "{ended}");
    assert!(matches!(world.next_error().await, ReplicateError::Refused(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_device_without_the_vaults_key_learns_nothing() {
    let (mut world, device) = World::with_member().await;
    for kind in KINDS {
        let mut peer = EvilPeer::connect_with(&world, &device, kind, &[9; 32]).await;
        let hello = peer.hello();
        peer.say(&peer.seal(&hello)).await;
        assert_refused_in_silence(&mut world, peer).await;
    }
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_of_another_connection_or_direction_proves_nothing() {
    let (mut world, device) = World::with_member().await;
    let mut first = EvilPeer::connect(&world, &device, TransportKind::Quic).await;
    let own = first.seal(&first.hello());
    first.say(&own).await;
    let Some(reflected @ Message::Hello(_)) = first.hear().await else { panic!("the server answers a member") };
    first.connection.close(CloseReason::Done);
    world.next_served().await;
    for stolen in [own, reflected] {
        let mut second = EvilPeer::connect(&world, &device, TransportKind::Quic).await;
        second.say(&stolen).await;
        assert_refused_in_silence(&mut world, second).await;
    }
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_before_its_hello_hears_nothing() {
    let (mut world, device) = World::with_member().await;
    for message in [Message::Finished, Message::Damaged(vec![]), Message::Extension(200)] {
        let mut peer = EvilPeer::connect(&world, &device, TransportKind::Tcp).await;
        peer.say(&message).await;
        // An extension may be skipped before the Hello, too; what follows it may not.
        peer.say(&Message::Finished).await;
        let (heard, _) = peer.until_the_end().await;
        assert_eq!(heard, []);
        assert!(matches!(world.next_error().await, ReplicateError::Peer(_)));
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_device_that_says_nothing_is_hung_up_on() {
    let (mut world, device) = World::with_member().await;
    let silent = EvilPeer::connect(&world, &device, TransportKind::Tcp).await;
    let (heard, _) = silent.until_the_end().await;
    assert_eq!(heard, []);
    assert!(matches!(world.next_error().await, ReplicateError::Transport(TransportError::Timeout)));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prober_learns_the_same_whatever_it_tries() {
    let (mut world, device) = World::with_member().await;
    let tries: [fn(&EvilPeer) -> Message; 4] = [
        |peer| peer.seal(&peer.hello()),
        |peer| peer.seal(&Hello { vault: VaultId::from_bytes([9; 32]), ..peer.hello() }),
        |_| Message::Hello(random_bytes::<200>().unwrap().to_vec().into()),
        |_| Message::Hello(Vec::new().into()),
    ];
    for said in tries {
        let mut peer = EvilPeer::connect_with(&world, &device, TransportKind::Tcp, &random_bytes().unwrap()).await;
        let message = said(&peer);
        peer.say(&message).await;
        assert_refused_in_silence(&mut world, peer).await;
    }
    world.end_sound().await;
}
