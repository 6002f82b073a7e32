//! Conflicts for people: which there are, why what stands stands, and how a user decides otherwise.
//!
//! An explanation is a function of the events alone: it names authors and events by their ids, never by what this device calls
//! them, so that it reads the same on every replica that holds the same events, byte for byte.
//!
//! A decision is an event like any other ([`Operation::Resolve`]): it dominates every version that this replica holds, reaches every
//! other, and a later edit beats it.

use super::{
    Choice, Conflict, Decided, Explanation, Preference, Vault, VaultError, VersionInfo,
    view::{Standing, VersionRow},
};
use crate::{
    event::{Frontier, Key, Operation},
    id::{EventId, ReplicaId},
    limits::EXPLAINED_VERSIONS_MAX,
    merge::{Action, Resolved, Version},
};
use std::{collections::HashSet, io::Write, ops::ControlFlow};

/// Conflicts read from the view at once.
const PAGE_KEYS: usize = 1_024;

impl Vault {
    /// Hands every key in conflict at or below `prefix` to `each`, in byte order.
    ///
    /// # Errors
    /// When the log or the view cannot be read.
    pub fn conflicts(&self, prefix: &[u8], each: &mut dyn FnMut(Conflict) -> ControlFlow<()>) -> Result<(), VaultError> {
        self.catch_up()?;
        self.each_conflict(prefix, &mut |key, resolved| {
            let losers = resolved.losers.iter().map(|version| info(version, Standing::Loser, Vec::new())).collect();
            Ok(each(Conflict { key, winner: info(&resolved.winner, Standing::Winner, Vec::new()), losers }))
        })
    }

