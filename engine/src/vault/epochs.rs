//! The vault's key epochs as this device has them: which secrets it was given, what is sealed under which, and how a new one begins.
//!
//! ```text
//! slot ──► first epoch's secret ─┐
//! log  ──► grants for this device ┴► secrets ──links──► those before ──► sealing keys by epoch, replication keys for Hellos
//! ```
//! Nothing of it is stored: the grants lie in the log, and opening one costs one X25519 an epoch and process. Who opened the vault with a
//! passphrase or phrase opens the grants of its spare device as well.
//!
//! - An epoch begins with every removal, in the same event, and whenever an owner finds that a device that is out was given the newest
//!   one: two owners that remove different devices at once each give their epoch to the other's. Until an owner writes, it is that one.
//! - Whoever lacks the newest epoch's key does not write: what it sealed under an older one could be read by who is out.

use super::{Vault, VaultError};
use crate::{
    id::{AgreementKey, DeviceId, EpochId, VaultId},
    keys::{DeviceKey, Giver, MasterKey, Newcomer, Occasion, ReplicationKey, Secrets, epoch_id, link, unlink},
    limits::{EPOCH_LINKS_MAX, HELLO_EPOCHS_MAX},
    members::{Admittance, Change, Epoch, EpochGrants, FIRST_EPOCH, Grant, Link, Member, Membership, Role},
    seal::{KeyRing, SealKeys},
    store::Store,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

/// A key epoch that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochBegun {
    /// Its number.
    pub number: u32,
    /// The devices that were given its key, by the names that they have here.
    pub given: Vec<String>,
    /// Those that are in and were given none, because nobody knows what to seal it with: they were let in by a version before key epochs.
    pub without: Vec<String>,
}

/// How this device stands to the vault's key epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochStatus {
    /// The number of the newest: what is new is sealed under it.
    pub number: u32,
    /// The numbers of those that this device was given no key of: what was written under them cannot be read here.
    pub without_key: Vec<u32>,
    /// Whether a device that is out was given the newest: the next owner that writes begins another.
    pub stale: bool,
}

/// The secrets of a vault's epochs, followed as the log grows.
pub(super) struct Keychain {
    vault: VaultId,
    store: Arc<Store>,
    first: Secrets,
    /// Whose grants can be opened: this device, and what the passphrase or phrase that opened the vault can sign as.
    devices: Vec<DeviceKey>,
    /// What counts in a vault without signed roles.
    nobody: Arc<Membership>,
    cached: Mutex<Option<(Arc<Membership>, Arc<Keys>)>>,
}

/// What follows from the log as it was.
pub(super) struct Keys {
    /// None on a keyless replica.
    pub(super) ring: Option<Arc<KeyRing>>,
    /// The epoch that is sealed under.
    pub(super) current: u32,
    /// Secrets of the epochs after the first.
    known: BTreeMap<EpochId, Secrets>,
    /// Epochs without.
    missing: Vec<(u32, EpochId)>,
    /// What is left to an owner to do.
    due: Due,
}

/// What an owner has to see to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Due {
    Nothing,
    /// A new epoch.
    Epoch,
    /// The newest epoch's key, for devices that were let in while it began.
    Grants(Vec<DeviceId>),
}

impl Keychain {
    pub(super) fn new(vault: &VaultId, store: &Arc<Store>, first: Secrets, devices: Vec<DeviceKey>) -> Self {
        Self { vault: *vault, store: store.clone(), first, devices, nobody: Arc::default(), cached: Mutex::default() }
    }

    /// What the slots hold.
    pub(super) fn first(&self) -> &Secrets {
        &self.first
    }

    fn membership(&self) -> Arc<Membership> {
        self.store.roster().map_or_else(|| self.nobody.clone(), |roster| roster.membership().clone())
    }

