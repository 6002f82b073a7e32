//! The algebra of the merge: what replicas see depends on the set of events that they hold, and on nothing else.
//!
//! Once for the specification, which takes sets, and once for replicas that take events one by one and join what another one holds.

use super::{
    Stepwise,
    history::{World, causal_order, histories, key, put_of},
};
use crate::{
    event::{Key, Operation},
    id::EventId,
    merge::{Agreement, OpenedEvent, Resolved, Rule, merge},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Seen = BTreeMap<Key, Resolved>;

/// What is seen by a replica that took these sets one after the other, each in a causal order of its own, what it has already left out.
fn joined(sets: &[&[&OpenedEvent]], order: u64) -> Seen {
    let (mut stepwise, mut held) = (Stepwise::default(), BTreeSet::<EventId>::new());
    for (nth, set) in sets.iter().enumerate() {
        let new = causal_order(set, order.wrapping_add(nth as u64)).into_iter().filter(|event| held.insert(event.id));
        new.collect::<Vec<_>>().into_iter().for_each(|event| stepwise.take(event));
    }
    stepwise.resolved()
}

/// An order that nothing but `seed` decides, causes after effects included.
fn shuffled(mut events: Vec<&OpenedEvent>, seed: u64) -> Vec<&OpenedEvent> {
    let rank = |(place, event): (usize, &OpenedEvent)| {
        *blake3::hash(&[event.id.as_bytes().as_slice(), &seed.to_le_bytes(), &place.to_le_bytes()].concat()).as_bytes()
    };
    let mut ranked: Vec<_> = events.drain(..).enumerate().map(|(place, event)| (rank((place, event)), event)).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, event)| event).collect()
}

fn standing(resolved: &Resolved) -> Vec<EventId> {
    std::iter::once(&resolved.winner).chain(&resolved.losers).map(|version| version.place.event).collect()
}

proptest! {
    #[test]
    fn joining_is_commutative_associative_and_idempotent_with_nothing_as_identity(world in histories(), order in any::<u64>()) {
        let [a, b, c] = [0, 1, world.replicas() - 1].map(|replica| world.held_by(replica));
        let join = |sets: &[&[&OpenedEvent]]| joined(sets, order);
        prop_assert_eq!(join(&[&a, &b]), join(&[&b, &a]));
        let bc = [b.clone(), c.clone().into_iter().filter(|event| !b.contains(event)).collect()].concat();
        prop_assert_eq!(join(&[&a, &b, &c]), join(&[&a, &bc]));
        prop_assert_eq!(join(&[&a, &a]), join(&[&a]));
        prop_assert_eq!(join(&[&a, &[]]), join(&[&a]));
        prop_assert_eq!(join(&[&[], &a]), join(&[&a]));
        prop_assert_eq!(join(&[&a, &b, &c]), merge([a, b, c].concat()), "and all of it is what the specification says");
    }

    #[test]
    fn any_order_of_delivery_and_ten_deliveries_of_each_event_change_nothing(world in histories(), seed in any::<u64>()) {
        for replica in 0..world.replicas() {
            let held = world.held_by(replica);
            let delivered = shuffled(held.repeat(10), seed);
            prop_assert_eq!(merge(delivered), merge(held));
        }
    }

    /// Whatever else a replica holds: what was chosen between is history, and only what the chooser had not seen stands beside the choice.
    #[test]
    fn a_resolution_dominates_what_its_author_saw_on_every_replica(
        mut world in histories(), author in 0..5_usize, choice in any::<usize>(), name in "[a-d]"
    ) {
        let author = author % world.replicas();
        let seen = merge(world.held_by(author)).get(&key(&name)).map(standing).unwrap_or_default();
        prop_assume!(!seen.is_empty());
        let decided = world.resolve(author, &name, seen[choice % seen.len()]);
        for replica in 0..world.replicas() {
            world.sync(author, replica);
            let resolved = merge(world.held_by(replica)).remove(&key(&name)).expect("it stands");
            let stands = standing(&resolved);
            prop_assert!(stands.iter().all(|event| !seen.contains(event)), "{stands:?} of {seen:?}");
            let past = world.event(&decided).past();
            let unseen = |event: &EventId| *event == decided || !past.contains(&world.event(event).dot);
            prop_assert!(stands.iter().all(unseen));
        }
        let resolved = merge(world.held_by(author)).remove(&key(&name)).expect("it stands");
        prop_assert_eq!((resolved.winner.place.event, resolved.losers.len()), (decided, 0));
        let edited = world.put(author, &name);
        let resolved = merge(world.held_by(author)).remove(&key(&name)).expect("it stands");
        prop_assert_eq!(standing(&resolved), vec![edited], "a later edit beats the decision");
    }

    /// Equal values from replicas that did not know of each other are no conflict, until one says something else.
    #[test]
    fn equal_values_agree_whatever_came_before_and_one_other_breaks_it(mut world in histories(), other in 0..5_usize) {
        world.sync_all();
        let replicas = world.replicas();
        (0..replicas).for_each(|replica| _ = world.write(replica, |_| vec![put_of("e", 1)]));
        let resolved = merge(world.events()).remove(&key("e")).expect("it stands");
        prop_assert_eq!((resolved.agreement(), resolved.rule(0), resolved.losers.len()), (Agreement::Whole, Rule::Agreement, replicas - 1));
        world.write(other % replicas, |_| vec![Operation::Delete(key("e"), None)]);
        let resolved = merge(world.events()).remove(&key("e")).expect("it stands");
        prop_assert_eq!(resolved.agreement(), Agreement::Broken);
        prop_assert_eq!(standing(&resolved).len(), replicas, "each author has one version that stands");
    }
}

#[test]
fn of_nothing_nothing_stands() {
    assert_eq!((merge([]), joined(&[], 0)), (Seen::new(), Seen::new()));
    assert_eq!(merge(World::new(2).events()), Seen::new());
}
