//! The receiving half: events come in, their chunks are asked for, what is complete is committed.
//!
//! ```text
//! Events ──Admit──► pending ──Want──► chunks ──complete, deps applied──► Commit ──► Applied
//!                      └─ chunks unavailable, or behind such an event: parked
//! ```
//! Invariants: events are committed only when none of their lists is open and all they depend on is applied or goes with them; one
//! commit runs at a time and takes all that is ready (group commit); what is parked stays in the journal for another session.

use super::{
    Action, Admitted, Local, SessionError, SessionEvent, Waiting, Windows,
    asking::{Asking, Source},
    healing::{Healing, Holding},
    hello::{self, Hello},
    message::{Cause, Message, Promise, Timing},
    outbox::Outbox,
    sending::Flow,
};
use crate::{
    bitmap::Bitmap,
    event::{Dot, Frontier, ListRef},
    frame::{self, Kind},
    id::{ChunkId, ListId, Root},
    limits::{
        DAMAGED_CHUNKS_MAX, EVENT_LISTS_MAX, INLINE_BYTES_MAX, PARKED_EVENT_BYTES_MAX, PARKED_EVENTS_MAX, PENDING_EVENT_BYTES_MAX,
        PENDING_EVENTS_MAX,
    },
};
use bytes::Bytes;
use std::collections::{BTreeSet, HashSet, VecDeque};

/// Promised chunks that are kept while their events are being admitted.
const HELD_BYTES_MAX: usize = 4 * INLINE_BYTES_MAX;

/// Where a pending event came from, which is where its chunks may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// In this session.
    Received,
    /// It was in the journal, and the peer has it.
    Journal,
    /// It was in the journal, and the peer does not have it.
    Elsewhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Alive,
    Parked,
}

#[derive(Debug)]
struct Pending {
    event: Admitted,
    origin: Origin,
    standing: Standing,
    /// Its lists that may still be open, the first last.
    waiting: Vec<ListId>,
}

/// An Events message that the driver is admitting.
#[derive(Debug)]
struct Batch {
    /// Of which the peer knows no better than that they are under way.
    events: usize,
    bytes: usize,
    promise: Promise,
}

/// What becomes of events that were sent ahead of our Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Early {
    /// The peer sent none: they break the protocol.
    Unannounced,
    Take,
    /// They begin beyond what we have; the peer sends them again when it knows.
    Drop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Commit {
    Idle,
    Running(HashSet<Dot>),
}

/// Whether anything has changed that decides what is ready and what is parked. Most chunks change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Stands,
    Open,
}

#[derive(Debug)]
pub(super) struct Receiving {
    flow: Flow,
    early: Early,
    frontier: Frontier,
    root: Root,
    /// In causal order.
    pending: Vec<Pending>,
    asking: Asking,
    holding: Holding,
    healing: Healing,
    admitting: VecDeque<Batch>,
    /// Promised chunks whose events are still being admitted.
    held: Vec<(ListId, Bytes)>,
    held_bytes: usize,
    /// Lists that came since the last event.
    loose_lists: usize,
    storing: usize,
    commit: Commit,
    verdict: Verdict,
    /// What the peer was told to be parked.
    parked: Frontier,
    /// Events that are kept and not applied: of the other branch of a forked log, or of a log with a hole.
    aside: Frontier,
}

impl Receiving {
    pub(super) fn new(local: Local, windows: Windows) -> Self {
        let Local { frontier, root, pending, holding, forks } = local;
        let aside = forks.aside;
        let keep = |event| Pending { event, origin: Origin::Elsewhere, standing: Standing::Alive, waiting: Vec::new() };
        Self {
            flow: Flow::Unknown,
            early: Early::Unannounced,
            frontier,
            root,
            pending: pending.into_iter().map(keep).collect(),
            asking: Asking::new(windows),
            holding,
            healing: Healing::new(),
            admitting: VecDeque::new(),
            held: Vec::new(),
            held_bytes: 0,
            loose_lists: 0,
            storing: 0,
            commit: Commit::Idle,
            verdict: Verdict::Open,
            parked: Frontier::new(),
            aside,
        }
    }

