//! Rules for events that need the log: chain, dependencies, lamport, forks.
//!
//! An event fits when its author's event before it is the newest one held, everything it depends on is held, and its lamport is exactly
//! one more than the highest of those. Exactly: an author that could leap ahead would win every conflict from then on.
//!
//! Beyond that its device must have been let write, by the membership events in its past: asked of the roster, where there is one.

use super::{
    Store, StoreError,
    forks::Branches,
    index::{KnownHead, lock},
};
use crate::{
    event::{Dot, Event, Heads, KIND_MEMBERSHIP},
    id::{EventId, ReplicaId},
    limits::FRONTIER_AUTHORS_MAX,
    members::Roster,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Where an event that passed [`Store::check_event`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be appended now.
    New,
    /// It is here already.
    Held,
}

/// Events that were checked and will be appended, in this order, but are not in the log yet.
#[derive(Debug, Default)]
pub struct Pending {
    heads: BTreeMap<ReplicaId, KnownHead>,
    events: HashMap<Dot, (EventId, u64)>,
    /// Those that say who is in, in order.
    membership: Vec<Event>,
    /// Made when it is asked for, and again when either of the two has changed.
    extended: RefCell<Option<Extended>>,
}

/// A roster of the log, and the same with what is pending.
#[derive(Debug)]
struct Extended {
    log: Arc<Roster>,
    all: Arc<Roster>,
}

impl Pending {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event that passed the check with what is in here.
    pub fn add(&mut self, event: &Event) {
        let (header, dot) = (event.header(), event.dot());
        self.heads.insert(dot.author, KnownHead { sequence: dot.sequence, event: event.id(), lamport: header.lamport });
        self.events.insert(dot, (event.id(), header.lamport));
        if header.kind == KIND_MEMBERSHIP {
            self.membership.push(event.clone());
            self.extended = RefCell::default();
        }
    }

    /// The newest of `author` in here; 0 if there is none.
    pub fn sequence_of(&self, author: &ReplicaId) -> u64 {
        self.heads.get(author).map_or(0, |head| head.sequence)
    }

    /// Forgets an event that is in the log now.
    pub fn remove(&mut self, dot: &Dot) {
        self.events.remove(dot);
        if self.heads.get(&dot.author).is_some_and(|head| head.sequence == dot.sequence) {
            self.heads.remove(&dot.author);
        }
        if self.membership.iter().any(|event| event.dot() == *dot) {
            self.membership.retain(|event| event.dot() != *dot);
            self.extended = RefCell::default();
        }
    }

    /// Whether the device of `event` may write it, by `roster` of the log and by what is in here.
    pub(super) fn allow(&self, roster: Option<&Arc<Roster>>, event: &Event) -> Result<(), StoreError> {
        let Some(roster) = roster else { return Ok(()) };
        let checked = if self.membership.is_empty() { roster.check(event) } else { self.extended(roster).check(event) };
        checked.map_err(|refusal| StoreError::NotAllowed { dot: event.dot(), refusal })
    }

    fn extended(&self, roster: &Arc<Roster>) -> Arc<Roster> {
        let mut extended = self.extended.borrow_mut();
        if let Some(known) = extended.as_ref().filter(|known| Arc::ptr_eq(&known.log, roster)) {
            return known.all.clone();
        }
        let mut all = (**roster).clone();
        self.membership.iter().for_each(|event| all.add(event));
        let all = Arc::new(all);
        *extended = Some(Extended { log: roster.clone(), all: all.clone() });
        all
    }
}

impl Store {
    /// Checks whether `event` may be appended after what is in the log and `pending`, without looking at its chunks: so that a
    /// receiver can refuse it before it asks for them.
    ///
    /// # Errors
    /// [`StoreError::MissingDependency`], [`StoreError::InvalidEvent`], [`StoreError::Fork`], [`StoreError::WrongVault`],
    /// [`StoreError::NotAllowed`].
    pub fn check_event(&self, event: &Event, pending: &Pending) -> Result<Standing, StoreError> {
        if event.header().vault != self.inner.vault {
            return Err(StoreError::WrongVault("the event".to_owned()));
        }
        let state = self.inner.log_snapshot();
        let aside = Arc::clone(&lock(&self.inner.branches));
        let known = &|dot: &Dot| self.inner.index.known(dot);
        let standing = Chain { held: &state.heads, accepted: &state.accepted, aside: &aside, pending, known }.check(event)?;
        if standing == Standing::New {
            pending.allow(state.roster.as_ref(), event)?;
        }
        Ok(standing)
    }
}

/// Finds identifier and lamport of an event in the log.
pub(super) type LookUp<'a> = dyn Fn(&Dot) -> Result<Option<(EventId, u64)>, StoreError> + 'a;

/// What an event is checked against.
pub(super) struct Chain<'a> {
    pub(super) held: &'a BTreeMap<ReplicaId, KnownHead>,
    pub(super) accepted: &'a Heads,
    /// What of forked logs is known beside the log.
    pub(super) aside: &'a Branches,
    pub(super) pending: &'a Pending,
    pub(super) known: &'a LookUp<'a>,
}

