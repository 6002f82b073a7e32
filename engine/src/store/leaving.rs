//! Leaving a branch: a replica that holds one branch of a forked log makes room for another, and keeps what it held.
//!
//! ```text
//! log:  F1 F2 F3a F4a G1 ...          log:  F1 F2 G1 ...         (then, from a peer)  F1 F2 G1 ... F3b F4b
//! aside:      F3b            ──►      aside:  F3b F3a F4a                             aside:  F3b F3a F4a
//! ```
//! The log is only ever appended to, so nothing is cut out of it: `log/forks/<author>.left` names the events that stay where they lie and do
//! not count any more. Each of them is kept aside first, with its lists, so that it can be read as before. Then the index reads the log anew.
//!
//! # Invariants
//! - The file is the one point at which it happens; whatever comes after it is done again by the next opening.
//! - It counts only for an author whose fork two events beside the log prove by themselves, and only if all that it names is kept there:
//!   whoever can write to the directory cannot make a log shorter unnoticed with it.
//! - What was left does not come back: a peer that holds that branch still is answered with the fork.
//! - Nothing is left that says who is in the vault: others may build on what it let in.

use super::{
    FILE_MODE, Inner, Store, StoreError,
    forks::{Branches, DIRECTORY, contradiction},
    heads,
    index::lock,
    log::LogState,
    mend::Changes,
};
use crate::{
    codec,
    event::{ChunkList, Dot, Event, Heads, KIND_OPERATIONS, KIND_RESEALED},
    id::{EventId, ReplicaId},
    limits::{FORK_BYTES_MAX, FORK_EVENTS_MAX, KIB},
};
use minicbor::{Decode, Encode};
use std::{fs, io, path::PathBuf, sync::Arc};

pub(super) const EXTENSION: &str = "left";
const FORMAT: u8 = 1;
const FILE_BYTES_MAX: u64 = (FORK_EVENTS_MAX * 64 + KIB) as u64;

/// What a replica has left of one author's log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Left {
    #[n(0)]
    format: u8,
    #[n(1)]
    pub(super) author: ReplicaId,
    /// The first number that does not count.
    #[n(2)]
    pub(super) from: u64,
    #[n(3)]
    pub(super) events: Vec<EventId>,
    /// Whether what they say was written again.
    #[n(4)]
    settled: bool,
}

/// A branch that was left, with the events that no longer count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBranch {
    /// The first place that does not count.
    pub from: Dot,
    /// In the order of their numbers, with their lists.
    pub events: Vec<(Event, Vec<ChunkList>)>,
    /// Whether what they say was written again.
    pub settled: bool,
}

impl Left {
    /// Whether the events beside the log bear it out.
    fn is_borne_out(&self, branches: &Branches) -> bool {
        let near = [self.from, self.from + 1].into_iter().flat_map(|sequence| branches.at(&self.author, sequence));
        let near: Vec<&Event> = near.map(|aside| &**aside).collect();
        let proves = |one: &&Event, other: &&Event| contradiction(one, other).is_some_and(|(sequence, _)| sequence == self.from);
        self.format == FORMAT
            && near.iter().any(|one| near.iter().any(|other| proves(one, other)))
            && self
                .events
                .iter()
                .all(|id| branches.with_id(id).is_some_and(|aside| aside.author() == self.author && aside.header().sequence >= self.from))
    }
}

