//! Status, verification, recovery.

use super::{Config, PeerStatus, Repair, Status, Vault, VaultError, VerifyReport, Watch};
use crate::{
    event::{ChunkRef, Key},
    home::Peer,
    id::ChunkId,
    limits::MIB,
    store::{self, Depth, DryRun, Hole, LogPosition, Pending, StoreError},
};
use std::{collections::HashSet, ops::ControlFlow, path::Path};

pub(super) fn status(vault: &Vault) -> Result<Status, VaultError> {
    let view = match vault.catch_up() {
        Ok(()) => vault.ask(|view| view.counts())?,
        // A keyless replica knows no keys.
        Err(VaultError::Keyless) => Default::default(),
        Err(error) => return Err(error),
    };
    let counts = vault.store().counts()?;
    Ok(Status {
        info: vault.info(),
        root: vault.store().root(),
        keys: view.keys,
        events: counts.events,
        chunks: counts.chunks,
        bytes: counts.bytes,
        conflicts: view.conflicts,
        membership: vault.membership_status()?,
        epoch: vault.epoch_status()?,
        lost: vault.store().lost_chunks()?.len() as u64,
        scrub: vault.home().scrub(vault.dir()),
        behind: vault.store().lost(),
        forks: vault.store().forks(),
        holes: holes(vault)?,
    })
}

/// Events in the journal that cannot be applied although their chunks may be here.
fn holes(vault: &Vault) -> Result<Vec<Hole>, VaultError> {
    let mut pending = Pending::new();
    let mut holes = Vec::new();
    for (event, _) in vault.store().journal_pending()? {
        match vault.store().check_event(&event, &pending) {
            Ok(_) => pending.add(&event),
            Err(StoreError::MissingDependency(missing)) => holes.push(vault.store().hole(event.dot(), missing)?),
            Err(_) => {}
        }
    }
    Ok(holes)
}

/// Events of a lagging peer that are looked at to add up what it lacks.
const LAG_BYTES_READ_MAX: usize = 32 * MIB;

pub(super) fn peers(vault: &Vault) -> Result<Vec<PeerStatus>, VaultError> {
    vault.store().refresh()?;
    vault.home().peers()?.into_iter().map(|peer| peer_status(vault, peer)).collect()
}

fn peer_status(vault: &Vault, peer: Peer) -> Result<PeerStatus, VaultError> {
    let certificate = vault.home().certificate(&vault.device().id(), &peer.device);
    let rolled_back = vault.home().claims(&peer.device).still_gone();
    let Some(contact) = vault.home().contact(&peer.device) else {
        return Ok(PeerStatus { peer, contact: None, lag_events: None, lag_bytes: None, identical: None, certificate, rolled_back });
    };
    let lag_events = vault.store().frontier().events_beyond(&contact.frontier);
    let batch = vault.store().events_beyond(&contact.frontier, LogPosition::START, LAG_BYTES_READ_MAX)?;
    let lists = batch.events.iter().flat_map(|(event, _)| &event.header().lists);
    let lag_bytes = batch.done.then(|| lists.map(|list| list.bytes).sum());
    let identical = Some(contact.root == vault.store().root());
    Ok(PeerStatus { peer, lag_events: Some(lag_events), lag_bytes, identical, contact: Some(contact), certificate, rolled_back })
}

pub(super) fn verify(vault: &Vault, read_data: bool, watch: &dyn Watch) -> Result<VerifyReport, VaultError> {
    let depth = if read_data { Depth::Data } else { Depth::Structure };
    let counts = vault.store().counts()?;
    watch.expect(counts.chunks, counts.bytes);
    let found = vault.store().verify(depth, &|chunks, bytes| {
        watch.advance(chunks, bytes);
        if watch.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if watch.cancelled() {
        return Err(VaultError::Cancelled);
    }
    let mut report = VerifyReport {
        chunks: found.chunks,
        bytes: found.bytes,
        damaged: found.damaged,
        missing: found.missing,
        files: found.files,
        keys_affected: Vec::new(),
        lost: found.lost,
    };
    let bad: HashSet<ChunkId> = report.damaged.iter().map(|(id, _)| *id).chain(report.missing.iter().copied()).collect();
    report.keys_affected = keys_with(vault, &bad)?;
    Ok(report)
}

pub(super) fn keys_with(vault: &Vault, bad: &HashSet<ChunkId>) -> Result<Vec<Key>, VaultError> {
    let mut keys = Vec::new();
    if bad.is_empty() {
        return Ok(keys);
    }
    match vault.catch_up() {
        Err(VaultError::Keyless) => return Ok(keys),
        other => other?,
    }
    vault.scan(b"", false, &mut |row| {
        if let Some(value) = row.version.value() {
            let direct = needs_any(vault, &value.content.references, bad)?;
            let below = || match vault.pieces(&value.content) {
                Ok(pieces) => needs_any(vault, &pieces.iter().map(|placed| placed.reference).collect::<Vec<_>>(), bad),
                Err(_) => Ok(true),
            };
            if direct || (value.content.depth > 0 && below()?) {
                keys.push(row.key);
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

/// Whether one of `pieces` is to be had from bad chunks only. The chunk of a later key epoch and the one before it do for each other.
fn needs_any(vault: &Vault, pieces: &[ChunkRef], bad: &HashSet<ChunkId>) -> Result<bool, VaultError> {
    if !pieces.iter().any(|piece| bad.contains(&piece.chunk)) {
        return Ok(false);
    }
    let newest = vault.newest_chunks(pieces)?;
    Ok(pieces.iter().zip(newest).any(|(piece, newest)| bad.contains(&piece.chunk) && bad.contains(&newest)))
}

pub(super) fn recover(dir: &Path, dry_run: bool, _watch: &dyn Watch) -> Result<Vec<Repair>, VaultError> {
    let config = Config::read(dir)?;
    let id = config.vault_id().map_err(|error| VaultError::Damaged(error.to_string()))?;
    Ok(store::recover(dir, &id, if dry_run { DryRun::Yes } else { DryRun::No })?)
}