    /// The secrets and keys of all epochs that the log as it is known now speaks of.
    pub(super) fn keys(&self) -> Arc<Keys> {
        let membership = self.membership();
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, keys)) = cached.as_ref()
            && Arc::ptr_eq(of, &membership)
        {
            return keys.clone();
        }
        let known = cached.take().map_or_else(BTreeMap::new, |(_, keys)| keys.known.clone());
        let keys = Arc::new(self.derive(&membership, known));
        *cached = Some((membership, keys.clone()));
        keys
    }

    /// The same for a log that also says what `membership` is made from.
    pub(super) fn keys_by(&self, membership: &Membership) -> Keys {
        self.derive(membership, self.keys().known.clone())
    }

    fn derive(&self, membership: &Membership, mut known: BTreeMap<EpochId, Secrets>) -> Keys {
        for epoch in membership.epochs() {
            if !known.contains_key(&epoch.id)
                && let Some(secrets) = self.open_grants(epoch)
            {
                known.insert(epoch.id, secrets);
            }
        }
        follow_links(membership, &self.vault, &mut known);
        let missing = membership.epochs().iter().filter(|epoch| !known.contains_key(&epoch.id)).map(|epoch| (epoch.number, epoch.id));
        let newest = membership.newest_epoch().filter(|epoch| known.contains_key(&epoch.id));
        let ring = match &self.first {
            Secrets::Member(first) => Some(Arc::new(ring(&self.vault, first, membership, &known, newest))),
            Secrets::Keyless(_) => None,
        };
        let current = ring.as_ref().map_or(FIRST_EPOCH, |ring| ring.current().epoch());
        Keys { ring, current, missing: missing.collect(), due: due(membership), known }
    }

    fn open_grants(&self, epoch: &Epoch) -> Option<Secrets> {
        self.devices.iter().find_map(|device| {
            let occasion = Occasion { vault: self.vault, epoch: epoch.id, device: device.id() };
            epoch.grants_for(&device.id()).find_map(|(giver, grant)| device.open_grant(&occasion, giver, &grant.sealed))
        })
    }
}

/// Somebody who is in, with what can be sealed for it.
pub(super) struct Recipient {
    device: DeviceId,
    role: Role,
    name: String,
    agreement: Option<AgreementKey>,
}

impl Vault {
    /// The secrets and keys of all epochs that the log as it is known now speaks of.
    pub(super) fn keys(&self) -> Arc<Keys> {
        self.keychain.keys()
    }

    /// The keys that prove to a peer that this replica belongs to the vault, newest epoch first; the last is the first epoch's, which
    /// everyone has.
    pub fn replication_keys(&self) -> Vec<ReplicationKey> {
        let keys = self.keys();
        let membership = self.keychain.membership();
        let counting = membership.newest_epoch().map(|epoch| epoch.id);
        let others = membership.epochs().iter().rev().map(|epoch| epoch.id).filter(|id| Some(*id) != counting);
        let later = counting.into_iter().chain(others).filter_map(|id| keys.known.get(&id));
        let later = later.map(|secrets| secrets.replication_key(&self.id)).take(HELLO_EPOCHS_MAX - 1);
        later.chain([self.replication.clone()]).collect()
    }

    pub(super) fn epoch_status(&self) -> Result<Option<EpochStatus>, VaultError> {
        let Some(membership) = self.membership()? else { return Ok(None) };
        let mut without_key: Vec<u32> = self.keys().missing.iter().map(|(number, _)| *number).collect();
        without_key.dedup();
        let number = membership.newest_epoch().map_or(FIRST_EPOCH, |epoch| epoch.number);
        Ok(Some(EpochStatus { number, without_key, stale: membership.epoch_is_stale() }))
    }

    /// The epochs that cannot be read here.
    pub(super) fn epochs_without_key(&self) -> Vec<(u32, EpochId)> {
        self.keys().missing.clone()
    }

    /// Why nothing, or not everything, that is new can be read or written here.
    pub(super) fn why_no_key(&self) -> String {
        let removal = self.store().roster().filter(|roster| roster.admittance(&self.device.id()) == Admittance::Removed);
        match removal {
            Some(roster) => format!("this device {}", self.removed_by(roster.membership())),
            None => "no owner has given this device the key".to_owned(),
        }
    }

