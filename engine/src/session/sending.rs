//! The sending half: events beyond the peer's frontier, and the chunks that it asks for.
//!
//! ```text
//! log ──LoadEvents──► loaded ──window──► Events ──► in flight ──Applied──► gone
//!                                  └─ small lists: promised ─┐
//! Want ────────────────────────────────────────────► queue ──Serve──► lanes, or Chunks · Served
//! ```
//! Invariants: what is in flight stays within the windows, but for one event that always goes; a page is loaded only when the one
//! before has been sent, so nothing piles up here; done means that everything sent is applied or parked by the peer. In a session that
//! stays nothing is kept of what is acknowledged but frontiers, however long it stays.

use super::{
    Action, Cursor, LoadedEvent, SessionError, SessionEvent, Via, Windows,
    hello::{self, Hello},
    message::{Cause, Message, Promise, Timing},
    outbox::Outbox,
};
use crate::{
    bitmap::Bitmap,
    event::{Dot, Frontier, ListRef},
    id::{ListId, ReplicaId},
    limits::{EARLY_BYTES_MAX, EVENTS_MESSAGE_BYTES_TARGET, INLINE_BYTES_MAX, LANES_MAX, WANTS_MAX},
};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeSet, VecDeque};

/// Wants that the driver serves at once: enough to keep every lane busy.
const SERVES_MAX: usize = LANES_MAX;
/// Short lists that the driver serves at once, as long as all together are no more than a single one may be: it looks them up together.
const SHORT_SERVES_MAX: usize = WANTS_MAX;

/// What a message has around the chunks of a list, at most.
const MESSAGE_HEADER_BYTES_MAX: u64 = 64;

/// Whether events flow in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The peer's Hello will tell.
    Unknown,
    /// Both sides want it.
    Open,
    /// One side does not.
    Shut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loading {
    Idle,
    Running,
    /// Asked for from a frontier that proved wrong: the answer is dropped.
    Stale,
    Exhausted,
}

/// Whether the peer asks for what it has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerHealing {
    No,
    UnderWay,
    /// So many chunks we don't have either.
    Over(u64),
}

#[derive(Debug)]
struct InFlight {
    dot: Dot,
    bytes: usize,
    promised: u64,
}

/// Events in flight, and what they come to.
#[derive(Debug, Default)]
struct Flight {
    events: VecDeque<InFlight>,
    bytes: usize,
    promised: u64,
}

impl Flight {
    fn push(&mut self, event: InFlight) {
        self.bytes += event.bytes;
        self.promised += event.promised;
        self.events.push_back(event);
    }

    /// Forgets those that are in `frontier`.
    fn land(&mut self, frontier: &Frontier) {
        let Self { events, bytes, promised } = self;
        events.retain(|event| {
            let flies = !frontier.contains(&event.dot);
            if !flies {
                *bytes -= event.bytes;
                *promised -= event.promised;
            }
            flies
        });
    }
}

#[derive(Debug)]
struct Service {
    list: ListRef,
    want: Bitmap,
    via: Via,
    cause: Cause,
}

impl Service {
    fn inline_bytes(&self) -> u64 {
        match self.via {
            Via::Inline => self.list.bytes,
            Via::Lanes => 0,
        }
    }

    fn to_send(&self) -> SessionEvent {
        let (chunks, entries) = (self.want.len() as u64, u64::from(self.list.entries).max(1));
        // In wide numbers: a hostile list may claim any size.
        let bytes = u128::from(self.list.bytes) * u128::from(chunks) / u128::from(entries);
        SessionEvent::ToSend { chunks, bytes: u64::try_from(bytes).unwrap_or(u64::MAX) }
    }
}

#[derive(Debug)]
pub(super) struct Sending {
    flow: Flow,
    windows: Windows,
    /// What this replica had applied when the session began; in one that stays, what it has now.
    own: Frontier,
    /// What the early events began from.
    assumed: Option<Frontier>,
    /// What need not be sent: the peer has it, applied or in its journal, or it is on its way.
    beyond: Frontier,
    cursor: Option<Cursor>,
    loading: Loading,
    loaded: VecDeque<LoadedEvent>,
    in_flight: Flight,
    /// Events in the peer's journal whose chunks it can get from us.
    owed: Frontier,
    peer_applied: Frontier,
    parked: Frontier,
    /// Bytes of events that have been parked since last nothing was.
    parked_bytes: usize,
    /// Everything that the peer applied or parked.
    acknowledged: Frontier,
    /// Authors whose forked log the peer may hold another branch of: what it says to have of them is no reason not to send ours.
    again: BTreeSet<ReplicaId>,
    queue: VecDeque<Service>,
    running: VecDeque<Service>,
    /// Of the lists that are being served inline.
    running_inline_bytes: u64,
    peer_healing: PeerHealing,
}

