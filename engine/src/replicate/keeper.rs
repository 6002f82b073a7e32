//! The receiving side of one session: a thread that checks what the peer sent, stores it, and makes events visible.
//!
//! Everything from the peer passes here before it counts: frames against their ids, lists and events against every rule that the
//! store knows, chunks against what is expected. Runs arrive over a bounded queue, so a slow disk slows the peer down and nothing
//! piles up in memory.

use super::{ReplicateError, failure::Failures};
use crate::{
    bitmap::Bitmap,
    clock,
    event::{ChunkList, Dot, Event, Frontier, ListRef},
    frame::{self, FrameError, Header, Kind, Verified},
    id::{ChunkId, IdMap, ListId, ReplicaId, VaultId},
    limits::{CHECKPOINT_BYTES, EVENT_LISTS_MAX, FUSE_WINDOW_MS, HOLES_MAX, LOST_LISTS_MAX, MIB},
    meter::{Meter, Work},
    session::{Admitted, Arrival, Done, Wants},
    store::{Fork, Hole, Looked, LostList, PackWriter, Pending, Standing, Store, StoreError},
    vault::Fuse,
};
use bytes::Bytes;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Runs that have come are taken together up to about this much: enough short chunks to fill every lane of the hash.
const GATHERED_BYTES: usize = MIB;

