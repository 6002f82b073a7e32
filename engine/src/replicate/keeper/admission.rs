//! Admission: events, lists and proofs from the peer, checked against every rule before the session hears of them.

use super::{Keeper, Staged};
use crate::{
    event::{ChunkList, Dot, Event, Frontier, ListRef},
    frame::{self, FrameError, Header, Kind, Verified},
    id::{ListId, ReplicaId, VaultId},
    limits::{EVENT_LISTS_MAX, FORK_EVENTS_MAX, HOLES_MAX},
    session::{Admitted, Done},
    store::{Fork, Standing, StoreError},
};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::collections::{HashMap, HashSet};

/// Frames of a message of events from which on all threads check them: below, to wake them takes as long as they save.
pub(super) const SHARED_FRAMES_MIN: usize = 8;

impl Keeper {
    /// Events up to the first bad frame are kept, and staged before the next message is looked at, whatever comes behind them.
    pub(super) fn admit(&mut self, frames: &[u8]) -> Result<(), StoreError> {
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
    pub(super) fn accept(&mut self, event: Event, lists: Vec<ChunkList>) -> Staged {
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
    pub(super) fn take_proof(&mut self, frames: &[u8]) -> Result<(), StoreError> {
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
            if header.kind != Kind::Event || events.len() == FORK_EVENTS_MAX {
                return Err(Refusal::Peer("the proof of a fork is two events, and what builds on them".into()));
            }
            let record = Verified::check(bytes)?.record().to_vec();
            events.push(Event::check(record, self.store.vault()).map_err(|error| Refusal::Peer(error.to_string()))?);
        }
        let [first, second, rest @ ..] = &events[..] else { return Err(Refusal::Peer("the proof of a fork is two events".into())) };
        let mut seen = HashSet::new();
        if !events.iter().all(|event| event.author() == first.author() && seen.insert(event.id())) {
            return Err(Refusal::Peer("with the proof of a fork comes what is not of it, or comes twice".into()));
        }
        let fork = self.store.take_proof(first, second)?;
        self.store.take_branch(rest)?;
        Ok(fork)
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
    pub(super) fn stage(&mut self, events: Vec<Staged>) -> Result<Vec<Admitted>, StoreError> {
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

/// Why something is not admitted, by whose fault.
pub(super) enum Refusal {
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