    /// The peer's Hello is here: the journal's events that it has are resumed.
    pub(super) fn begin(&mut self, hello: &Hello, inline_bytes_max: u64, flow: Flow, out: &mut Outbox) {
        self.flow = flow;
        self.asking.set_inline_bytes_max(inline_bytes_max);
        if flow != Flow::Open {
            return;
        }
        let mut has = self.frontier.clone();
        has.join(&self.pending_frontier());
        self.early = match &hello.early {
            None => Early::Unannounced,
            Some(assumed) if has.covers(assumed) => Early::Take,
            Some(_) => Early::Drop,
        };
        for pending in std::mem::take(&mut self.pending) {
            let origin = if hello.frontier.contains(&pending.event.dot) { Origin::Journal } else { Origin::Elsewhere };
            self.keep(pending.event, origin, Promise::None, out);
        }
        if !self.aside.is_empty() {
            self.judge();
            self.say_applied(out);
        }
        if self.heals_from(hello) {
            self.healing.begin(hello.frontier.clone(), out);
        }
    }

    /// Whether something was lost here that this peer may be asked for.
    pub(super) fn heals_from(&self, hello: &Hello) -> bool {
        self.holding == Holding::Gaps && hello.features & hello::HEALS != 0
    }

    pub(super) fn holding(&self) -> Holding {
        self.holding
    }

    /// Chunks of the page that follows in what was lost here.
    pub(super) fn lost_found(&mut self, lists: Vec<(ListRef, Bitmap)>, next: Option<ListId>, out: &mut Outbox) -> Result<(), SessionError> {
        self.verdict = Verdict::Open;
        self.healing.found(lists, next, &mut self.asking, out)
    }

    /// What waits in the journal, as a frontier.
    pub(super) fn pending_frontier(&self) -> Frontier {
        let mut pending: Frontier = self.pending.iter().map(|pending| pending.event.dot).collect();
        pending.join(&self.aside);
        pending
    }

    fn keep(&mut self, event: Admitted, origin: Origin, promise: Promise, out: &mut Outbox) {
        self.verdict = Verdict::Open;
        let source = if origin == Origin::Elsewhere { Source::Elsewhere } else { Source::Peer };
        let (mut chunks, mut bytes, mut waiting) = (0, 0, Vec::new());
        for (list, missing) in event.lists.iter().filter(|(_, missing)| !missing.is_empty()) {
            let (more_chunks, more_bytes) = self.asking.track(*list, missing.clone(), source, promise);
            chunks += more_chunks;
            bytes += more_bytes;
            waiting.push(list.id);
        }
        waiting.reverse();
        if chunks > 0 {
            out.tell(SessionEvent::Missing { chunks, bytes });
        }
        self.pending.push(Pending { event, origin, standing: Standing::Alive, waiting });
    }

    pub(super) fn events(&mut self, timing: Timing, promise: Promise, frames: Bytes, out: &mut Outbox) -> Result<(), SessionError> {
        let Measure { events, bytes, lists, trailing_lists } = measure(&frames)?;
        if self.flow != Flow::Open {
            return Ok(());
        }
        match (timing, self.early) {
            (Timing::Early, Early::Unannounced) => return Err(SessionError::protocol("events came early that no Hello announced")),
            (Timing::Early, Early::Drop) => return Ok(()),
            (Timing::Early, Early::Take) | (Timing::Known, _) => {}
        }
        let (unapplied, unapplied_bytes) = self.unapplied();
        if unapplied + events > PENDING_EVENTS_MAX || (unapplied > 0 && events > 0 && unapplied_bytes > PENDING_EVENT_BYTES_MAX) {
            return Err(SessionError::protocol("more events are under way than allowed"));
        }
        let received = self.pending.iter().filter(|pending| pending.origin == Origin::Received);
        let (kept, kept_bytes) = received.fold((0, 0), |(events, bytes), pending| (events + 1, bytes + pending.event.bytes));
        if kept > PARKED_EVENTS_MAX || kept_bytes > PARKED_EVENT_BYTES_MAX {
            return Err(SessionError::protocol("more events wait for chunks than allowed"));
        }
        // Lists come before their event, so a run of them longer than an event may name belongs to none.
        self.loose_lists = if events == 0 { self.loose_lists + lists } else { trailing_lists };
        if self.loose_lists > EVENT_LISTS_MAX {
            return Err(SessionError::protocol("chunk lists come that no event names"));
        }
        self.admitting.push_back(Batch { events, bytes, promise });
        out.ask(Action::Admit { frames });
        Ok(())
    }

