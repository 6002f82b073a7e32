use super::*;
use crate::{
    event::Dot,
    store::{LogPosition, Pending, Standing},
};

fn copy_chunks(from: &Store, to: &Store, lists: &[ChunkList]) {
    let mut writer = to.writer();
    for list in lists {
        for entry in list.entries() {
            let frame = from.read_frame(&entry.id).unwrap().unwrap();
            writer.append(Verified::check(&frame).unwrap()).unwrap();
        }
    }
    writer.checkpoint().unwrap();
}

#[test]
fn an_appended_event_is_there_with_its_lists_after_reopening() {
    let dir = Dir::new();
    let store = dir.open();
    let author = Author::new(1);
    let list = put(&store, &chunks(0..5));
    let event = author.append(&store, std::slice::from_ref(&list)).unwrap();
    let root = store.root();
    for store in [store, dir.open()] {
        assert_eq!(store.root(), root);
        assert_eq!(store.frontier().sequence_of(&author.id()), 1);
        assert_eq!(store.event(&event.dot()).unwrap().as_ref(), Some(&event));
        assert_eq!(store.event_by_id(&event.id()).unwrap().as_ref(), Some(&event));
        assert_eq!(store.list(&list.id()).unwrap().as_ref(), Some(&list));
        assert_eq!(all_events(&store), [(event.clone(), vec![list.clone()])]);
        assert_eq!(store.counts().unwrap().events, 1);
    }
}

#[test]
fn an_event_whose_chunks_are_not_published_is_refused() {
    let dir = Dir::new();
    let store = dir.open();
    let frames = chunks(0..4);
    put(&store, &frames[..3]);
    let mut writer = store.writer();
    writer.append(frames[3].verified()).unwrap();
    writer.flush().unwrap();
    let error = Author::new(1).append(&store, &[list_of(&frames)]).unwrap_err();
    assert!(matches!(error, StoreError::MissingChunks { missing: 1, first, .. } if first == id_of(&frames[3])), "written is not durable");
    writer.checkpoint().unwrap();
    Author::new(1).append(&store, &[list_of(&frames)]).unwrap();
}

#[test]
fn lists_other_than_those_named_are_refused() {
    let dir = Dir::new();
    let store = dir.open();
    let (one, two) = (put(&store, &chunks(0..2)), put(&store, &chunks(2..4)));
    let event = Author::new(1).sign(&first_slot(), &[one], b"");
    assert!(matches!(store.append_foreign(&[(event, vec![two])]), Err(StoreError::InvalidEvent { .. })));
}

#[test]
fn two_replicas_that_exchange_events_have_equal_roots() {
    let (left_dir, right_dir) = (Dir::new(), Dir::new());
    let (left, right) = (left_dir.open(), right_dir.open());
    let (a, b) = (Author::new(1), Author::new(2));
    for round in 0..4 {
        let list = put(&left, &chunks(round * 10..round * 10 + 3));
        a.append(&left, &[list]).unwrap();
        b.append(&right, &[]).unwrap();
        let to_right = left.events_beyond(&right.frontier(), LogPosition::START, usize::MAX).unwrap();
        to_right.events.iter().for_each(|(_, lists)| copy_chunks(&left, &right, lists));
        assert_eq!(right.append_foreign(&to_right.events).unwrap().len(), 1);
        let to_left = right.events_beyond(&left.frontier(), LogPosition::START, usize::MAX).unwrap();
        assert_eq!(left.append_foreign(&to_left.events).unwrap().len(), 1);
        assert_eq!(left.append_foreign(&to_left.events).unwrap(), [], "held already");
        assert_eq!(left.root(), right.root());
    }
    let lamport = a.append(&left, &[]).unwrap().header().lamport;
    assert_eq!(lamport, 9 - 4, "each round both went one further, at the same time");
}

#[test]
fn several_processes_append_and_all_see_all() {
    let dir = Dir::new();
    let stores = [dir.open(), dir.open(), dir.open()];
    std::thread::scope(|scope| {
        for (seed, store) in stores.iter().enumerate() {
            scope.spawn(move || (0..20).for_each(|_| _ = Author::new(seed as u8).append(store, &[]).unwrap()));
        }
    });
    for store in &stores {
        store.refresh().unwrap();
        assert_eq!(store.frontier().iter().map(|(_, sequence)| sequence).collect::<Vec<_>>(), [20, 20, 20]);
        assert_eq!(store.root(), stores[0].root());
        assert_eq!(store.counts().unwrap().events, 60);
    }
    assert_eq!(dir.open().root(), stores[0].root());
}

#[test]
fn one_author_in_two_processes_does_not_fork() {
    let dir = Dir::new();
    let (one, two) = (dir.open(), dir.open());
    let author = Author::new(1);
    for _ in 0..5 {
        author.append(&one, &[]).unwrap();
        author.append(&two, &[]).unwrap();
    }
    assert_eq!(two.frontier().sequence_of(&author.id()), 10);
}

/// What a store that holds one event of author 1 says to `event`.
fn offered(event: &Event) -> Result<Standing, StoreError> {
    let dir = Dir::new();
    let store = dir.open();
    Author::new(1).append(&store, &[]).unwrap();
    let answer = store.check_event(event, &Pending::new());
    assert_eq!(store.append_foreign(&[(event.clone(), vec![])]).is_ok(), answer.is_ok(), "both ways say the same");
    answer
}

fn held_by(dir: &Dir) -> Event {
    Author::new(1).append(&dir.open(), &[]).unwrap()
}

