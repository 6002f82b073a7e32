//! Who is in the vault: what owners say of it, what this device may do, and what of a removed device counts.
//!
//! The rule is [`members`](crate::members)'; the store holds every event to it. Here are the acts themselves, and answers in words that
//! a user can do something with, before an event is made that everyone would refuse.

use super::{Acquaintance, EpochBegun, MembershipStatus, Vault, VaultError, epochs::Recipient};
use crate::{
    event::{Dot, Event, Frontier, Incarnation, KIND_MEMBERSHIP},
    home::Peer,
    id::{DeviceId, EventId},
    keys::{Newcomer, random_bytes},
    limits::REASON_BYTES_MAX,
    members::{Admittance, Change, LastOwner, Membership, Role},
    store::Slot,
};
use std::sync::Arc;

/// What the spare device of a passphrase is called in the vault: an owner that lives in nobody's machine.
pub(super) const PASSPHRASE: &str = "passphrase";
/// That of a recovery phrase.
pub(super) const RECOVERY_PHRASE: &str = "recovery phrase";

impl Vault {
    /// Who is in, by all that this replica holds; none in a vault without signed roles.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn membership(&self) -> Result<Option<Arc<Membership>>, VaultError> {
        self.store().refresh()?;
        Ok(self.store().roster().map(|roster| roster.membership().clone()))
    }

    /// Lets a device in, or gives it another role, and with it the keys of all epochs. One that read until now and shall not any more
    /// makes a new epoch begin.
    ///
    /// # Errors
    /// [`VaultError::NotOwner`], [`VaultError::Unsigned`], [`VaultError::Usage`] for a name that is none.
    pub fn admit(&self, newcomer: impl Into<Newcomer>, role: Role, name: &str) -> Result<EventId, VaultError> {
        let membership = self.require_owner("let devices in")?;
        let newcomer = known_newcomer(newcomer.into(), &membership);
        let device = newcomer.device;
        let mut changes = vec![Change::admit(&newcomer, role, name)];
        let read_until_now = membership.role_of(&device).is_some_and(|held| held != Role::Keyless);
        if role == Role::Keyless && read_until_now && self.sealing.is_some() {
            let lowered = |recipient: Recipient| if *recipient.device() == device { recipient.with_role(role) } else { recipient };
            let recipients = self.recipients(&membership)?.into_iter().map(lowered).collect();
            changes.push(self.next_epoch(&membership, recipients)?.0);
        } else {
            changes.extend(self.grants_of_heads(&membership, &[(newcomer, role)])?);
        }
        self.declare(&changes)
    }

    /// Puts `device` out: from now on nobody who knows talks with it, and what it writes has no effect. What this replica holds of it now
    /// still counts. A key epoch begins for all others in the same event; not when a device removes itself, which would know it: the next
    /// owner that writes begins one then.
    ///
    /// # Errors
    /// [`VaultError::NotOwner`], [`VaultError::Unsigned`], [`VaultError::Usage`] when it is the last owner and `last_owner` is to stay.
    pub fn expel(&self, device: DeviceId, reason: Option<&str>, last_owner: LastOwner) -> Result<Option<EpochBegun>, VaultError> {
        let membership = self.require_owner("remove a device")?;
        let is_last = membership.owners().all(|owner| owner.device == device);
        if is_last && last_owner == LastOwner::Stays {
            return Err(VaultError::Usage("it is the last owner: nobody could let devices in or remove them afterwards".into()));
        }
        if reason.is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
            return Err(VaultError::Usage(format!("a reason has at most {REASON_BYTES_MAX} bytes")));
        }
        let upto = self.newest_of_authors()?.into_iter().filter(|event| event.header().device == device).map(|event| event.dot()).collect();
        let mut changes = vec![Change::Remove { device, reason: reason.map(str::to_owned), upto, last_owner }];
        let mut begun = None;
        if device != self.device().id() && self.sealing.is_some() {
            let remaining = self.recipients(&membership)?.into_iter().filter(|recipient| *recipient.device() != device).collect();
            let (change, epoch) = self.next_epoch(&membership, remaining)?;
            changes.push(change);
            begun = Some(epoch);
        }
        self.declare(&changes)?;
        Ok(begun)
    }

    /// Whom this device may have to do with: those it has on record, and everyone else who is in.
    ///
    /// # Errors
    /// When peers or log cannot be read.
    pub fn acquaintances(&self) -> Result<Vec<Acquaintance>, VaultError> {
        let membership = self.membership()?;
        let admittance = |device: &DeviceId| membership.as_ref().map(|membership| membership.admittance(device));
        let known = self.home().peers()?;
        let others = membership
            .iter()
            .flat_map(|membership| membership.members())
            .filter(|member| member.device != self.device().id() && known.iter().all(|peer| peer.device != member.device));
        let others: Vec<Peer> = others
            .map(|member| Peer {
                name: member.name.to_owned(),
                device: member.device,
                addresses: Vec::new(),
                role: member.role,
                added_ms: 0,
            })
            .collect();
        let all = known.iter().cloned().chain(others);
        Ok(all.map(|peer| Acquaintance { admittance: admittance(&peer.device), peer }).collect())
    }

    /// Says that this device has founded the vault, unless that is said already or was another's doing. `spares` are owners, too.
    pub(super) fn found(&self, name: &str, spares: &[(&str, Newcomer)]) -> Result<(), VaultError> {
        let Some(roster) = self.store().roster() else { return Ok(()) };
        if !roster.membership().is_empty() || roster.charter().founder() != self.device().id() {
            return Ok(());
        }
        let is_name = |name: &&str| !name.trim().is_empty();
        let name = Some(name).filter(is_name).map_or_else(|| self.device().id().short(), str::to_owned);
        let spares = spares.iter().map(|(name, spare)| Change::admit(spare, Role::Owner, name));
        let changes: Vec<Change> = std::iter::once(Change::found(&self.device().newcomer(), &name)).chain(spares).collect();
        self.declare(&changes).map(drop)
    }

    pub(super) fn declare(&self, changes: &[Change]) -> Result<EventId, VaultError> {
        let roster = self.store().roster().ok_or(VaultError::Unsigned)?;
        self.commit(KIND_MEMBERSHIP, &[], &mut |slot| {
            roster.charter().seal(changes, &self.own.id(), slot.sequence).map_err(|error| VaultError::Usage(error.to_string()))
        })
    }

    /// Lets this device in as an owner, by what opened the vault: how whoever has lost all devices, or the owners among them, goes on.
    /// A device that was removed is not let in again this way.
    fn let_in_by_spare(&self) -> Result<(), VaultError> {
        let (Some(roster), Some(spare)) = (self.store().roster(), &self.spare) else { return Ok(()) };
        let (membership, own) = (roster.membership(), self.device().id());
        if membership.role_of(&spare.id()) != Some(Role::Owner) || membership.admittance(&own) == Admittance::Removed {
            return Ok(());
        }
        let incarnation = Incarnation(random_bytes()?);
        let author = crate::event::author(&spare.id(), &incarnation);
        let name = membership.name_of(&own).map_or_else(|| own.short(), str::to_owned);
        let newcomer = self.device().newcomer();
        let mut changes = vec![Change::admit(&newcomer, Role::Owner, &name)];
        changes.extend(self.grants_of_heads(membership, &[(newcomer, Role::Owner)])?);
        self.store().append_own(&author, &mut |slot: Slot| -> Result<_, VaultError> {
            let body = roster.charter().seal(&changes, &author, slot.sequence).map_err(VaultError::internal)?;
            let event = self.sign((spare, incarnation), slot, KIND_MEMBERSHIP, &[], &body).map_err(VaultError::internal)?;
            Ok((event, Vec::new()))
        })?;
        Ok(())
    }

    /// Who is in, if this device is an owner, or what opened the vault makes it one.
    ///
    /// # Errors
    /// [`VaultError::NotOwner`], [`VaultError::Unsigned`].
    pub fn require_owner(&self, what: &'static str) -> Result<Arc<Membership>, VaultError> {
        self.found("", &[])?;
        let mut membership = self.membership()?.ok_or(VaultError::Unsigned)?;
        if membership.role_of(&self.device().id()) != Some(Role::Owner) {
            self.let_in_by_spare()?;
            membership = self.membership()?.ok_or(VaultError::Unsigned)?;
        }
        let role = match membership.role_of(&self.device().id()) {
            Some(Role::Owner) => return Ok(membership),
            Some(Role::Member) => "a member",
            Some(Role::Keyless) => "keyless",
            None => "not in",
        };
        let local = self.home().peers()?;
        let name = |owner: crate::members::Member<'_>| {
            let known = local.iter().find(|peer| peer.device == owner.device);
            known.map_or_else(|| owner.name.to_owned(), |peer| peer.name.clone())
        };
        let owners = membership.owners().filter(|owner| ![PASSPHRASE, RECOVERY_PHRASE].contains(&owner.name));
        Err(VaultError::NotOwner { what, role, owners: owners.map(name).collect() })
    }

    /// Whether this device may write now. Asked before an event is made, so that the user hears why in good words.
    pub(super) fn require_writer(&self) -> Result<(), VaultError> {
        let Some(roster) = self.store().roster() else { return Ok(()) };
        self.found("", &[])?;
        let device = self.device().id();
        if roster.admittance(&device) == Admittance::Unknown {
            self.let_in_by_spare()?;
        }
        let membership = self.store().roster().unwrap_or(roster).membership().clone();
        match membership.admittance(&device) {
            Admittance::In(role) if role.may_write() => self.require_newest_epoch(),
            Admittance::In(_) => Err(VaultError::Keyless),
            Admittance::Removed => Err(VaultError::NotAllowed(format!("this device {}", self.removed_by(&membership)))),
            Admittance::Unknown => Err(VaultError::NotAllowed("this replica does not hold the event yet that lets it in".to_owned())),
        }
    }

    /// What is written now must be sealed under the newest epoch: under an older one, a device that is out could read it.
    fn require_newest_epoch(&self) -> Result<(), VaultError> {
        self.tend_epochs()?;
        let newest = self.membership()?.and_then(|membership| Some((membership.newest_epoch()?.id, membership.newest_epoch()?.number)));
        match newest {
            Some((id, number)) if self.epochs_without_key().iter().any(|(_, missing)| *missing == id) => {
                let why = self.why_no_key();
                Err(VaultError::NotAllowed(format!("what is written now is sealed under key epoch {number}, and {why}")))
            }
            _ => Ok(()),
        }
    }

    /// Who removed this device, in words that go on after its name.
    pub(super) fn removed_by(&self, membership: &Membership) -> String {
        let device = self.device().id();
        let removal = membership.removals().iter().rfind(|removal| removal.device == device);
        let by = removal.and_then(|removal| membership.name_of(&removal.by)).unwrap_or("an owner");
        format!("was removed from the vault by {by}")
    }

    /// Whether an event that is held has an effect.
    pub(super) fn is_in_force(&self, event: &Event) -> bool {
        self.store().roster().is_none_or(|roster| event.header().kind == KIND_MEMBERSHIP || roster.is_in_force(event))
    }

    pub(super) fn membership_status(&self) -> Result<Option<MembershipStatus>, VaultError> {
        let Some(membership) = self.membership()? else { return Ok(None) };
        let without_effect = if membership.removals().is_empty() { 0 } else { self.without_effect(&membership)? };
        let role = membership.role_of(&self.device().id());
        let is_other = |known: &Acquaintance| matches!(known.admittance, Some(Admittance::In(_))) && known.secret().is_none();
        let others = self.acquaintances()?.into_iter().filter(is_other).count();
        let devices = u64::from(role.is_some()) + others as u64;
        Ok(Some(MembershipStatus { role, devices, without_effect }))
    }

    /// Counts the events that a removal takes. Those of an author that come first in force are passed over without a look.
    fn without_effect(&self, membership: &Membership) -> Result<u64, VaultError> {
        let mut count = 0;
        for newest in self.newest_of_authors()? {
            let header = newest.header();
            let removals = membership.removals().iter().filter(|removal| removal.device == header.device);
            let left = removals.map(|removal| removal.upto.sequence_of(&newest.author())).min();
            let first = match left {
                Some(left) => left + 1,
                None if membership.is_in_force(&header.device, &header.past(), &newest.dot()) => continue,
                None => 1,
            };
            for sequence in first..=header.sequence {
                let event = self.store().event(&Dot { author: newest.author(), sequence })?;
                count += u64::from(event.is_some_and(|event| !self.is_in_force(&event)));
            }
        }
        Ok(count)
    }

    /// Whether a removal takes something of what is in `seen`.
    pub(super) fn takes_from(&self, seen: &Frontier, membership: &Membership) -> Result<bool, VaultError> {
        for (author, sequence) in seen.iter() {
            let Some(newest) = self.store().event(&Dot { author: *author, sequence })? else { continue };
            let header = newest.header();
            let removals = membership.removals().iter().filter(|removal| removal.device == header.device);
            let mut left = removals.map(|removal| removal.upto.sequence_of(author));
            if left.any(|left| left < sequence) || !self.is_in_force(&newest) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The newest event of every author.
    fn newest_of_authors(&self) -> Result<Vec<Event>, VaultError> {
        let heads = self.store().heads();
        let events = heads.0.iter().map(|(author, head)| self.store().event(&Dot { author: *author, sequence: head.sequence }));
        Ok(events.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

/// With the key that it was let in with before, should it not say.
fn known_newcomer(newcomer: Newcomer, membership: &Membership) -> Newcomer {
    let agreement = newcomer.agreement.or_else(|| membership.agreement_of(&newcomer.device));
    Newcomer { agreement, ..newcomer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Frontier,
        vault::{
            CONFIG_FILE, Unlock,
            replicas::{Devices, keys, pull, put},
        },
    };
    use std::{fs, ops::ControlFlow};

    #[test]
    fn the_founder_is_an_owner_and_lets_others_in() {
        let (devices, first) = Devices::new();
        assert_eq!(first.membership_status().unwrap().unwrap().role, Some(Role::Owner));
        let second = devices.join(&first, "second", Role::Member);
        let refused = put(&second, "early");
        assert!(matches!(refused, Err(VaultError::NotAllowed(_))), "before it knows that it is in: {refused:?}");
        pull(&second, &first).unwrap();
        put(&second, "k").unwrap();
        pull(&first, &second).unwrap();
        assert_eq!(keys(&first), ["k"]);
        let refused = second.admit(DeviceId::from_bytes([9; 32]), Role::Member, "third");
        assert!(matches!(&refused, Err(VaultError::NotOwner { role: "a member", owners, .. }) if owners == &["first"]), "{refused:?}");
    }

    #[test]
    fn what_a_removed_device_wrote_and_nobody_had_seen_is_kept_without_effect() {
        let (devices, first) = Devices::new();
        let second = devices.join(&first, "second", Role::Member);
        let third = devices.join(&first, "third", Role::Keyless);
        pull(&second, &first).unwrap();
        put(&second, "before").unwrap();
        pull(&first, &second).unwrap();
        assert_eq!(keys(&first), ["before"]);
        first.expel(second.info().device, Some("lost"), LastOwner::Stays).unwrap();
        put(&second, "unseen").unwrap();
        pull(&third, &second).unwrap();
        pull(&first, &third).unwrap();
        pull(&third, &first).unwrap();
        assert_eq!(first.store().root(), third.store().root(), "the logs agree");
        assert_eq!(keys(&first), ["before"]);
        for vault in [&first, &third] {
            assert_eq!(vault.membership_status().unwrap().unwrap().without_effect, 1);
        }
        pull(&second, &first).unwrap();
        let refused = put(&second, "later");
        assert!(matches!(&refused, Err(VaultError::NotAllowed(why)) if why.contains("removed from the vault by first")), "{refused:?}");
        assert_eq!(keys(&second), ["before"], "the removed device itself sees it the same");
    }

    #[test]
    fn a_removal_takes_back_what_the_view_had_shown() {
        let (devices, first) = Devices::new();
        let (second, third) = (devices.join(&first, "second", Role::Member), devices.join(&first, "third", Role::Member));
        pull(&second, &first).unwrap();
        pull(&third, &first).unwrap();
        first.expel(second.info().device, None, LastOwner::Stays).unwrap();
        put(&second, "k").unwrap();
        pull(&third, &second).unwrap();
        put(&third, "l").unwrap();
        assert_eq!(keys(&third), ["k", "l"], "it had not heard of the removal");
        pull(&third, &first).unwrap();
        assert_eq!(keys(&third), ["l"]);
        let mut history = 0;
        third
            .log(None, &mut |_| {
                history += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(history, 1);
        pull(&first, &third).unwrap();
        assert_eq!((keys(&first), first.store().root()), (vec!["l".to_owned()], third.store().root()));
    }

    #[test]
    fn the_last_owner_stays_unless_it_is_meant() {
        let (_devices, first) = Devices::new();
        let own = first.info().device;
        assert!(matches!(first.expel(own, None, LastOwner::Stays), Err(VaultError::Usage(_))));
        first.expel(own, None, LastOwner::Goes).unwrap();
        assert!(matches!(put(&first, "k"), Err(VaultError::NotAllowed(_))));
    }

    #[test]
    fn another_founder_in_the_directory_is_not_believed() {
        let (devices, first) = Devices::new();
        let dir = first.dir().to_owned();
        let forged = first.config().clone().founded_by(&DeviceId::from_bytes([5; 32]));
        drop(first);
        forged.write(&dir).unwrap();
        let opened = Vault::open(&dir, &devices.home("first"), Unlock::Device);
        assert!(matches!(&opened, Err(VaultError::Damaged(why)) if why.contains("founder")), "{opened:?}");
    }

    #[test]
    fn a_vault_from_before_roles_were_signed_goes_on_without_them() {
        let (devices, first) = Devices::new();
        let dir = first.dir().to_owned();
        let config = crate::vault::Config { founder: None, ..first.config().clone() };
        let pinned = devices.dir("home-first").join("vaults").join(first.info().id.to_string()).join("founder");
        drop(first);
        config.write(&dir).unwrap();
        fs::remove_file(pinned).unwrap();
        let (vault, _) = Vault::open(&dir, &devices.home("first"), Unlock::Device).unwrap();
        put(&vault, "k").unwrap();
        assert_eq!((keys(&vault), vault.membership_status().unwrap()), (vec!["k".to_owned()], None));
        assert!(matches!(vault.admit(vault.info().device, Role::Owner, "x"), Err(VaultError::Unsigned)));
        assert!(!fs::read_to_string(dir.join(CONFIG_FILE)).unwrap().contains("founder"));
    }

    #[test]
    fn the_roster_is_the_same_after_the_index_is_lost() {
        let (devices, first) = Devices::new();
        devices.join(&first, "second", Role::Keyless);
        let (dir, before) = (first.dir().to_owned(), first.membership().unwrap().unwrap());
        drop(first);
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            let _ = fs::remove_file(dir.join(name));
        }
        let (vault, _) = Vault::open(&dir, &devices.home("first"), Unlock::Device).unwrap();
        assert_eq!(vault.membership().unwrap().unwrap(), before);
        assert!(vault.store().frontier() != Frontier::new());
    }
}
