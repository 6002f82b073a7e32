use super::*;
use crate::{
    event::{Frontier, Key, Operation},
    id::{ChunkId, PlaintextId},
    merge::{
        Agreement, OpenedEvent, Resolved, Rule, Version, merge,
        tests::history::{World, causal_order, histories, key, put_of},
    },
};
use proptest::prelude::*;
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf, thread};
use tempfile::TempDir;

const VAULT: VaultId = VaultId::from_bytes([1; 32]);
const REPLICA: ReplicaId = ReplicaId::from_bytes([2; 32]);

struct Place {
    _dir: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    Place { path: dir.path().join("view.db"), _dir: dir }
}

fn open(place: &Place) -> View {
    View::open(Some(&place.path), &VAULT, &REPLICA).unwrap()
}

pub(crate) fn in_memory() -> View {
    View::open(None, &VAULT, &REPLICA).unwrap()
}

/// The log of these tests: one event a byte, one segment.
pub(crate) fn take(view: &mut View, batch: &[OpenedEvent]) {
    let (segment, offset) = view.position().unwrap();
    let outcome = view.apply(batch, &[], (segment, offset)..(segment, offset + batch.len() as u64)).unwrap();
    assert_eq!(outcome, Outcome::Applied);
}

fn view_of(world: &World) -> View {
    let mut view = in_memory();
    take(&mut view, world.events());
    view
}

fn put_event(sequence: u64, operations: Vec<Operation>) -> OpenedEvent {
    let id = EventId::from_bytes(*blake3::hash(&sequence.to_le_bytes()).as_bytes());
    OpenedEvent { dot: Dot { author: REPLICA, sequence }, id, lamport: sequence, wall_ms: 0, deps: Frontier::new(), operations }
}

fn keys_of(rows: &[VersionRow]) -> Vec<String> {
    rows.iter().map(|row| row.key.to_text().into_owned()).collect()
}

/// Everything that `scan` has, a page of `limit` at a time.
fn paged(view: &View, prefix: &[u8], deleted: Deleted, limit: usize) -> Vec<VersionRow> {
    let mut rows: Vec<VersionRow> = Vec::new();
    loop {
        let page = view.scan(prefix, rows.last().map(|row| &row.key), deleted, limit).unwrap();
        assert!(page.len() <= limit);
        if page.is_empty() {
            return rows;
        }
        rows.extend(page);
    }
}

