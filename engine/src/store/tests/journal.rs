use super::*;
use crate::limits::PENDING_EVENTS_MAX;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn waiting(author: u8, body: u8) -> (Event, Vec<ChunkList>) {
    let lists = vec![list_of(&chunks(u64::from(body)..u64::from(body) + 2))];
    (Author::new(author).sign(&first_slot(), &lists, &[body]), lists)
}

/// So many events of as many authors.
fn many(count: usize) -> Vec<Event> {
    let author = |n: usize| Author { incarnation: Incarnation((n as u128).to_le_bytes()), ..Author::new(1) };
    (0..count).map(|n| author(n).sign(&first_slot(), &[], b"")).collect()
}

#[test]
fn what_waits_survives_reopening_and_its_lists_with_it() {
    let dir = Dir::new();
    let (event, lists) = waiting(1, 7);
    dir.open().journal_put(&event, &lists).unwrap();
    assert_eq!(dir.open().journal_pending().unwrap(), [(event, lists)]);
}

#[test]
fn an_event_that_is_in_the_log_by_now_does_not_wait() {
    let dir = Dir::new();
    let store = dir.open();
    let event = Author::new(1).append(&store, &[]).unwrap();
    store.journal_put(&event, &[]).unwrap();
    assert_eq!(store.journal_pending().unwrap(), []);
}

#[test]
fn a_full_journal_refuses_and_stays_as_it_is() {
    let dir = Dir::new();
    let store = dir.open();
    let full = many(PENDING_EVENTS_MAX);
    assert_eq!(store.journal_put_each(full.iter().map(|event| (event, [].as_slice()))).unwrap(), PENDING_EVENTS_MAX);
    let (event, lists) = waiting(200, 1);
    assert!(matches!(store.journal_put(&event, &lists), Err(StoreError::JournalFull)));
    assert_eq!(store.journal_pending().unwrap().len(), PENDING_EVENTS_MAX);
}

#[test]
fn of_events_put_together_those_that_fit_are_kept() {
    let dir = Dir::new();
    let store = dir.open();
    let events = many(PENDING_EVENTS_MAX + 2);
    let each = |events: &[Event]| store.journal_put_each(events.iter().map(|event| (event, [].as_slice()))).unwrap();
    assert_eq!(each(&events[..PENDING_EVENTS_MAX - 1]), PENDING_EVENTS_MAX - 1);
    assert_eq!(each(&events[PENDING_EVENTS_MAX - 2..]), 2, "one is replaced, one fits, two do not");
    let kept: Vec<Event> = store.journal_pending().unwrap().into_iter().map(|(event, _)| event).collect();
    assert_eq!(kept.len(), PENDING_EVENTS_MAX);
    assert!(events[..PENDING_EVENTS_MAX].iter().all(|event| kept.contains(event)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_journal_is_a_map_by_place(steps in proptest::collection::vec((any::<bool>(), 0u8..5, 0u8..4), 0..20)) {
        let dir = Dir::new();
        let store = dir.open();
        let mut model = BTreeMap::new();
        for (put, author, body) in steps {
            let (event, lists) = waiting(author, body);
            if put {
                store.journal_put(&event, &lists).unwrap();
                model.insert(event.dot(), (event, lists));
            } else {
                store.journal_remove(&[event.dot()]).unwrap();
                model.remove(&event.dot());
            }
            let mut pending = store.journal_pending().unwrap();
            pending.sort_by_key(|(event, _)| event.dot());
            prop_assert_eq!(&pending, &model.values().cloned().collect::<Vec<_>>());
        }
    }
}
