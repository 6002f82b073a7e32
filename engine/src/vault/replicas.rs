//! Replicas of one vault on several devices, for tests.

use super::{InitOptions, Origin, Unwatched, Vault, VaultError, create_replica};
use crate::{event::Key, frame::Verified, home::Home, keys::Secrets, members::Role, store::LogPosition};
use std::{ops::ControlFlow, path::PathBuf};
use tempfile::TempDir;

/// A directory with replicas of several devices.
pub(crate) struct Devices(TempDir);

impl Devices {
    /// With the founder's replica.
    pub(crate) fn new() -> (Self, Vault) {
        let devices = Self(TempDir::new().unwrap());
        let options = InitOptions::for_this_device("v", "first");
        let vault = Vault::init(&devices.0.path().join("first"), &devices.home("first"), options).unwrap().vault;
        (devices, vault)
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn home(&self, name: &str) -> Home {
        Home::open(&self.0.path().join(format!("home-{name}"))).unwrap()
    }

    /// A replica of a device that `owner` lets in; it holds nothing yet.
    pub(crate) fn join(&self, owner: &Vault, name: &str, role: Role) -> Vault {
        let secrets = match role {
            Role::Keyless => Secrets::Keyless(owner.replication_key().clone()),
            Role::Owner | Role::Member => owner.secrets().unwrap().clone(),
        };
        let origin = Origin { config: owner.config().clone(), secrets, slots: Vec::new() };
        let vault = create_replica(&self.0.path().join(name), &self.home(name), origin).unwrap();
        owner.admit(vault.device().newcomer(), role, name).unwrap();
        vault
    }
}

/// As a session would bring it about.
pub(crate) fn pull(to: &Vault, from: &Vault) -> Result<(), VaultError> {
    let batch = from.store().events_beyond(&to.store().frontier(), LogPosition::START, usize::MAX)?;
    let mut writer = to.store().writer();
    for id in batch.events.iter().flat_map(|(_, lists)| lists).flat_map(|list| list.entries()).map(|entry| entry.id) {
        let frame = from.store().read_frame(&id)?.expect("it is there");
        writer.append(Verified::check(&frame).expect("it is whole"))?;
    }
    writer.checkpoint()?;
    to.store().append_foreign(&batch.events)?;
    Ok(())
}

pub(crate) fn put(vault: &Vault, key: &str) -> Result<(), VaultError> {
    vault.put(&Key::new(key).unwrap(), &mut &b"value"[..], &Unwatched).map(drop)
}

pub(crate) fn keys(vault: &Vault) -> Vec<String> {
    let mut keys = Vec::new();
    vault
        .list(b"", false, &mut |entry| {
            keys.push(entry.key.to_text().into_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
    keys
}
