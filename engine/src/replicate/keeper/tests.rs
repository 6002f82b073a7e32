//! Events that come together, good ones and bad.

use super::{admission::SHARED_FRAMES_MIN, *};
use crate::{
    event::{Entry, EventHeader, Frontier, Incarnation, KIND_OPERATIONS},
    frame::{FrameBuf, Kind},
    id::{EventId, VaultId},
    keys::DeviceKey,
};
use tempfile::TempDir;

const VAULT: VaultId = VaultId::from_bytes([42; 32]);
const EVENTS: u64 = 3 * SHARED_FRAMES_MIN as u64;

fn list(n: u64) -> ChunkList {
    ChunkList::new(vec![Entry { id: ChunkId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes()), length: 100 }]).unwrap()
}

fn event(sequence: u64, previous: Option<EventId>, body: &[u8]) -> Event {
    event_at(sequence, sequence, previous, body)
}

fn event_at(sequence: u64, lamport: u64, previous: Option<EventId>, body: &[u8]) -> Event {
    let device = DeviceKey::from_seed(&[1; 32]);
    let header = EventHeader {
        vault: VAULT,
        device: device.id(),
        incarnation: Incarnation([1; 16]),
        sequence,
        lamport,
        previous,
        deps: Frontier::new(),
        epoch: 1,
        lists: vec![list(sequence).reference()],
        kind: KIND_OPERATIONS,
        body_hash: [0; 32],
        wall_ms: 0,
    };
    Event::sign(header, body, &device).unwrap()
}

/// One author's events, each with a list of its own.
fn log() -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for sequence in 1..=EVENTS {
        events.push(event(sequence, events.last().map(Event::id), b"body"));
    }
    events
}

fn frames(events: &[Event]) -> Vec<u8> {
    let frames = |event: &Event| [list(event.header().sequence).to_frame(), event.to_frame()].map(FrameBuf::into_bytes).concat();
    events.iter().flat_map(frames).collect()
}