    /// Events of this session that are neither applied nor parked, and their bytes. What the log was heard to hold counts as applied,
    /// whoever brought it there: the peer was told so, and has sent more.
    fn unapplied(&self) -> (usize, usize) {
        let waits = |pending: &&Pending| {
            pending.origin == Origin::Received && pending.standing == Standing::Alive && !self.frontier.contains(&pending.event.dot)
        };
        let pending = self.pending.iter().filter(waits).map(|pending| (1, pending.event.bytes));
        let admitting = self.admitting.iter().map(|batch| (batch.events, batch.bytes));
        pending.chain(admitting).fold((0, 0), |(events, bytes), (more, more_bytes)| (events + more, bytes + more_bytes))
    }

    pub(super) fn admitted(&mut self, events: Vec<Admitted>, out: &mut Outbox) {
        let Some(batch) = self.admitting.pop_front() else { return };
        if !events.is_empty() {
            out.tell(SessionEvent::EventsReceived { events: events.len() as u64 });
        }
        for event in events {
            self.keep(event, Origin::Received, batch.promise, out);
        }
        self.held_bytes = 0;
        for (list, frames) in std::mem::take(&mut self.held) {
            self.promised(list, frames, out);
        }
    }

    pub(super) fn kept_aside(&mut self, event: Dot) {
        self.verdict = Verdict::Open;
        self.aside.raise(event);
    }

    pub(super) fn chunks(&mut self, cause: Cause, list: ListId, frames: Bytes, out: &mut Outbox) -> Result<(), SessionError> {
        match (self.flow, cause) {
            (Flow::Open, Cause::Asked) if !self.asking.is_asked(&list) => Err(SessionError::protocol("chunks came that nobody asked for")),
            (Flow::Open, Cause::Asked) => {
                self.store(list, frames, out);
                Ok(())
            }
            (Flow::Open, Cause::Promised) => {
                self.promised(list, frames, out);
                // A promise made early may be dropped and made again, and what another session brings makes room for more promises.
                if self.held_bytes > HELD_BYTES_MAX {
                    return Err(SessionError::protocol("more chunks are promised than allowed"));
                }
                Ok(())
            }
            (Flow::Unknown | Flow::Shut, _) => Ok(()),
        }
    }

    /// Stores promised chunks if a pending event lacks them, keeps them while its event may still be on the way, else drops them.
    fn promised(&mut self, list: ListId, frames: Bytes, out: &mut Outbox) {
        if self.asking.promise_came(&list, out) {
            self.store(list, frames, out);
        } else if self.admitting.iter().any(|batch| batch.promise == Promise::Chunks) {
            self.held_bytes += frames.len();
            self.held.push((list, frames));
        }
    }

    fn store(&mut self, list: ListId, frames: Bytes, out: &mut Outbox) {
        self.storing += 1;
        out.ask(Action::StoreInline { list, frames });
    }

    pub(super) fn stored(&mut self, list: &ListId) {
        self.verdict = Verdict::Open;
        self.storing = self.storing.saturating_sub(1);
        self.asking.stored(list);
    }

    pub(super) fn peer_served(&mut self, list: &ListId, unavailable: &Bitmap) -> Result<(), SessionError> {
        self.verdict = Verdict::Open;
        match self.flow {
            Flow::Open => self.asking.served(list, unavailable),
            Flow::Unknown | Flow::Shut => Err(SessionError::protocol("a want was served that nobody asked")),
        }
    }

    pub(super) fn progress(&mut self, list: &ListId, chunks: u32, bytes: u64, out: &mut Outbox) {
        self.asking.progress(list, chunks);
        if self.asking.has_gaps(list) {
            self.verdict = Verdict::Open;
        }
        if chunks > 0 {
            out.tell(SessionEvent::Received { chunks: u64::from(chunks), bytes });
        }
    }

    pub(super) fn list_complete(&mut self, list: &ListId) {
        self.verdict = Verdict::Open;
        self.asking.complete(list);
    }

