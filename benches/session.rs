//! Two sessions over one history, in memory: what the protocol itself costs, without store, disk or network.
//!
//! The drivers answer from tables that are made beforehand; what is measured is the two state machines and their messages.

use crate::support::{VAULT, made_up_list, sized};
use criterion::{BatchSize, Criterion, Throughput};
use mirror_engine::{
    bitmap::Bitmap,
    codec,
    event::{ChunkList, Dot, Frontier, Head, Heads},
    frame::{self, FrameBuf, Kind},
    id::{EventId, ListId, ReplicaId, Root},
    session::{
        Action, Admitted, Arrival, Config, Cursor, Direction, Done, HelloKeys, Holding, LoadedEvent, Local, Outcome, Session, SessionEvent,
        Side, Stay, Wants, Windows,
    },
};
use std::{collections::HashMap, time::Instant};

const AUTHOR: ReplicaId = ReplicaId::from_bytes([1; 32]);

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.sample_size(20);
    let (events, lists, entries) = (sized(20, 20_000), sized(2, 20), sized(50, 10_000));
    for (name, history, elements) in
        [("events", History::new(events, 0), events), ("chunks", History::new(lists, entries), lists * entries)]
    {
        group.throughput(Throughput::Elements(elements as u64));
        let pair = || [End::new(&history, Side::Dialer), End::new(&history, Side::Listener)];
        group.bench_function(name, |bencher| bencher.iter_batched(pair, exchange, BatchSize::PerIteration));
    }
    group.finish();
}

/// What the dialer has and the listener lacks.
struct History {
    events: Vec<LoadedEvent>,
    /// By the id of an event's frame.
    admitted: HashMap<[u8; 32], Admitted>,
    lists: HashMap<ListId, ChunkList>,
    heads: Heads,
}

impl History {
    /// `events` of one author, each with a list of `entries` chunks, or with none.
    fn new(events: usize, entries: usize) -> Self {
        let mut history = Self { events: Vec::new(), admitted: HashMap::new(), lists: HashMap::new(), heads: Heads::default() };
        for sequence in 1..=events as u64 {
            let list = (entries > 0).then(|| made_up_list(sequence, entries));
            history.append(Dot { author: AUTHOR, sequence }, list);
        }
        history
    }

    fn append(&mut self, dot: Dot, list: Option<ChunkList>) {
        let frame = FrameBuf::new(Kind::Event, &codec::encode(&dot.sequence));
        let id = frame.id();
        let references: Vec<_> = list.iter().map(ChunkList::reference).collect();
        let frames = list.iter().map(ChunkList::to_frame).chain([frame]).map(|frame| frame.into_bytes().into()).collect();
        let event = LoadedEvent { dot, frames, lists: references.clone() };
        let wants = references.into_iter().map(|list| (list, Bitmap::full(list.entries as usize))).collect();
        self.admitted.insert(id, Admitted { dot, deps: Frontier::new(), bytes: event.bytes(), lists: wants });
        self.events.push(event);
        self.lists.extend(list.map(|list| (list.id(), list)));
        self.heads.0.insert(dot.author, Head { sequence: dot.sequence, event: EventId::from_bytes(id) });
    }

    /// The digest when everything up to `sequence` is held.
    fn root_at(&self, sequence: u64) -> Root {
        let event = self.events[sequence as usize - 1].frames.last().and_then(|frame| frame::Header::parse(frame).ok());
        let event = EventId::from_bytes(event.expect("an event's frame").id);
        Heads([(AUTHOR, Head { sequence, event })].into()).root()
    }
}

/// One session and the driver that answers it.
struct End<'a> {
    history: &'a History,
    session: Session,
    wants: Wants,
    outcome: Option<Outcome>,
}

