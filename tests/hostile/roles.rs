//! Devices that write what their role does not let them write.

use crate::{
    peer::{Author, EvilPeer, new_device},
    world::World,
};
use mirror_engine::{
    event::{Event, KIND_MEMBERSHIP, KIND_OPERATIONS},
    home::Role,
    keys::DeviceKey,
    members::{Change, Charter, LastOwner},
    replicate::ReplicateError,
    session::{ByeCode, Message},
    transport::TransportKind,
};

/// Offers one event to the server, which refuses it, says so, and keeps nothing.
async fn assert_not_allowed(world: &mut World, device: &DeviceKey, event: &Event, why: &str) {
    let before = world.vault.store().root();
    let mut peer = EvilPeer::greeted(world, device, TransportKind::Tcp).await;
    peer.offer(event.to_frame().into_bytes()).await;
    let (heard, _) = peer.until_the_end().await;
    let bye = heard.iter().find_map(|message| if let Message::Bye { code, reason } = message { Some((*code, reason)) } else { None });
    let (code, reason) = bye.unwrap();
    assert!(code == ByeCode::Refused && reason.contains(why), "{reason}");
    let error = world.next_error().await;
    assert!(matches!(&error, ReplicateError::NotAllowed(text) if text.contains(why)), "{error}");
    assert_eq!(world.vault.store().root(), before);
    assert!(world.vault.store().journal_pending().unwrap().is_empty());
}

fn written(world: &World, device: &DeviceKey) -> Event {
    let mut author = Author::new(world, device);
    author.header.kind = KIND_OPERATIONS;
    author.event()
}

/// A membership event that is sealed as it should be.
fn declared(world: &World, device: &DeviceKey, change: Change) -> Event {
    let mut author = Author::new(world, device);
    author.header.kind = KIND_MEMBERSHIP;
    let charter = Charter::new(world.server_device(), world.vault.replication_key());
    let body = charter.seal(&[change], &author.header.author(), 1).unwrap();
    Event::sign(author.header, &body, device).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyless_device_and_one_that_is_not_in_write_nothing() {
    let (mut world, device, stranger) = (World::start().await, new_device(), new_device());
    world.admit_as(&device, Role::Keyless);
    let event = written(&world, &device);
    assert_not_allowed(&mut world, &device, &event, "keyless").await;
    let mut unknown = Author::new(&world, &device);
    unknown.header.kind = 77;
    let event = unknown.event();
    assert_not_allowed(&mut world, &device, &event, "keyless").await;
    let event = written(&world, &stranger);
    assert_not_allowed(&mut world, &device, &event, "not a member").await;
    world.assert_sound().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_owners_say_who_is_in() {
    let (mut world, device) = (World::start().await, new_device());
    world.admit(&device);
    let changes = [
        Change::Admit { device: device.id(), role: Role::Owner, name: "me".into(), agreement: None },
        Change::Found { name: "me".into(), agreement: None },
        Change::Remove { device: world.server_device(), reason: None, upto: Default::default(), last_owner: LastOwner::Goes },
    ];
    for change in changes {
        let event = declared(&world, &device, change);
        assert_not_allowed(&mut world, &device, &event, "not an owner").await;
    }
    let mut garbage = Author::new(&world, &device);
    garbage.header.kind = KIND_MEMBERSHIP;
    let event = garbage.event();
    assert_not_allowed(&mut world, &device, &event, "cannot be read").await;
    world.assert_sound().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_removed_while_it_is_connected_is_cut_off() {
    let (mut world, device) = (World::start().await, new_device());
    world.admit(&device);
    let peer = EvilPeer::greeted(&world, &device, TransportKind::Tcp).await;
    world.vault.expel(device.id(), None, LastOwner::Stays).unwrap();
    peer.until_the_end().await;
    let error = world.next_error().await;
    assert!(matches!(&error, ReplicateError::NotAllowed(text) if text.contains("removed")), "{error}");
    world.assert_sound().await;
    world.end().await;
}
