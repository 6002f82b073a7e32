//! Holding a peer to its word: whether it holds less than it once did, and whether it holds more of our own log than we do.
//!
//! ```text
//! peer's Hello ─┬─ less than its claims say      ─► it was rolled back: named; the session goes on and gives it back what is gone
//!               └─ more of our author than we    ─► we were rolled back: this author is retired before anything else is signed
//! ```
//! Neither ends a session: the events that one of the two has lost flow back in it. A peer that claims more of our log than there ever was
//! costs us a new author and nothing more.

use super::{ReplicateError, drive::Party, tally::Tally, worker};
use crate::{
    clock,
    event::{Dot, Frontier},
    home::{Claims, Gone},
    id::{DeviceId, ReplicaId},
    store::{Hole, Lost},
    vault::VaultError,
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How often it is noted outside of the vault directory what it holds, while a session stays.
const NOTE_SEEN: Duration = Duration::from_secs(1);

/// What a session found that the user must know, although it did what it was to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Ends of logs that the peer had once, and did not have when the session began.
    pub peer_rolled_back: Vec<Gone>,
    /// The peer had more of this replica's log than was here.
    pub own_rolled_back: Option<Gone>,
    /// Places in authors' logs for which two events were signed.
    pub forks: Vec<Dot>,
    /// Events that wait here for one that has to come first.
    pub holes: Vec<Hole>,
    /// Ends of logs that were accepted here once and that are still gone.
    pub lost: Vec<Lost>,
}

impl Findings {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// With what the sessions before found, of which this one took the place.
    pub(super) fn after(mut self, earlier: &Self) -> Self {
        if self.peer_rolled_back.is_empty() {
            self.peer_rolled_back.clone_from(&earlier.peer_rolled_back);
        }
        self.own_rolled_back = self.own_rolled_back.or(earlier.own_rolled_back);
        self.forks.extend(earlier.forks.iter().filter(|dot| !self.forks.contains(dot)).copied().collect::<Vec<_>>());
        self
    }
}

/// Remembers what one peer claimed, and compares.
pub(super) struct Remembered<'a> {
    party: &'a Party<'a>,
    device: DeviceId,
    claims: Claims,
    replica: Option<ReplicaId>,
    findings: Findings,
    noted: Instant,
}

impl<'a> Remembered<'a> {
    pub(super) fn new(party: &'a Party<'a>, device: DeviceId) -> Self {
        let claims = party.home.claims(&device);
        Self { party, device, claims, replica: None, findings: Findings::default(), noted: clock::now() }
    }

    /// The peer's Hello is here.
    ///
    /// # Errors
    /// When our author had to be retired and could not be: the session must not bring back what it would then write on behind.
    pub(super) fn heard(&mut self, replica: ReplicaId, frontier: &Frontier) -> Result<(), ReplicateError> {
        self.replica = Some(replica);
        // Who holds less of a forked log may have left its branch for another one.
        let forked = |gone: &Gone| self.party.store.fork_of(&gone.had.author).is_some();
        self.findings.peer_rolled_back = self.claims.gone(&replica, frontier).into_iter().filter(|gone| !forked(gone)).collect();
        let own = self.party.own.id();
        let had = Dot { author: own, sequence: frontier.sequence_of(&own) };
        if self.party.store.frontier().contains(&had) || had.sequence == 0 {
            return Ok(());
        }
        // Rare, so the look at the files does not matter here: another process may have written, and sent it to that peer.
        self.party.store.refresh().map_err(VaultError::from)?;
        let has = self.party.store.frontier().sequence_of(&own);
        if has < had.sequence {
            self.retire(had.sequence)?;
            self.findings.own_rolled_back = Some(Gone { had, has });
        }
        Ok(())
    }

    fn retire(&self, sequence: u64) -> Result<(), ReplicateError> {
        Ok(self.party.own.retire(sequence).map_err(VaultError::from)?)
    }

    /// Events came while the session stays: now and then it is noted that the vault directory holds them.
    pub(super) fn note_seen(&mut self) {
        if clock::since(self.noted) >= NOTE_SEEN {
            self.noted = clock::now();
            let (home, dir, heads) = (self.party.home.clone(), self.party.dir.to_owned(), self.party.store.heads());
            drop(worker::call(move || home.record_seen(&dir, &heads)));
        }
    }

    /// The session has ended. What it brought here, and what the peer holds now, is remembered.
    pub(super) fn conclude(mut self, tally: &Tally, (forks, holes): (Vec<Dot>, Vec<Hole>)) -> Findings {
        self.findings.holes = holes;
        let own = self.party.own.id();
        if let Some(dot) = forks.iter().find(|dot| dot.author == own && self.party.own.retired().is_ok_and(|retired| retired.is_none()))
            && let Err(error) = self.retire(dot.sequence)
        {
            tracing::error!(%error, "this replica's forked log could not be ended");
        }
        let equal = tally.peer_root == Some(tally.root);
        let known = self.party.store.forks().into_iter().map(|fork| fork.dot).filter(|_| !equal && self.replica.is_some());
        self.findings.forks = known.chain(forks).collect::<BTreeSet<_>>().into_iter().collect();
        self.findings.lost = self.party.store.lost();
        if let Err(error) = self.remember(tally) {
            tracing::warn!(%error, "what the session brought was not noted outside of the vault");
        }
        self.findings
    }

    fn remember(&mut self, tally: &Tally) -> Result<(), crate::home::HomeError> {
        if tally.events_received > 0 && !self.party.options.dry_run {
            self.party.home.record_seen(self.party.dir, &self.party.store.heads())?;
        }
        match (self.replica, &tally.peer_frontier) {
            (Some(replica), Some(frontier)) if !self.party.options.dry_run => {
                let before = self.claims.clone();
                self.claims.note(replica, frontier.clone(), &self.findings.peer_rolled_back);
                if self.claims == before { Ok(()) } else { self.party.home.record_claims(&self.device, &self.claims) }
            }
            _ => Ok(()),
        }
    }
}