struct World {
    keeper: Keeper,
    done: mpsc::UnboundedReceiver<Done>,
    _dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Store::create(dir.path(), &VAULT).unwrap();
        let store = Arc::new(Store::open(dir.path(), &VAULT).unwrap().0);
        let (said, done) = mpsc::unbounded_channel();
        let keeper = Keeper::new(store, said, Failures::default(), None, Arc::new(Meter::default())).unwrap().0;
        Self { keeper, done, _dir: dir }
    }

    /// The numbers of the events that are admitted, or why they are refused.
    fn admit(&mut self, frames: &[u8]) -> Result<Vec<u64>, String> {
        self.keeper.admit(frames).unwrap();
        match self.done.try_recv().unwrap() {
            Done::Admitted { events } => Ok(events.iter().map(|event| event.dot.sequence).collect()),
            Done::Refused { reason } => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    fn in_journal(&self) -> Vec<u64> {
        self.keeper.store.journal_pending().unwrap().iter().map(|(event, _)| event.header().sequence).collect()
    }
}

#[test]
fn events_admitted_together_lack_each_its_own_chunks_and_wait_in_their_order() {
    let mut world = World::new();
    world.keeper.admit(&frames(&log())).unwrap();
    let Done::Admitted { events } = world.done.try_recv().unwrap() else { panic!("refused") };
    let lacking: Vec<_> = events.into_iter().flat_map(|event| event.lists).collect();
    assert_eq!(lacking, (1..=EVENTS).map(|n| (list(n).reference(), Bitmap::full(1))).collect::<Vec<_>>());
    assert_eq!(world.in_journal(), (1..=EVENTS).collect::<Vec<_>>());
}

#[test]
fn what_precedes_a_bad_event_is_kept_and_what_follows_is_not() {
    let (mut world, mut events) = (World::new(), log());
    let bad = EVENTS as usize / 2;
    let mut record = events[bad].record().to_vec();
    let signature_at = record.len() - b"body".len() - 1;
    record[signature_at] ^= 1;
    let tail = events.split_off(bad + 1);
    events.truncate(bad);
    let forged = FrameBuf::new(Kind::Event, &record).into_bytes();
    let run = [frames(&events), list(bad as u64 + 1).to_frame().into_bytes(), forged, frames(&tail)].concat();
    assert_eq!(world.admit(&run), Err("the event's signature is wrong".to_owned()));
    assert_eq!(world.in_journal(), (1..=bad as u64).collect::<Vec<_>>());
}

#[test]
fn the_first_broken_rule_is_told_although_a_later_frame_is_bad_by_itself() {
    let (mut world, events) = (World::new(), log());
    let leaps = event_at(5, 9, Some(events[3].id()), b"body");
    let mut run = [frames(&events[..4]), frames(&[leaps]), frames(&events[5..])].concat();
    *run.last_mut().unwrap() ^= 1;
    assert!(world.admit(&run).unwrap_err().contains("lamport"));
    assert_eq!(world.in_journal(), [1, 2, 3, 4]);
}

#[test]
fn a_fork_among_events_is_kept_aside_and_the_others_go_on() {
    let (mut world, events) = (World::new(), log());
    let other = event(3, Some(events[1].id()), b"another");
    let run = [frames(&events[..6]), frames(&[other]), frames(&events[6..])].concat();
    world.keeper.admit(&run).unwrap();
    assert!(matches!(world.done.try_recv(), Ok(Done::ForkFound { proof }) if !proof.is_empty()));
    assert!(matches!(world.done.try_recv(), Ok(Done::KeptAside { event }) if event.sequence == 3));
    let Ok(Done::Admitted { events }) = world.done.try_recv() else { panic!("the others are admitted") };
    assert_eq!(events.len() as u64, EVENTS);
    assert_eq!(world.in_journal(), (1..=EVENTS).collect::<Vec<_>>());
}

#[test]
fn a_proof_brings_the_branch_that_was_left_and_nothing_that_does_not_build_on_it() {
    let (mut world, events) = (World::new(), log());
    let mut branch = vec![event(3, Some(events[1].id()), b"another")];
    for sequence in 4..=6 {
        branch.push(event(sequence, branch.last().map(Event::id), b"another"));
    }
    let records = |events: &[&Event]| events.iter().flat_map(|event| event.to_frame().into_bytes()).collect::<Vec<u8>>();
    let [third, fourth, fifth, sixth] = &branch[..] else { unreachable!() };
    world.keeper.take_proof(&records(&[third, fourth])).unwrap();
    assert!(matches!(world.done.try_recv(), Ok(Done::Refused { .. })), "the two agree");
    world.keeper.take_proof(&records(&[&events[2], third, fourth, sixth])).unwrap();
    assert!(world.done.try_recv().is_err());
    let aside = |world: &World| [third, fourth, fifth, sixth].map(|event| world.keeper.store.is_aside(&event.id()));
    assert_eq!(aside(&world), [true, true, false, false]);
    world.keeper.take_proof(&records(&[&events[2], third, fourth, fifth, sixth])).unwrap();
    assert_eq!(aside(&world), [true; 4], "also when the fork was proved before");
}

#[test]
fn events_that_are_held_already_are_passed_over() {
    let (mut world, events) = (World::new(), log());
    assert_eq!(world.admit(&frames(&events[..10])), Ok((1..=10).collect()));
    assert_eq!(world.admit(&frames(&events)), Ok((11..=EVENTS).collect()));
}

#[test]
fn deletions_count_together_for_an_hour() {
    let (began, mut deletions) = (clock::now(), Deletions::default());
    let later = |ms| began + Duration::from_millis(ms);
    assert_eq!(deletions.add(5, began), 5);
    assert_eq!(deletions.add(2, later(FUSE_WINDOW_MS - 1)), 7);
    assert_eq!(deletions.add(1, later(FUSE_WINDOW_MS)), 1);
}