#[test]
fn a_fork_is_named_with_both_events() {
    let ours = held_by(&Dir::new());
    let theirs = Author::new(1).sign(&first_slot(), &[], b"another body");
    let answer = offered(&theirs);
    let both = (ours.id(), theirs.id());
    assert!(matches!(answer, Err(StoreError::Fork { dot, ours, theirs }) if dot.sequence == 1 && (ours, theirs) == both), "{answer:?}");
    assert_eq!(offered(&ours).unwrap(), Standing::Held);
}

#[test]
fn only_the_exact_lamport_is_accepted() {
    let previous = held_by(&Dir::new());
    for (lamport, is_right) in [(1, false), (2, true), (3, false), (u64::MAX - 1, false)] {
        let slot = Slot { sequence: 2, previous: Some(previous.id()), lamport, deps: Frontier::new() };
        let answer = offered(&Author::new(1).sign(&slot, &[], b""));
        assert_eq!(answer.is_ok(), is_right, "{lamport}: {answer:?}");
    }
    let deps: Frontier = [previous.dot()].into_iter().collect();
    for (lamport, is_right) in [(1, false), (2, true), (3, false)] {
        let slot = Slot { lamport, deps: deps.clone(), ..first_slot() };
        assert_eq!(offered(&Author::new(2).sign(&slot, &[], b"")).is_ok(), is_right, "{lamport}");
    }
}

#[test]
fn a_broken_chain_and_missing_dependencies_are_refused() {
    let previous = held_by(&Dir::new());
    let other = Author::new(9).sign(&first_slot(), &[], b"");
    let wrong = Slot { sequence: 2, previous: Some(other.id()), lamport: 2, deps: Frontier::new() };
    let answer = offered(&Author::new(1).sign(&wrong, &[], b""));
    assert!(matches!(answer, Err(StoreError::Fork { dot, theirs, .. }) if dot == previous.dot() && theirs == other.id()), "{answer:?}");
    let hole = Slot { sequence: 3, previous: Some(previous.id()), lamport: 3, deps: Frontier::new() };
    let missing = Dot { author: Author::new(1).id(), sequence: 2 };
    assert!(matches!(offered(&Author::new(1).sign(&hole, &[], b"")), Err(StoreError::MissingDependency(dot)) if dot == missing));
    let ahead = Slot { deps: [missing].into_iter().collect(), lamport: 2, ..first_slot() };
    assert!(matches!(offered(&Author::new(2).sign(&ahead, &[], b"")), Err(StoreError::MissingDependency(dot)) if dot == missing));
}

#[test]
fn a_batch_may_depend_on_itself_and_is_taken_whole_or_not_at_all() {
    let source = Dir::new();
    let from = source.open();
    for seed in [1, 2, 1, 3, 2] {
        Author::new(seed).append(&from, &[]).unwrap();
    }
    let events = all_events(&from);
    let target = Dir::new();
    let store = target.open();
    let mut backwards = events.clone();
    backwards.reverse();
    assert!(matches!(store.append_foreign(&backwards), Err(StoreError::MissingDependency(_))));
    let mut ends_badly = events.clone();
    ends_badly.push((Author::new(5).sign(&Slot { lamport: 7, ..first_slot() }, &[], b""), vec![]));
    assert!(store.append_foreign(&ends_badly).is_err());
    assert!(store.heads().0.is_empty());
    let mut pending = Pending::new();
    for (event, _) in &events {
        assert_eq!(store.check_event(event, &pending).unwrap(), Standing::New);
        pending.add(event);
    }
    assert_eq!(store.append_foreign(&events).unwrap().len(), 5);
    assert_eq!((store.root(), target.open().root()), (from.root(), from.root()));
}

#[test]
fn the_log_is_read_in_pages_in_causal_order() {
    let dir = Dir::new();
    let store = dir.open();
    (0..30).for_each(|turn| _ = Author::new(turn % 3).append(&store, &[]).unwrap());
    let (mut after, mut seen) = (LogPosition::START, Vec::new());
    loop {
        let page = store.events_from(after, 2_000).unwrap();
        let Some((next, _)) = page.last() else { break };
        assert!(*next > after && page.len() < 30);
        after = *next;
        seen.extend(page.into_iter().map(|(_, event)| event.header().lamport));
    }
    assert_eq!(seen, (1..=30).collect::<Vec<_>>());
}

#[test]
fn what_a_peer_lacks_comes_in_pages_and_nothing_else_does() {
    let dir = Dir::new();
    let store = dir.open();
    for turn in 0..30 {
        let list = put(&store, &chunks(turn..turn + 1));
        Author::new((turn % 3) as u8).append(&store, &[list]).unwrap();
    }
    let frontier: Frontier =
        [Dot { author: Author::new(0).id(), sequence: 9 }, Dot { author: Author::new(1).id(), sequence: 4 }].into_iter().collect();
    let (mut after, mut dots) = (LogPosition::START, Vec::new());
    loop {
        let batch = store.events_beyond(&frontier, after, 1_000).unwrap();
        dots.extend(batch.events.iter().map(|(event, lists)| {
            assert_eq!(lists.len(), 1);
            event.dot()
        }));
        after = batch.next;
        if batch.done {
            break;
        }
    }
    assert!(dots.iter().all(|dot| !frontier.contains(dot)));
    assert_eq!(dots.len() as u64, store.frontier().events_beyond(&frontier));
    let nothing = store.events_beyond(&store.frontier(), LogPosition::START, 1_000).unwrap();
    assert!(nothing.events.is_empty() && nothing.done);
}
