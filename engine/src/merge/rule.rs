//! One step of the merge, and which rule decided.

use super::Place;
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

/// Why the winner of a key won.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// There never was another version.
    OnlyVersion,
    /// Its author had seen all others.
    Causality,
    /// Authors did not know of each other's versions; it is from later in logical time.
    HigherLamport,
    /// As above at the same logical time; its author's id is higher.
    HigherAuthor,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyVersion => "only version",
            Self::Causality => "newer than all others",
            Self::HigherLamport => "conflict: higher lamport",
            Self::HigherAuthor => "conflict: equal lamport, higher author",
        })
    }
}

/// Which rule made the first of `maximal` (winner first) win, given how many versions it and the others have superseded. None when
/// there is no version at all.
pub fn rule<V: AsRef<Place>>(maximal: &[V], superseded: usize) -> Option<Rule> {
    let (winner, losers) = maximal.split_first()?;
    let Some(second) = losers.first() else {
        return Some(if superseded == 0 { Rule::OnlyVersion } else { Rule::Causality });
    };
    Some(if winner.as_ref().lamport > second.as_ref().lamport { Rule::HigherLamport } else { Rule::HigherAuthor })
}
