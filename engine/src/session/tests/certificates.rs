//! Certificates: both ends come to hold one, without another round trip, and nothing that a peer says of them does harm.

use super::{
    model::{VAULT, Vault, config},
    world::{Options, Signing, World},
};
use crate::{
    id::{Root, VaultId},
    keys::{Attestation, Witness},
    limits::ATTESTATION_BYTES_MAX,
    session::{Config, Direction, Message, Outcome, Session, SessionEvent, Side, Stay, Windows, hello, phase::Phase},
};
use std::time::Instant;

const BOTH: [Signing; 2] = [Signing::Known; 2];
const STEPS_MAX: usize = 20_000;

fn world(a: Vault, b: Vault, stay: Stay, signing: [Signing; 2]) -> World {
    World::new(a, b, &Options { stay, signing, ..Options::default() }, 1)
}

/// Each has written something that the other lacks.
fn two() -> [Vault; 2] {
    let mut vaults = [1, 2].map(Vault::new);
    vaults.iter_mut().for_each(|vault| vault.write(&[2]));
    vaults
}

fn equal() -> [Vault; 2] {
    let [a, mut b] = two();
    b.receive_all(&a);
    let mut a = a;
    a.receive_all(&b);
    [a, b]
}

/// Both ends hold the other's word for what both hold, and each checks it by its own keys.
fn assert_certified(world: &World) {
    let devices = world.ends.each_ref().map(|end| end.driver.vault.device().id());
    for (at, end) in world.ends.iter().enumerate() {
        let newest = *end.certificates().last().unwrap_or_else(|| panic!("end {at} has no certificate"));
        assert_eq!(newest.root(), end.driver.vault.root());
        assert!(newest.verify(&VAULT, &devices[at], &devices[1 - at]));
    }
}

#[test]
fn equal_replicas_are_certified_after_one_round_trip_and_two_messages() {
    let [a, b] = equal();
    let mut world = world(a, b, Stay::UntilEqual, BOTH);
    (0..2).for_each(|_| world.half_trip());
    assert_certified(&world);
    assert!(world.ends.iter().all(|end| end.session.is_finished()));
}

#[test]
fn whoever_ends_equal_ends_certified() {
    for direction in [Direction::Push, Direction::Pull, Direction::Both] {
        let [mut a, mut b] = two();
        match direction {
            Direction::Push => a.receive_all(&b),
            Direction::Pull => b.receive_all(&a),
            Direction::Both => {}
        }
        let mut world = World::new(a, b, &Options { direction, signing: BOTH, ..Options::default() }, 1);
        world.run(STEPS_MAX);
        assert_eq!(world.outcomes(), [Some(&Outcome::Complete); 2]);
        assert_certified(&world);
    }
}

#[test]
fn certifying_adds_no_round_trip() {
    let trips = |signing| {
        let [a, b] = two();
        let mut world = world(a, b, Stay::UntilEqual, signing);
        (1..20)
            .find(|_| {
                world.half_trip();
                world.ends.iter().all(|end| end.session.is_finished())
            })
            .expect("it ends")
    };
    assert_eq!(trips(BOTH), trips([Signing::Unknown; 2]));
}

#[test]
fn in_a_session_that_stays_each_new_state_is_certified() {
    let [a, b] = two();
    let mut world = world(a, b, Stay::Live, BOTH);
    for round in 0..4 {
        world.run(STEPS_MAX);
        assert_certified(&world);
        assert!(world.ends.iter().all(|end| end.certificates().len() == round + 1), "once a state");
        world.grow(round % 2, |vault| vault.write(&[1]));
    }
}

#[test]
fn what_is_signed_names_the_time_at_which_it_was_signed() {
    let [a, b] = equal();
    let mut world = world(a, b, Stay::Live, BOTH);
    world.run(STEPS_MAX);
    world.now += std::time::Duration::from_secs(60);
    world.grow(0, |vault| vault.write(&[1]));
    world.run(STEPS_MAX);
    let times = world.ends[0].certificates().iter().map(|it| (it.ours.wall_ms, it.theirs.wall_ms)).collect::<Vec<_>>();
    assert_eq!(times, [(1_000, 1_000), (61_000, 61_000)]);
}

#[test]
fn a_peer_that_does_not_know_of_certificates_is_told_nothing_and_misses_nothing() {
    for signing in [[Signing::Known, Signing::Unknown], [Signing::Unknown, Signing::Known]] {
        for vaults in [two(), equal()] {
            let [a, b] = vaults;
            let mut world = world(a, b, Stay::UntilEqual, signing);
            world.run(STEPS_MAX);
            assert_eq!(world.outcomes(), [Some(&Outcome::Complete); 2]);
            for (at, end) in world.ends.iter().enumerate() {
                assert!(end.certificates().is_empty() && !world.heard_kinds(at).contains(&0x81));
            }
        }
    }
}

