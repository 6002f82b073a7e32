//! Logs that their authors have forked.

use super::{Author, Dir, Slot, first_slot};
use crate::{
    event::{Dot, Event, Frontier},
    frame,
    store::{KeptAside, Pending, Standing, Store, StoreError},
};

/// The first event of author 1, and two branches behind it: one event, and three.
struct Forked {
    root: Event,
    short: Event,
    long: Vec<Event>,
}

fn after(event: &Event, body: &[u8]) -> Event {
    let header = event.header();
    let (sequence, lamport) = (header.sequence + 1, header.lamport + 1);
    Author::new(1).sign(&Slot { sequence, previous: Some(event.id()), lamport, deps: Frontier::new() }, &[], body)
}

impl Forked {
    fn new() -> Self {
        let root = Author::new(1).sign(&first_slot(), &[], b"root");
        let second = after(&root, b"long");
        let third = after(&second, b"long");
        let fourth = after(&third, b"long");
        Self { short: after(&root, b"short"), long: vec![second, third, fourth], root }
    }

    fn store_with_short(&self, dir: &Dir) -> Store {
        let store = dir.open();
        store.append_foreign(&[(self.root.clone(), vec![]), (self.short.clone(), vec![])]).unwrap();
        store
    }
}

fn dot(sequence: u64) -> Dot {
    Dot { author: Author::new(1).id(), sequence }
}

#[test]
fn an_event_of_another_branch_is_a_fork_by_its_number_or_by_what_it_follows() {
    let (dir, forked) = (Dir::new(), Forked::new());
    let store = forked.store_with_short(&dir);
    for event in &forked.long[..2] {
        let answer = store.check_event(event, &Pending::new());
        let place = dot(2);
        assert!(matches!(answer, Err(StoreError::Fork { dot, .. }) if dot == place), "{answer:?}");
    }
}

#[test]
fn what_is_kept_aside_proves_the_fork_and_is_there_after_every_opening() {
    let (dir, forked) = (Dir::new(), Forked::new());
    let store = forked.store_with_short(&dir);
    assert_eq!(store.forks(), []);
    let [second, third, _] = &forked.long[..] else { unreachable!() };
    assert_eq!(store.keep_aside(third, &[]).unwrap(), KeptAside::New);
    assert_eq!(store.keep_aside(third, &[]).unwrap(), KeptAside::Known);
    let fork = store.fork_of(&dot(1).author).unwrap();
    assert_eq!((fork.dot, fork.events, fork.records), (dot(2), [forked.short.id(), second.id()], [forked.short.id(), third.id()]));
    assert_eq!(store.aside_frontier(), Frontier::from_iter([dot(3)]));
    let root = store.root();
    drop(store);
    dir.remove_index();
    let (store, _) = dir.open_mending();
    assert_eq!((store.forks(), store.root()), (vec![fork], root), "the log is as it was");
    assert_eq!(store.event_anywhere(&third.id()).unwrap().as_ref(), Some(third));
    assert!(store.is_aside(&third.id()) && !store.is_aside(&forked.short.id()));
}

#[test]
fn a_proof_convinces_a_replica_that_holds_neither_branch_and_no_two_events_that_agree_do() {
    let forked = Forked::new();
    let (here, there) = (Dir::new(), Dir::new());
    let store = forked.store_with_short(&here);
    store.keep_aside(&forked.long[0], &[]).unwrap();
    let proof = store.proof_of(&dot(1).author).unwrap().unwrap();
    assert_eq!(frame::split(&proof).count(), 2);
    let third = there.open();
    for (first, second) in [(&forked.root, &forked.short), (&forked.long[0], &forked.long[1]), (&forked.root, &forked.root)] {
        assert!(matches!(third.take_proof(first, second), Err(StoreError::InvalidEvent { .. })));
    }
    assert_eq!(third.take_proof(&forked.short, &forked.long[0]).unwrap().unwrap().dot, dot(2));
    assert_eq!(third.take_proof(&forked.short, &forked.long[0]).unwrap(), None, "no news");
    assert_eq!(third.aside_frontier(), Frontier::new(), "the log itself still takes one of the branches");
    third.append_foreign(&[(forked.root.clone(), vec![]), (forked.long[0].clone(), vec![]), (forked.long[1].clone(), vec![])]).unwrap();
    assert_eq!(third.frontier(), Frontier::from_iter([dot(3)]));
    assert_eq!(third.forks().len(), 1);
}

#[test]
fn with_a_proof_comes_the_branch_that_others_may_have_seen() {
    let forked = Forked::new();
    let (here, there) = (Dir::new(), Dir::new());
    let store = forked.store_with_short(&here);
    forked.long.iter().for_each(|event| assert_eq!(store.keep_aside(event, &[]).unwrap(), KeptAside::New));
    let slot = Slot { deps: Frontier::from_iter([dot(4)]), lamport: 5, ..first_slot() };
    let reader = Author::new(2).sign(&slot, &[], b"has seen the long branch");
    store.append_foreign(&[(reader, vec![])]).unwrap();
    let proof = store.proof_of(&dot(1).author).unwrap().unwrap();
    let events: Vec<Event> =
        frame::split(&proof).map(|frame| Event::check(frame.unwrap().1[frame::HEADER_BYTES..].to_vec(), &super::VAULT).unwrap()).collect();
    // A new replica, which has only what the log of the first one holds.
    let new = there.open();
    new.take_branch(&events[2..]).unwrap();
    assert_eq!(new.events_aside(), [], "nothing proves that it should be kept");
    new.take_proof(&events[0], &events[1]).unwrap();
    new.take_branch(&events[2..]).unwrap();
    assert!(forked.long.iter().all(|event| new.is_aside(&event.id())));
    new.append_foreign(&super::all_events(&store)).unwrap();
    assert_eq!(new.root(), store.root());
}

#[test]
fn what_others_saw_of_the_other_branch_is_satisfied_by_what_is_kept_aside() {
    let (dir, forked) = (Dir::new(), Forked::new());
    let store = forked.store_with_short(&dir);
    let reader = |lamport| {
        let slot = Slot { deps: Frontier::from_iter([dot(4)]), lamport, ..first_slot() };
        Author::new(2).sign(&slot, &[], b"has seen the long branch")
    };
    let check = |event: &Event| store.check_event(event, &Pending::new());
    assert!(matches!(check(&reader(5)), Err(StoreError::MissingDependency(missing)) if missing == dot(4)));
    forked.long.iter().for_each(|event| assert_eq!(store.keep_aside(event, &[]).unwrap(), KeptAside::New));
    assert_eq!(check(&reader(5)).unwrap(), Standing::New);
    for lamport in [1, 4, 6, 1 << 63, u64::MAX - 1] {
        assert!(matches!(check(&reader(lamport)), Err(StoreError::InvalidEvent { .. })), "{lamport}");
    }
    store.append_foreign(&[(reader(5), vec![])]).unwrap();
    let (root, index) = (store.root(), dir.path().join("index.db"));
    drop(store);
    std::fs::remove_file(index).unwrap();
    assert_eq!(dir.open_mending().0.root(), root, "a log that builds on what is aside is read whole again");
}
