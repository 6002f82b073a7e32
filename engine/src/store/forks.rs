//! Forks: what authors signed twice, kept beside the log as proof and so that nothing of either branch is lost.
//!
//! ```text
//! VAULT/log/forks/<event id>.event    frames: the event's chunk lists, then the event; one file an event that the log does not take
//! ```
//! An author that signs two events with one number has forked its log. The log takes one branch, whichever came here first; events of
//! any other are kept *aside*, here, each with its lists. Two records prove a fork by themselves, to whoever sees them:
//! - two events of one author with one number, or
//! - an event and its author's next one that names another as the one before it.
//!
//! # What follows for other authors
//! They may have seen the other branch. What an event says to have seen of a forked log is satisfied by an event kept aside as well as by one
//! in the log, as long as all that comes before the fork is held; so the rest of the vault goes on.
//!
//! # Invariants
//! - An event is kept aside only if it is part of a proof, or builds on one that is kept.
//! - Bounded by [`FORK_EVENTS_MAX`] and [`FORK_BYTES_MAX`]; beyond, further events are refused and the proofs stay.

use super::{FILE_MODE, Inner, Store, StoreError, index::lock, leaving::Left};
use crate::{
    event::{ChunkList, Dot, Event, Frontier},
    frame::{self, Kind, Verified},
    id::{DeviceId, EventId, ReplicaId, VaultId},
    io::durable::directory_of,
    limits::{FORK_BYTES_MAX, FORK_EVENTS_MAX, MESSAGE_BYTES_MAX},
};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) const DIRECTORY: &str = "log/forks";
const EXTENSION: &str = "event";

/// Proof that an author signed two events with one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The place that was taken twice.
    pub dot: Dot,
    /// The device that signed both.
    pub device: DeviceId,
    /// What stands there, and what stands there as well: the one in this log first, if it is in it.
    pub events: [EventId; 2],
    /// The two records that prove it, by their events. Equal to `events`, or the second one is the event after.
    pub records: [EventId; 2],
}

/// The events that are kept aside, by place. Their lists stay in the files.
#[derive(Debug, Clone, Default)]
pub(super) struct Branches {
    events: BTreeMap<Dot, Vec<Arc<Event>>>,
    /// Where each forked author's log forks first, as far as is known.
    forks: BTreeMap<ReplicaId, Fork>,
    /// Branches that the log holds and that do not count any more.
    left: Vec<Left>,
    bytes: u64,
}

/// What became of an event that contradicts the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptAside {
    /// It is there now.
    New,
    /// It was there before.
    Known,
    /// There is no room for more.
    Full,
}

impl Branches {
    fn all(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.events.values().flatten()
    }

    fn count(&self) -> usize {
        self.events.values().map(Vec::len).sum()
    }

    /// How many there are, and the bytes of their records.
    pub(super) fn size(&self) -> (usize, u64) {
        (self.count(), self.bytes)
    }

    pub(super) fn all_left(&self) -> impl Iterator<Item = &Left> {
        self.left.iter()
    }

    pub(super) fn left(&self, author: &ReplicaId) -> Option<&Left> {
        self.left.iter().find(|left| left.author == *author)
    }

    /// Whether an event is in the log and does not count there.
    pub(super) fn was_left(&self, id: &EventId) -> bool {
        self.left.iter().any(|left| left.events.contains(id))
    }

    pub(super) fn with_id(&self, id: &EventId) -> Option<&Arc<Event>> {
        self.all().find(|aside| aside.id() == *id)
    }

    pub(super) fn at(&self, author: &ReplicaId, sequence: u64) -> &[Arc<Event>] {
        self.events.get(&Dot { author: *author, sequence }).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, event: Event) {
        self.bytes += event.record().len() as u64;
        self.events.entry(event.dot()).or_default().push(Arc::new(event));
    }

