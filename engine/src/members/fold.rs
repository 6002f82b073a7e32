//! The fold: from acts to who is in.
//!
//! Straight from the rule, and done again from the start whenever an act comes: there are few, and an order of arrival that changed
//! anything would be a fault that two replicas never agree about.
//!
//! ```text
//! removals = none
//! repeat   admissions = those of all acts that removals leave in force, in causal order
//!          next       = the removal in force that is not among them, of the most senior owner
//! until there is none
//! ```
//! A removal that was taken once stays. Each round takes one more, so it ends.

use super::{
    Change, LastOwner, Role,
    epoch::{Epoch, collect},
};
use crate::{
    event::{Dot, Frontier},
    id::{AgreementKey, DeviceId, ReplicaId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A membership event, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Author and sequence number.
    pub dot: Dot,
    /// One more than everything that the author had seen.
    pub lamport: u64,
    /// The device that signed it.
    pub device: DeviceId,
    /// Everything that happened before it.
    pub past: Frontier,
    /// What it says.
    pub changes: Vec<Change>,
}

impl Act {
    /// Orders acts so that what an act has seen comes before it.
    pub(super) fn rank(&self) -> (u64, ReplicaId, u64) {
        (self.lamport, self.dot.author, self.dot.sequence)
    }

    /// Whether it is where everything begins.
    pub(super) fn founds(&self, founder: &DeviceId) -> bool {
        self.device == *founder && self.dot.sequence == 1 && matches!(self.changes.first(), Some(Change::Found { .. }))
    }
}

/// A device that was let in: once for each time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Admission {
    act: Arc<Act>,
    role: Role,
    name: String,
    agreement: Option<AgreementKey>,
}

/// A removal that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Who was removed.
    pub device: DeviceId,
    /// Who did it.
    pub by: DeviceId,
    /// The event.
    pub dot: Dot,
    /// Why, for people.
    pub reason: Option<String>,
    /// What counts of the device all the same.
    pub upto: Frontier,
}

/// What a device in the vault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'m> {
    /// The device.
    pub device: DeviceId,
    /// What it may do.
    pub role: Role,
    /// What it called itself.
    pub name: &'m str,
    /// What keys are sealed for it with.
    pub agreement: Option<AgreementKey>,
}

/// How a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admittance {
    /// It is in.
    In(Role),
    /// It was in, or would have been.
    Removed,
    /// Nobody has said anything of it that counts.
    Unknown,
}

/// Who is in, and as what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// In causal order.
    admissions: BTreeMap<DeviceId, Vec<Admission>>,
    /// In the order in which they were taken.
    removals: Vec<Removal>,
    /// In causal order, without the first.
    epochs: Vec<Epoch>,
}

/// Which events a question is about.
#[derive(Debug, Clone, Copy)]
enum Asked<'e> {
    /// All that are known.
    Now,
    /// Those before an event, as seen from today: a removal that it had not seen leaves what it says it leaves.
    At { past: &'e Frontier, dot: &'e Dot },
}

impl Membership {
    /// How `device` stands.
    pub fn admittance(&self, device: &DeviceId) -> Admittance {
        match self.role_when(device, Asked::Now) {
            Some(role) => Admittance::In(role),
            None if self.removals.iter().any(|removal| removal.device == *device) => Admittance::Removed,
            None => Admittance::Unknown,
        }
    }

    /// What `device` may do, if it is in.
    pub fn role_of(&self, device: &DeviceId) -> Option<Role> {
        self.role_when(device, Asked::Now)
    }

    /// Everyone who is in.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.admissions.keys().filter_map(|device| {
            let admission = self.admission_when(device, Asked::Now)?;
            let agreement = admission.agreement;
            Some(Member { device: *device, role: admission.role, name: &admission.name, agreement })
        })
    }

    /// The owners.
    pub fn owners(&self) -> impl Iterator<Item = Member<'_>> {
        self.members().filter(|member| member.role == Role::Owner)
    }

    /// Whether nobody was ever let in: the log does not say yet who is.
    pub fn is_empty(&self) -> bool {
        self.admissions.is_empty()
    }

    /// The removals that count.
    pub fn removals(&self) -> &[Removal] {
        &self.removals
    }

    /// The events that removals which count stand in.
    pub fn removal_places(&self) -> BTreeSet<Dot> {
        self.removals.iter().map(|removal| removal.dot).collect()
    }

    /// The key epochs after the first, in causal order.
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// The epoch that everything new is sealed under; none while it is the first.
    pub fn newest_epoch(&self) -> Option<&Epoch> {
        self.epochs.iter().filter(|epoch| epoch.counts).max_by_key(|epoch| (epoch.number, epoch.rank))
    }

    /// Whether a device that is out was given the newest epoch: a new one is due. Everyone who was ever let in was given the first.
    pub fn epoch_is_stale(&self) -> bool {
        let is_out = |device: &DeviceId| self.role_of(device).is_none();
        match self.newest_epoch() {
            Some(epoch) => epoch.holders().any(|device| is_out(&device)),
            None => self.admissions.keys().any(is_out),
        }
    }

    /// What keys are sealed with for `device`, by its newest admission that says so.
    pub fn agreement_of(&self, device: &DeviceId) -> Option<AgreementKey> {
        self.admissions.get(device)?.iter().rev().find_map(|admission| admission.agreement)
    }

    /// What `device` called itself when it was let in last.
    pub fn name_of(&self, device: &DeviceId) -> Option<&str> {
        Some(&self.admissions.get(device)?.last()?.name)
    }

    /// Whether an event of `device` that is held has an effect: its device was let in in its past, and no removal takes the event.
    pub fn is_in_force(&self, device: &DeviceId, past: &Frontier, dot: &Dot) -> bool {
        self.role_when(device, Asked::At { past, dot }).is_some_and(Role::may_write)
    }

    fn role_when(&self, device: &DeviceId, asked: Asked<'_>) -> Option<Role> {
        Some(self.admission_when(device, asked)?.role)
    }

    /// The newest admission of `device` that every removal which concerns the question has been seen by.
    fn admission_when(&self, device: &DeviceId, asked: Asked<'_>) -> Option<&Admission> {
        let concerns = |removal: &&Removal| match asked {
            Asked::Now => true,
            Asked::At { dot, .. } => !removal.upto.contains(dot),
        };
        let against: Vec<&Removal> = self.removals.iter().filter(|removal| removal.device == *device).filter(concerns).collect();
        let seen = |admission: &&Admission| match asked {
            Asked::Now => true,
            Asked::At { past, .. } => past.contains(&admission.act.dot),
        };
        let stands = |admission: &&Admission| against.iter().all(|removal| admission.act.past.contains(&removal.dot));
        self.admissions.get(device)?.iter().rev().filter(seen).find(stands)
    }

    /// Since when `device` has been in: who was let in first ranks first.
    fn seniority(&self, device: &DeviceId) -> Option<(u64, ReplicaId, u64)> {
        Some(self.admissions.get(device)?.first()?.act.rank())
    }

    /// Whether the act's device was an owner then, and no removal takes the act.
    pub(super) fn leaves(&self, act: &Act) -> bool {
        self.role_when(&act.device, Asked::At { past: &act.past, dot: &act.dot }) == Some(Role::Owner)
    }
}