impl<'a> End<'a> {
    fn new(history: &'a History, side: Side) -> Self {
        let (replica, heads) = match side {
            Side::Dialer => (AUTHOR, history.heads.clone()),
            Side::Listener => (ReplicaId::from_bytes([2; 32]), Heads::default()),
        };
        let config = Config {
            side,
            direction: Direction::Both,
            vault: VAULT,
            replica,
            hello_keys: HelloKeys::derive(&[1; 32], &[2; 32]),
            cached_peer_frontier: None,
            // Chunks go by lanes, whatever their list's size: there are none to send inline.
            windows: Windows { inline_bytes_max: 0, ..Windows::default() },
            stay: Stay::UntilEqual,
            witness: None,
            wall_ms: 0,
        };
        let local = Local {
            frontier: heads.frontier(),
            root: heads.root(),
            pending: Vec::new(),
            holding: Holding::Whole,
            forks: Default::default(),
        };
        Self { history, session: Session::new(config, local, Instant::now()), wants: Wants::new(), outcome: None }
    }

    /// Does what the session asks for. Chunks that are served arrive at `peer` at once.
    fn act(&mut self, peer: &mut Self, now: Instant) {
        while let Some(action) = self.session.poll_action() {
            let done = match action {
                Action::LoadEvents { after, events_max, .. } => Some(self.load(after, events_max)),
                Action::Admit { frames } => Some(self.admit(&frames)),
                Action::Expect { list, want } => {
                    self.wants.expect(list.id, &self.history.lists[&list.id], &want);
                    None
                }
                Action::Serve { list, want, .. } => {
                    peer.land(&list.id, &want, now);
                    Some(Done::Served { list: list.id, unavailable: Bitmap::empty(want.entries()), bytes: list.bytes })
                }
                Action::StoreInline { list, .. } => Some(Done::Stored { list }),
                Action::Commit { events } => events.last().map(|newest| self.committed(*newest)),
                Action::FindLost { .. } => Some(Done::Lost { lists: Vec::new(), next: None }),
                Action::Forget { .. } | Action::OpenLanes | Action::AcceptLanes | Action::TakeProof { .. } => None,
            };
            if let Some(done) = done {
                self.session.handle_done(now, done);
            }
        }
        while let Some(event) = self.session.poll_event() {
            if let SessionEvent::Ended(outcome) = event {
                self.outcome = Some(outcome);
            }
        }
    }

    fn load(&self, after: Option<Cursor>, events_max: usize) -> Done {
        let from = after.map_or(0, |cursor| cursor.0 as usize);
        let to = (from + events_max).min(self.history.events.len());
        let next = (to < self.history.events.len()).then_some(Cursor(to as u64, 0));
        Done::Events { events: self.history.events[from..to].to_vec(), next }
    }

    fn admit(&self, frames: &[u8]) -> Done {
        let headers = frame::split(frames).map(|frame| frame.expect("whole frames").0);
        Done::Admitted { events: headers.filter_map(|header| self.history.admitted.get(&header.id).cloned()).collect() }
    }

    fn land(&mut self, list: &ListId, want: &Bitmap, now: Instant) {
        for position in want.iter() {
            let entry = self.history.lists[list].entries()[position as usize];
            let Arrival::Wanted { landed, .. } = self.wants.arrived(&entry.id, entry.length) else { continue };
            self.session.handle_done(now, Done::Progress { list: landed.list, chunks: 1, bytes: entry.frame_bytes() });
            if landed.remaining == 0 {
                self.session.handle_done(now, Done::ListComplete { list: landed.list });
            }
        }
    }

    fn committed(&self, newest: Dot) -> Done {
        Done::Committed { frontier: [newest].into_iter().collect(), root: self.history.root_at(newest.sequence) }
    }
}

/// Until both have nothing more to say.
fn exchange([mut dialer, mut listener]: [End<'_>; 2]) {
    let now = Instant::now();
    while !(dialer.session.is_finished() && listener.session.is_finished()) {
        speak(&mut dialer, &mut listener, now);
        speak(&mut listener, &mut dialer, now);
    }
    assert!(dialer.outcome == Some(Outcome::Complete) && listener.outcome == Some(Outcome::Complete));
}

fn speak<'a>(from: &mut End<'a>, to: &mut End<'a>, now: Instant) {
    from.act(to, now);
    while let Some(message) = from.session.poll_message() {
        to.session.handle_message(now, message);
        to.act(from, now);
    }
}