    /// Whether nothing is kept aside: so it is in nearly every vault.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Lamports that `dep` may have on branches that are not in the log, for one who holds its author's log up to `held`.
    pub(super) fn lamports(&self, dep: &Dot, held: u64) -> impl Iterator<Item = u64> {
        let first = Dot { author: dep.author, sequence: 0 };
        let begins = self.events.range(first..).next().filter(|(dot, _)| dot.author == dep.author).map(|(dot, _)| dot.sequence);
        let reached = begins.is_some_and(|begins| held + 1 >= begins);
        let events = if reached { self.at(&dep.author, dep.sequence) } else { &[] };
        events.iter().map(|aside| aside.header().lamport)
    }
}

impl Store {
    /// The forks that are proved here, one an author: the first that is known.
    pub fn forks(&self) -> Vec<Fork> {
        lock(&self.inner.branches).forks.values().cloned().collect()
    }

    /// Where the log of `author` forks, if it is certain that it does not fork before: two events of one number follow the same one.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn fork_begins(&self, author: &ReplicaId) -> Result<Option<u64>, StoreError> {
        let Some(fork) = self.fork_of(author) else { return Ok(None) };
        let [first, second] = [self.event_anywhere(&fork.records[0])?, self.event_anywhere(&fork.records[1])?];
        let certain = first.zip(second).is_some_and(|(first, second)| {
            first.header().sequence == second.header().sequence && first.header().previous == second.header().previous
        });
        Ok(certain.then_some(fork.dot.sequence))
    }

    /// For each forked log, up to where a replica on another branch is taken to hold the same. As long as it is not certain where the log
    /// forks, as far before the first contradiction known as that lies before the log's end: twice as far back each time.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn shared_of_forks(&self) -> Result<Frontier, StoreError> {
        let (held, mut shared) = (self.frontier(), Vec::new());
        for Fork { dot, .. } in self.forks() {
            let back = match self.fork_begins(&dot.author)? {
                Some(_) => 0,
                None => held.sequence_of(&dot.author).saturating_sub(dot.sequence) + 1,
            };
            // The first event is what everything else of an author stands on.
            shared.push(Dot { sequence: (dot.sequence - 1).saturating_sub(back).max(1), ..dot });
        }
        Ok(shared.into_iter().collect())
    }

    /// Where the log of `author` is known to fork.
    pub fn fork_of(&self, author: &ReplicaId) -> Option<Fork> {
        lock(&self.inner.branches).forks.get(author).cloned()
    }

    /// How far the other branches of forked logs are kept, where they follow without a hole what the log holds of their author's.
    pub fn aside_frontier(&self) -> Frontier {
        let branches = Arc::clone(&lock(&self.inner.branches));
        let heads = self.heads();
        let mut reach: BTreeMap<ReplicaId, Dot> = BTreeMap::new();
        for (dot, events) in &branches.events {
            let head = heads.0.get(&dot.author);
            let follows = match reach.get(&dot.author) {
                Some(before) => before.sequence + 1 == dot.sequence,
                // The next event of the log itself is to come still.
                None => head.is_some_and(|head| {
                    head.sequence + 1 == dot.sequence && events.iter().all(|aside| aside.header().previous != Some(head.event))
                }),
            };
            if follows {
                reach.insert(dot.author, *dot);
            }
        }
        reach.into_values().collect()
    }

    /// Events that are kept beside the log, by place.
    pub fn events_aside(&self) -> Vec<Event> {
        lock(&self.inner.branches).all().map(|aside| Event::clone(aside)).collect()
    }

    /// Whether `id` is kept beside the log.
    pub fn is_aside(&self, id: &EventId) -> bool {
        lock(&self.inner.branches).with_id(id).is_some()
    }

    /// Keeps `event` beside the log, durably. The caller has found that it contradicts what is held, or that it builds on what is kept.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_aside(&self, event: &Event, lists: &[ChunkList]) -> Result<KeptAside, StoreError> {
        let mut branches = lock(&self.inner.branches);
        if branches.with_id(&event.id()).is_some() {
            return Ok(KeptAside::Known);
        }
        let bytes = event.record().len() as u64;
        if branches.count() >= FORK_EVENTS_MAX || branches.bytes + bytes > FORK_BYTES_MAX {
            tracing::warn!(event = ?event.dot(), "there is no room for more events of forked logs");
            return Ok(KeptAside::Full);
        }
        self.inner.write_aside(event, lists)?;
        let mut grown = Branches { forks: BTreeMap::new(), ..Branches::clone(&branches) };
        grown.add(event.clone());
        grown.forks = self.inner.prove(&grown)?;
        *branches = Arc::new(grown);
        Ok(KeptAside::New)
    }

    /// The records that prove the fork of `author`, as frames, for another replica; then what else is kept of it beside the log, as far as it
    /// fits a message: others may have seen those events, and what they say stands on them.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn proof_of(&self, author: &ReplicaId) -> Result<Option<Vec<u8>>, StoreError> {
        let branches = Arc::clone(&lock(&self.inner.branches));
        let Some(fork) = branches.forks.get(author) else { return Ok(None) };
        let mut frames = Vec::new();
        for id in &fork.records {
            let Some(event) = self.event_anywhere(id)? else { return Ok(None) };
            frames.extend_from_slice(&event.to_frame().into_bytes());
        }
        for aside in branches.all().filter(|aside| aside.author() == *author && !fork.records.contains(&aside.id())) {
            let frame = aside.to_frame().into_bytes();
            if frames.len() + frame.len() >= MESSAGE_BYTES_MAX {
                break;
            }
            frames.extend_from_slice(&frame);
        }
        Ok(Some(frames))
    }

    /// An event of the log, or one that is kept beside it.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn event_anywhere(&self, id: &EventId) -> Result<Option<Event>, StoreError> {
        let aside = lock(&self.inner.branches).with_id(id).map(|aside| Event::clone(aside));
        aside.map_or_else(|| self.event_by_id(id), |event| Ok(Some(event)))
    }

    /// Takes the proof of a fork that another replica has found: two checked events. Returns the fork if it is one and news.
    ///
    /// # Errors
    /// [`StoreError::InvalidEvent`] if the two prove nothing, or what the system says.
    pub fn take_proof(&self, first: &Event, second: &Event) -> Result<Option<Fork>, StoreError> {
        if contradiction(first, second).is_none() {
            return Err(StoreError::InvalidEvent { dot: second.dot(), reason: "it was sent as proof of a fork and proves none" });
        }
        if self.fork_of(&first.author()).is_some() {
            return Ok(None);
        }
        for event in [first, second] {
            if self.event_by_id(&event.id())?.is_none() {
                self.keep_aside(event, &[])?;
            }
        }
        Ok(self.fork_of(&first.author()))
    }
}

