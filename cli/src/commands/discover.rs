//! The local network: who announces itself there, and where a known peer is of which no address works.

use super::Session;
use crate::{
    config::Discovery as Wish,
    failure::{Code, Failure},
    render,
};
use mirror_engine::{
    clock,
    discovery::{self, Announcement, Discovery, DiscoveryError, Neighbours, Place, Reach, Tag},
    id::DeviceId,
    vault::{Acquaintance, Vault},
};
use std::{net::SocketAddr, thread, time::Duration};

/// Devices answer within a tenth of a second; one that has just started announces itself after one.
const LOOKUP: Duration = Duration::from_secs(2);
/// How often a user's wish to stop is looked for.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Lists what is heard in `time`. Needs no vault, which only knows names.
pub(super) fn list(session: &Session, time: Duration) -> Result<Code, Failure> {
    let (own, known) = match session.vault_dir() {
        Ok(_) => acquaintances(&session.open()?)?,
        Err(failure) if failure.code == Code::NoVault => {
            (session.home()?.device().map_err(mirror_engine::vault::VaultError::from)?.id(), Vec::new())
        }
        Err(failure) => return Err(failure),
    };
    if discovery::reach() == Reach::ThisMachine {
        session.talk.warn("no network interface is up: only programs on this machine can be heard");
    }
    let neighbours = Discovery::start(Place::Networks)?.look(|_| ())?;
    let deadline = clock::now() + time;
    while clock::now() < deadline && !session.interrupt.is_set() {
        thread::sleep(CANCEL_POLL.min(time));
    }
    let seen: Vec<_> = neighbours.all().into_iter().filter(|neighbour| neighbour.device != own).collect();
    for neighbour in &seen {
        let known = known.iter().find(|known| known.peer.device == neighbour.device);
        session.output.show(|| render::neighbour_record(neighbour, known), || render::neighbour_text(neighbour, known))?;
        if known.is_none() {
            session.talk.note(&render::neighbour_hint(neighbour));
        }
    }
    if seen.is_empty() {
        session.talk.note("no other device announces itself here; mirror serve does, unless --no-discovery is given");
    }
    Ok(if session.interrupt.is_set() { Code::Interrupted } else { Code::Ok })
}

fn acquaintances(vault: &Vault) -> Result<(DeviceId, Vec<Acquaintance>), Failure> {
    Ok((vault.device().id(), vault.acquaintances()?))
}

/// Says that this vault is served, for as long as what is returned is kept. That it cannot is no failure: addresses that peers know
/// work without it.
pub(super) fn announce(session: &Session, vault: &Vault, listening: &[SocketAddr]) -> Option<Announcement> {
    if session.settings.discovery == Wish::Off {
        return None;
    }
    let only_here = listening.iter().all(|addr| addr.ip().is_loopback());
    if !only_here && discovery::reach() == Reach::ThisMachine {
        session.talk.warn("no network interface is up: announced once there is one; --no-discovery never announces");
    }
    let device = vault.device().id();
    let announced = Discovery::start(Place::Networks)
        .and_then(|discovery| discovery.announce(&device, Tag::of(vault.replication_key(), &device), listening));
    announced.inspect_err(|error| cannot(session, error)).ok()
}

/// Listens, if that is wished for and can be done.
pub(super) fn look(session: &Session) -> Option<Neighbours> {
    if session.settings.discovery == Wish::Off {
        return None;
    }
    let neighbours = Discovery::start(Place::Networks).and_then(|discovery| discovery.look(|_| ()));
    neighbours.inspect_err(|error| cannot(session, error)).ok()
}

fn cannot(session: &Session, error: &DiscoveryError) {
    session.talk.warn(&format!("{error}; addresses that are known work without it"));
}

/// Where `device` says on the local network that it serves `vault`; empty when it is not heard in time.
pub(super) fn find(session: &Session, vault: &Vault, name: &str, device: &DeviceId) -> Vec<SocketAddr> {
    let Some(neighbours) = look(session) else { return Vec::new() };
    let tag = Tag::of(vault.replication_key(), device);
    let found = neighbours.wait_for(device, tag, LOOKUP, || session.interrupt.is_set());
    if let Some(first) = found.first() {
        session.talk.note(&format!("{name} announces itself on the local network at {first}"));
    }
    found
}