impl Store {
    /// The events of `author` here that stand where its log forks, and after: what [`Store::leave_branch`] leaves. None if no fork of it is
    /// proved, or if it was left before.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn branch_of(&self, author: &ReplicaId) -> Result<Option<LeftBranch>, StoreError> {
        let Some(fork) = self.fork_of(author) else { return Ok(None) };
        let mut events = Vec::new();
        for sequence in fork.dot.sequence..=self.frontier().sequence_of(author) {
            let Some(event) = self.event(&Dot { author: *author, sequence })? else { break };
            let lists = self.lists(event.header().lists.iter().map(|list| &list.id))?.into_iter().flatten().collect();
            events.push((event, lists));
        }
        Ok(Some(LeftBranch { from: fork.dot, events, settled: false }))
    }

    /// The branch of `author` that was left here.
    pub fn left_branch(&self, author: &ReplicaId) -> Result<Option<LeftBranch>, StoreError> {
        let branches = Arc::clone(&lock(&self.inner.branches));
        let Some(left) = branches.left(author) else { return Ok(None) };
        let mut events = Vec::new();
        for event in left.events.iter().filter_map(|id| branches.with_id(id)) {
            let lists = self.lists(event.header().lists.iter().map(|list| &list.id))?.into_iter().flatten().collect();
            events.push((Event::clone(event), lists));
        }
        events.sort_by_key(|(event, _)| event.header().sequence);
        Ok(Some(LeftBranch { from: Dot { author: *author, sequence: left.from }, events, settled: left.settled }))
    }

    /// The first places of the branches that were left.
    pub fn left_places(&self) -> Vec<Dot> {
        let branches = Arc::clone(&lock(&self.inner.branches));
        branches.all_left().map(|left| Dot { author: left.author, sequence: left.from }).collect()
    }

    /// From now on the branch that the log holds of `author` does not count, and another may come in its place. Its events are kept aside.
    ///
    /// # Errors
    /// [`StoreError::InvalidEvent`] for one that says who is in the vault, or one of a kind that this version does not know;
    /// [`StoreError::Fork`] when there is no room to keep the branch, or nothing of another one here; or what the system says.
    pub fn leave_branch(&self, branch: &LeftBranch) -> Result<(), StoreError> {
        let author = branch.from.author;
        for (event, _) in &branch.events {
            if ![KIND_OPERATIONS, KIND_RESEALED].contains(&event.header().kind) {
                let reason = "its branch says who is in the vault, so it cannot be left: leave the other one, on the replicas that hold that \
                              (mirror recover --leave-branch there); if that one says so too, keep one and make the replicas that hold the \
                              other anew (mirror invite, mirror clone), after copying out what only they have (mirror restore)";
                return Err(StoreError::InvalidEvent { dot: event.dot(), reason });
            }
        }
        self.require_room(branch)?;
        for (event, lists) in &branch.events {
            self.keep_aside(event, lists)?;
        }
        let events = branch.events.iter().map(|(event, _)| event.id()).collect();
        let left = Left { format: FORMAT, author, from: branch.from.sequence, events, settled: false };
        if !left.is_borne_out(&lock(&self.inner.branches)) {
            let reason = "nothing of another branch is here: get it from a replica that holds it first";
            return Err(StoreError::InvalidEvent { dot: branch.from, reason });
        }
        let mut guard = self.inner.lock_log()?;
        self.inner.write_left(&left)?;
        self.inner.read_branches()?;
        self.inner.index.forget_log()?;
        let mut repairs = Vec::new();
        self.inner.read_log_tail(&mut guard.state, Changes::Make, &mut repairs)?;
        self.inner.prove_branches()?;
        self.inner.expect_no_left(&mut guard.state);
        heads::write(&self.inner.disk, &self.inner.heads_path(), &self.inner.vault, &guard.state.accepted)
    }

    /// What was left of `author` has been written again.
    ///
    /// # Errors
    /// When this cannot be noted.
    pub fn settle_left(&self, author: &ReplicaId) -> Result<(), StoreError> {
        let left = lock(&self.inner.branches).left(author).cloned();
        let Some(left) = left else { return Ok(()) };
        self.inner.write_left(&Left { settled: true, ..left })?;
        self.inner.read_branches()?;
        self.inner.prove_branches()
    }

    fn require_room(&self, branch: &LeftBranch) -> Result<(), StoreError> {
        let (count, bytes) = lock(&self.inner.branches).size();
        let new = branch.events.iter().filter(|(event, _)| !self.is_aside(&event.id()));
        let (more, more_bytes) = new.fold((0, 0), |(count, bytes), (event, _)| (count + 1, bytes + event.record().len() as u64));
        if count + more > FORK_EVENTS_MAX || bytes + more_bytes > FORK_BYTES_MAX {
            let reason = "its branch is too long to be kept beside the log: leave the other one, on the replicas that hold that (mirror \
                          recover --leave-branch there); if that is too long too, make this replica anew (mirror invite there, mirror \
                          clone here), after copying out what only it has (mirror restore)";
            return Err(StoreError::InvalidEvent { dot: branch.from, reason });
        }
        Ok(())
    }
}

impl Inner {
    fn write_left(&self, left: &Left) -> Result<(), StoreError> {
        let path = self.left_path(&left.author);
        self.disk.write_atomic(&path, &codec::encode(left), FILE_MODE).map_err(|error| StoreError::io("write", &path, error))
    }

    fn left_path(&self, author: &ReplicaId) -> PathBuf {
        self.dir.join(DIRECTORY).join(format!("{author}.{EXTENSION}"))
    }

    /// Reads what was left; files that nothing bears out are passed over.
    pub(super) fn read_left(&self, branches: &Branches) -> Result<Vec<Left>, StoreError> {
        let directory = self.dir.join(DIRECTORY);
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| StoreError::io("list", &directory, error))?,
        };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        let read = |path: PathBuf| {
            let small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= FILE_BYTES_MAX);
            let bytes = fs::read(&path).ok().filter(|_| small)?;
            let left = codec::decode::<Left>("left branch", &bytes).ok().filter(|left| left.is_borne_out(branches));
            if left.is_none() {
                tracing::warn!(file = %path.display(), "a file that says that a branch was left means nothing");
            }
            left
        };
        Ok(paths.filter_map(read).collect())
    }

    /// Whether the index was made before a branch was left that it knows.
    pub(super) fn index_knows_left(&self) -> Result<bool, StoreError> {
        let branches = Arc::clone(&lock(&self.branches));
        for id in branches.all_left().flat_map(|left| left.events.first()) {
            if self.index.event_with(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What was left is not missed.
    pub(super) fn expect_no_left(&self, state: &mut LogState) {
        let branches = Arc::clone(&lock(&self.branches));
        let held = state.held();
        state.accepted = without_left(&branches, &state.accepted, &held);
    }
}

/// `heads` without those that were left; in their place, what is held.
pub(super) fn without_left(branches: &Branches, heads: &Heads, held: &Heads) -> Heads {
    let mut counting =
        Heads(heads.0.iter().filter(|(_, head)| !branches.was_left(&head.event)).map(|(author, head)| (*author, *head)).collect());
    counting.join(held);
    counting
}
