//! Bringing replicas together again that hold different branches of a forked log: one of them leaves its branch, and what that said is
//! written again.
//!
//! The log side is in the store (its `leaving`): the branch does not count any more and is kept beside the log. Then this device, or another
//! one of a member that left the same branch, says once more what the branch said, as events of its own:
//! - a key's last word of the branch, if whoever said it had seen all that stands for the key now: then nothing is decided that was not;
//! - otherwise not: what stands now was said by somebody who did not know of it, so a person decides (`get --event`, then `put`).
//!
//! Those events name the branch's chunk lists, so every replica receives its chunks, also of versions that nothing stands for any more.
//! Doing it again changes nothing: what was said again stands, and says the same.

use super::{Vault, VaultError};
use crate::{
    event::{ChunkList, Event, Frontier, Key, Operation},
    id::{EventId, ReplicaId},
    limits::{EVENT_LISTS_MAX, EVENT_OPERATIONS_MAX},
    merge::Action,
    store::LeftBranch,
};
use std::collections::{BTreeMap, HashSet};

/// A branch that was left, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Whose log.
    pub author: ReplicaId,
    /// The first of its numbers that does not count here any more.
    pub from: u64,
    /// Events from there on; they are kept beside the log.
    pub events: u64,
    /// Keys of which they say something.
    pub keys: u64,
    /// Keys that were written again.
    pub written: u64,
    /// Keys that somebody else changed without knowing the branch, each with the branch's event: a person decides.
    pub undecided: Vec<(Key, EventId)>,
}

/// The last that a branch said of a key.
struct Word {
    event: EventId,
    past: Frontier,
    action: Action,
}

impl Vault {
    /// The forked log that `typed`, the beginning of its author's id, means.
    ///
    /// # Errors
    /// [`VaultError::Usage`] if there is none such, or several.
    pub fn forked_log(&self, typed: &str) -> Result<ReplicaId, VaultError> {
        let forks = self.store().forks();
        let mut named = forks.iter().map(|fork| fork.dot.author).filter(|author| super::conflicts::is_prefix(typed, &author.to_string()));
        match (named.next(), named.next()) {
            (Some(author), None) => Ok(author),
            (Some(_), Some(_)) => Err(VaultError::Usage(format!("{typed} is the beginning of several forked logs: type more of it"))),
            (None, _) => Err(VaultError::Usage(format!("no forked log is called {typed}: mirror log --forks shows those that are known"))),
        }
    }

    /// What [`Vault::leave_branch`] would leave.
    ///
    /// # Errors
    /// [`VaultError::Usage`] if there is nothing to leave, or when the log cannot be read.
    pub fn plan_leaving(&self, author: &ReplicaId) -> Result<Left, VaultError> {
        let branch = self.branch_to_leave(author)?;
        let keys = self.words_of(&branch).map_or(0, |words| words.len() as u64);
        Ok(Left {
            author: *author,
            from: branch.from.sequence,
            events: branch.events.len() as u64,
            keys,
            written: 0,
            undecided: Vec::new(),
        })
    }

    /// Leaves the branch that this replica holds of the forked log of `author`, so that the next session brings the one that others
    /// hold, and writes again what it said. A keyless replica only leaves. An interruption loses nothing: the same call goes on.
    ///
    /// # Errors
    /// [`VaultError::Usage`] when there is nothing to leave, or it must not be; [`VaultError::Retired`] for this replica's own log;
    /// [`VaultError::NotAllowed`] before anything is changed for who may not write.
    pub fn leave_branch(&self, author: &ReplicaId) -> Result<Left, VaultError> {
        let branch = self.branch_to_leave(author)?;
        if *author == self.own.id() {
            self.own.retire(branch.from.sequence)?;
            return Err(VaultError::Retired(branch.from.sequence));
        }
        if self.sealing.is_some() {
            self.require_writer()?;
        }
        if self.store().left_branch(author)?.is_none() {
            self.store().leave_branch(&branch).map_err(|error| match error {
                crate::store::StoreError::InvalidEvent { reason, .. } => VaultError::Usage(format!("this branch is not left: {reason}")),
                other => other.into(),
            })?;
        }
        self.home.replace_seen(&self.dir, &self.store.accepted())?;
        let (from, events) = (branch.from.sequence, branch.events.len() as u64);
        let mut left = Left { author: *author, from, events, keys: 0, written: 0, undecided: Vec::new() };
        if self.sealing.is_some() {
            self.write_again(&branch, &mut left)?;
            self.store().settle_left(author)?;
        }
        Ok(left)
    }