/// The view says exactly what the specification says of `events`.
pub(crate) fn assert_is_merge_of(view: &View, events: &[&OpenedEvent]) {
    let expected = merge(events.iter().copied());
    let rows = paged(view, b"", Deleted::Shown, 3);
    let winners: BTreeMap<Key, Version> = rows.into_iter().map(|row| (row.key, row.version)).collect();
    assert_eq!(winners, expected.iter().map(|(key, resolved)| (key.clone(), resolved.winner.clone())).collect());
    let conflicts: BTreeMap<Key, _> = view.conflicts(b"", None, usize::MAX).unwrap().into_iter().collect();
    assert_eq!(
        conflicts,
        expected.iter().filter(|(_, it)| it.agreement() == Agreement::Broken).map(|(key, it)| (key.clone(), it.clone())).collect()
    );
    let live = expected.values().filter(|resolved| resolved.winner.value().is_some()).count();
    assert_eq!(view.counts().unwrap(), Counts { keys: live as u64, conflicts: conflicts.len() as u64 });
    for (key, resolved) in &expected {
        let versions = view.versions(key).unwrap();
        assert!(versions.is_sorted_by_key(|row| row.version.place));
        let maximal: Vec<_> = versions.iter().rev().filter(|row| row.standing != Standing::Superseded).map(|row| &row.version).collect();
        assert_eq!(maximal, std::iter::once(&resolved.winner).chain(&resolved.losers).collect::<Vec<_>>());
        assert_eq!(view.current(key).unwrap().map(|row| row.version).as_ref(), Some(&resolved.winner));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_view_is_the_merge_of_any_history_in_any_batches_with_reopens(
        mut world in histories(), order in any::<u64>(), cuts in prop::collection::vec((1..8_usize, any::<bool>()), 1..8)
    ) {
        world.sync_all();
        let place = place();
        let ordered: Vec<OpenedEvent> = causal_order(&world.held_by(0), order).into_iter().cloned().collect();
        let (mut view, mut rest, mut cuts) = (open(&place), ordered.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (size, reopen) = cuts.next().copied().unwrap_or((1, false));
            let (batch, later) = rest.split_at(size.min(rest.len()));
            take(&mut view, batch);
            rest = later;
            if reopen {
                drop(view);
                view = open(&place);
            }
            let applied: Vec<&OpenedEvent> = ordered[..ordered.len() - rest.len()].iter().collect();
            assert_is_merge_of(&view, &applied);
        }
    }
}

#[test]
fn a_view_that_is_opened_again_stands_where_it_stood() {
    let place = place();
    let mut world = World::new(1);
    world.put(0, "k");
    take(&mut open(&place), world.events());
    let view = open(&place);
    assert_eq!((view.position().unwrap(), view.counts().unwrap().keys), ((0, 1), 1));
}

#[test]
fn garbage_old_schemas_and_other_replicas_views_are_thrown_away() {
    let mut world = World::new(1);
    world.put(0, "k");
    let spoil: [fn(&PathBuf); 4] = [
        |path| fs::write(path, b"not a database at all, but long enough to be read as the header of one, and then some").unwrap(),
        |path| Connection::open(path).unwrap().pragma_update(None, "user_version", 99).unwrap(),
        |path| Connection::open(path).unwrap().execute_batch("DROP TABLE meta").unwrap(),
        |path| drop(View::open(Some(path), &VAULT, &ReplicaId::from_bytes([3; 32])).unwrap()),
    ];
    for spoil in spoil {
        let place = place();
        take(&mut open(&place), world.events());
        spoil(&place.path);
        let mut view = open(&place);
        assert_eq!((view.position().unwrap(), view.counts().unwrap()), (START, Counts::default()));
        take(&mut view, world.events());
        assert_is_merge_of(&view, &world.events().iter().collect::<Vec<_>>());
    }
}

#[test]
fn damage_inside_the_file_is_told_apart_and_discarding_mends_it() {
    let place = place();
    let operations = (0..2_000).map(|number| put_of(&format!("{number:05}"), number)).collect();
    take(&mut open(&place), &[put_event(1, operations)]);
    let mut bytes = fs::read(&place.path).unwrap();
    bytes[3 * 8_192..].fill(0xff);
    fs::write(&place.path, bytes).unwrap();
    let found = open(&place).scan(b"", None, Deleted::Shown, 2_000);
    assert!(matches!(found, Err(ViewError::Damaged(_))), "{found:?}");
    View::discard(&place.path).unwrap();
    assert_eq!(open(&place).position().unwrap(), START);
}

#[test]
fn only_the_owner_may_read_it_or_what_lies_next_to_it() {
    let place = place();
    fs::write(&place.path, b"").unwrap();
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut view = open(&place);
    take(&mut view, &[put_event(1, vec![put_of("secret name", 1)])]);
    for entry in fs::read_dir(place.path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
}

#[test]
fn a_batch_that_another_process_was_faster_with_is_not_applied_again() {
    let place = place();
    let mut world = World::new(1);
    world.put(0, "a");
    let (mut one, mut other) = (open(&place), open(&place));
    take(&mut one, world.events());
    assert_eq!(other.apply(world.events(), &[], START..(0, 1)).unwrap(), Outcome::Overtaken);
    assert_eq!(other.position().unwrap(), (0, 1));
    assert_eq!(other.counts().unwrap().keys, 1);
}

#[test]
fn several_at_once_apply_each_event_once() {
    let place = place();
    let log: Vec<OpenedEvent> = (1..=40).map(|number| put_event(number, vec![put_of(&format!("{number}"), number)])).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut view = open(&place);
                while let (_, at) = view.position().unwrap()
                    && let Some(event) = log.get(at as usize)
                {
                    let _ = view.apply(std::slice::from_ref(event), &[], (0, at)..(0, at + 1)).unwrap();
                }
            });
        }
    });
    assert_is_merge_of(&open(&place), &log.iter().collect::<Vec<_>>());
}

