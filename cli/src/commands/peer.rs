//! `peer add|list|discover|remove`, `rekey`: who is in, who may connect, where they are, and which keys they have.

use super::{Session, discover, replicate};
use crate::{
    args::{PeerCommand, RekeyArgs},
    failure::{Code, Failure},
    render::{self, Extent},
};
use mirror_engine::{
    home::{Peer, Role},
    id::DeviceId,
    keys::slots,
    members::{Admittance, LastOwner},
    vault::{Acquaintance, EpochBegun, Vault, VaultError},
};

pub(super) fn peer(session: &Session, command: PeerCommand) -> Result<Code, Failure> {
    match command {
        PeerCommand::Add { name, address, device } => add(session, name, &address, device)?,
        PeerCommand::List => {
            for known in session.open()?.acquaintances()? {
                session.output.show(|| render::peer_record(&known), || render::peer_text(&known))?;
            }
        }
        PeerCommand::Discover { time } => return discover::list(session, time.0),
        PeerCommand::Remove { name, reason, force } => remove(session, &session.open()?, &name, reason.as_deref(), force)?,
    }
    Ok(Code::Ok)
}

fn add(session: &Session, name: String, address: &str, device: DeviceId) -> Result<(), Failure> {
    let vault = session.open()?;
    let added_ms = mirror_engine::clock::wall_ms();
    let peer = Peer { name, device, addresses: vec![replicate::with_port(address)?], role: Role::Member, added_ms };
    vault.home().add_peer(peer.clone())?;
    let known = acquaintance(&vault, &peer)?;
    session.report(|| render::peer_record(&known), || format!("added {}", render::peer_text(&known)))
}

fn acquaintance(vault: &Vault, peer: &Peer) -> Result<Acquaintance, Failure> {
    let membership = vault.membership()?;
    Ok(Acquaintance { admittance: membership.map(|membership| membership.admittance(&peer.device)), peer: peer.clone() })
}

/// An owner puts a device that is in out of the vault; everyone else only forgets where it is.
fn remove(session: &Session, vault: &Vault, name: &str, reason: Option<&str>, force: bool) -> Result<(), Failure> {
    let known = find(vault, name)?;
    let is_in = matches!(known.admittance, Some(Admittance::In(_)));
    let mut begun = None;
    let said = match vault.require_owner("remove a device") {
        Ok(_) if is_in => {
            begun = expel(session, vault, &known, reason, force)?;
            "removed from the vault"
        }
        Ok(_) | Err(VaultError::Unsigned) => "forgotten",
        Err(VaultError::NotOwner { owners, .. }) => {
            let owner = owners.first().map_or("an owner", String::as_str);
            session.talk.warn(&format!(
                "only its address is forgotten here: it stays in the vault until an owner removes it (mirror peer remove {name} on {owner})"
            ));
            "forgotten"
        }
        Err(error) => return Err(error.into()),
    };
    if vault.home().peer_of(&known.peer.device)?.is_some() {
        vault.home().remove_peer(&known.peer.name)?;
    }
    let known = acquaintance(vault, &known.peer)?;
    let text = || match &begun {
        Some(begun) => format!("{said}: {}\n{}", render::peer_text(&known), render::epoch_text(begun, Extent::Done)),
        None => format!("{said}: {}", render::peer_text(&known)),
    };
    session.report(|| render::removed_record(&known, begun.as_ref()), text)
}

/// An owner begins a key epoch without removing anyone.
pub(super) fn rekey(session: &Session, args: &RekeyArgs) -> Result<Code, Failure> {
    let vault = session.open()?;
    if args.rewrite {
        return rewrite(session, &vault, Extent::of(args.dry_run));
    }
    let begun = if args.dry_run { vault.plan_epoch()? } else { vault.begin_epoch()? };
    session.report(|| render::epoch_record(&begun), || render::epoch_text(&begun, Extent::of(args.dry_run)))?;
    Ok(Code::Ok)
}

/// A writer seals anew what stands under older epochs.
fn rewrite(session: &Session, vault: &Vault, extent: Extent) -> Result<Code, Failure> {
    let progress = session.transfer_progress("rekey");
    let (rewrite, enough) = match extent {
        Extent::DryRun => {
            let (plan, free_bytes) = vault.plan_rewrite(&*progress.meter())?;
            let enough = plan.require_space(free_bytes);
            (plan, enough)
        }
        Extent::Done => (vault.rewrite(&*progress.meter())?, Ok(())),
    };
    drop(progress);
    for (key, reason) in &rewrite.unreadable {
        session.talk.warn(&render::unreadable_line(key, reason));
    }
    session.report(|| render::rewrite_record(extent, &rewrite), || render::rewrite_text(extent, &rewrite))?;
    enough?;
    if rewrite.unreadable.is_empty() {
        return Ok(Code::Ok);
    }
    session.talk.note("hint: mirror scrub --from PEER fetches what is damaged or missing; then the same command goes on");
    Ok(Code::Damaged)
}

fn expel(session: &Session, vault: &Vault, known: &Acquaintance, reason: Option<&str>, force: bool) -> Result<Option<EpochBegun>, Failure> {
    let device = known.peer.device;
    let is_last = vault.require_owner("remove a device")?.owners().all(|owner| owner.device == device);
    match (is_last, force) {
        (true, false) => {
            return Err(Failure::new(Code::Refused, "it is the last owner: nobody could invite or remove anyone afterwards")
                .hint("make another owner first: mirror invite --role owner; or insist: --force"));
        }
        (true, true) => prove(session, vault)?,
        (false, false) if device == vault.device().id() => {
            return Err(Failure::new(Code::Refused, "that is this device").hint("let another owner remove it, or insist: --force"));
        }
        (false, _) => {}
    }
    let begun = vault.expel(device, reason, if force { LastOwner::Goes } else { LastOwner::Stays })?;
    vault.home().withdraw_tickets()?;
    Ok(begun)
}

/// Whoever gives the last owner away must be able to open the vault without this device, if anybody can.
fn prove(session: &Session, vault: &Vault) -> Result<(), Failure> {
    let portable = slots::export_portable(&vault.dir().join("keys")).map_err(VaultError::from)?;
    if !portable.is_empty() {
        Vault::open(vault.dir(), &session.home()?, session.settings.secrets.unlock()?)?;
    }
    Ok(())
}

/// By the name here, by what the device called itself when it was let in, or by the device.
fn find(vault: &Vault, name: &str) -> Result<Acquaintance, Failure> {
    let all = vault.acquaintances()?;
    let own = vault.device().id();
    let own = || {
        let membership = vault.membership().ok()??;
        let called = membership.name_of(&own).filter(|called| *called == name || own.to_string() == name)?;
        let role = membership.role_of(&own)?;
        let peer = Peer { name: called.to_owned(), device: own, addresses: Vec::new(), role, added_ms: 0 };
        Some(Acquaintance { admittance: Some(Admittance::In(role)), peer })
    };
    let mut found = all.iter().filter(|known| known.peer.name == name || known.peer.device.to_string() == name);
    match (found.next(), found.next()) {
        (Some(known), None) => Ok(known.clone()),
        (Some(_), Some(_)) => Err(Failure::usage(format!("several devices are called {name}"))
            .hint("name the device itself: mirror peer list shows it, mirror peer remove DEVICE takes it")),
        (None, _) => own().map_or_else(|| Err(replicate::unknown_peer(vault, name)), Ok),
    }
}