impl Sending {
    pub(super) fn new(own: Frontier, windows: Windows) -> Self {
        Self {
            flow: Flow::Unknown,
            windows,
            own,
            assumed: None,
            beyond: Frontier::new(),
            cursor: None,
            loading: Loading::Idle,
            loaded: VecDeque::new(),
            in_flight: Flight::default(),
            owed: Frontier::new(),
            peer_applied: Frontier::new(),
            parked: Frontier::new(),
            parked_bytes: 0,
            acknowledged: Frontier::new(),
            again: BTreeSet::new(),
            queue: VecDeque::new(),
            running: VecDeque::new(),
            running_inline_bytes: 0,
            peer_healing: PeerHealing::No,
        }
    }

    /// Begins before the peer's Hello is here, from the frontier that it had when last heard of. Returns that frontier if there is
    /// anything to send.
    pub(super) fn begin_early(&mut self, cached: Frontier, out: &mut Outbox) -> Option<Frontier> {
        if self.own.events_beyond(&cached) == 0 {
            return None;
        }
        self.beyond = cached.clone();
        self.assumed = Some(cached.clone());
        self.load(EARLY_BYTES_MAX as usize, out);
        Some(cached)
    }

    /// Of these authors, what lies beyond what is agreed goes to the peer whatever it says to have. Before [`Sending::begin`].
    pub(super) fn send_again(&mut self, authors: BTreeSet<ReplicaId>) {
        self.again = authors;
    }

    /// The peer's Hello is here: from now on we know what it has.
    pub(super) fn begin(&mut self, hello: &Hello, inline_bytes_max: u64, flow: Flow) {
        self.flow = flow;
        self.windows.inline_bytes_max = inline_bytes_max;
        let mut has = hello.frontier.clone();
        has.join(
            &hello
                .pending
                .iter()
                .filter(|(author, _)| !self.again.contains(author))
                .map(|(author, sequence)| Dot { author: *author, sequence })
                .collect(),
        );
        if !self.assumed.take().is_none_or(|assumed| has.covers(&assumed)) {
            self.forget_early();
        }
        self.owed = self.beyond_frontier(&hello.pending, &hello.frontier);
        self.beyond = has;
        self.in_flight.events.iter().for_each(|event| self.beyond.raise(event.dot));
        self.peer_applied = hello.frontier.clone();
        self.acknowledge(&hello.frontier);
        if self.loading == Loading::Idle && self.own.events_beyond(&self.beyond) == 0 {
            self.loading = Loading::Exhausted;
        }
        if flow == Flow::Open && heals(hello) {
            self.peer_healing = PeerHealing::UnderWay;
        }
        if flow == Flow::Shut {
            self.loaded.clear();
            self.queue.clear();
        }
    }

    /// The peer drops what it got early, so all of it goes again.
    fn forget_early(&mut self) {
        self.in_flight = Flight::default();
        self.loaded.clear();
        self.cursor = None;
        self.loading = if self.loading == Loading::Running { Loading::Stale } else { Loading::Idle };
    }

    /// What of the peer's `pending` lies beyond its `frontier` and is applied here.
    fn beyond_frontier(&self, pending: &Frontier, frontier: &Frontier) -> Frontier {
        let held = pending.iter().map(|(author, sequence)| Dot { author: *author, sequence: sequence.min(self.own.sequence_of(author)) });
        held.filter(|dot| !frontier.contains(dot)).collect()
    }

    /// This replica holds more than before.
    pub(super) fn grow(&mut self, own: Frontier) {
        self.own = own;
    }

    /// In a session that stays: the log has been read to its end, and may hold more by now.
    pub(super) fn look_again(&mut self) {
        let read = self.loading == Loading::Exhausted && self.loaded.is_empty();
        self.beyond.join(&self.acknowledged);
        if read && self.own.events_beyond(&self.beyond) > 0 {
            (self.loading, self.cursor) = (Loading::Idle, None);
        }
    }

