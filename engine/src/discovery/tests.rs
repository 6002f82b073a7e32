//! Two of them on one network, which is the loopback interface and a port of its own.

use super::*;
use crate::id::DeviceId;
use std::{net::UdpSocket, sync::mpsc};

/// Only a bug waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port at which nobody else on this machine speaks.
fn alone() -> Place {
    Place::Alone(UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port())
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

#[test]
fn a_device_is_heard_while_it_announces_itself_and_forgotten_at_its_goodbye() {
    let place = alone();
    let device = DeviceId::from_bytes([5; 32]);
    let (said, news) = mpsc::channel();
    let neighbours = Discovery::start(place).unwrap().look(move |neighbour| drop(said.send(neighbour))).unwrap();

    let announcement = Discovery::start(place).unwrap().announce(&device, tag("a"), &["127.0.0.1:7740".parse().unwrap()]).unwrap();
    let found = neighbours.wait_for(&device, tag("a"), PATIENCE, || false);
    assert_eq!(found, ["127.0.0.1:7740".parse().unwrap()]);
    assert_eq!(neighbours.all(), [Neighbour { device, addresses: found.clone() }]);
    assert_eq!(news.recv_timeout(PATIENCE).unwrap().addresses, found);
    assert!(neighbours.addresses_of(&device, tag("b")).is_empty(), "another vault of that device");

    drop(announcement);
    while !news.recv_timeout(PATIENCE).unwrap().addresses.is_empty() {}
    assert!(neighbours.all().is_empty());
}

#[test]
fn a_device_that_is_not_there_is_waited_for_no_longer_than_allowed() {
    let neighbours = Discovery::start(alone()).unwrap().look(|_| ()).unwrap();
    let device = DeviceId::from_bytes([6; 32]);
    assert!(neighbours.wait_for(&device, tag("a"), Duration::ZERO, || false).is_empty());
    assert!(neighbours.wait_for(&device, tag("a"), PATIENCE, || true).is_empty(), "nor by who has changed its mind");
}
