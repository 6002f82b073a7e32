//! The key epochs that a vault's membership events speak of.
//!
//! ```text
//! first (in the slots) ◄── 2 ◄── 3a ◄─┬─ 4        two owners have begun a third at once; the fourth leads to both
//!                            ◄── 3b ◄─┘
//! ```
//! The number stands in what is sealed; the id says which epoch of that number is meant. The number of an epoch is one more than that of
//! the newest in its act's past: else it is passed over, so that nobody can use the numbers up. What an act that a removal takes says of an
//! epoch neither begins it nor makes it anyone's: its grants are looked at, no more.

use super::{
    Act, Change, EpochGrants, Membership,
    change::{Grant, Link},
};
use crate::id::{AgreementKey, DeviceId, EpochId, ReplicaId};
use std::{collections::BTreeMap, sync::Arc};

/// The number of the epoch that a vault begins with.
pub const FIRST_EPOCH: u32 = 1;

/// A key epoch after the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Its number.
    pub number: u32,
    /// Which of those with that number.
    pub id: EpochId,
    /// Whether it may be sealed under: the act that began it is in force.
    pub(super) counts: bool,
    /// Orders epochs of one number, the same everywhere.
    pub(super) rank: (u64, ReplicaId, u64),
    said: Vec<Said>,
}

/// A change that speaks of an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    act: Arc<Act>,
    index: usize,
    in_force: bool,
}

impl Said {
    fn change(&self) -> Option<&EpochGrants> {
        match self.act.changes.get(self.index) {
            Some(Change::Epoch(epoch)) => Some(epoch),
            _ => None,
        }
    }
}

impl Epoch {
    /// Every device that knows its secret, as far as events in force say.
    pub fn holders(&self) -> impl Iterator<Item = DeviceId> + '_ {
        let heard = || self.said.iter().filter(|said| said.in_force);
        let given = heard().filter_map(Said::change).flat_map(|change| change.grants.iter().map(|grant| grant.device));
        heard().map(|said| said.act.device).chain(given)
    }

    /// The grants for `device`, each with the public half of the key that sealed it.
    pub fn grants_for(&self, device: &DeviceId) -> impl Iterator<Item = (&AgreementKey, &Grant)> {
        self.changes().filter_map(move |change| {
            let place = change.grants.binary_search_by_key(device, |grant| grant.device).ok()?;
            Some((&change.giver, &change.grants[place]))
        })
    }

    /// What leads from it to epochs before it.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.changes().flat_map(|change| &change.links)
    }

    fn changes(&self) -> impl Iterator<Item = &EpochGrants> {
        self.said.iter().filter_map(Said::change)
    }

    /// One more act speaks of it. It is in force from the first one that is.
    fn hear(&mut self, said: Said) {
        if said.in_force && !self.counts {
            (self.counts, self.rank) = (true, said.act.rank());
        }
        self.said.push(said);
    }
}

/// The epochs of acts whose devices were owners, in the order of the acts' ranks.
pub(super) fn collect(acts: &[Arc<Act>], membership: &Membership) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = Vec::new();
    let mut places = BTreeMap::new();
    for act in acts {
        for (index, change) in act.changes.iter().enumerate() {
            let Change::Epoch(EpochGrants { number, epoch: id, .. }) = change else { continue };
            let said = Said { act: act.clone(), index, in_force: membership.leaves(act) };
            if let Some(place) = places.get(&(*id, *number)) {
                let known: &mut Epoch = &mut epochs[*place];
                known.hear(said);
            } else if *number == newest_before(act, &epochs).saturating_add(1) {
                places.insert((*id, *number), epochs.len());
                epochs.push(Epoch { number: *number, id: *id, counts: said.in_force, rank: act.rank(), said: vec![said] });
            }
        }
    }
    epochs
}

/// The newest number that the author of `act` knew.
fn newest_before(act: &Act, epochs: &[Epoch]) -> u32 {
    let known = epochs.iter().filter(|epoch| epoch.said.iter().any(|said| act.past.contains(&said.act.dot)));
    known.map(|epoch| epoch.number).max().unwrap_or(FIRST_EPOCH)
}