#[test]
fn an_event_that_the_log_holds_twice_counts_once() {
    let mut world = World::new(1);
    world.put(0, "k");
    world.put(0, "k");
    let mut view = view_of(&world);
    take(&mut view, world.events());
    assert_eq!(view.versions(&key("k")).unwrap().len(), 2);
    assert_is_merge_of(&view, &world.events().iter().collect::<Vec<_>>());
}

#[test]
fn an_event_before_its_past_is_refused_and_nothing_of_its_batch_applied() {
    let mut world = World::new(2);
    world.put(0, "seen");
    world.sync(0, 1);
    world.put(1, "k");
    let [past, event] = world.events() else { panic!("two events") };
    let mut view = in_memory();
    let unrelated = put_event(1, vec![put_of("unrelated", 1)]);
    match view.apply(&[unrelated, event.clone()], &[], START..(0, 2)) {
        Err(ViewError::OutOfOrder { event: refused, missing }) => assert_eq!((refused, missing), (event.id, past.dot)),
        other => panic!("{other:?}"),
    }
    assert_eq!((view.position().unwrap(), view.counts().unwrap()), (START, Counts::default()));
}

#[test]
fn an_event_without_readable_operations_counts_as_seen() {
    let mut world = World::new(2);
    world.write(0, |_| Vec::new());
    world.sync(0, 1);
    world.put(1, "k");
    assert_eq!(view_of(&world).counts().unwrap().keys, 1);
}

#[test]
fn paging_visits_every_key_once_in_byte_order() {
    let mut world = World::new(2);
    let names = ["a", "a b", "a.txt", "a/b", "a/b/c", "a/c", "a0", "b", "\u{7f}", "é"];
    for name in names {
        world.put(0, name);
        world.put(1, name);
    }
    world.delete(0, "a/c");
    world.delete(0, "a/c");
    let view = view_of(&world);
    let mut expected = names.map(str::to_owned).to_vec();
    expected.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for limit in [1, 2, 3, 100] {
        assert_eq!(keys_of(&paged(&view, b"", Deleted::Shown, limit)), expected);
        assert_eq!(keys_of(&paged(&view, b"a/", Deleted::Hidden, limit)), ["a/b", "a/b/c"]);
        assert_eq!(keys_of(&paged(&view, b"a/", Deleted::Shown, limit)), ["a/b", "a/b/c", "a/c"]);
    }
    let (mut conflicts, mut after) = (Vec::new(), None);
    while let Some((key, _)) = view.conflicts(b"", after.as_ref(), 1).unwrap().pop() {
        conflicts.push(key.to_text().into_owned());
        after = Some(key);
    }
    assert_eq!(conflicts, expected);
}

#[test]
fn prefixes_of_the_highest_byte_have_an_end_too() {
    let mut view = in_memory();
    let keys: Vec<Key> = [vec![0xfe], vec![0xff], vec![0xff; 4_096]].into_iter().map(|bytes| Key::new(bytes).unwrap()).collect();
    take(&mut view, &[put_event(1, keys.iter().map(|key| Operation::Delete(key.clone(), None)).collect())]);
    let found: Vec<Key> = paged(&view, &[0xff], Deleted::Shown, 1).into_iter().map(|row| row.key).collect();
    assert_eq!(found, keys[1..]);
}