/// Frames of a message of events from which on all threads check them: below, to wake them takes as long as they save.
const SHARED_FRAMES_MIN: usize = 8;

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

    /// Events up to the first bad frame are kept, and staged before the next message is looked at, whatever comes behind them.
    fn admit(&mut self, frames: &[u8]) -> Result<(), StoreError> {
        let mut fitting = Vec::new();
        let refused = self.fitting(frames, &mut fitting).err();
        let waiting = fitting.iter().map(|staged| (&staged.event, staged.lists.as_slice()));
        let kept = self.store.journal_put_each(waiting)?;
        if kept < fitting.len() {
            // Others hold it full. The journal only saves asking for the events again after an interruption.
            tracing::debug!(events = fitting.len() - kept, "the journal is full: events wait in memory");
        }
        let events = self.stage(fitting)?;
        match refused {
            None => self.say(Done::Admitted { events }),
            Some(Refusal::Peer(reason)) => self.say(Done::Refused { reason }),
            Some(Refusal::NotAllowed(reason)) => self.say(Done::NotAllowed { reason }),
            Some(Refusal::Here(error)) => return Err(error),
        }
        Ok(())
    }

    /// Adds to `fitting` what may follow, in order. What a frame is checked for by itself, signatures above all, is done on all threads;
    /// what it is checked for with those before it, one by one.
    fn fitting(&mut self, frames: &[u8], fitting: &mut Vec<Staged>) -> Result<(), Refusal> {
        let vault = *self.store.vault();
        let frames: Vec<_> = frame::split(frames).collect();
        let check = |frame| Checked::of(frame, &vault);
        let checked: Vec<Result<Checked, Refusal>> = match frames.len() {
            0..SHARED_FRAMES_MIN => frames.into_iter().map(check).collect(),
            SHARED_FRAMES_MIN.. => frames.into_par_iter().map(check).collect(),
        };
        for checked in checked {
            match checked? {
                Checked::List(id, list) => {
                    if self.loose.len() >= EVENT_LISTS_MAX {
                        return Err(Refusal::Peer("too many chunk lists without their event".into()));
                    }
                    self.loose.insert(id, list);
                }
                Checked::Event(event) => {
                    let loose = std::mem::take(&mut self.loose);
                    let admitted = self.admit_event(*event, &loose, fitting)?;
                    fitting.extend(admitted);
                }
            }
        }
        Ok(())
    }

    /// `before` are those of the same message, which are not staged yet.
    fn admit_event(&mut self, event: Event, loose: &HashMap<ListId, ChunkList>, before: &[Staged]) -> Result<Option<Staged>, Refusal> {
        // An event that is staged already is held; another one in its place is a fork.
        match self.store.check_event(&event, &self.pending) {
            Ok(Standing::New) => {}
            Ok(Standing::Held) => return Ok(None),
            Err(StoreError::Fork { .. }) => return self.keep_aside(&event, loose, before),
            Err(_) if event.header().previous.is_some_and(|previous| self.store.is_aside(&previous)) => {
                return self.keep_aside(&event, loose, before);
            }
            Err(StoreError::MissingDependency(missing)) if self.kept.holes.len() < HOLES_MAX => {
                return self.keep_waiting(&event, missing, loose);
            }
            Err(error) => return Err(error.into()),
        }
        let lists = event.header().lists.iter().map(|reference| self.list_of(reference, loose)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(self.accept(event, lists)))
    }

    /// From now on other events may follow this one, and name its lists.
    fn accept(&mut self, event: Event, lists: Vec<ChunkList>) -> Staged {
        self.pending.add(&event);
        self.lists.extend(event.header().lists.iter().zip(&lists).map(|(reference, list)| (reference.id, list.clone())));
        Staged { event, lists }
    }

    /// An event of a forked log's other branch: kept as proof, and not applied. The session goes on with everything else.
    fn keep_aside(&mut self, event: &Event, loose: &HashMap<ListId, ChunkList>, before: &[Staged]) -> Result<Option<Staged>, Refusal> {
        let lists = event.header().lists.iter().map(|reference| self.list_of(reference, loose)).collect::<Result<Vec<_>, _>>()?;
        // What it contradicts may still wait for its chunks, and then stands in no log.
        let dot = event.dot();
        for sequence in dot.sequence.saturating_sub(1)..=dot.sequence {
            let at = Dot { sequence, ..dot };
            if let Some(staged) = self.staged.get(&at).or_else(|| before.iter().find(|staged| staged.event.dot() == at)) {
                self.store.keep_aside(&staged.event, &staged.lists)?;
            }
        }
        self.store.keep_aside(event, &lists)?;
        if !self.kept.forks.iter().any(|fork| fork.author == dot.author) {
            let fork = self.store.fork_of(&dot.author);
            self.kept.forks.push(fork.map_or(dot, |fork| fork.dot));
            let proof = self.store.proof_of(&dot.author)?.unwrap_or_default();
            self.say(Done::ForkFound { proof: proof.into() });
        }
        self.say(Done::KeptAside { event: dot });
        Ok(None)
    }

    /// An event that builds on one which is not here, and which this peer does not offer before it: it waits in the journal.
    fn keep_waiting(&mut self, event: &Event, missing: Dot, loose: &HashMap<ListId, ChunkList>) -> Result<Option<Staged>, Refusal> {
        let lists = event.header().lists.iter().map(|reference| self.list_of(reference, loose)).collect::<Result<Vec<_>, _>>()?;
        self.store.journal_put(event, &lists)?;
        self.kept.holes.push(self.store.hole(event.dot(), missing)?);
        self.say(Done::KeptAside { event: event.dot() });
        Ok(None)
    }

    /// Another replica's proof of a fork.
    fn take_proof(&mut self, frames: &[u8]) -> Result<(), StoreError> {
        match self.check_proof(frames) {
            Ok(Some(fork)) => self.kept.forks.push(fork.dot),
            Ok(None) => {}
            Err(Refusal::Here(error)) => return Err(error),
            Err(Refusal::Peer(reason) | Refusal::NotAllowed(reason)) => self.say(Done::Refused { reason }),
        }
        Ok(())
    }

    fn check_proof(&self, frames: &[u8]) -> Result<Option<Fork>, Refusal> {
        let mut events = Vec::new();
        for frame in frame::split(frames) {
            let (header, bytes) = frame?;
            if header.kind != Kind::Event || events.len() == 2 {
                return Err(Refusal::Peer("the proof of a fork is two events".into()));
            }
            let record = Verified::check(bytes)?.record().to_vec();
            events.push(Event::check(record, self.store.vault()).map_err(|error| Refusal::Peer(error.to_string()))?);
        }
        let [first, second] = &events[..] else { return Err(Refusal::Peer("the proof of a fork is two events".into())) };
        Ok(self.store.take_proof(first, second)?)
    }

    fn list_of(&self, reference: &ListRef, loose: &HashMap<ListId, ChunkList>) -> Result<ChunkList, Refusal> {
        match loose.get(&reference.id).or_else(|| self.lists.get(&reference.id)) {
            Some(list) if list.reference() == *reference => Ok(list.clone()),
            Some(_) => Err(Refusal::Peer("an event says of a chunk list what is not true".into())),
            None => match self.store.list(&reference.id)? {
                Some(list) if list.reference() == *reference => Ok(list),
                _ => Err(Refusal::Peer("an event came without its chunk lists".into())),
            },
        }
    }

    /// Takes in events that fit, and finds out what they lack.
    fn stage(&mut self, events: Vec<Staged>) -> Result<Vec<Admitted>, StoreError> {
        let lists: Vec<&ChunkList> = events.iter().flat_map(|staged| &staged.lists).collect();
        let mut lacking = self.store.missing_each(&lists)?.into_iter();
        let held = self.store.frontier();
        let mut admitted = Vec::with_capacity(events.len());
        for Staged { event, lists } in events {
            let mut bytes = event.record().len();
            let mut missing = Vec::new();
            for ((reference, list), lacking) in event.header().lists.iter().zip(&lists).zip(lacking.by_ref()) {
                bytes += list.entries().len() * 36;
                self.kept.present += (list.entries().len() - lacking.len()) as u64;
                if !lacking.is_empty() {
                    missing.push((*reference, lacking));
                }
            }
            admitted.push(Admitted { dot: event.dot(), deps: self.deps_here(&event, &held), bytes, lists: missing });
            self.staged.insert(event.dot(), Staged { event, lists });
        }
        Ok(admitted)
    }

    /// What has to be applied before `event`. Of a forked log that is no more than there will be here: the check has found the rest aside.
    fn deps_here(&self, event: &Event, held: &Frontier) -> Frontier {
        let deps = event.header().deps.clone();
        if held.covers(&deps) {
            return deps;
        }
        let here = |author: &ReplicaId| held.sequence_of(author).max(self.pending.sequence_of(author));
        deps.iter().map(|(author, sequence)| Dot { author: *author, sequence: sequence.min(here(author)) }).collect()
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

/// A frame of a message of events that is right by itself.
enum Checked {
    List(ListId, ChunkList),
    Event(Box<Event>),
}

impl Checked {
    fn of(frame: Result<(Header, &[u8]), FrameError>, vault: &VaultId) -> Result<Self, Refusal> {
        let (header, bytes) = frame?;
        let frame = Verified::check(bytes)?;
        match header.kind {
            Kind::Chunk => Err(Refusal::Peer("a chunk among events".into())),
            Kind::List => {
                let list = ChunkList::from_record(frame.record()).map_err(|error| Refusal::Peer(error.to_string()))?;
                Ok(Self::List(ListId::from_bytes(header.id), list))
            }
            Kind::Event => {
                let event = Event::check(frame.record().to_vec(), vault).map_err(|error| Refusal::Peer(error.to_string()))?;
                Ok(Self::Event(Box::new(event)))
            }
        }
    }
}

fn chunk_of(header: &Header) -> ChunkId {
    ChunkId::from_bytes(header.id)
}

/// Why something is not admitted, by whose fault.
enum Refusal {
    Peer(String),
    /// The peer's, or the author's: whoever wrote it may not.
    NotAllowed(String),
    Here(StoreError),
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        Self::Peer(error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::InvalidEvent { .. } | StoreError::MissingDependency(_) | StoreError::WrongVault(_) => Self::Peer(error.to_string()),
            StoreError::NotAllowed { .. } => Self::NotAllowed(error.to_string()),
            StoreError::JournalFull => Self::Peer("more events wait for others than can be kept".into()),
            here => Self::Here(here),
        }
    }
}

#[cfg(test)]
mod tests;
