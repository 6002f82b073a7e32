//! What the page shows of a vault beside its peers: counts, and conflicts with their explanation; and a user's decision.

use crate::{failure::Failure, render};
use mirror_engine::{
    event::{Dot, Key},
    id::ReplicaId,
    vault::{Conflict, Identical, Vault, VersionInfo},
};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Conflicts that are shown at once: more than a person decides one by one.
const SHOWN_MAX: usize = 50;

/// A vault for the page.
#[derive(Debug, Serialize)]
pub(super) struct Details {
    root: String,
    keys: u64,
    events: u64,
    bytes: u64,
    lost: u64,
    conflicts: u64,
    identical_replicas: usize,
    identical_since_ms: Option<u64>,
    shown: Vec<Shown>,
}

/// One conflict.
#[derive(Debug, Serialize)]
struct Shown {
    key: String,
    key_hex: String,
    /// Why what stands stands, in a sentence.
    rule: String,
    versions: Vec<Version>,
}

#[derive(Debug, Serialize)]
struct Version {
    event: String,
    stands: bool,
    /// What it says: a size, a deletion.
    says: String,
    /// The device that wrote it, as people call it here.
    by: String,
    wall_ms: u64,
}

/// What the user wants to stand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    pub(super) vault: String,
    key_hex: String,
    event: String,
}

/// What became of it.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    resolved: u64,
}

impl Details {
    /// # Errors
    /// When the vault cannot be read.
    pub(super) fn of(vault: &Vault) -> Result<Self, Failure> {
        let (status, peers) = (vault.status()?, vault.peers()?);
        let identical = Identical::at(&status.root, &peers);
        Ok(Self {
            root: status.root.to_string(),
            keys: status.keys,
            events: status.events,
            bytes: status.bytes,
            lost: status.lost,
            conflicts: status.conflicts,
            identical_replicas: identical.replicas,
            identical_since_ms: identical.since_ms,
            shown: if status.info.keyless { Vec::new() } else { shown(vault)? },
        })
    }
}

fn shown(vault: &Vault) -> Result<Vec<Shown>, Failure> {
    let mut conflicts = Vec::new();
    vault.conflicts(&[], &mut |conflict| {
        conflicts.push(conflict);
        if conflicts.len() < SHOWN_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    conflicts.iter().map(|conflict| show(vault, conflict)).collect()
}

fn show(vault: &Vault, conflict: &Conflict) -> Result<Shown, Failure> {
    let rule = vault.explain(&conflict.key)?.rule.to_string();
    let versions = std::iter::once((&conflict.winner, true)).chain(conflict.losers.iter().map(|loser| (loser, false)));
    let version = |(version, stands): (&VersionInfo, bool)| Version {
        event: version.place.event.to_string(),
        stands,
        says: render::says(version),
        by: author(vault, &version.place.dot.author),
        wall_ms: version.wall_ms,
    };
    Ok(Shown {
        key: render::key_text(&conflict.key),
        key_hex: hex(conflict.key.as_bytes()),
        rule,
        versions: versions.map(version).collect(),
    })
}

/// The device of an author, by the name that it has here, else by what it called itself when it was let in.
fn author(vault: &Vault, author: &ReplicaId) -> String {
    let first = vault.store().event(&Dot { author: *author, sequence: 1 }).ok().flatten();
    let Some(device) = first.map(|event| event.header().device) else { return author.short().to_string() };
    if device == vault.info().device {
        return "this device".to_owned();
    }
    let known = vault.home().peer_of(&device).ok().flatten().map(|peer| peer.name);
    let signed = || vault.membership().ok().flatten()?.name_of(&device).map(str::to_owned);
    known.or_else(signed).map_or_else(|| device.short().to_string(), |name| render::escape(name.as_bytes()))
}

impl Decision {
    /// # Errors
    /// When there is no such key or version, or the decision cannot be stored.
    pub(super) fn make(&self, vault: &Vault) -> Result<Made, Failure> {
        let bytes = unhex(&self.key_hex).ok_or_else(|| Failure::usage("the key is not in hexadecimal"))?;
        let key = Key::new(bytes).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Made { resolved: vault.resolve(&key, &self.event)?.resolved })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |letter: u8| char::from(letter).to_digit(16);
    let byte = |pair: &[u8; 2]| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_key_survives_the_way_through_the_page() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        assert_eq!((unhex("abc"), unhex("zz"), unhex("")), (None, None, Some(Vec::new())));
    }
}
