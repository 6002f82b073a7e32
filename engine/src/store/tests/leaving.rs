//! Branches that were left.

use super::{Author, Dir, Slot, first_slot};
use crate::{
    event::{Event, Frontier},
    store::{Pending, StoreError},
};

fn after(event: &Event, body: &[u8]) -> Event {
    let header = event.header();
    let (sequence, lamport) = (header.sequence + 1, header.lamport + 1);
    Author::new(1).sign(&Slot { sequence, previous: Some(event.id()), lamport, deps: Frontier::new() }, &[], body)
}

/// A first event and two branches of two events behind it.
fn forked() -> (Event, [Event; 2], [Event; 2]) {
    let root = Author::new(1).sign(&first_slot(), &[], b"root");
    let branch = |body: &[u8]| {
        let second = after(&root, body);
        let third = after(&second, body);
        [second, third]
    };
    let (ours, theirs) = (branch(b"ours"), branch(b"theirs"));
    (root, ours, theirs)
}

fn appended(events: &[&Event]) -> Vec<(Event, Vec<crate::event::ChunkList>)> {
    events.iter().map(|event| (Event::clone(event), Vec::new())).collect()
}

#[test]
fn what_was_left_does_not_count_is_kept_and_does_not_come_back_and_the_other_branch_does() {
    let (dir, (root, ours, theirs)) = (Dir::new(), forked());
    let author = root.author();
    let store = dir.open();
    store.append_foreign(&appended(&[&root, &ours[0], &ours[1]])).unwrap();
    store.keep_aside(&theirs[1], &[]).unwrap();
    assert_eq!(store.fork_begins(&author).unwrap(), None, "it may fork earlier");
    assert_eq!(store.shared_of_forks().unwrap().sequence_of(&author), 1);
    store.keep_aside(&theirs[0], &[]).unwrap();
    assert_eq!(store.fork_begins(&author).unwrap(), Some(2));
    let seen = store.heads();
    store.leave_branch(&store.branch_of(&author).unwrap().unwrap()).unwrap();
    drop(store);
    let check = |store: &crate::store::Store| {
        store.expect(&seen);
        assert_eq!(store.lost(), [], "what was left is not missed");
        let left = store.left_branch(&author).unwrap().unwrap();
        assert_eq!(left.events.iter().map(|(event, _)| event.id()).collect::<Vec<_>>(), [ours[0].id(), ours[1].id()]);
    };
    let store = dir.open();
    check(&store);
    assert_eq!((store.frontier().sequence_of(&author), store.forks().len()), (1, 1));
    let refused = store.check_event(&ours[0], &Pending::new());
    assert!(matches!(refused, Err(StoreError::Fork { .. })), "{refused:?}");
    store.append_foreign(&appended(&[&theirs[0], &theirs[1]])).unwrap();
    drop(store);
    // Also when the index is made anew from the files.
    std::fs::remove_file(dir.path().join("index.db")).unwrap();
    let (store, _) = dir.open_mending();
    check(&store);
    assert_eq!(store.heads().0[&author].event, theirs[1].id());
    assert_eq!(store.forks().len(), 1);
}

#[test]
fn a_file_that_no_fork_bears_out_hides_nothing() {
    let (dir, (root, ours, theirs)) = (Dir::new(), forked());
    let author = root.author();
    let store = dir.open();
    store.append_foreign(&appended(&[&root, &ours[0], &ours[1]])).unwrap();
    let proof = theirs.iter().map(|event| store.keep_aside(event, &[]).map(|_| event.id())).collect::<Result<Vec<_>, _>>().unwrap();
    store.leave_branch(&store.branch_of(&author).unwrap().unwrap()).unwrap();
    drop(store);
    for id in proof {
        std::fs::remove_file(dir.path().join(format!("log/forks/{id}.event"))).unwrap();
    }
    std::fs::remove_file(dir.path().join("index.db")).unwrap();
    assert_eq!(dir.open_mending().0.heads().0[&author].event, ours[1].id());
}
