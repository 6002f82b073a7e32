//! One step of the merge, and which rule decided.

use super::{Action, Place, Resolved};
use crate::event::Frontier;
use std::fmt;

/// Takes one more version into the maximal versions of its key and returns those that it supersedes.
///
/// `maximal` has the winner first and the others by falling rank, before and after. `past` is everything that happened before the
/// event of `new`. Each version is applied once, after all of its past: then no version held can supersede it, and the result is
/// that of [`merge`](super::merge) for the events applied so far.
pub fn apply<V: AsRef<Place>>(maximal: &mut Vec<V>, new: V, past: &Frontier) -> Vec<V> {
    let superseded = maximal.extract_if(.., |held| new.as_ref().dominates(past, (*held).as_ref())).collect();
    let at = maximal.partition_point(|held| held.as_ref().rank() > new.as_ref().rank());
    maximal.insert(at, new);
    superseded
}

/// Whether the maximal versions of a key say the same of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// All of them say the same, or there is one.
    Whole,
    /// They differ: a conflict.
    Broken,
}

/// Whether all of `actions` say the same.
pub fn agreement<'a>(actions: impl IntoIterator<Item = &'a Action>) -> Agreement {
    let mut actions = actions.into_iter();
    let Some(first) = actions.next() else { return Agreement::Whole };
    if actions.all(|action| action.agrees_with(first)) { Agreement::Whole } else { Agreement::Broken }
}

/// Why the winner of a key won.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// There never was another version.
    OnlyVersion,
    /// Its author had seen all others.
    Causality,
    /// Authors did not know of each other's versions, and all of them say the same.
    Agreement,
    /// Authors did not know of each other's versions; it is from later in logical time.
    HigherLamport,
    /// As above at the same logical time; its author's id is higher.
    HigherAuthor,
}

impl Rule {
    pub(super) fn of(resolved: &Resolved, superseded: usize) -> Self {
        match (resolved.losers.first(), resolved.agreement()) {
            (None, _) if superseded == 0 => Self::OnlyVersion,
            (None, _) => Self::Causality,
            (Some(_), Agreement::Whole) => Self::Agreement,
            (Some(second), Agreement::Broken) if resolved.winner.place.lamport > second.place.lamport => Self::HigherLamport,
            (Some(_), Agreement::Broken) => Self::HigherAuthor,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyVersion => "only version",
            Self::Causality => "newer than all others",
            Self::Agreement => "all say the same",
            Self::HigherLamport => "conflict: higher lamport",
            Self::HigherAuthor => "conflict: equal lamport, higher author",
        })
    }
}
