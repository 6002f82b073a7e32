//! Forked logs for people: which there are, and what their other branches say.
//!
//! What stands for a key follows from the branch that is in the log. The other branches can be read here, and a user who wants something
//! of them back gets it by event and puts it again.

use super::{
    Entry, LogEntry, Vault, VaultError,
    conflicts::is_prefix,
    history::{log_entry, modified_ms},
};
use crate::{
    event::{Dot, Event, Frontier, Key, Operation, Value},
    store::Fork,
};
use std::{io::Write, ops::ControlFlow};

impl Vault {
    /// The forks that are proved here, one an author.
    pub fn forks(&self) -> Vec<Fork> {
        self.store().forks()
    }

    /// What the events say that forked logs hold beside those in the log, by author and number.
    ///
    /// # Errors
    /// [`VaultError::Keyless`].
    pub fn other_branches(&self, each: &mut dyn FnMut(LogEntry) -> ControlFlow<()>) -> Result<(), VaultError> {
        for event in self.store().events_aside() {
            // A branch that came into the log after another one was left.
            if self.store().event_by_id(&event.id())?.is_some() {
                continue;
            }
            for operation in self.readable_operations_of(&event)? {
                if each(log_entry(&event, operation)).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Streams the value that an event of another branch gave `key`, if its id begins with `typed` and there is one only.
    pub(super) fn get_aside(&self, key: &Key, typed: &str, sink: &mut dyn Write) -> Result<Option<Entry>, VaultError> {
        let matching = |event: &Event| is_prefix(typed, &event.id().to_string());
        let events: Vec<Event> = self.store().events_aside().into_iter().filter(matching).collect();
        let [event] = &events[..] else { return Ok(None) };
        let said = self.readable_operations_of(event)?.into_iter().rfind(|operation| operation.key() == key);
        let Some(Operation::Put(key, value)) = said else { return Ok(None) };
        self.stream(&value.content, sink)?;
        Ok(Some(entry_aside(event, key, value)))
    }

    /// What an event has seen, as far as that is certain: of a forked log no more than what all its branches share. What it saw beyond,
    /// on whichever branch, it does not supersede: that shows as a conflict and is for the user to decide.
    pub(super) fn certain(&self, deps: Frontier) -> Frontier {
        let forks = self.store().forks();
        if forks.is_empty() {
            return deps;
        }
        let shared = |author, sequence: u64| {
            let fork = forks.iter().find(|fork| fork.dot.author == author);
            fork.map_or(sequence, |fork| sequence.min(fork.dot.sequence - 1))
        };
        deps.iter().map(|(author, sequence)| Dot { author: *author, sequence: shared(*author, sequence) }).collect()
    }
}

fn entry_aside(event: &Event, key: Key, value: Value) -> Entry {
    Entry {
        key,
        size: value.content.bytes,
        modified_ms: modified_ms(&value),
        kind: Some(value.kind),
        event: event.id(),
        replica: event.author(),
        deleted: false,
        conflict: true,
    }
}
