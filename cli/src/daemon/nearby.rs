//! Peers on local networks: the vaults that are kept are announced there, and whoever is heard is dialled where it says it is.
//!
//! What is heard is a guess at an address: the node dials only devices that it knows, and they have to prove who they are.

use super::keeper::Keeper;
use mirror_engine::{
    discovery::{Announcement, Discovery, DiscoveryError, Neighbours, Place, Tag},
    id::DeviceId,
};
use std::{path::PathBuf, sync::Arc};
use tokio::sync::mpsc;

/// Devices that were heard and that nobody has looked at yet. One that finds no room is heard again when its record is renewed.
const HEARD_MAX: usize = 256;

/// What is said and heard on local networks. Says goodbye when it is dropped.
pub(super) struct Nearby {
    discovery: Discovery,
    neighbours: Neighbours,
    announced: Vec<(PathBuf, Announcement)>,
}

/// Devices of which something new was heard.
pub(super) type News = mpsc::Receiver<DeviceId>;

impl Nearby {
    /// Begins to listen.
    ///
    /// # Errors
    /// When this system cannot; addresses that are known work without it.
    pub(super) fn start() -> Result<(Self, News), DiscoveryError> {
        let (tell, news) = mpsc::channel(HEARD_MAX);
        let discovery = Discovery::start(Place::Networks)?;
        let neighbours = discovery.look(move |neighbour| _ = tell.try_send(neighbour.device))?;
        Ok((Self { discovery, neighbours, announced: Vec::new() }, news))
    }

    /// Announces those of `keepers` that listen, and no other.
    pub(super) fn announce(&mut self, keepers: &[Arc<Keeper>]) {
        let is_kept = |dir: &PathBuf| keepers.iter().any(|keeper| keeper.plan.dir == *dir && keeper.failure().is_none());
        self.announced.retain(|(dir, _)| is_kept(dir));
        for keeper in keepers.iter().filter(|keeper| !keeper.plan.listen.is_empty()) {
            if self.announced.iter().any(|(dir, _)| *dir == keeper.plan.dir) {
                continue;
            }
            let of_node = keeper.with_node(|node| (node.vault(), node.local_addrs().1));
            let Some((vault, listening)) = of_node else { continue };
            let device = vault.device().id();
            match self.discovery.announce(&device, Tag::of(vault.replication_key(), &device), &listening) {
                Ok(announcement) => self.announced.push((keeper.plan.dir.clone(), announcement)),
                Err(error) => tracing::warn!(%error, "not announced; addresses that peers know work without it"),
            }
        }
    }

    /// Lets nodes know where `device` says it is, each for its own vault.
    pub(super) fn pass_on(&self, device: &DeviceId, keepers: &[Arc<Keeper>]) {
        for keeper in keepers {
            keeper.with_node(|node| {
                let vault = node.vault();
                let found = self.neighbours.addresses_of(device, Tag::of(vault.replication_key(), device));
                if *device != vault.device().id() && !found.is_empty() {
                    node.addresses(*device, found);
                }
            });
        }
    }
}