    /// Goes on as far as the windows allow.
    pub(super) fn pump(&mut self, out: &mut Outbox) {
        if self.flow != Flow::Open {
            return;
        }
        // What it kept before this session does not count: that it has to wait for another peer, or for ever.
        let mut known = self.peer_applied.clone();
        known.join(&self.owed);
        let parked = self.parked.events_beyond(&known);
        if parked >= self.windows.pending_events_max as u64 || self.parked_bytes >= self.windows.pending_event_bytes_max {
            // The peer can't apply what it has: more would only fill its journal.
            self.loading = if self.loading == Loading::Running { Loading::Stale } else { Loading::Exhausted };
            self.loaded.clear();
        }
        self.send_loaded(Timing::Known, out);
        if self.loading == Loading::Idle && self.loaded.is_empty() && self.fits(0) {
            self.load(EVENTS_MESSAGE_BYTES_TARGET, out);
        }
        self.serve(out);
    }

    /// Everything that was to be sent is acknowledged, every want is served.
    pub(super) fn is_done(&self) -> bool {
        let sent = self.loading == Loading::Exhausted && self.loaded.is_empty() && self.in_flight.events.is_empty();
        let served = self.queue.is_empty() && self.running.is_empty();
        self.flow == Flow::Shut || (sent && served && self.acknowledged.covers(&self.owed) && self.peer_healing != PeerHealing::UnderWay)
    }

    /// The peer owes an answer: something that it was sent, or had pending, is neither applied nor parked, or it has not healed.
    pub(super) fn awaits_answer(&self) -> bool {
        !self.in_flight.events.is_empty() || !self.acknowledged.covers(&self.owed) || self.peer_healing == PeerHealing::UnderWay
    }

    /// The peer will ask for no more of what it has lost.
    pub(super) fn peer_healed(&mut self, lost: u64) -> Result<(), SessionError> {
        match self.peer_healing {
            PeerHealing::UnderWay => {
                self.peer_healing = PeerHealing::Over(lost);
                Ok(())
            }
            PeerHealing::No | PeerHealing::Over(_) => Err(SessionError::protocol("Healed came from a side that did not heal")),
        }
    }

    /// Chunks that the peer has lost and that are not here either; none known before it has healed.
    pub(super) fn peer_lost(&self) -> Option<u64> {
        match self.peer_healing {
            PeerHealing::No => Some(0),
            PeerHealing::UnderWay => None,
            PeerHealing::Over(lost) => Some(lost),
        }
    }

    /// The driver owes an answer.
    pub(super) fn is_working(&self) -> bool {
        matches!(self.loading, Loading::Running | Loading::Stale) || !self.running.is_empty()
    }

    /// Events that the peer keeps without applying them.
    pub(super) fn parked_events(&self) -> u64 {
        self.parked.events_beyond(&self.peer_applied)
    }

    /// What the peer has applied, as far as we know.
    pub(super) fn peer_applied(&self) -> &Frontier {
        &self.peer_applied
    }

    pub(super) fn events_loaded(&mut self, events: Vec<LoadedEvent>, next: Option<Cursor>, out: &mut Outbox) {
        if self.loading == Loading::Stale {
            self.loading = Loading::Idle;
            return;
        }
        self.cursor = next;
        self.loading = if next.is_none() { Loading::Exhausted } else { Loading::Idle };
        if self.flow != Flow::Shut {
            self.loaded.extend(events);
        }
        if self.flow == Flow::Unknown {
            self.send_loaded(Timing::Early, out);
            self.serve(out);
        }
    }

    pub(super) fn wanted(&mut self, list: ListRef, want: Bitmap, out: &mut Outbox) -> Result<(), SessionError> {
        if self.flow != Flow::Open {
            return Err(SessionError::protocol("a want went to a side that does not send"));
        }
        let asked = self.queue.iter().chain(&self.running).filter(|service| service.cause == Cause::Asked).count();
        if asked >= WANTS_MAX {
            return Err(SessionError::protocol("too many wants at once"));
        }
        let via = if list.bytes <= self.windows.inline_bytes_max { Via::Inline } else { Via::Lanes };
        let service = Service { list, want, via, cause: Cause::Asked };
        out.tell(service.to_send());
        self.queue.push_back(service);
        Ok(())
    }