    /// The branch here, or one that was left and not written again.
    fn branch_to_leave(&self, author: &ReplicaId) -> Result<LeftBranch, VaultError> {
        self.store().refresh()?;
        let nothing = |why: &str| VaultError::Usage(format!("there is no branch of {} to leave: {why}", author.short()));
        match self.store().left_branch(author)? {
            Some(left) if left.settled => Err(nothing("it was left before; what others hold of it comes with the next pull")),
            Some(left) => Ok(left),
            None => {
                if self.store().fork_of(author).is_some() && self.store().fork_begins(author)?.is_none() {
                    return Err(nothing("where it begins is not known yet; mirror sync with a replica on the other branch finds it out"));
                }
                let branch = self.store().branch_of(author)?.ok_or_else(|| nothing("no fork of it is known here"))?;
                if branch.events.is_empty() { Err(nothing("none of its events lie in this log beyond the fork")) } else { Ok(branch) }
            }
        }
    }

    fn write_again(&self, branch: &LeftBranch, left: &mut Left) -> Result<(), VaultError> {
        self.catch_up()?;
        let words = self.words_of(branch)?;
        left.keys = words.len() as u64;
        let mut operations = Vec::new();
        for (key, word) in words {
            let standing = self.maximal(&key)?;
            if standing.iter().all(|version| word.past.contains(&version.place.dot)) {
                operations.push(match word.action {
                    Action::Put(value) => Operation::Put(key, value),
                    Action::Delete(reason) => Operation::Delete(key, reason),
                });
            } else if !standing.iter().any(|version| version.action.agrees_with(&word.action)) {
                left.undecided.push((key, word.event));
            }
        }
        left.written = operations.len() as u64;
        self.append_with(&operations, self.whole_lists(branch)?)?;
        self.catch_up()
    }

    /// The last word of the branch on each key. A resolution says what the version says that it chose, in the branch or before it.
    fn words_of(&self, branch: &LeftBranch) -> Result<BTreeMap<Key, Word>, VaultError> {
        let mut said: BTreeMap<(EventId, Key), Action> = BTreeMap::new();
        let mut words = BTreeMap::new();
        for (event, _) in &branch.events {
            for operation in self.readable_operations_of(event)? {
                let (key, action) = match operation {
                    Operation::Put(key, value) => (key, Some(Action::Put(value))),
                    Operation::Delete(key, reason) => (key, Some(Action::Delete(reason))),
                    Operation::Resolve(key, chosen) => {
                        let action = self.said_by(&key, &chosen, &said)?;
                        (key, action)
                    }
                };
                if let Some(action) = action {
                    said.insert((event.id(), key.clone()), action.clone());
                    words.insert(key, word(event, action));
                }
            }
        }
        Ok(words)
    }

    fn said_by(&self, key: &Key, chosen: &EventId, said: &BTreeMap<(EventId, Key), Action>) -> Result<Option<Action>, VaultError> {
        if let Some(action) = said.get(&(*chosen, key.clone())) {
            return Ok(Some(action.clone()));
        }
        let versions = self.ask(|view| view.versions(key))?;
        Ok(versions.into_iter().rfind(|row| row.version.place.event == *chosen).map(|row| row.version.action))
    }

    /// The branch's chunk lists, each once, but for those that lack chunks here.
    fn whole_lists(&self, branch: &LeftBranch) -> Result<Vec<ChunkList>, VaultError> {
        let mut known = HashSet::new();
        let mut whole = Vec::new();
        for list in branch.events.iter().flat_map(|(_, lists)| lists) {
            if known.insert(list.id()) && self.store().missing(list)?.is_empty() {
                whole.push(list.clone());
            }
        }
        Ok(whole)
    }

    /// Events that say `operations` and name `lists`, as few as there can be.
    fn append_with(&self, operations: &[Operation], lists: Vec<ChunkList>) -> Result<(), VaultError> {
        let (mut operations, mut lists) = (operations.chunks(EVENT_OPERATIONS_MAX / 16), lists.chunks(EVENT_LISTS_MAX));
        loop {
            match (operations.next(), lists.next()) {
                (None, None) => return Ok(()),
                (some, named) => self.append(some.unwrap_or_default(), named.unwrap_or_default().to_vec()).map(drop)?,
            }
        }
    }
}

fn word(event: &Event, action: Action) -> Word {
    Word { event: event.id(), past: event.header().past(), action }
}
