use super::*;
use crate::limits::PENDING_EVENTS_MAX;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn waiting(author: u8, body: u8) -> (Event, Vec<ChunkList>) {
    let lists = vec![list_of(&chunks(u64::from(body)..u64::from(body) + 2))];
    (Author::new(author).sign(&first_slot(), &lists, &[body]), lists)
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
    for author in 0..PENDING_EVENTS_MAX as u8 {
        store.journal_put(&Author::new(author).sign(&first_slot(), &[], b""), &[]).unwrap();
    }
    let (event, lists) = waiting(200, 1);
    assert!(matches!(store.journal_put(&event, &lists), Err(StoreError::JournalFull)));
    assert_eq!(store.journal_pending().unwrap().len(), PENDING_EVENTS_MAX);
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
