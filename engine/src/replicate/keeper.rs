//! The receiving side of one session: a thread that checks what the peer sent, stores it, and makes events visible.
//!
//! Everything from the peer passes here before it counts: frames against their ids, lists and events against every rule that the
//! store knows, chunks against what is expected. Runs arrive over a bounded queue, so a slow disk slows the peer down and nothing
//! piles up in memory.

mod admission;

use super::{ReplicateError, failure::Failures};
use crate::{
    bitmap::Bitmap,
    clock,
    event::{ChunkList, Dot, Event, Frontier, ListRef},
    frame::{self, Header, Verified},
    id::{ChunkId, IdMap, ListId},
    limits::{CHECKPOINT_BYTES, FUSE_WINDOW_MS, LOST_LISTS_MAX, MIB},
    meter::{Meter, Work},
    session::{Admitted, Arrival, Done, Wants},
    store::{Hole, Looked, LostList, PackWriter, Pending, Standing, Store, StoreError},
    vault::Fuse,
};
use admission::Refusal;
use bytes::Bytes;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Runs that have come are taken together up to about this much: enough short chunks to fill every lane of the hash.
const GATHERED_BYTES: usize = MIB;

/// What the keeper does, in the order in which it is asked.
#[derive(Debug)]
pub(super) enum Job {
    /// Check events and lists.
    Admit(Bytes),
    /// Check what is said to prove a fork.
    TakeProof(Bytes),
    /// Take the rest of a list no more.
    Forget(ListId),
    /// Look for what was lost of events that the peer has.
    FindLost { within: Frontier, after: Option<ListId> },
    /// Chunks of short lists, which come many at once.
    Take(Intake),
    /// Chunk frames from a lane.
    Run(Bytes),
    /// Make events visible.
    Commit(Vec<Dot>),
}

/// Chunks to be taken from now on, and then chunk frames from the control stream. To expect a chunk earlier than asked does no harm.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Take these chunks of a list from now on.
    pub(super) expect: Vec<(ListRef, Bitmap)>,
    /// Chunk frames, each with the list that it was sent for.
    pub(super) inline: Vec<(ListId, Bytes)>,
}

impl Intake {
    pub(super) fn is_empty(&self) -> bool {
        self.expect.is_empty() && self.inline.is_empty()
    }
}

/// What the keeper's thread has to say at its end.
#[derive(Debug, Default, Clone)]
pub(super) struct Kept {
    /// Chunks that nobody asked for.
    pub(super) unwanted: u64,
    /// Chunks that events named and that were here before they came.
    pub(super) present: u64,
    /// Events that wait for one which nobody has offered yet.
    pub(super) holes: Vec<Hole>,
    /// Where two signed events were found for one number.
    pub(super) forks: Vec<Dot>,
}

/// Events that wait for chunks, with their lists.
struct Staged {
    event: Event,
    lists: Vec<ChunkList>,
}

pub(super) struct Keeper {
    store: Arc<Store>,
    done: mpsc::UnboundedSender<Done>,
    failures: Failures,
    writer: PackWriter,
    /// From before the oldest chunk that is expected was looked up.
    looked: Looked,
    unsynced: u64,
    wants: Wants,
    staged: HashMap<Dot, Staged>,
    /// What the next event may follow, beside the log: all that was staged in this session.
    pending: Pending,
    /// Lists of staged events.
    lists: HashMap<ListId, ChunkList>,
    /// Lists that came before their event. The next event names them, or nobody does.
    loose: HashMap<ListId, ChunkList>,
    /// Lists of events in the log whose lost chunks are asked for.
    healing: HashSet<ListId>,
    kept: Kept,
    fuse: Option<Arc<Fuse>>,
    deletions: Deletions,
    meter: Arc<Meter>,
}

impl Keeper {
    /// A keeper for one session; events left in the journal by an earlier one are taken over.
    pub(super) fn new(
        store: Arc<Store>,
        done: mpsc::UnboundedSender<Done>,
        failures: Failures,
        fuse: Option<Arc<Fuse>>,
        meter: Arc<Meter>,
    ) -> Result<(Self, Vec<Admitted>), StoreError> {
        let writer = store.writer();
        let mut keeper = Self {
            done,
            failures,
            looked: writer.looks(),
            writer,
            unsynced: 0,
            wants: Wants::new(),
            staged: HashMap::new(),
            pending: Pending::new(),
            lists: HashMap::new(),
            loose: HashMap::new(),
            healing: HashSet::new(),
            kept: Kept::default(),
            fuse,
            deletions: Deletions::default(),
            meter,
            store,
        };
        let mut waiting = Vec::new();
        for (event, lists) in keeper.store.journal_pending()? {
            if keeper.still_fits(&event)? {
                waiting.push(keeper.accept(event, lists));
            }
        }
        let pending = keeper.stage(waiting)?;
        Ok((keeper, pending))
    }