    /// Begins a key epoch for everyone who is in: `rekey`.
    ///
    /// # Errors
    /// [`VaultError::NotOwner`], [`VaultError::Unsigned`], [`VaultError::Keyless`].
    pub fn begin_epoch(&self) -> Result<EpochBegun, VaultError> {
        let membership = self.require_owner("begin a key epoch")?;
        self.sealing()?;
        let (change, begun) = self.next_epoch(&membership, self.recipients(&membership)?)?;
        self.declare(&[change])?;
        Ok(begun)
    }

    /// What [`Vault::begin_epoch`] would do.
    ///
    /// # Errors
    /// As there.
    pub fn plan_epoch(&self) -> Result<EpochBegun, VaultError> {
        let membership = self.require_owner("begin a key epoch")?;
        self.sealing()?;
        Ok(self.next_epoch(&membership, self.recipients(&membership)?)?.1)
    }

    /// Sees to what an owner has to: see [`Due`]. Asked before anything new is sealed; others leave it to the owners.
    pub(super) fn tend_epochs(&self) -> Result<(), VaultError> {
        let (keys, Some(membership)) = (self.keys(), self.membership()?) else { return Ok(()) };
        if keys.due == Due::Nothing || membership.role_of(&self.device.id()) != Some(Role::Owner) || self.sealing.is_none() {
            return Ok(());
        }
        match &keys.due {
            Due::Nothing => Ok(()),
            Due::Epoch => self.begin_epoch().map(drop),
            Due::Grants(devices) => {
                let newcomers = devices.iter().map(|device| Newcomer { device: *device, agreement: membership.agreement_of(device) });
                let roles = newcomers.filter_map(|newcomer| Some((newcomer, membership.role_of(&newcomer.device)?)));
                let changes = self.grants_of_heads(&membership, &roles.collect::<Vec<_>>())?;
                if changes.is_empty() { Ok(()) } else { self.declare(&changes).map(drop) }
            }
        }
    }

    /// The next epoch's secret, for `recipients`.
    pub(super) fn next_epoch(&self, membership: &Membership, recipients: Vec<Recipient>) -> Result<(Change, EpochBegun), VaultError> {
        let newest = membership.epochs().iter().map(|epoch| epoch.number).max().unwrap_or(FIRST_EPOCH);
        let number = newest.checked_add(1).ok_or_else(|| VaultError::internal("no number is left for a key epoch"))?;
        let master = MasterKey::generate()?;
        let epoch = epoch_id(&master.replication_key(&self.id));
        let giver = Giver::generate()?;
        let (mut grants, mut begun) = (Vec::new(), EpochBegun { number, given: Vec::new(), without: Vec::new() });
        for Recipient { device, role, name, agreement } in recipients {
            let occasion = Occasion { vault: self.id, epoch, device };
            match agreement.and_then(|agreement| giver.grant(&occasion, &agreement, &self.for_role(&master, role))) {
                Some(sealed) => {
                    grants.push(Grant { device, sealed });
                    begun.given.push(name);
                }
                None => begun.without.push(name),
            }
        }
        grants.sort_by_key(|grant| grant.device);
        begun.given.sort_unstable();
        begun.without.sort_unstable();
        let links = self.links_from(&master, membership);
        Ok((Change::Epoch(EpochGrants { number, epoch, giver: giver.public(), grants, links }), begun))
    }

    fn for_role(&self, master: &MasterKey, role: Role) -> Secrets {
        match role {
            Role::Owner | Role::Member => Secrets::Member(master.clone()),
            Role::Keyless => Secrets::Keyless(master.replication_key(&self.id)),
        }
    }

    fn links_from(&self, master: &MasterKey, membership: &Membership) -> Vec<Link> {
        let keys = self.keys();
        let earlier = heads(membership).filter_map(|epoch| match keys.known.get(&epoch.id) {
            Some(Secrets::Member(earlier)) => Some(Link { epoch: epoch.id, sealed: link(master, &self.id, earlier) }),
            _ => None,
        });
        earlier.take(EPOCH_LINKS_MAX).collect()
    }