    pub(super) fn applied(&mut self, frontier: Frontier, parked: Frontier) -> Result<(), SessionError> {
        if !frontier.covers(&self.peer_applied) {
            return Err(SessionError::protocol("an applied frontier went backwards"));
        }
        self.acknowledge(&frontier);
        let under_way = self.in_flight.bytes;
        self.acknowledge(&parked);
        self.parked_bytes += under_way - self.in_flight.bytes;
        if parked.events_beyond(&frontier) == 0 {
            self.parked_bytes = 0;
        }
        self.peer_applied = frontier;
        self.parked = parked;
        Ok(())
    }

    fn acknowledge(&mut self, frontier: &Frontier) {
        self.acknowledged.join(frontier);
        self.in_flight.land(&self.acknowledged);
    }

    pub(super) fn served(&mut self, list: ListId, unavailable: Bitmap, bytes: u64, out: &mut Outbox) {
        if self.take_running(&list, Via::Lanes).is_some() {
            out.tell(SessionEvent::Served { bytes });
            out.say(&Message::Served { list, unavailable });
        }
    }

    pub(super) fn inlined(&mut self, list: ListId, frames: Bytes, unavailable: Bitmap, out: &mut Outbox) -> Result<(), SessionError> {
        let Some(service) = self.take_running(&list, Via::Inline) else { return Ok(()) };
        if frames.len() > INLINE_BYTES_MAX {
            return Err(SessionError::Here { reason: format!("chunk list {} is longer than its event says", list.short()) });
        }
        out.tell(SessionEvent::Served { bytes: frames.len() as u64 });
        out.say(&Message::Chunks { cause: service.cause, list, frames });
        if service.cause == Cause::Asked {
            out.say(&Message::Served { list, unavailable });
        }
        Ok(())
    }

    pub(super) fn unknown_list(&mut self, list: &ListId) -> Result<(), SessionError> {
        match self.take_running(list, Via::Inline).or_else(|| self.take_running(list, Via::Lanes)) {
            Some(Service { cause: Cause::Asked, .. }) => Err(SessionError::protocol("a want names an unknown list")),
            Some(Service { cause: Cause::Promised, .. }) => {
                Err(SessionError::Here { reason: format!("chunk list {} of an event is not in the store", list.short()) })
            }
            None => Ok(()),
        }
    }

    fn take_running(&mut self, list: &ListId, via: Via) -> Option<Service> {
        let position = self.running.iter().position(|service| service.list.id == *list && service.via == via)?;
        let service = self.running.remove(position)?;
        self.running_inline_bytes -= service.inline_bytes();
        Some(service)
    }

    fn load(&mut self, bytes_max: usize, out: &mut Outbox) {
        self.loading = Loading::Running;
        out.ask(Action::LoadEvents {
            beyond: self.beyond.clone(),
            after: self.cursor,
            bytes_max: bytes_max.min(self.windows.pending_event_bytes_max.saturating_sub(self.in_flight.bytes)).max(1),
            events_max: self.windows.pending_events_max.saturating_sub(self.unapplied()).max(1),
        });
    }

    fn unapplied(&self) -> usize {
        self.in_flight.events.len().saturating_add(usize::try_from(self.owed.events_beyond(&self.acknowledged)).unwrap_or(usize::MAX))
    }

    fn fits(&self, bytes: usize) -> bool {
        self.in_flight.events.is_empty()
            || (self.unapplied() < self.windows.pending_events_max && self.in_flight.bytes + bytes <= self.windows.pending_event_bytes_max)
    }

    /// What a wrong belief may waste is little, and so is what helps: more than this takes further round trips anyway.
    fn fits_early(&self, bytes: u64) -> bool {
        let headers = MESSAGE_HEADER_BYTES_MAX * (self.in_flight.events.len() as u64 + 1);
        let under_way = self.in_flight.bytes as u64 + self.in_flight.promised + headers;
        self.in_flight.events.len() < self.windows.pending_events_max && under_way + bytes <= EARLY_BYTES_MAX
    }