    pub(super) fn damaged(&mut self, list: &ListId, chunks: Vec<ChunkId>, out: &mut Outbox) {
        self.verdict = Verdict::Open;
        self.asking.lack(list, chunks.len() as u32);
        for part in chunks.chunks(DAMAGED_CHUNKS_MAX) {
            out.say(&Message::Damaged(part.to_vec()));
        }
        out.tell(SessionEvent::DamagedThere { chunks });
    }

    pub(super) fn committed(&mut self, frontier: &Frontier, root: Root, out: &mut Outbox) {
        self.verdict = Verdict::Open;
        if let Commit::Running(dots) = std::mem::replace(&mut self.commit, Commit::Idle) {
            let all = std::mem::take(&mut self.pending).into_iter();
            self.pending = all.filter(|pending| !dots.contains(&pending.event.dot)).collect();
        }
        self.raise(frontier, root);
        self.judge();
        self.say_applied(out);
        out.tell(SessionEvent::Applied { frontier: self.frontier.clone(), root: self.root });
    }

    /// Others, the user or a peer of another session, made this replica hold more. Returns whether that is news.
    pub(super) fn grow(&mut self, frontier: &Frontier, root: Root, out: &mut Outbox) -> bool {
        if self.root == root || !self.raise(frontier, root) {
            return false;
        }
        self.verdict = Verdict::Open;
        // Events that are still being admitted may be among those that another session has brought.
        self.admitting.iter_mut().for_each(|batch| (batch.events, batch.bytes) = (0, 0));
        // Of what is applied all chunks are here. To ask for more would come too late: the peer takes Applied for an answer.
        let applied = self.pending.iter().filter(|pending| frontier.contains(&pending.event.dot));
        applied.flat_map(|pending| &pending.waiting).for_each(|list| self.asking.complete(list));
        self.judge();
        self.say_applied(out);
        true
    }

    /// Takes over a later state. Two commits may be told of in the wrong order: what has been said of the later one stands.
    fn raise(&mut self, frontier: &Frontier, root: Root) -> bool {
        let later = frontier.covers(&self.frontier);
        if later {
            (self.frontier, self.root) = (frontier.clone(), root);
        }
        later
    }

    /// The peer has applied all of `frontier`: of what waits here, that can be had from it now.
    pub(super) fn peer_holds(&mut self, frontier: &Frontier) {
        let held = |pending: &&mut Pending| pending.origin == Origin::Elsewhere && frontier.contains(&pending.event.dot);
        for pending in self.pending.iter_mut().filter(held) {
            pending.origin = Origin::Journal;
            self.verdict = Verdict::Open;
            for (list, missing) in pending.event.lists.iter().filter(|(list, _)| pending.waiting.contains(&list.id)) {
                self.asking.track(*list, missing.clone(), Source::Peer, Promise::None);
            }
        }
    }

    /// Goes on as far as the windows allow.
    pub(super) fn pump(&mut self, out: &mut Outbox) {
        if self.flow != Flow::Open {
            return;
        }
        self.asking.pump(out);
        if self.verdict == Verdict::Open {
            let Self { healing, asking, pending, .. } = self;
            healing.go_on(asking, |list| pending.iter().any(|pending| pending.waiting.contains(list)), out);
        }
        if std::mem::replace(&mut self.verdict, Verdict::Stands) == Verdict::Stands {
            return;
        }
        let told = self.parked.clone();
        self.judge();
        if self.parked != told {
            self.say_applied(out);
        }
        self.commit_ready(out);
    }

    fn commit_ready(&mut self, out: &mut Outbox) {
        if self.is_committing() {
            return;
        }
        let (mut reach, mut ready) = (self.frontier.clone(), Vec::new());
        for pending in &mut self.pending {
            while pending.waiting.last().is_some_and(|list| !self.asking.is_open(list)) {
                pending.waiting.pop();
            }
            if pending.waiting.is_empty() && follows(&pending.event, &reach) {
                reach.raise(pending.event.dot);
                ready.push(pending.event.dot);
            }
        }
        if !ready.is_empty() {
            self.commit = Commit::Running(ready.iter().copied().collect());
            out.ask(Action::Commit { events: ready });
        }
    }