    /// Whether an event of the journal can still be appended. It cannot once the log, or what waits before it, says something else
    /// in the place of an event that it builds on; kept, it would stand in the way of the true one for ever.
    fn still_fits(&mut self, event: &Event) -> Result<bool, StoreError> {
        let checked = self.store.check_event(event, &self.pending);
        if let Err(StoreError::MissingDependency(missing)) = checked {
            self.kept.holes.push(self.store.hole(event.dot(), missing)?);
            return Ok(false);
        }
        match checked.map_err(Refusal::from) {
            Ok(Standing::New) => Ok(true),
            Err(Refusal::Here(error)) if !matches!(error, StoreError::Fork { .. }) => Err(error),
            Ok(Standing::Held) | Err(_) => {
                tracing::warn!(event = ?event.dot(), "an event that waited for chunks fits the log no more and is dropped");
                self.store.journal_remove(&[event.dot()])?;
                Ok(false)
            }
        }
    }

    /// Works until everybody who could ask is gone; leaves what arrived durable and known.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> Kept {
        let mut next = None;
        loop {
            let job = match next.take() {
                None => jobs.recv().await,
                waiting => waiting,
            };
            let Some(job) = job else { break };
            let result = match job {
                Job::Run(first) => {
                    let (runs, other) = gather(first, &mut jobs);
                    next = other;
                    self.take_runs(&runs)
                }
                job => self.work(job),
            };
            if let Err(error) = result {
                self.failures.here(error);
                let _ = self.done.send(Done::Failed { reason: self.failures.text() });
                break;
            }
        }
        if let Err(error) = self.checkpoint() {
            self.failures.here(error);
        }
        self.kept
    }

    fn work(&mut self, job: Job) -> Result<(), StoreError> {
        match job {
            Job::TakeProof(frames) => self.take_proof(&frames),
            Job::Admit(frames) => self.index(|keeper| keeper.admit(&frames)),
            Job::Forget(list) => {
                self.forget(&list);
                self.settle_healed()
            }
            Job::FindLost { within, after } => self.index(|keeper| keeper.find_lost(&within, after)),
            Job::Take(intake) => self.take(intake),
            Job::Run(frames) => self.take_runs(&[frames]),
            Job::Commit(dots) => self.commit(&dots),
        }
    }

    /// Nobody listens any more once the session has ended; then there is nobody to tell.
    fn say(&self, done: Done) {
        let _ = self.done.send(done);
    }

    /// Does something with index, journal or log.
    fn index(&mut self, work: impl FnOnce(&mut Self) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let began = clock::now();
        let done = work(self);
        self.meter.lap(Work::Index, began);
        done
    }

    fn take(&mut self, Intake { expect, inline }: Intake) -> Result<(), StoreError> {
        if !expect.is_empty() {
            self.index(|keeper| keeper.expect(&expect))?;
        }
        if !inline.is_empty() {
            let (lists, frames): (Vec<ListId>, Vec<Bytes>) = inline.into_iter().unzip();
            self.take_runs(&frames)?;
            lists.into_iter().for_each(|list| self.say(Done::Stored { list }));
        }
        Ok(())
    }

    fn expect(&mut self, wants: &[(ListRef, Bitmap)]) -> Result<(), StoreError> {
        if self.wants.outstanding_chunks() == 0 {
            self.looked = self.writer.looks();
        }
        let known = wants.iter().map(|(reference, _)| self.lists.get(&reference.id)).collect::<Option<Vec<&ChunkList>>>();
        let lists = known.ok_or_else(|| StoreError::Damaged("a list is expected that was never admitted".into()))?;
        let missing = self.store.missing_each(&lists)?;
        wants.iter().zip(missing).for_each(|((reference, want), missing)| self.expect_list(reference, want, &missing));
        Ok(())
    }

    /// Chunks that came in the meantime, for another list or from another peer, are reported as if they had just arrived.
    fn expect_list(&mut self, reference: &ListRef, want: &Bitmap, missing: &Bitmap) {
        let Some(list) = self.lists.get(&reference.id) else { return };
        let mut lacking = Bitmap::empty(want.entries());
        let (mut chunks, mut bytes) = (0, 0);
        for position in want.iter() {
            if missing.contains(position) {
                lacking.insert(position);
            } else if let Some(entry) = list.entries().get(position as usize) {
                chunks += 1;
                bytes += entry.frame_bytes();
            }
        }
        self.wants.expect(reference.id, list, &lacking);
        if chunks > 0 {
            self.say(Done::Progress { list: reference.id, chunks, bytes });
        }
        if lacking.is_empty() {
            self.say(Done::ListComplete { list: reference.id });
            if self.healing.contains(&reference.id) {
                self.forget(&reference.id);
            }
        }
    }

    fn find_lost(&mut self, within: &Frontier, after: Option<ListId>) -> Result<(), StoreError> {
        let page = self.store.lost_lists(Some(within), after, LOST_LISTS_MAX)?;
        let mut lists = Vec::with_capacity(page.lists.len());
        for LostList { list, missing } in page.lists {
            lists.push((list.reference(), missing));
            self.healing.insert(list.id());
            self.lists.insert(list.id(), list);
        }
        self.say(Done::Lost { lists, next: page.next });
        Ok(())
    }

    /// A list is whole, or no longer asked for.
    fn forget(&mut self, list: &ListId) {
        if self.wants.expects(list) {
            self.wants.drop_list(list);
        }
        if self.healing.remove(list) && !self.staged.values().any(|staged| staged.lists.iter().any(|other| other.id() == *list)) {
            self.lists.remove(list);
        }
    }

    /// Once nothing more is healed, what has come is made durable: no commit may follow for long.
    fn settle_healed(&mut self) -> Result<(), StoreError> {
        if self.healing.is_empty() && self.unsynced > 0 { self.checkpoint() } else { Ok(()) }
    }

    fn take_runs(&mut self, runs: &[Bytes]) -> Result<(), StoreError> {
        let began = clock::now();
        let frames = self.wanted_of(runs);
        let began = self.meter.lap(Work::Check, began);
        if !frames.is_empty() {
            self.writer.append_missing(&frames, self.looked)?;
        }
        let began = self.meter.lap(Work::Write, began);
        self.unsynced += frames.iter().map(|frame| frame.bytes().len() as u64).sum::<u64>();
        let was_healing = !self.healing.is_empty();
        self.report(&frames);
        self.meter.lap(Work::Check, began);
        match self.unsynced {
            CHECKPOINT_BYTES.. => self.checkpoint(),
            _ if was_healing => self.settle_healed(),
            _ => Ok(()),
        }
    }

    /// The frames that are expected, match their ids, and have the length that their lists say. Other copies of an expected chunk are
    /// reported, once: a chunk that a list lies about must not be stored, or the event would seem complete.
    fn wanted_of<'r>(&mut self, runs: &'r [Bytes]) -> Vec<Verified<'r>> {
        // Headers were checked when the run was cut out of its lane; inline runs end at the first bad one.
        let come = runs.iter().flat_map(|run| frame::split(run).map_while(Result::ok));
        let (known, unknown): (Vec<_>, Vec<_>) = come.partition(|(header, _)| self.wants.length_of(&chunk_of(header)).is_some());
        self.kept.unwanted += unknown.len() as u64;
        let mut frames = Vec::with_capacity(known.len());
        let mut damaged: IdMap<ListId, Vec<ChunkId>> = IdMap::default();
        for ((header, _), checked) in known.iter().zip(Verified::check_each(&known)) {
            let chunk = chunk_of(header);
            match (self.wants.length_of(&chunk), checked) {
                // A copy before it was damaged.
                (None, _) => self.kept.unwanted += 1,
                (Some(length), Ok(frame)) if length == header.length => frames.push(frame),
                _ => self.wants.spoiled(&chunk).into_iter().for_each(|list| damaged.entry(list).or_default().push(chunk)),
            }
        }
        damaged.into_iter().for_each(|(list, chunks)| self.say(Done::Damaged { list, chunks }));
        frames
    }

    /// Tells the session of what is stored now.
    fn report(&mut self, frames: &[Verified<'_>]) {
        let mut landed: IdMap<ListId, (u32, u64)> = IdMap::default();
        let mut complete = Vec::new();
        for frame in frames {
            match self.wants.arrived(&chunk_of(frame.header()), frame.header().length) {
                // The run held it twice.
                Arrival::Unwanted | Arrival::WrongLength { .. } => self.kept.unwanted += 1,
                Arrival::Wanted { landed: first, others } => {
                    for landing in others.into_iter().chain([first]) {
                        let (chunks, bytes) = landed.entry(landing.list).or_default();
                        *chunks += 1;
                        *bytes += frame.bytes().len() as u64;
                        complete.extend((landing.remaining == 0).then_some(landing.list));
                    }
                }
            }
        }
        for (list, (chunks, bytes)) in landed {
            self.say(Done::Progress { list, chunks, bytes });
        }
        for list in complete {
            self.say(Done::ListComplete { list });
            if self.healing.contains(&list) {
                self.forget(&list);
            }
        }
    }

    /// After this, what arrived so far need not be sent or checked again, whatever happens.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.unsynced = 0;
        let began = clock::now();
        let synced = self.writer.sync();
        let began = self.meter.lap(Work::Sync, began);
        let published = synced.and_then(|()| self.writer.publish());
        self.meter.lap(Work::Index, began);
        published
    }

    /// Whether what is to be committed deletes no more than the user allows.
    fn look_at_deletions(&mut self, dots: &[Dot]) -> Result<(), ReplicateError> {
        let Some(fuse) = &self.fuse else { return Ok(()) };
        let events = dots.iter().filter_map(|dot| self.staged.get(dot)).map(|staged| &staged.event);
        let keys = fuse.deletions(events)?;
        if keys == 0 {
            return Ok(());
        }
        let deletions = self.deletions.add(keys, clock::now());
        let allowed = fuse.allowed();
        if deletions > allowed { Err(ReplicateError::Fuse { deletions, allowed }) } else { Ok(()) }
    }

    /// What another session has brought counts as here when events come, and may not be durable yet when they are committed.
    fn append(&mut self, staged: &[(Event, Vec<ChunkList>)]) -> Result<(), StoreError> {
        match self.store.append_foreign(staged) {
            Err(StoreError::MissingChunks { .. }) => {
                let entries = staged.iter().flat_map(|(_, lists)| lists).flat_map(|list| list.entries());
                self.writer.take_over(&entries.map(|entry| entry.id).collect::<Vec<_>>())?;
                self.checkpoint()?;
                self.store.append_foreign(staged)
            }
            appended => appended,
        }
        .map(drop)
    }

    fn commit(&mut self, dots: &[Dot]) -> Result<(), StoreError> {
        self.checkpoint()?;
        if let Err(blown) = self.look_at_deletions(dots) {
            self.failures.note(blown);
            self.say(Done::NotAllowed { reason: self.failures.text() });
            return Ok(());
        }
        let staged: Vec<(Event, Vec<ChunkList>)> =
            dots.iter().filter_map(|dot| self.staged.remove(dot)).map(|staged| (staged.event, staged.lists)).collect();
        for list in staged.iter().flat_map(|(event, _)| &event.header().lists) {
            self.lists.remove(&list.id);
            // What this peer could not give, another session has brought.
            if self.wants.expects(&list.id) {
                self.wants.drop_list(&list.id);
            }
        }
        self.index(|keeper| {
            keeper.append(&staged)?;
            keeper.store.journal_remove(dots)
        })?;
        dots.iter().for_each(|dot| self.pending.remove(dot));
        let heads = self.store.heads();
        self.say(Done::Committed { frontier: heads.frontier(), root: heads.root() });
        Ok(())
    }
}

/// Keys that the peer has deleted here of late.
#[derive(Debug, Default)]
struct Deletions {
    keys: u64,
    since: Option<Instant>,
}

impl Deletions {
    /// Adds `keys` that are deleted now; returns how many that makes at once.
    fn add(&mut self, keys: u64, now: Instant) -> u64 {
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_millis(FUSE_WINDOW_MS)) {
            *self = Self { keys: 0, since: Some(now) };
        }
        self.keys += keys;
        self.keys
    }
}

/// Runs that wait behind `first`, to be taken in one go, and the job that ended the look for them: what a run costs is then shared by
/// more chunks. Waits for nothing.
fn gather(first: Bytes, jobs: &mut mpsc::Receiver<Job>) -> (Vec<Bytes>, Option<Job>) {
    let mut bytes = first.len();
    let mut runs = vec![first];
    while bytes < GATHERED_BYTES {
        match jobs.try_recv() {
            Ok(Job::Run(run)) => {
                bytes += run.len();
                runs.push(run);
            }
            Ok(other) => return (runs, Some(other)),
            Err(_) => break,
        }
    }
    (runs, None)
}

fn chunk_of(header: &Header) -> ChunkId {
    ChunkId::from_bytes(header.id)
}

#[cfg(test)]
mod tests;
