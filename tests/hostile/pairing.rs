//! Who tries to get in with a ticket that is not good.

use crate::{
    peer::{dial, new_device},
    world::World,
};
use bytes::Bytes;
use mirror_engine::{
    clock, codec,
    id::TicketId,
    limits::PAIRINGS_MAX,
    replicate::{ReplicateError, Served},
    transport::{Protocol, TransportKind},
};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(minicbor::Encode, minicbor::Decode)]
struct Request {
    #[n(0)]
    ticket: TicketId,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tickets_name_without_its_key_opens_nothing_and_spoils_nothing() {
    let mut world = World::start().await;
    let ticket = world.ticket(MINUTE);
    let requests = [
        codec::encode(&Request { ticket: ticket.secret.id(), sealed: vec![7; 60] }),
        codec::encode(&Request { ticket: TicketId::from_bytes([1; 32]), sealed: vec![7; 60] }),
        b"nonsense".to_vec(),
        Vec::new(),
    ];
    for request in requests {
        let device = new_device();
        let connection = dial(&device, world.addr, world.server_device(), Protocol::Pairing, TransportKind::Quic).await.unwrap();
        let (mut sender, mut receiver) = connection.take_control().unwrap();
        sender.send(Bytes::from(request)).await.unwrap();
        assert!(receiver.recv().await.is_err(), "a refusal, and not a byte more");
        world.next_error().await;
        assert!(world.vault.home().peer_of(&device.id()).unwrap().is_none());
    }
    world.redeem(&ticket, "bearer").await.expect("the ticket is still good for who has it");
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_bearers_of_one_ticket_exactly_one_gets_in() {
    let world = World::start().await;
    for round in 0..3 {
        let ticket = world.ticket(MINUTE);
        let names = [format!("left-{round}"), format!("right-{round}")];
        let (left, right) = tokio::join!(world.redeem(&ticket, &names[0]), world.redeem(&ticket, &names[1]));
        assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
        let refused = left.err().or(right.err());
        assert!(matches!(refused, Some(ReplicateError::Ticket(_))), "{refused:?}");
        let again = world.redeem(&ticket, "late").await;
        assert!(matches!(again, Err(ReplicateError::Ticket(_))), "{again:?}");
    }
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_wrong_clock_is_told_by_how_much() {
    let world = World::start().await;
    let mut ticket = world.ticket(MINUTE);
    ticket.expires_ms = clock::wall_ms() - 5 * 60_000;
    let Err(ReplicateError::Ticket(reason)) = world.redeem(&ticket, "late").await else { panic!("it has expired") };
    assert!(reason.contains("5 min ago by this device's clock") && reason.contains("at least 5 min off"), "{reason}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_ticket_opens_nothing() {
    let world = World::start().await;
    let mut ticket = world.ticket(Duration::ZERO);
    // The bearer's clock may be anything: the issuer's counts.
    ticket.expires_ms = clock::wall_ms() + 60_000;
    assert!(matches!(world.redeem(&ticket, "late").await, Err(ReplicateError::Ticket(_))));
    let _open = world.ticket(MINUTE);
    assert!(matches!(world.redeem(&ticket, "later").await, Err(ReplicateError::Ticket(_))), "nor while another one is open");
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_only_sit_there_are_hung_up_on_and_keep_no_member_out() {
    let mut world = World::start().await;
    // Paired before the strangers come.
    world.assert_sound().await;
    world.next_served().await;
    let _open = world.ticket(MINUTE);
    let mut silent = Vec::new();
    for _ in 0..2 * PAIRINGS_MAX {
        let connection = dial(&new_device(), world.addr, world.server_device(), Protocol::Pairing, TransportKind::Tcp).await;
        silent.push(connection.unwrap());
    }
    world.assert_sound().await;
    let mut ended = 0;
    while ended < PAIRINGS_MAX {
        ended += usize::from(matches!(world.next_served().await, Served::Paired { result: Err(_), .. }));
    }
    world.end().await;
}