    /// Decides anew which events can't be applied in this session, and how far that is known for each author.
    fn judge(&mut self) {
        let (mut alive, mut parked, mut undecided) = (self.frontier.clone(), Frontier::new(), BTreeSet::new());
        for pending in &mut self.pending {
            let stuck = pending.waiting.iter().any(|list| self.asking.is_stuck(list));
            let dot = pending.event.dot;
            if !stuck && follows(&pending.event, &alive) {
                pending.standing = Standing::Alive;
                alive.raise(dot);
                undecided.insert(dot.author);
            } else {
                pending.standing = Standing::Parked;
                // A frontier speaks for all that an author wrote before: not while some of it may still be applied.
                if pending.origin != Origin::Elsewhere && !undecided.contains(&dot.author) {
                    parked.raise(dot);
                }
            }
        }
        parked.join(&self.aside);
        self.parked = parked;
    }

    /// Says, again if need be, what is applied and what is parked.
    pub(super) fn say_applied(&self, out: &mut Outbox) {
        out.say(&Message::Applied { frontier: self.frontier.clone(), root: self.root, parked: self.parked.clone() });
    }

    /// Every event that the peer has sent, or that it could complete, is applied or parked.
    pub(super) fn is_settled(&self) -> bool {
        let applied = |pending: &Pending| self.frontier.contains(&pending.event.dot);
        let settled = |pending: &Pending| pending.origin == Origin::Elsewhere || pending.standing == Standing::Parked || applied(pending);
        self.flow != Flow::Open || (self.healing.is_over() && self.pending.iter().all(settled))
    }

    pub(super) fn is_committing(&self) -> bool {
        matches!(self.commit, Commit::Running(_))
    }

    /// The commit will not be answered: this side failed.
    pub(super) fn give_up(&mut self) {
        self.commit = Commit::Idle;
    }

    /// The driver owes an answer.
    pub(super) fn is_working(&self) -> bool {
        !self.admitting.is_empty() || self.storing > 0 || self.is_committing() || self.healing.is_working()
    }

    /// Chunks are on their way.
    pub(super) fn awaits_chunks(&self) -> bool {
        self.asking.awaits()
    }

    /// Nothing that was lost here is under way.
    pub(super) fn has_healed(&self) -> bool {
        self.healing.is_over()
    }

    /// Chunks that were lost here and that the peer does not have either.
    pub(super) fn lost(&self) -> u64 {
        self.healing.lost()
    }

    pub(super) fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    pub(super) fn root(&self) -> Root {
        self.root
    }

    /// Events of this peer that stay in the journal, with what they lack.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let lacks = |event: &Admitted| event.lists.iter().map(|(list, _)| self.asking.missing(&list.id)).sum();
        let pending = self.pending.iter().filter(|pending| pending.origin != Origin::Elsewhere && self.flow == Flow::Open);
        let pending = pending.filter(|pending| !self.frontier.contains(&pending.event.dot));
        pending.map(|pending| Waiting { event: pending.event.dot, chunks: lacks(&pending.event) }).collect()
    }
}

/// Whether everything that `event` builds on is in `frontier`.
fn follows(event: &Admitted, frontier: &Frontier) -> bool {
    let Dot { author, sequence } = event.dot;
    frontier.sequence_of(&author).saturating_add(1) >= sequence && frontier.covers(&event.deps)
}

/// What a run of frames holds.
#[derive(Debug, Default)]
struct Measure {
    events: usize,
    bytes: usize,
    lists: usize,
    /// Lists behind the last event.
    trailing_lists: usize,
}

fn measure(frames: &Bytes) -> Result<Measure, SessionError> {
    let mut measure = Measure { bytes: frames.len(), ..Measure::default() };
    for next in frame::split(frames) {
        match next.map(|(header, _)| header.kind) {
            Ok(Kind::Event) => {
                measure.events += 1;
                measure.trailing_lists = 0;
            }
            Ok(Kind::List) => {
                measure.lists += 1;
                measure.trailing_lists += 1;
            }
            Ok(Kind::Chunk) => return Err(SessionError::protocol("a chunk came among events")),
            Err(error) => return Err(SessionError::protocol(format!("events are malformed: {error}"))),
        }
    }
    if frames.is_empty() {
        return Err(SessionError::protocol("a message of events holds none"));
    }
    Ok(measure)
}