/// A listener that holds what this hand-made peer claims to hold, and the peer's own witness.
fn claimed_equal(stay: Stay, claim: impl FnOnce(&Witness, Root) -> Option<Attestation>) -> (Session, Root) {
    let (vault, peer) = (Vault::new(1), Vault::new(2));
    let own = Config { stay, witness: Some(Witness::new(VAULT, &vault.device(), peer.device().id())), ..listening(&vault) };
    let keys = own.hello_keys.clone();
    let mut session = Session::new(own, vault.local(), Instant::now());
    let word = claim(&Witness::new(VAULT, &peer.device(), vault.device().id()), vault.root());
    let dialer = Config { side: Side::Dialer, stay, ..listening(&peer) };
    // The peer's own session says its Hello; its extensions are what the test wants them to be.
    let mut said = Session::new(dialer, peer.local(), Instant::now());
    let Ok(Message::Hello(sealed)) = Message::decode(said.poll_message().unwrap()) else { panic!("a Hello comes first") };
    let mut words = hello::open(&keys, Side::Dialer, &sealed).unwrap();
    words.extensions = word.map(extensions).unwrap_or_default();
    session.handle_message(Instant::now(), Message::Hello(hello::seal(&keys, Side::Dialer, &words).into()).encode());
    (session, vault.root())
}

fn listening(vault: &Vault) -> Config {
    config(vault, Side::Listener, Direction::Both, Windows::default())
}

/// As it lies in a Hello: a map with one entry.
fn extensions(word: Attestation) -> Vec<u8> {
    [&[0xa1, 0x00][..], &crate::codec::encode(&word)].concat()
}

fn heard(session: &mut Session) -> Vec<SessionEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn certified(events: &[SessionEvent]) -> bool {
    events.iter().any(|event| matches!(event, SessionEvent::Certified(_)))
}

/// Words about `root` that are not the peer's: each is right but for one thing.
fn forgeries(witness: &Witness, root: Root) -> Vec<(&'static str, Attestation)> {
    let (vault, peer, stranger) = (Vault::new(1), Vault::new(2), Vault::new(9));
    let good = witness.attest(root, 5);
    let by = |about, signer: &Vault, hearer: &Vault| Witness::new(about, &signer.device(), hearer.device().id()).attest(root, 5);
    vec![
        ("another device's", by(VAULT, &stranger, &vault)),
        ("said to another device", by(VAULT, &peer, &stranger)),
        ("about another vault", by(VaultId::from_bytes([8; 32]), &peer, &vault)),
        ("of another root", Attestation { root, ..witness.attest(Root::from_bytes([5; 32]), 5) }),
        ("of another time", Attestation { wall_ms: 6, ..good.clone() }),
        ("no signature", Attestation { signature: [0; 64], ..good }),
    ]
}

#[test]
fn a_forged_word_certifies_nothing_and_ends_nothing() {
    let (mut good, _) = claimed_equal(Stay::UntilEqual, |witness, root| Some(witness.attest(root, 5)));
    assert!(certified(&heard(&mut good)), "what the forgeries are held against");
    let kinds = forgeries(&Witness::new(VAULT, &Vault::new(2).device(), Vault::new(1).device().id()), Vault::new(1).root()).len();
    for nth in 0..kinds {
        let mut what = "";
        let (mut session, _) = claimed_equal(Stay::UntilEqual, |witness, root| {
            let (name, word) = forgeries(witness, root).swap_remove(nth);
            what = name;
            Some(word)
        });
        let events = heard(&mut session);
        assert!(!certified(&events) && events.contains(&SessionEvent::Misattested), "{what}: {events:?}");
        assert_eq!(events.last(), Some(&SessionEvent::Ended(Outcome::Complete)), "{what}");
    }
}

#[test]
fn a_word_for_what_is_not_held_here_certifies_nothing() {
    let (mut session, _) = claimed_equal(Stay::Live, |witness, _| Some(witness.attest(Root::from_bytes([5; 32]), 5)));
    let events = heard(&mut session);
    assert!(!certified(&events) && !events.contains(&SessionEvent::Misattested), "{events:?}");
    assert_eq!(session.phase(), Phase::Live);
}

#[test]
fn a_word_that_is_malformed_or_too_long_is_skipped() {
    let (mut session, root) = claimed_equal(Stay::Live, |witness, _| Some(witness.attest(Root::from_bytes([5; 32]), 5)));
    let word = Witness::new(VAULT, &Vault::new(2).device(), Vault::new(1).device().id()).attest(root, 5);
    let good = Message::Attested(word).encode();
    let long = [&good[..], &[0; ATTESTATION_BYTES_MAX]].concat();
    for bytes in [good[..1].to_vec(), good[..good.len() - 1].to_vec(), [&good[..], &[0]].concat(), long] {
        session.handle_message(Instant::now(), bytes.into());
        assert!(!certified(&heard(&mut session)) && session.phase() == Phase::Live);
    }
    session.handle_message(Instant::now(), good);
    assert!(certified(&heard(&mut session)), "and one that is whole is heard");
}
