//! The acts that a replica holds, and what they mean for the next event.

use super::{
    Act, Charter, Membership, Role,
    fold::{before, is_entitled, resolve},
};
use crate::{
    event::{Event, KIND_MEMBERSHIP},
    id::DeviceId,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Pasts whose membership is remembered: events written between two changes share theirs.
const PASTS_KEPT: usize = 8;

/// Why an event may not be kept. The reasons are shown to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its device was never let in.
    #[error("its device is not a member of this vault")]
    NotIn,
    /// Its device is in, to store and to serve.
    #[error("its device is keyless: it may not write")]
    Keyless,
    /// Its device was removed, and knew it.
    #[error("its device was removed from this vault")]
    Removed,
    /// It says who is in, and its device is not an owner.
    #[error("it changes who is in, and its device is not an owner")]
    NotOwner,
    /// It is to say who is in and says nothing that can be read.
    #[error("what it says of who is in cannot be read")]
    Unreadable,
}

/// All acts of a vault that are held, in the order of their ranks, and who is in by them.
#[derive(Debug)]
pub struct Roster {
    charter: Charter,
    acts: Vec<Arc<Act>>,
    now: Arc<Membership>,
    /// Which acts a past held, and who was in by them.
    pasts: Mutex<Vec<(Vec<bool>, Arc<Membership>)>>,
}

impl Clone for Roster {
    fn clone(&self) -> Self {
        Self { charter: self.charter.clone(), acts: self.acts.clone(), now: self.now.clone(), pasts: Mutex::default() }
    }
}

impl Roster {
    /// A roster with nobody on it.
    pub fn new(charter: Charter) -> Self {
        Self { charter, acts: Vec::new(), now: Arc::default(), pasts: Mutex::default() }
    }

    /// What opens it.
    pub fn charter(&self) -> &Charter {
        &self.charter
    }

    /// Who is in, by all that is known.
    pub fn membership(&self) -> &Arc<Membership> {
        &self.now
    }

    /// Takes a membership event in, after all of its past. One that may not be kept changes nothing, nor does one that is there.
    pub fn add(&mut self, event: &Event) {
        if event.header().kind != KIND_MEMBERSHIP {
            return;
        }
        let Ok(act) = self.charter.act(event) else { return };
        let place = self.acts.binary_search_by_key(&act.rank(), |known| known.rank());
        if let Err(place) = place
            && is_entitled(&self.charter.founder(), &self.acts, &act)
        {
            self.acts.insert(place, Arc::new(act));
            self.now = Arc::new(resolve(&self.charter.founder(), &self.acts));
            self.pasts = Mutex::default();
        }
    }

    /// Whether `event` may be kept: whether its device was let write in the event's own past. The answer is the same on every replica
    /// that holds that past.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check(&self, event: &Event) -> Result<(), Refusal> {
        let header = event.header();
        if header.kind == KIND_MEMBERSHIP {
            return self.check_act(event);
        }
        let then = self.membership_at(event);
        match then.admittance(&header.device) {
            super::Admittance::In(role) if role.may_write() => Ok(()),
            super::Admittance::In(_) => Err(Refusal::Keyless),
            super::Admittance::Removed => Err(Refusal::Removed),
            super::Admittance::Unknown => Err(Refusal::NotIn),
        }
    }

    fn check_act(&self, event: &Event) -> Result<(), Refusal> {
        let act = self.charter.act(event).map_err(|_| Refusal::Unreadable)?;
        let device = &event.header().device;
        if act.founds(&self.charter.founder()) || self.membership_at(event).role_of(device) == Some(Role::Owner) {
            return Ok(());
        }
        Err(Refusal::NotOwner)
    }

    /// Whether an event that is held has an effect.
    pub fn is_in_force(&self, event: &Event) -> bool {
        let header = event.header();
        self.now.is_in_force(&header.device, &header.past(), &event.dot())
    }

    /// How `device` may take part now.
    pub fn admittance(&self, device: &DeviceId) -> super::Admittance {
        self.now.admittance(device)
    }

    fn membership_at(&self, event: &Event) -> Arc<Membership> {
        let past = event.header().past();
        let seen: Vec<bool> = self.acts.iter().map(|act| past.contains(&act.dot)).collect();
        if seen.iter().all(|seen| *seen) {
            return self.now.clone();
        }
        let mut pasts = self.pasts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = pasts.iter().find(|(acts, _)| *acts == seen) {
            return known.clone();
        }
        let then = Arc::new(before(&self.charter.founder(), &self.acts, &past));
        if pasts.len() >= PASTS_KEPT {
            pasts.remove(0);
        }
        pasts.push((seen, then.clone()));
        then
    }
}