/// Who is in after `acts`. Acts given twice count once; those whose device was no owner in their own past do not count.
///
/// Depends on the set of acts alone.
pub fn fold<'a>(founder: &DeviceId, acts: impl IntoIterator<Item = &'a Act>) -> Membership {
    let acts: BTreeMap<_, Arc<Act>> = acts.into_iter().map(|act| (act.rank(), Arc::new(act.clone()))).collect();
    let mut entitled: Vec<Arc<Act>> = Vec::new();
    for act in acts.into_values() {
        if is_entitled(founder, &entitled, &act) {
            entitled.push(act);
        }
    }
    resolve(founder, &entitled)
}

/// Whether the device of `act` was an owner in the act's own past. `entitled` holds all acts before it that are, and maybe others.
pub(super) fn is_entitled(founder: &DeviceId, entitled: &[Arc<Act>], act: &Act) -> bool {
    act.founds(founder) || before(founder, entitled, &act.past).role_of(&act.device) == Some(Role::Owner)
}

/// Who was in for whoever had seen `past`.
pub(super) fn before(founder: &DeviceId, entitled: &[Arc<Act>], past: &Frontier) -> Membership {
    let seen: Vec<Arc<Act>> = entitled.iter().filter(|act| past.contains(&act.dot)).cloned().collect();
    resolve(founder, &seen)
}

/// The rule itself, over acts in the order of their ranks.
pub(super) fn resolve(founder: &DeviceId, acts: &[Arc<Act>]) -> Membership {
    let mut membership = Membership::default();
    let mut taken = BTreeSet::new();
    loop {
        admit(founder, acts, &mut membership);
        let Some((place, removal)) = next_removal(acts, &membership, &taken) else { break };
        taken.insert(place);
        membership.removals.push(removal);
    }
    membership.epochs = collect(acts, &membership);
    membership
}

/// Collects the admissions of all acts that the removals leave in force.
fn admit(founder: &DeviceId, acts: &[Arc<Act>], membership: &mut Membership) {
    membership.admissions.clear();
    for act in acts {
        let founds = act.founds(founder);
        if !founds && !membership.leaves(act) {
            continue;
        }
        for change in &act.changes {
            let (device, role, name, agreement) = match change {
                Change::Found { name, agreement } if founds => (act.device, Role::Owner, name, agreement),
                Change::Admit { device, role, .. } if *role != Role::Owner && is_last_owner(membership, device) => continue,
                Change::Admit { device, role, name, agreement } => (*device, *role, name, agreement),
                Change::Found { .. } | Change::Remove { .. } | Change::Epoch(_) | Change::Unknown { .. } => continue,
            };
            let admission = Admission { act: act.clone(), role, name: name.clone(), agreement: *agreement };
            membership.admissions.entry(device).or_default().push(admission);
        }
    }
}

/// A change in an act.
type Place = (Dot, usize);

/// The removal in force that is not taken yet, of the most senior owner.
fn next_removal(acts: &[Arc<Act>], membership: &Membership, taken: &BTreeSet<Place>) -> Option<(Place, Removal)> {
    let in_force = acts.iter().filter(|act| membership.leaves(act));
    let removals = in_force.flat_map(|act| act.changes.iter().enumerate().map(move |(index, change)| (act, index, change)));
    let candidates = removals.filter_map(|(act, index, change)| {
        let Change::Remove { device, reason, upto, last_owner } = change else { return None };
        let place = (act.dot, index);
        let bars = *last_owner == LastOwner::Stays && is_last_owner(membership, device);
        let removal = Removal { device: *device, by: act.device, dot: act.dot, reason: reason.clone(), upto: upto.clone() };
        (!taken.contains(&place) && !bars).then(|| ((membership.seniority(&act.device), act.rank(), index), (place, removal)))
    });
    candidates.min_by_key(|(rank, _)| *rank).map(|(_, found)| found)
}

fn is_last_owner(membership: &Membership, device: &DeviceId) -> bool {
    let mut owners = membership.owners();
    owners.next().is_some_and(|owner| owner.device == *device) && owners.next().is_none()
}