impl Chain<'_> {
    pub(super) fn check(&self, event: &Event) -> Result<Standing, StoreError> {
        let dot = event.dot();
        let head = self.head(&dot.author);
        let held = head.map_or(0, |head| head.sequence);
        if dot.sequence <= held {
            return self.compare(dot, event.id());
        }
        if dot.sequence > held + 1 {
            return Err(StoreError::MissingDependency(Dot { author: dot.author, sequence: held + 1 }));
        }
        self.refuse_fork_of_lost(dot, event.id())?;
        self.refuse_left(event)?;
        self.refuse_other_branch(event, head)?;
        if head.is_none() && self.authors() >= FRONTIER_AUTHORS_MAX {
            return Err(StoreError::InvalidEvent { dot, reason: "the vault has too many authors" });
        }
        self.check_lamport(event, head.map_or(0, |head| head.lamport))?;
        Ok(Standing::New)
    }

    fn head(&self, author: &ReplicaId) -> Option<KnownHead> {
        self.pending.heads.get(author).or_else(|| self.held.get(author)).copied()
    }

    fn authors(&self) -> usize {
        self.held.len() + self.pending.heads.keys().filter(|author| !self.held.contains_key(author)).count()
    }

    /// The event held at `dot` against the one offered.
    fn compare(&self, dot: Dot, theirs: EventId) -> Result<Standing, StoreError> {
        match self.look_up(&dot)? {
            Some((ours, _)) if ours == theirs => Ok(Standing::Held),
            Some((ours, _)) => Err(StoreError::Fork { dot, ours, theirs }),
            None => Err(StoreError::Damaged("index.db does not know an event that its head covers".to_owned())),
        }
    }

    /// An event that was acknowledged here and lost may come back, another in its place may not.
    fn refuse_fork_of_lost(&self, dot: Dot, theirs: EventId) -> Result<(), StoreError> {
        match self.accepted.0.get(&dot.author) {
            Some(head) if head.sequence == dot.sequence && head.event != theirs => Err(StoreError::Fork { dot, ours: head.event, theirs }),
            _ => Ok(()),
        }
    }

    /// A branch that was left does not come back.
    fn refuse_left(&self, event: &Event) -> Result<(), StoreError> {
        let (dot, theirs) = (event.dot(), event.id());
        if self.aside.was_left(&theirs) {
            let ours = event.header().previous.unwrap_or(theirs);
            return Err(StoreError::Fork { dot, ours, theirs });
        }
        Ok(())
    }

    /// An event that names another one than the newest that is held as the one before it: its author has signed two there.
    fn refuse_other_branch(&self, event: &Event, head: Option<KnownHead>) -> Result<(), StoreError> {
        let dot = event.dot();
        match (head, event.header().previous) {
            (None, None) => Ok(()),
            (Some(head), Some(previous)) if head.event == previous => Ok(()),
            (Some(head), Some(theirs)) => {
                Err(StoreError::Fork { dot: Dot { author: dot.author, sequence: head.sequence }, ours: head.event, theirs })
            }
            (None, Some(_)) | (Some(_), None) => {
                Err(StoreError::InvalidEvent { dot, reason: "it does not follow its author's event before it" })
            }
        }
    }

    fn check_lamport(&self, event: &Event, previous: u64) -> Result<(), StoreError> {
        let mut highest = previous;
        // Of forked logs: what each event seen of them may have had. The author saw one branch and does not say which.
        let mut choices: Vec<Vec<u64>> = Vec::new();
        for (author, sequence) in event.header().deps.iter() {
            let dep = Dot { author: *author, sequence };
            let lamport = self.lamport_of(&dep)?;
            let others = self.lamports_aside(&dep);
            match lamport {
                Some(lamport) if others.is_empty() => highest = highest.max(lamport),
                None if others.is_empty() => return Err(StoreError::MissingDependency(dep)),
                lamport => choices.push(others.into_iter().chain(lamport).collect()),
            }
        }
        let seen = event.header().lamport.wrapping_sub(1);
        let reachable = choices.iter().all(|choice| choice.iter().any(|lamport| *lamport <= seen));
        let reached = seen == highest || (seen > highest && choices.iter().flatten().any(|lamport| *lamport == seen));
        if !reachable || !reached {
            return Err(StoreError::InvalidEvent { dot: event.dot(), reason: "its lamport is not one more than what it has seen" });
        }
        Ok(())
    }

    fn lamports_aside(&self, dep: &Dot) -> Vec<u64> {
        if self.aside.is_empty() {
            return Vec::new();
        }
        self.aside.lamports(dep, self.head(&dep.author).map_or(0, |head| head.sequence)).collect()
    }

    /// Lamport of the event at `dot` if it is held. Heads, the common case, are in memory.
    fn lamport_of(&self, dot: &Dot) -> Result<Option<u64>, StoreError> {
        match self.head(&dot.author) {
            Some(head) if head.sequence == dot.sequence => Ok(Some(head.lamport)),
            Some(head) if head.sequence > dot.sequence => Ok(self.look_up(dot)?.map(|(_, lamport)| lamport)),
            _ => Ok(None),
        }
    }

    fn look_up(&self, dot: &Dot) -> Result<Option<(EventId, u64)>, StoreError> {
        match self.pending.events.get(dot) {
            Some(known) => Ok(Some(*known)),
            None => (self.known)(dot),
        }
    }
}
