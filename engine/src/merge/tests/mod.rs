//! The rule by example, its algebra, and every implementation of it against the specification.

mod algebra;
pub(crate) mod history;
mod spec_table;

use super::*;
use history::{World, causal_order, histories};
use proptest::prelude::*;

/// A replica that takes events one by one.
#[derive(Default)]
pub(crate) struct Stepwise {
    all: BTreeMap<Key, Vec<Version>>,
    maximal: BTreeMap<Key, Vec<Version>>,
}

impl Stepwise {
    pub(crate) fn take(&mut self, event: &OpenedEvent) {
        let past = event.past();
        for (index, operation) in event.operations.iter().enumerate() {
            let all = self.all.entry(operation.key().clone()).or_default();
            let (action, chosen) = match operation {
                Operation::Put(_, value) => (Action::Put(value.clone()), None),
                Operation::Delete(_, reason) => (Action::Delete(reason.clone()), None),
                Operation::Resolve(_, chosen) => {
                    let said = all.iter().rfind(|version| version.place.event == *chosen && past.contains(&version.place.dot));
                    let Some(said) = said else { continue };
                    (said.action.clone(), Some(*chosen))
                }
            };
            let version = Version { place: Place::of(event, index), wall_ms: event.wall_ms, action, chosen };
            all.push(version.clone());
            apply(self.maximal.entry(operation.key().clone()).or_default(), version, &past);
        }
    }

    pub(crate) fn resolved(self) -> BTreeMap<Key, Resolved> {
        let resolved = |mut versions: Vec<Version>| Resolved { winner: versions.remove(0), losers: versions };
        self.maximal.into_iter().map(|(key, versions)| (key, resolved(versions))).collect()
    }
}

proptest! {
    #[test]
    fn every_causal_order_steps_to_what_the_specification_says(world in histories(), order in any::<u64>()) {
        for replica in 0..world.replicas() {
            let held = world.held_by(replica);
            let mut stepwise = Stepwise::default();
            causal_order(&held, order).into_iter().for_each(|event| stepwise.take(event));
            prop_assert_eq!(stepwise.resolved(), merge(held));
        }
    }

    #[test]
    fn replicas_with_the_same_events_have_the_same_winners(mut world in histories(), orders in any::<[u64; 2]>()) {
        world.sync_all();
        let [one, other] = orders.map(|order| {
            let mut stepwise = Stepwise::default();
            causal_order(&world.held_by(0), order).into_iter().for_each(|event| stepwise.take(event));
            stepwise.resolved()
        });
        prop_assert_eq!(&one, &other);
        for replica in 0..world.replicas() {
            prop_assert_eq!(&merge(world.held_by(replica)), &one);
        }
    }

    #[test]
    fn union_is_commutative_associative_and_idempotent_with_nothing_as_identity(world in histories()) {
        let [a, b, c] = [0, 1, world.replicas() - 1].map(|replica| world.held_by(replica));
        let union = |sets: &[&[&OpenedEvent]]| merge(sets.concat());
        prop_assert_eq!(union(&[&a, &b]), union(&[&b, &a]));
        let (ab, bc) = ([a.clone(), b.clone()].concat(), [b.clone(), c.clone()].concat());
        prop_assert_eq!(union(&[&ab, &c]), union(&[&a, &bc]));
        prop_assert_eq!(union(&[&a, &a]), union(&[&a]));
        prop_assert_eq!(union(&[&a, &[]]), union(&[&a]));
    }

    #[test]
    fn no_version_in_the_result_is_in_the_past_of_another(world in histories()) {
        for resolved in merge(world.held_by(0)).values() {
            let maximal: Vec<&Version> = std::iter::once(&resolved.winner).chain(&resolved.losers).collect();
            prop_assert!(maximal.is_sorted_by(|higher, lower| higher.place.rank() > lower.place.rank()));
            for version in &maximal {
                let past = world.event(&version.place.event).past();
                prop_assert!(maximal.iter().all(|other| !past.contains(&other.place.dot)));
            }
        }
    }
}

fn only(world: &World) -> Resolved {
    let merged = merge(world.events());
    assert_eq!(merged.len(), 1);
    merged.into_values().next().expect("one key")
}

#[test]
fn a_version_that_has_seen_the_other_wins_without_conflict() {
    let mut world = World::new(2);
    world.put(1, "k");
    world.sync(1, 0);
    let newer = world.delete(0, "k");
    let resolved = only(&world);
    assert_eq!((resolved.winner.place.event, resolved.losers.len()), (newer, 0));
}

#[test]
fn versions_unaware_of_each_other_conflict_and_the_later_in_logical_time_wins() {
    let mut world = World::new(2);
    world.put(0, "k");
    let later = world.put(0, "k");
    let other = world.put(1, "k");
    let resolved = only(&world);
    assert_eq!((resolved.winner.place.event, resolved.losers[0].place.event), (later, other));
}

#[test]
fn at_the_same_logical_time_the_higher_author_wins() {
    let mut world = World::new(2);
    world.put(1, "k");
    world.put(0, "k");
    assert_eq!(only(&world).winner.place.dot.author, world.author(1));
    assert!(world.author(1) > world.author(0));
}

#[test]
fn versions_that_say_the_same_are_no_conflict_whoever_wrote_them() {
    let mut world = World::new(3);
    world.write(0, |_| vec![history::put_of("k", 1)]);
    world.write(1, |_| vec![history::put_of("k", 1)]);
    let resolved = only(&world);
    assert_eq!((resolved.losers.len(), resolved.rule(0)), (1, Rule::Agreement));
    world.delete(2, "k");
    assert_eq!(only(&world).rule(0), Rule::HigherAuthor);
}

#[test]
fn a_resolution_says_what_it_chose_and_ends_the_conflict() {
    let mut world = World::new(2);
    let mine = world.put(0, "k");
    world.delete(1, "k");
    world.sync(1, 0);
    let decided = world.resolve(0, "k", mine);
    let resolved = only(&world);
    assert_eq!((resolved.winner.place.event, resolved.winner.chosen), (decided, Some(mine)));
    assert!(resolved.winner.value().is_some() && resolved.losers.is_empty());
}

#[test]
fn a_resolution_does_not_touch_what_it_has_not_seen() {
    let mut world = World::new(3);
    let mine = world.put(0, "k");
    world.put(1, "k");
    let unseen = world.put(2, "k");
    world.sync(1, 0);
    world.resolve(0, "k", mine);
    assert_eq!(only(&world).losers[0].place.event, unseen);
}

#[test]
fn a_resolution_of_an_event_outside_its_past_or_silent_on_the_key_is_no_version() {
    let mut world = World::new(2);
    let silent = world.put(0, "other");
    let put = world.put(0, "k");
    let unseen = world.put(1, "k");
    world.resolve(0, "k", unseen);
    world.resolve(0, "k", silent);
    world.resolve(0, "k", EventId::from_bytes([9; 32]));
    let merged = merge(world.events());
    let resolved = &merged[&history::key("k")];
    let mut maximal = [resolved.winner.place.event, resolved.losers[0].place.event];
    maximal.sort();
    let mut expected = [put, unseen];
    expected.sort();
    assert_eq!(maximal, expected);
}

#[test]
fn the_last_word_of_one_event_counts() {
    let mut world = World::new(1);
    world.write(0, |_| vec![history::put_of("k", 1), Operation::Delete(history::key("k"), None)]);
    let resolved = only(&world);
    assert_eq!((resolved.winner.place.index, resolved.winner.value(), resolved.losers.len()), (1, None, 0));
}