#[test]
fn versions_and_their_rule_explain_a_conflict_and_its_end() {
    let mut world = World::new(2);
    let lost = world.put(0, "k");
    world.put(1, "k");
    let explain = |world: &World| {
        let rows = view_of(world).versions(&key("k")).unwrap();
        let (maximal, superseded): (Vec<_>, Vec<_>) = rows.into_iter().rev().partition(|row| row.standing != Standing::Superseded);
        let mut maximal = maximal.into_iter().map(|row| row.version);
        let resolved = Resolved { winner: maximal.next().unwrap(), losers: maximal.collect() };
        (resolved.rule(superseded.len()), resolved.winner)
    };
    assert_eq!(explain(&world).0, Rule::HigherAuthor);
    world.sync(1, 0);
    world.resolve(0, "k", lost);
    let (rule, winner) = explain(&world);
    assert_eq!((rule, winner.chosen), (Rule::Causality, Some(lost)));
}

#[test]
fn equal_versions_of_authors_who_did_not_know_of_each_other_are_listed_once_and_are_no_conflict() {
    let mut world = World::new(3);
    let same = |_| vec![put_of("k", 1)];
    world.write(0, same);
    world.write(1, same);
    let view = view_of(&world);
    assert_eq!(view.counts().unwrap(), Counts { keys: 1, conflicts: 0 });
    assert_eq!(keys_of(&paged(&view, b"", Deleted::Shown, 9)), ["k"]);
    let standings = |view: &View| -> Vec<Standing> { view.versions(&key("k")).unwrap().iter().map(|row| row.standing).collect() };
    assert_eq!(standings(&view), [Standing::Agreeing, Standing::Sole]);
    world.put(2, "k");
    let view = view_of(&world);
    assert_eq!(view.counts().unwrap(), Counts { keys: 1, conflicts: 1 });
    assert_eq!(standings(&view), [Standing::Loser, Standing::Loser, Standing::Winner]);
}

#[test]
fn plaintexts_of_puts_and_of_nodes_are_known_until_forgotten() {
    let mut view = in_memory();
    let plaintext = |number: u8| PlaintextId::from_bytes([number; 32]);
    let chunk = |number: u8| ChunkId::from_bytes([number; 32]);
    let put = put_of("k", 1);
    let Operation::Put(_, value) = &put else { panic!("a put") };
    let piece = value.content.references[0];
    take(&mut view, &[put_event(1, vec![put.clone()])]);
    view.add_plaintexts(&[(plaintext(1), chunk(9), 5), (plaintext(2), chunk(2), 5)]).unwrap();
    view.add_plaintexts(&[(plaintext(1), chunk(8), 5), (plaintext(2), chunk(3), 5)]).unwrap();
    let asked = [plaintext(1), plaintext(7), plaintext(2), piece.plaintext];
    assert_eq!(view.known_plaintexts(&asked).unwrap(), [Some(chunk(8)), None, Some(chunk(2)), Some(piece.chunk)]);
    view.forget_plaintexts(&[plaintext(2)]).unwrap();
    assert_eq!(view.known_plaintexts(&asked[1..3]).unwrap(), [None, None]);
    view.clear_plaintexts().unwrap();
    assert_eq!(view.known_plaintexts(&asked).unwrap(), [None; 4]);
}

#[test]
fn file_states_come_back_alone_and_below_a_directory() {
    let mut view = in_memory();
    let state = |size| FileState {
        size,
        modified_ns: -1,
        changed_ns: i64::MAX,
        inode: u64::MAX,
        device: 3,
        key: key("k"),
        event: EventId::from_bytes([4; 32]),
    };
    let files: Vec<(Vec<u8>, FileState)> =
        ["/d/a", "/d/b/c", "/d2"].iter().zip(1..).map(|(path, size)| (path.as_bytes().to_vec(), state(size))).collect();
    view.put_file_states(&files).unwrap();
    view.put_file_states(&[(b"/d/a".to_vec(), state(u64::MAX))]).unwrap();
    assert_eq!(view.file_states(&["/d/a", "/d"]).unwrap(), [Some(state(u64::MAX)), None]);
    assert_eq!(view.file_states_below(b"/d/", None, 1).unwrap(), [(b"/d/a".to_vec(), state(u64::MAX))]);
    assert_eq!(view.file_states_below(b"/d/", Some(b"/d/a"), 9).unwrap(), files[1..2]);
}
