//! The rule by example, and its algebra over histories that anyone could have written.

use super::*;
use crate::{
    event::{Dot, Event, EventHeader, Frontier, Incarnation, KIND_MEMBERSHIP, KIND_OPERATIONS},
    id::{AgreementKey, DeviceId, EpochId, ReplicaId, VaultId},
    keys::{DeviceKey, ReplicationKey},
    limits::MEMBERSHIP_CHANGES_MAX,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const VAULT: [u8; 32] = [7; 32];

fn charter() -> Charter {
    Charter::new(device(0).id(), &ReplicationKey::from_bytes([3; 32]))
}

fn device(number: u8) -> DeviceKey {
    DeviceKey::from_seed(&[number + 1; 32])
}

fn id(number: u8) -> DeviceId {
    device(number).id()
}

/// One device with what it holds, in the order in which it came.
#[derive(Clone)]
struct Replica {
    number: u8,
    held: Vec<Event>,
    roster: Roster,
}

impl Replica {
    fn new(number: u8) -> Self {
        Self { number, held: Vec::new(), roster: Roster::new(charter()) }
    }

    fn author(&self) -> ReplicaId {
        crate::event::author(&id(self.number), &Incarnation([0; 16]))
    }

    fn frontier(&self) -> Frontier {
        self.held.iter().map(Event::dot).collect()
    }

    /// Whatever the device would sign, allowed or not.
    fn sign(&self, kind: u16, changes: &[Change]) -> Event {
        let seen = self.frontier();
        let sequence = seen.sequence_of(&self.author()) + 1;
        let previous = self.held.iter().rfind(|event| event.author() == self.author()).map(Event::id);
        let body = if kind == KIND_MEMBERSHIP { charter().seal(changes, &self.author(), sequence).unwrap() } else { b"x".to_vec() };
        let header = EventHeader {
            vault: VaultId::from_bytes(VAULT),
            device: id(self.number),
            incarnation: Incarnation([0; 16]),
            sequence,
            lamport: 1 + self.held.iter().map(|event| event.header().lamport).max().unwrap_or(0),
            previous,
            deps: seen.without(&self.author()),
            epoch: 1,
            lists: Vec::new(),
            kind,
            body_hash: [0; 32],
            wall_ms: 0,
        };
        Event::sign(header, &body, &device(self.number)).unwrap()
    }

    fn take(&mut self, event: Event) -> Result<(), Refusal> {
        if self.held.contains(&event) {
            return Ok(());
        }
        self.roster.check(&event)?;
        self.roster.add(&event);
        self.held.push(event);
        Ok(())
    }

    fn say(&mut self, changes: &[Change]) -> Result<Event, Refusal> {
        let event = self.sign(KIND_MEMBERSHIP, changes);
        self.take(event.clone()).map(|()| event)
    }

    fn write(&mut self) -> Result<Event, Refusal> {
        let event = self.sign(KIND_OPERATIONS, &[]);
        self.take(event.clone()).map(|()| event)
    }

    fn learn(&mut self, other: &Self) {
        other.held.iter().for_each(|event| self.take(event.clone()).unwrap());
    }

    fn remove(&mut self, number: u8) -> Result<Event, Refusal> {
        let upto = self.held.iter().filter(|event| event.header().device == id(number)).map(Event::dot).collect();
        self.say(&[removal(number, upto, LastOwner::Stays)])
    }

    /// An epoch that no other device begins, given to one.
    fn new_epoch(&self, to: u8) -> Change {
        let newest = self.roster.membership().epochs().iter().map(|epoch| epoch.number).max().unwrap_or(FIRST_EPOCH);
        let place = blake3::hash(&[&[self.number], self.frontier().sequence_of(&self.author()).to_le_bytes().as_slice()].concat());
        epoch(newest + 1, EpochId::from_bytes(*place.as_bytes()), to)
    }

    fn role(&self, number: u8) -> Admittance {
        self.roster.admittance(&id(number))
    }
}

fn found() -> Change {
    Change::Found { name: "zero".into(), agreement: None }
}

fn admit(number: u8, role: Role) -> Change {
    Change::Admit { device: id(number), role, name: format!("device {number}"), agreement: None }
}

fn epoch(number: u32, epoch: EpochId, to: u8) -> Change {
    let grants = vec![Grant { device: id(to), sealed: vec![0; 49] }];
    Change::Epoch(EpochGrants { number, epoch, giver: AgreementKey::from_bytes([1; 32]), grants, links: Vec::new() })
}

fn removal(number: u8, upto: Frontier, last_owner: LastOwner) -> Change {
    Change::Remove { device: id(number), reason: None, upto, last_owner }
}

/// Device 0 has founded and admitted these; all know it.
fn vault(others: &[(u8, Role)]) -> Vec<Replica> {
    let mut first = Replica::new(0);
    first.say(&[found()]).unwrap();
    others.iter().for_each(|(number, role)| drop(first.say(&[admit(*number, *role)]).unwrap()));
    let mut replicas = vec![first.clone()];
    replicas.extend(others.iter().map(|(number, _)| {
        let mut replica = Replica::new(*number);
        replica.learn(&first);
        replica
    }));
    replicas
}

#[test]
fn who_was_let_in_may_write_and_nobody_else() {
    let mut replicas = vault(&[(1, Role::Member), (2, Role::Keyless)]);
    assert!(replicas[0].write().is_ok() && replicas[1].write().is_ok());
    assert_eq!(replicas[2].write(), Err(Refusal::Keyless));
    let mut stranger = Replica::new(9);
    assert_eq!(stranger.write(), Err(Refusal::NotIn), "before it knows anything");
    stranger.learn(&replicas[0]);
    assert_eq!(stranger.write(), Err(Refusal::NotIn));
}

#[test]
fn only_owners_say_who_is_in() {
    let mut replicas = vault(&[(1, Role::Member), (2, Role::Keyless), (3, Role::Owner)]);
    for number in [1, 2] {
        assert_eq!(replicas[number].say(&[admit(9, Role::Owner)]), Err(Refusal::NotOwner));
        assert_eq!(replicas[number].say(&[found()]), Err(Refusal::NotOwner), "the founder is pinned");
    }
    assert!(replicas[3].say(&[admit(4, Role::Member)]).is_ok());
    assert_eq!(replicas[3].role(4), Admittance::In(Role::Member));
}

#[test]
fn a_removed_device_that_knows_it_is_refused_and_one_that_does_not_has_no_effect() {
    let mut replicas = vault(&[(1, Role::Member)]);
    let before = replicas[1].write().unwrap();
    let first = replicas[1].clone();
    replicas[0].learn(&first);
    replicas[0].remove(1).unwrap();
    let unaware = replicas[1].write().unwrap();
    replicas[0].take(unaware.clone()).unwrap();
    assert!(replicas[0].roster.is_in_force(&before), "what the removal leaves");
    assert!(!replicas[0].roster.is_in_force(&unaware), "kept, without effect");
    let owner = replicas[0].clone();
    replicas[1].learn(&owner);
    assert_eq!(replicas[1].write(), Err(Refusal::Removed));
    assert_eq!(replicas[0].role(1), Admittance::Removed);
}

#[test]
fn a_removed_device_comes_back_by_an_admission_that_has_seen_the_removal() {
    let mut replicas = vault(&[(1, Role::Member)]);
    replicas[0].remove(1).unwrap();
    let between = replicas[1].write().unwrap();
    replicas[0].take(between.clone()).unwrap();
    replicas[0].say(&[admit(1, Role::Member)]).unwrap();
    let owner = replicas[0].clone();
    replicas[1].learn(&owner);
    let after = replicas[1].write().unwrap();
    assert!(replicas[1].roster.is_in_force(&after));
    assert!(!replicas[1].roster.is_in_force(&between), "what it wrote while it was out stays out");
}

#[test]
fn a_removal_wins_over_an_admission_that_had_not_seen_it() {
    let mut replicas = vault(&[(1, Role::Owner), (2, Role::Member)]);
    let again = replicas[1].say(&[admit(2, Role::Owner)]).unwrap();
    replicas[0].remove(2).unwrap();
    replicas[0].take(again).unwrap();
    assert_eq!(replicas[0].role(2), Admittance::Removed);
}

#[test]
fn what_a_removed_owner_says_afterwards_has_no_effect() {
    let mut replicas = vault(&[(1, Role::Owner)]);
    replicas[0].remove(1).unwrap();
    let accomplice = replicas[1].say(&[admit(2, Role::Owner)]).unwrap();
    let mut two = Replica::new(2);
    let thief = replicas[1].clone();
    two.learn(&thief);
    let forged = two.write().unwrap();
    replicas[0].take(accomplice).unwrap();
    replicas[0].take(forged.clone()).unwrap();
    assert_eq!(replicas[0].role(2), Admittance::Unknown);
    assert!(!replicas[0].roster.is_in_force(&forged));
    let owner = replicas[0].clone();
    two.learn(&owner);
    assert_eq!(two.write(), Err(Refusal::NotIn), "once it has seen the removal, nobody takes its events");
}

#[test]
fn of_two_owners_that_remove_each_other_the_older_one_stays() {
    let mut replicas = vault(&[(1, Role::Owner)]);
    let by_zero = replicas[0].remove(1).unwrap();
    let by_one = replicas[1].remove(0).unwrap();
    replicas[0].take(by_one).unwrap();
    replicas[1].take(by_zero).unwrap();
    for replica in &replicas {
        assert_eq!((replica.role(0), replica.role(1)), (Admittance::In(Role::Owner), Admittance::Removed));
    }
}

#[test]
fn the_last_owner_stays_unless_it_is_meant() {
    let mut replicas = vault(&[(1, Role::Owner)]);
    replicas[1].remove(0).unwrap();
    replicas[1].remove(1).unwrap();
    assert_eq!(replicas[1].role(1), Admittance::In(Role::Owner));
    let own = replicas[1].frontier();
    replicas[1].say(&[removal(1, own, LastOwner::Goes)]).unwrap();
    assert_eq!(replicas[1].role(1), Admittance::Removed);
    assert_eq!(replicas[1].say(&[admit(3, Role::Owner)]), Err(Refusal::NotOwner));
}

#[test]
fn the_last_owner_keeps_its_role() {
    let mut replicas = vault(&[(1, Role::Owner)]);
    replicas[0].say(&[admit(0, Role::Member)]).unwrap();
    assert_eq!(replicas[0].role(0), Admittance::In(Role::Member), "another is left");
    let first = replicas[0].clone();
    replicas[1].learn(&first);
    replicas[1].say(&[admit(1, Role::Keyless)]).unwrap();
    assert_eq!(replicas[1].role(1), Admittance::In(Role::Owner));
}

#[test]
fn a_change_of_a_newer_version_is_kept_and_means_nothing() {
    let mut replicas = vault(&[]);
    let strange = Change::Unknown { number: 900, fields: vec![0xff, 1] };
    let event = replicas[0].say(&[strange.clone(), admit(1, Role::Member)]).unwrap();
    assert_eq!(charter().open(&event).unwrap()[0], strange);
    assert_eq!(replicas[0].role(1), Admittance::In(Role::Member), "what stands beside it counts");
}

#[test]
fn only_the_same_vault_and_place_open_a_body() {
    let mut replicas = vault(&[]);
    let event = replicas[0].say(&[admit(1, Role::Member)]).unwrap();
    let other = Charter::new(id(0), &ReplicationKey::from_bytes([4; 32]));
    assert!(charter().open(&event).is_ok() && other.open(&event).is_err());
    let next = replicas[0].sign(KIND_MEMBERSHIP, &[]);
    let moved = Event::sign(next.header().clone(), event.body(), &device(0)).unwrap();
    assert_eq!(replicas[0].roster.check(&moved), Err(Refusal::Unreadable), "another event's body");
    for bit in 0..event.body().len() * 8 {
        let mut body = event.body().to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        let flipped = Event::sign(event.header().clone(), &body, &device(0)).unwrap();
        assert!(charter().open(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn what_is_outside_the_limits_is_neither_made_nor_read() {
    let name = |length: usize| Change::Found { name: "n".repeat(length), agreement: None };
    for (changes, whether) in [
        (vec![name(255)], true),
        (vec![name(256)], false),
        (vec![name(0)], false),
        (vec![Change::Found { name: "a\nb".into(), agreement: None }], false),
        (vec![name(1); MEMBERSHIP_CHANGES_MAX], true),
        (vec![name(1); MEMBERSHIP_CHANGES_MAX + 1], false),
        (vec![Change::Unknown { number: 1, fields: vec![] }], false),
    ] {
        assert_eq!(encode_changes(&changes).is_ok(), whether, "{changes:?}");
    }
    let twice = [0x81, 0x82, 0x00, 0x43, 0x81, 0x61, b'a'];
    assert_eq!(decode_changes(&twice).unwrap(), [Change::Found { name: "a".into(), agreement: None }]);
    for (bytes, why) in [
        (&[0x81, 0x82, 0x00, 0x44, 0x81, 0x78, 0x01, b'a'][..], "a longer encoding of the same"),
        (&[0x81, 0x82, 0x00, 0x44, 0x81, 0x61, b'a', 0x00], "something behind"),
        (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "more than there is"),
        (&[0x81, 0x82, 0x00, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "longer than there is"),
        (b"", "nothing"),
    ] {
        assert!(decode_changes(bytes).is_err(), "{why}");
    }
}

#[test]
fn numbers_of_epochs_cannot_be_used_up_nor_grants_be_out_of_form() {
    let mut replicas = vault(&[(1, Role::Owner)]);
    let place = |byte| EpochId::from_bytes([byte; 32]);
    replicas[0].say(&[epoch(u32::MAX, place(1), 1)]).unwrap();
    assert_eq!(replicas[0].roster.membership().epochs(), [], "passed over");
    replicas[0].say(&[epoch(2, place(2), 1)]).unwrap();
    assert_eq!(replicas[0].roster.membership().newest_epoch().map(|epoch| epoch.number), Some(2));
    let Change::Epoch(good) = epoch(2, place(3), 1) else { unreachable!() };
    let twice = vec![good.grants[0].clone(), good.grants[0].clone()];
    let short = vec![Grant { sealed: vec![0; 48], ..good.grants[0].clone() }];
    let link = vec![Link { epoch: place(2), sealed: vec![0; 49] }];
    for bad in [
        EpochGrants { number: FIRST_EPOCH, ..good.clone() },
        EpochGrants { grants: twice, ..good.clone() },
        EpochGrants { grants: short, ..good.clone() },
        EpochGrants { links: link, ..good.clone() },
    ] {
        assert!(encode_changes(&[Change::Epoch(bad.clone())]).is_err(), "{bad:?}");
    }
}

#[test]
fn an_upto_that_names_an_author_twice_is_refused() {
    let author = [9u8; 32];
    let mut upto = vec![0xa2];
    for _ in 0..2 {
        upto.extend_from_slice(&[0x58, 0x20]);
        upto.extend_from_slice(&author);
        upto.push(0x01);
    }
    let mut fields = vec![0x84, 0x58, 0x20];
    fields.extend_from_slice(id(1).as_bytes());
    fields.push(0xf6);
    fields.extend_from_slice(&upto);
    fields.push(0x00);
    let mut bytes = vec![0x81, 0x82, 0x02, 0x58, fields.len() as u8];
    bytes.extend_from_slice(&fields);
    assert!(decode_changes(&bytes).is_err());
}

/// What one of five devices does next: number of the device, what, and to whom.
type Step = (u8, u8, u8);

/// Plays steps; what is refused is not written. Everyone is a device of its own and learns from others now and then.
fn play(steps: &[Step]) -> Vec<Replica> {
    let mut replicas = vault(&[(1, Role::Owner), (2, Role::Owner), (3, Role::Member), (4, Role::Keyless)]);
    for (who, what, whom) in steps {
        let other = replicas[usize::from(*whom)].clone();
        let replica = &mut replicas[usize::from(*who)];
        // A refusal is an answer as well.
        let _ = match what {
            0..=2 => {
                replica.learn(&other);
                continue;
            }
            3 => replica.remove(*whom),
            4 => replica.say(&[admit(*whom, Role::Owner)]),
            5 => replica.say(&[admit(*whom, Role::Member), admit(5, Role::Member)]),
            6 => replica.say(&[replica.new_epoch(*whom)]),
            7 => match replica.roster.membership().epochs().last().map(|epoch| (epoch.number, epoch.id)) {
                Some((number, id)) => replica.say(&[epoch(number, id, *whom)]),
                None => continue,
            },
            _ => replica.write(),
        };
    }
    replicas
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0..5u8, 0..9u8, 0..5u8), 0..40)
}

/// All events of `replicas` in an order that `seed` chooses and that respects causality.
fn causal_order(replicas: &[Replica], mut seed: u64) -> Vec<Event> {
    let mut left: BTreeMap<Dot, Event> =
        replicas.iter().flat_map(|replica| &replica.held).map(|event| (event.dot(), event.clone())).collect();
    let (mut ordered, mut seen) = (Vec::new(), Frontier::new());
    while !left.is_empty() {
        let ready: Vec<Dot> = left.iter().filter(|(_, event)| seen.covers(&event.header().past())).map(|(dot, _)| *dot).collect();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let next = ready[(seed >> 33) as usize % ready.len()];
        seen.raise(next);
        ordered.extend(left.remove(&next));
    }
    ordered
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_causal_order_gives_what_the_fold_over_the_set_says(steps in steps(), seeds in any::<[u64; 2]>()) {
        let replicas = play(&steps);
        let orders = seeds.map(|seed| causal_order(&replicas, seed));
        let acts: Vec<Act> = orders[0].iter().filter(|event| event.header().kind == KIND_MEMBERSHIP).map(|event| charter().act(event).unwrap()).collect();
        let specified = fold(&id(0), &acts);
        for order in &orders {
            let mut replica = Replica::new(8);
            for event in order {
                prop_assert_eq!(replica.take(event.clone()), Ok(()), "what one replica kept, every other keeps");
                replica.roster.add(event);
            }
            prop_assert_eq!(&**replica.roster.membership(), &specified);
        }
        let twice: Vec<&Act> = acts.iter().rev().chain(&acts).collect();
        prop_assert_eq!(fold(&id(0), twice), specified, "order and repetition change nothing");
    }

    #[test]
    fn nothing_is_sealed_under_an_epoch_that_only_removed_owners_speak_of(steps in steps()) {
        for replica in play(&steps) {
            let membership = replica.roster.membership();
            let Some(newest) = membership.newest_epoch() else { continue };
            let said = |event: &&Event| event.header().kind == KIND_MEMBERSHIP
                && charter().open(event).unwrap().iter().any(|change| matches!(change, Change::Epoch(said) if said.epoch == newest.id));
            let in_force = |event: &Event| membership.is_in_force(&event.header().device, &event.header().past(), &event.dot());
            prop_assert!(replica.held.iter().filter(said).any(in_force));
        }
    }

    #[test]
    fn there_is_always_an_owner_unless_its_removal_was_meant(steps in steps()) {
        for replica in play(&steps) {
            prop_assert!(replica.roster.membership().owners().next().is_some());
        }
    }

    #[test]
    fn no_event_of_a_device_that_is_out_has_an_effect_unless_the_removals_leave_it(steps in steps()) {
        for replica in play(&steps) {
            let membership = replica.roster.membership();
            for event in replica.held.iter().filter(|event| event.header().kind == KIND_OPERATIONS) {
                let device = event.header().device;
                let left = membership.removals().iter().filter(|removal| removal.device == device).all(|removal| removal.upto.contains(&event.dot()));
                if membership.admittance(&device) == Admittance::Removed && replica.roster.is_in_force(event) && !left {
                    let seen_again = membership.removals().iter().filter(|removal| removal.device == device).any(|removal| event.header().past().contains(&removal.dot));
                    prop_assert!(seen_again, "it was let in again in between");
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(changes) = decode_changes(&bytes) {
            prop_assert_eq!(encode_changes(&changes).unwrap(), bytes);
        }
    }
}
