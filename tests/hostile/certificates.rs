//! A member that signs, as its word that both are the same, what it may not.

use crate::{
    peer::{EvilPeer, new_device},
    world::World,
};
use mirror_engine::{
    codec,
    id::VaultId,
    keys::{Attestation, DeviceKey, Witness},
    replicate::Served,
    session::Message,
    transport::{CloseReason, TransportKind},
};

/// As it lies in a Hello: a map with one entry.
fn extensions(word: &Attestation) -> Vec<u8> {
    [&[0xa1, 0x00][..], &codec::encode(word)].concat()
}

/// Claims to hold what the server holds, and to sign it with `word`. Whether the server has kept a certificate of it after that.
async fn claim(world: &mut World, device: &DeviceKey, kind: TransportKind, word: &Attestation) -> bool {
    let mut peer = EvilPeer::connect(world, device, kind).await;
    let root = world.vault.store().root();
    peer.greet(|hello| (hello.root, hello.extensions) = (root, extensions(word))).await;
    // Both have finished by now; a word more does no harm either.
    peer.say(&Message::Attested(word.clone())).await;
    peer.connection.close(CloseReason::Done);
    let ended = world.next_served().await;
    assert!(matches!(ended, Served::Session { result: Ok(_), .. }), "{ended:?}");
    world.vault.home().certificate(&world.server_device(), &device.id()).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_certificate_is_dropped_and_a_good_one_is_kept() {
    let (mut world, device) = World::with_member().await;
    let (server, vault, root) = (world.server_device(), world.vault.info().id, world.vault.store().root());
    let stranger = new_device();
    let good = Witness::new(vault, &device, server).attest(root, 5);
    let forged = [
        Witness::new(vault, &stranger, server).attest(root, 5),
        Witness::new(vault, &device, stranger.id()).attest(root, 5),
        Witness::new(VaultId::from_bytes([8; 32]), &device, server).attest(root, 5),
        Attestation { wall_ms: 6, ..good.clone() },
        Attestation { signature: [7; 64], ..good.clone() },
    ];
    for kind in [TransportKind::Quic, TransportKind::Tcp] {
        for (nth, word) in forged.iter().enumerate() {
            assert!(!claim(&mut world, &device, kind, word).await, "forgery {nth} over {kind}");
        }
    }
    assert!(claim(&mut world, &device, TransportKind::Tcp, &good).await, "what the forgeries are held against");
    let kept = world.vault.home().certificate(&server, &device.id()).unwrap();
    assert_eq!((kept.root(), kept.theirs), (root, good));
    assert!(claim(&mut world, &device, TransportKind::Tcp, &forged[0]).await, "a later forgery does not take it away");
    world.end_sound().await;
}