    fn send_loaded(&mut self, timing: Timing, out: &mut Outbox) {
        let mut run = Run::new(timing);
        while let Some(event) = self.loaded.pop_front() {
            let acknowledged = self.acknowledged.contains(&event.dot);
            if self.beyond.contains(&event.dot) || (acknowledged && !self.again.contains(&event.dot.author)) {
                continue;
            }
            let promised = self.promise_for(&event);
            let fits = match timing {
                Timing::Known => self.fits(event.bytes()),
                Timing::Early => self.fits_early(event.bytes() as u64 + promised.unwrap_or(0)),
            };
            if !fits {
                self.loaded.push_front(event);
                break;
            }
            self.beyond.raise(event.dot);
            // The peer's word on that number is said already.
            if !acknowledged {
                self.in_flight.push(InFlight { dot: event.dot, bytes: event.bytes(), promised: promised.unwrap_or(0) });
            }
            self.queue.extend(run.push(event, promised, out));
        }
        self.queue.extend(run.flush(out));
    }

    /// Bytes of the event's chunks if they are few enough to go without being asked for. None if it has none: it fits any run.
    fn promise_for(&self, event: &LoadedEvent) -> Option<u64> {
        if event.lists.is_empty() {
            return None;
        }
        let bytes = event.lists.iter().fold(0, |sum: u64, list| sum.saturating_add(list.bytes));
        Some(if self.in_flight.promised.saturating_add(bytes) <= self.windows.inline_bytes_max { bytes } else { 0 })
    }

    fn serve(&mut self, out: &mut Outbox) {
        while let Some(service) = self.queue.pop_front() {
            if !self.is_served_with_others(&service) {
                self.queue.push_front(service);
                return;
            }
            if service.via == Via::Lanes {
                out.need_outgoing_lanes();
            }
            out.ask(Action::Serve { list: service.list, want: service.want.clone(), via: service.via });
            self.running_inline_bytes += service.inline_bytes();
            self.running.push_back(service);
        }
    }

    fn is_served_with_others(&self, service: &Service) -> bool {
        let short = service.via == Via::Inline && self.running_inline_bytes + service.inline_bytes() <= INLINE_BYTES_MAX as u64;
        self.running.len() < if short { SHORT_SERVES_MAX } else { SERVES_MAX }
    }
}

/// Whether the peer will ask for what it has lost, if we send.
pub(super) fn heals(hello: &Hello) -> bool {
    let both = hello::HEALS | hello::LOST;
    hello.features & both == both
}

/// Events that go in one message: all with their chunks promised, or none.
struct Run {
    timing: Timing,
    promise: Option<Promise>,
    frames: BytesMut,
    events: u64,
    lists: Vec<ListRef>,
}

impl Run {
    fn new(timing: Timing) -> Self {
        Self { timing, promise: None, frames: BytesMut::new(), events: 0, lists: Vec::new() }
    }

    /// Adds an event; returns what is to be served behind the messages that had to go before. A long event is cut between frames.
    fn push(&mut self, event: LoadedEvent, promised: Option<u64>, out: &mut Outbox) -> Vec<Service> {
        let promise = promised.map(|bytes| if bytes > 0 { Promise::Chunks } else { Promise::None });
        let mut services = Vec::new();
        if self.promise.is_some() && promise.is_some() && self.promise != promise {
            services.extend(self.flush(out));
        }
        for frame in &event.frames {
            if !self.frames.is_empty() && self.frames.len() + frame.len() > EVENTS_MESSAGE_BYTES_TARGET {
                services.extend(self.flush(out));
            }
            self.promise = self.promise.or(promise);
            self.frames.extend_from_slice(frame);
        }
        self.events += 1;
        if promise == Some(Promise::Chunks) {
            self.lists.extend(event.lists);
        }
        services
    }

    fn flush(&mut self, out: &mut Outbox) -> Vec<Service> {
        if self.frames.is_empty() {
            return Vec::new();
        }
        let promise = self.promise.take().unwrap_or(Promise::None);
        out.say(&Message::Events { timing: self.timing, promise, frames: self.frames.split().freeze() });
        if self.events > 0 {
            out.tell(SessionEvent::EventsSent { events: std::mem::take(&mut self.events) });
        }
        let promised =
            |list: ListRef| Service { list, want: Bitmap::full(list.entries as usize), via: Via::Inline, cause: Cause::Promised };
        let services: Vec<Service> = self.lists.drain(..).map(promised).collect();
        services.iter().for_each(|service| out.tell(service.to_send()));
        services
    }
}