    pub(super) fn each_conflict(
        &self,
        prefix: &[u8],
        each: &mut dyn FnMut(Key, Resolved) -> Result<ControlFlow<()>, VaultError>,
    ) -> Result<(), VaultError> {
        let mut after: Option<Key> = None;
        loop {
            let page = self.ask(|view| view.conflicts(prefix, after.as_ref(), PAGE_KEYS))?;
            let last = page.len() < PAGE_KEYS;
            after = page.last().map(|(key, _)| key.clone());
            for (key, resolved) in page {
                if each(key, resolved)?.is_break() {
                    return Ok(());
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Every version of `key`, oldest first, with who had seen what, and the rule that chose.
    ///
    /// # Errors
    /// [`VaultError::NoSuchKey`], or when the log or the view cannot be read.
    pub fn explain(&self, key: &Key) -> Result<Explanation, VaultError> {
        self.catch_up()?;
        let rows = self.versions_of(key)?;
        let (maximal, superseded): (Vec<_>, Vec<_>) = rows.iter().rev().partition(|row| row.standing != Standing::Superseded);
        let mut versions = maximal.into_iter().map(|row| row.version.clone());
        let winner = versions.next().ok_or_else(|| self.no_such_key(key))?;
        let rule = Resolved { winner, losers: versions.collect() }.rule(superseded.len());
        let older = rows.len().saturating_sub(EXPLAINED_VERSIONS_MAX);
        let versions = self.chain(&rows[older..])?;
        Ok(Explanation { key: key.clone(), rule, versions, older: older as u64 })
    }

    fn versions_of(&self, key: &Key) -> Result<Vec<VersionRow>, VaultError> {
        let rows = self.ask(|view| view.versions(key))?;
        if rows.is_empty() { Err(self.no_such_key(key)) } else { Ok(rows) }
    }

    /// `rows`, oldest first, each with the versions that its author had seen and nothing had superseded then.
    fn chain(&self, rows: &[VersionRow]) -> Result<Vec<VersionInfo>, VaultError> {
        let pasts: Vec<Frontier> = rows.iter().map(|row| self.past_of(&row.version)).collect::<Result<_, _>>()?;
        let explained = rows.iter().enumerate().map(|(at, row)| {
            let mut follows: Vec<usize> = Vec::new();
            for before in (0..at).rev() {
                let (older, past) = (&rows[before].version.place, &pasts[at]);
                let seen = row.version.place.dominates(past, older);
                let superseded = follows.iter().any(|newer| rows[*newer].version.place.dominates(&pasts[*newer], older));
                if seen && !superseded {
                    follows.push(before);
                }
            }
            let follows = follows.into_iter().rev().map(|index| rows[index].version.place.event).collect();
            info(&row.version, row.standing, follows)
        });
        Ok(explained.collect())
    }

    /// What the author of `version` had seen.
    fn past_of(&self, version: &Version) -> Result<Frontier, VaultError> {
        let place = &version.place;
        let event = self.store().event(&place.dot)?.ok_or_else(|| VaultError::Damaged("an event of the view is not in the log".into()))?;
        let mut past = event.header().deps.clone();
        past.raise(crate::event::Dot { author: place.dot.author, sequence: place.dot.sequence - 1 });
        Ok(past)
    }

    /// Decides that what `event` said of `key` stands. `event` is the beginning of an event's id in hexadecimal.
    ///
    /// # Errors
    /// [`VaultError::NoSuchKey`], [`VaultError::NoSuchVersion`], or when the decision cannot be stored.
    pub fn resolve(&self, key: &Key, event: &str) -> Result<Decided, VaultError> {
        self.catch_up()?;
        let rows = self.versions_of(key)?;
        let chosen = pick(key, &rows, event)?;
        if chosen.standing == Standing::Sole {
            return Ok(Decided { standing: 1, ..Decided::default() });
        }
        self.append_operations(vec![Operation::Resolve(key.clone(), chosen.version.place.event)])?;
        Ok(Decided { resolved: 1, ..Decided::default() })
    }

    /// Decides every conflict at or below `prefix` by `preference`. A conflict that the preference does not decide stays and is reported.
    ///
    /// # Errors
    /// [`VaultError::Usage`] for a replica that nobody knows, or when the decisions cannot be stored.
    pub fn resolve_all(&self, prefix: &[u8], preference: &Preference, choice: Choice) -> Result<Decided, VaultError> {
        self.catch_up()?;
        let preferred = match preference {
            Preference::Newest => None,
            Preference::Replica(name) => Some(self.authors_called(name)?),
        };
        let (mut decided, mut operations) = (Decided::default(), Vec::new());
        self.each_conflict(prefix, &mut |key, resolved| {
            match preferred_of(&resolved, preferred.as_ref()) {
                Some(version) => operations.push(Operation::Resolve(key, version.place.event)),
                None => decided.undecided.push(key),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        decided.resolved = operations.len() as u64;
        if choice == Choice::Made {
            self.append_operations(operations)?;
        }
        Ok(decided)
    }

    /// The authors that `name` means: a peer's, this device's (`here`), or those whose id begins so.
    fn authors_called(&self, name: &str) -> Result<HashSet<ReplicaId>, VaultError> {
        let device = match name {
            "here" => Some(self.info().device),
            name => self.home().peers()?.into_iter().find(|peer| peer.name == name).map(|peer| peer.device),
        };
        let mut authors = HashSet::new();
        for (author, _) in self.store().frontier().iter() {
            let by_device = match device {
                Some(device) => self.device_of(author)? == Some(device),
                None => is_prefix(name, &author.to_string()),
            };
            if by_device {
                authors.insert(*author);
            }
        }
        if authors.is_empty() {
            return Err(VaultError::Usage(format!("no replica called {name} has written here")));
        }
        Ok(authors)
    }

    fn device_of(&self, author: &ReplicaId) -> Result<Option<crate::id::DeviceId>, VaultError> {
        let first = self.store().event(&crate::event::Dot { author: *author, sequence: 1 })?;
        Ok(first.map(|event| event.header().device))
    }

    /// Streams what `event` said of `key`, whatever stands now; every byte handed to `sink` has been verified.
    ///
    /// # Errors
    /// As [`Vault::get`], and [`VaultError::NoSuchVersion`].
    pub fn get_version(&self, key: &Key, event: &str, sink: &mut dyn Write) -> Result<super::Entry, VaultError> {
        self.catch_up()?;
        let versions = self.versions_of(key).and_then(|rows| pick(key, &rows, event).cloned());
        let row = match versions {
            Err(error @ (VaultError::NoSuchKey(_) | VaultError::NoSuchVersion { .. })) => {
                return self.get_aside(key, event, sink)?.ok_or(error);
            }
            found => found?,
        };
        match row.version.value() {
            Some(value) => self.stream(&value.content, sink)?,
            None => {
                return Err(VaultError::NoSuchVersion { key: key.to_text().into_owned(), event: format!("{event} (it deleted the key)") });
            }
        }
        Ok(super::history::entry(row))
    }
}

/// The version by the event whose id begins with `typed`.
fn pick<'r>(key: &Key, rows: &'r [VersionRow], typed: &str) -> Result<&'r VersionRow, VaultError> {
    let matching: Vec<&VersionRow> = rows.iter().filter(|row| is_prefix(typed, &row.version.place.event.to_string())).collect();
    let events: HashSet<EventId> = matching.iter().map(|row| row.version.place.event).collect();
    match (events.len(), matching.last()) {
        // The last word of an event counts.
        (1, Some(row)) => Ok(row),
        (0, _) | (_, None) => Err(VaultError::NoSuchVersion { key: key.to_text().into_owned(), event: typed.to_owned() }),
        (several, Some(_)) => Err(VaultError::Usage(format!("{typed} is the beginning of {several} events: type more of it"))),
    }
}

pub(super) fn is_prefix(typed: &str, id: &str) -> bool {
    !typed.is_empty() && id.starts_with(&typed.to_ascii_lowercase())
}

/// The version that a bulk rule chooses: the newest by its author's clock, or that of a preferred author.
fn preferred_of<'r>(resolved: &'r Resolved, preferred: Option<&HashSet<ReplicaId>>) -> Option<&'r Version> {
    let maximal = std::iter::once(&resolved.winner).chain(&resolved.losers);
    match preferred {
        None => maximal.max_by_key(|version| (version.wall_ms, version.place.rank())),
        Some(authors) => maximal.filter(|version| authors.contains(&version.place.dot.author)).max_by_key(|version| version.place.rank()),
    }
}

fn info(version: &Version, standing: Standing, follows: Vec<EventId>) -> VersionInfo {
    let (reason, value) = match &version.action {
        Action::Put(value) => (None, Some(value.clone())),
        Action::Delete(reason) => (reason.clone(), None),
    };
    VersionInfo { place: version.place, wall_ms: version.wall_ms, value, reason, chosen: version.chosen, standing, follows }
}
