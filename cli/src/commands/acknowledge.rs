//! `push --ack N`: not done before N replicas hold it.
//!
//! A replica holds what it has said to be durable there: the peer that is pushed to, by this push; others by what they said in the
//! last session with them, or in one with them now. Peers are asked one after the other, and only as long as some are lacking.

use super::{
    Session,
    replicate::{self, known_target, report, sync_options, transfer},
};
use crate::{
    args::PeerOptions,
    bandwidth::Kept,
    failure::{Code, Failure},
    render::{self, Acknowledged, Extent, Unheld},
};
use mirror_engine::{
    event::Frontier,
    home::Peer,
    id::DeviceId,
    replicate::{Options, ReplicateError},
    session::Direction,
    vault::Vault,
};
use std::collections::BTreeSet;

/// Pushes to the peer named, then to others that are known, until `wanted` replicas hold what this one held at the start; this one
/// counts.
pub(super) fn push(session: &Session, options: &PeerOptions, wanted: usize) -> Result<Code, Failure> {
    let vault = session.open()?;
    let held = vault.store().frontier();
    let target = replicate::target(session, &vault, &options.peer, options.device)?;
    refuse_too_many(&vault, target.device, wanted)?;
    let kept = Kept::to(options.bwlimit.as_ref(), &session.talk);
    let pushing = sync_options(Direction::Push, options, &kept);
    let first = transfer(session, "push", &vault, &target, &pushing)?;
    let mut holders = holders(&vault, &held)?;
    holders.extend(first.is_ok().then_some(target.device));
    let mut unheld = Vec::new();
    if options.dry_run {
        return report(session, "push", &options.peer, Extent::DryRun, first);
    }
    for peer in vault.home().peers()? {
        if holders.len() + 1 >= wanted {
            break;
        }
        if peer.device != target.device && !holders.contains(&peer.device) {
            match push_to(session, &vault, &peer, &pushing)? {
                Ok(()) => _ = holders.insert(peer.device),
                Err(reason) => unheld.push(Unheld { name: peer.name, reason }),
            }
        }
    }
    let replicas = holders.len() + 1;
    let acknowledged = Acknowledged { replicas, wanted, unheld };
    session.report(|| acknowledged.clone(), || acknowledged.to_text())?;
    let code = report(session, "push", &options.peer, Extent::Done, first)?;
    Ok(if code == Code::Ok && replicas < wanted { Code::Partial } else { code })
}

/// More than there are can never hold it.
fn refuse_too_many(vault: &Vault, pushed_to: DeviceId, wanted: usize) -> Result<(), Failure> {
    let devices: BTreeSet<DeviceId> = vault.home().peers()?.into_iter().map(|peer| peer.device).chain([pushed_to]).collect();
    let replicas = devices.len() + 1;
    if wanted <= replicas {
        return Ok(());
    }
    let known = render::count_text(replicas as u64, "replica");
    Err(Failure::usage(format!("--ack {wanted}: only {known} are known here, this one included"))
        .hint("mirror peer list shows them; mirror invite lets another one in"))
}

/// Who has said to hold all of `held`.
fn holders(vault: &Vault, held: &Frontier) -> Result<BTreeSet<DeviceId>, Failure> {
    let holds = |peer: &Peer| vault.home().contact(&peer.device).is_some_and(|contact| held.events_beyond(&contact.frontier) == 0);
    Ok(vault.home().peers()?.iter().filter(|peer| holds(peer)).map(|peer| peer.device).collect())
}

/// Whether `peer` holds everything now, or why not. Only the user's wish to stop is a failure.
fn push_to(session: &Session, vault: &Vault, peer: &Peer, pushing: &Options) -> Result<Result<(), String>, Failure> {
    let target = match known_target(session, vault, peer.clone()) {
        Ok(target) => target,
        Err(failure) => return Ok(Err(failure.message().to_owned())),
    };
    match transfer(session, "push", vault, &target, pushing)? {
        Ok(_) => Ok(Ok(())),
        Err(error @ ReplicateError::Cancelled) => Err(error.into()),
        Err(error) => Ok(Err(error.to_string())),
    }
}