    /// What gives `newcomers` the epochs that there are: grants of the newest, which lead to the others.
    pub(super) fn grants_of_heads(&self, membership: &Membership, newcomers: &[(Newcomer, Role)]) -> Result<Vec<Change>, VaultError> {
        let keys = self.keys();
        let mut changes = Vec::new();
        for head in heads(membership).take(EPOCH_LINKS_MAX) {
            let Some(Secrets::Member(master)) = keys.known.get(&head.id) else { continue };
            let giver = Giver::generate()?;
            let mut grants: Vec<Grant> = newcomers
                .iter()
                .filter_map(|(newcomer, role)| {
                    let occasion = Occasion { vault: self.id, epoch: head.id, device: newcomer.device };
                    let sealed = giver.grant(&occasion, &newcomer.agreement?, &self.for_role(master, *role))?;
                    Some(Grant { device: newcomer.device, sealed })
                })
                .collect();
            grants.sort_by_key(|grant| grant.device);
            if !grants.is_empty() {
                let (number, epoch, giver) = (head.number, head.id, giver.public());
                changes.push(Change::Epoch(EpochGrants { number, epoch, giver, grants, links: Vec::new() }));
            }
        }
        Ok(changes)
    }

    /// Everyone who is in. What this device knows of its own keys counts as well, whatever the log says.
    pub(super) fn recipients(&self, membership: &Membership) -> Result<Vec<Recipient>, VaultError> {
        let own_agreement = |device: &DeviceId| self.keychain.devices.iter().find(|key| key.id() == *device).map(DeviceKey::agreement_key);
        let local = self.home().peers()?;
        let name = |member: &Member<'_>| {
            let known = local.iter().find(|peer| peer.device == member.device);
            known.map_or_else(|| member.name.to_owned(), |peer| peer.name.clone())
        };
        let recipient = |member: Member<'_>| {
            let agreement = own_agreement(&member.device).or_else(|| membership.agreement_of(&member.device));
            Recipient { device: member.device, role: member.role, name: name(&member), agreement }
        };
        Ok(membership.members().map(recipient).collect())
    }
}

impl Recipient {
    pub(super) fn device(&self) -> &DeviceId {
        &self.device
    }

    pub(super) fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }
}

/// Epochs that no other leads to.
fn heads(membership: &Membership) -> impl Iterator<Item = &Epoch> {
    let led_to: BTreeSet<EpochId> = membership.epochs().iter().flat_map(Epoch::links).map(|link| link.epoch).collect();
    membership.epochs().iter().rev().filter(move |epoch| !led_to.contains(&epoch.id))
}

/// From what is known to what lies before it, newest first.
fn follow_links(membership: &Membership, vault: &VaultId, known: &mut BTreeMap<EpochId, Secrets>) {
    for epoch in membership.epochs().iter().rev() {
        let Some(Secrets::Member(master)) = known.get(&epoch.id).cloned() else { continue };
        for link in epoch.links() {
            if !known.contains_key(&link.epoch)
                && let Some(earlier) = unlink(&master, vault, &link.epoch, &link.sealed)
            {
                known.insert(link.epoch, Secrets::Member(earlier));
            }
        }
    }
}

fn ring(
    vault: &VaultId,
    first: &MasterKey,
    membership: &Membership,
    known: &BTreeMap<EpochId, Secrets>,
    newest: Option<&Epoch>,
) -> KeyRing {
    let mut ring = KeyRing::new(SealKeys::derive(first, vault, FIRST_EPOCH));
    for epoch in membership.epochs() {
        if let Some(Secrets::Member(master)) = known.get(&epoch.id) {
            ring.add(SealKeys::derive(master, vault, epoch.number));
            if newest.is_some_and(|newest| newest.id == epoch.id) {
                ring.seal_under_newest();
            }
        }
    }
    ring
}

fn due(membership: &Membership) -> Due {
    if membership.epoch_is_stale() {
        return Due::Epoch;
    }
    let Some(newest) = membership.newest_epoch() else { return Due::Nothing };
    let holders: BTreeSet<DeviceId> = newest.holders().collect();
    let without = membership.members().filter(|member| !holders.contains(&member.device));
    let without: Vec<DeviceId> = without.filter(|member| membership.agreement_of(&member.device).is_some()).map(|m| m.device).collect();
    if without.is_empty() { Due::Nothing } else { Due::Grants(without) }
}

#[cfg(test)]
mod tests;