impl Store {
    /// Takes what came with a proof that was taken: checked events that build, one after the other, on what is kept beside the log. Others
    /// are passed over.
    ///
    /// # Errors
    /// What the system says.
    pub fn take_branch(&self, events: &[Event]) -> Result<(), StoreError> {
        for event in events {
            let builds = event.header().previous.is_some_and(|previous| self.is_aside(&previous));
            if builds && self.event_by_id(&event.id())?.is_none() {
                self.keep_aside(event, &[])?;
            }
        }
        Ok(())
    }
}

/// Where two events of one author contradict each other, and the two events that stand there.
pub(super) fn contradiction(first: &Event, second: &Event) -> Option<(u64, [EventId; 2])> {
    let (one, other) = (first.header().sequence, second.header().sequence);
    match second.header().previous {
        _ if first.author() != second.author() || first.id() == second.id() => None,
        _ if one == other => Some((one, [first.id(), second.id()])),
        Some(previous) if one + 1 == other && previous != first.id() => Some((one, [first.id(), previous])),
        _ => None,
    }
}

impl Inner {
    /// Reads what is kept aside. What cannot be read is left where it is and does not count.
    pub(super) fn read_branches(&self) -> Result<(), StoreError> {
        let directory = self.dir.join(DIRECTORY);
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| StoreError::io("list", &directory, error))?,
        };
        let mut branches = Branches::default();
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION)).take(FORK_EVENTS_MAX) {
            match read_aside(&path, &self.vault) {
                Some(event) => branches.add(event),
                None => tracing::warn!(file = %path.display(), "an event that was kept of a forked log cannot be read"),
            }
        }
        branches.left = self.read_left(&branches)?;
        let mut held = lock(&self.branches);
        branches.forks.clone_from(&held.forks);
        *held = Arc::new(branches);
        Ok(())
    }

    /// Finds out what the events aside prove, once the log is known.
    pub(super) fn prove_branches(&self) -> Result<(), StoreError> {
        let mut branches = lock(&self.branches);
        if branches.events.is_empty() {
            return Ok(());
        }
        let forks = self.prove(&branches)?;
        *branches = Arc::new(Branches { forks, ..Branches::clone(&branches) });
        Ok(())
    }

    fn prove(&self, branches: &Branches) -> Result<BTreeMap<ReplicaId, Fork>, StoreError> {
        let mut forks: BTreeMap<ReplicaId, Fork> = BTreeMap::new();
        for aside in branches.all() {
            let (author, sequence) = (aside.author(), aside.header().sequence);
            for other in sequence.saturating_sub(1)..=sequence.saturating_add(1) {
                let dot = Dot { author, sequence: other };
                let held = self.index.event_at(&dot)?.map(|place| super::log_read::Reader::new(self).event(&place)).transpose()?;
                for witness in held.iter().chain(branches.at(&author, other).iter().map(|aside| &**aside)) {
                    let (first, second) = if other <= sequence { (witness, &**aside) } else { (&**aside, witness) };
                    if let Some((number, events)) = contradiction(first, second) {
                        let fork = Fork {
                            dot: Dot { author, sequence: number },
                            device: aside.header().device,
                            events,
                            records: [first.id(), second.id()],
                        };
                        let known = forks.entry(author).or_insert_with(|| fork.clone());
                        if fork.dot.sequence < known.dot.sequence {
                            *known = fork;
                        }
                    }
                }
            }
        }
        Ok(forks)
    }

    fn write_aside(&self, event: &Event, lists: &[ChunkList]) -> Result<(), StoreError> {
        let directory = self.dir.join(DIRECTORY);
        match DirBuilder::new().mode(super::DIRECTORY_MODE).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(|error| StoreError::io("create", &directory, error))?,
        }
        let above = directory_of(&directory);
        self.disk.sync_dir(above).map_err(|error| StoreError::io("sync", above, error))?;
        let mut bytes: Vec<u8> = lists.iter().flat_map(|list| list.to_frame().into_bytes()).collect();
        bytes.extend_from_slice(&event.to_frame().into_bytes());
        let path = aside_path(&directory, &event.id());
        self.disk.write_atomic(&path, &bytes, FILE_MODE).map_err(|error| StoreError::io("write", &path, error))
    }
}

fn aside_path(directory: &Path, id: &EventId) -> PathBuf {
    directory.join(format!("{id}.{EXTENSION}"))
}

/// An event is checked as if it came from a peer: anybody may have put the file there.
fn read_aside(path: &Path, vault: &VaultId) -> Option<Event> {
    if fs::metadata(path).ok()?.len() > FORK_BYTES_MAX {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let events = frame::split(&bytes).filter_map(Result::ok).filter(|(header, _)| header.kind == Kind::Event);
    let (_, bytes) = events.last()?;
    Event::check(Verified::check(bytes).ok()?.record().to_vec(), vault).ok()
}
