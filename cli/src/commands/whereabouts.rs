//! Where a followed peer is, asked anew before every dial: addresses change while one follows.

use super::{
    Session, discover,
    replicate::{addresses_of, known_peer, with_port},
};
use crate::failure::Failure;
use mirror_engine::{
    discovery::{Neighbours, Tag},
    id::DeviceId,
    replicate::{self, ReplicateError, Target},
    vault::Vault,
};

/// A peer that was named on the command line.
pub(super) enum Whereabouts<'a> {
    /// By address and device: there and nowhere else.
    Fixed { address: String, device: DeviceId },
    /// By name: at the addresses known at that time, and where the local network says.
    Named { vault: &'a Vault, name: String, device: DeviceId, neighbours: Option<Neighbours> },
}

impl<'a> Whereabouts<'a> {
    /// # Errors
    /// What is typed wrong is said at once; and so is a peer that nothing can lead to: without an address, and without discovery.
    /// An address that cannot be looked up now may be later.
    pub(super) fn of(session: &Session, vault: &'a Vault, typed: &str, device: Option<DeviceId>) -> Result<Self, Failure> {
        if let Some(device) = device {
            return Ok(Self::Fixed { address: with_port(typed)?, device });
        }
        let peer = known_peer(vault, typed)?;
        let neighbours = discover::look(session);
        if neighbours.is_none() && peer.addresses.is_empty() {
            addresses_of(&peer)?;
        }
        Ok(Self::Named { vault, name: peer.name, device: peer.device, neighbours })
    }

    /// Where it is at this moment.
    ///
    /// # Errors
    /// [`ReplicateError::NoAddress`], which may pass.
    pub(super) fn target(&self) -> Result<Target, ReplicateError> {
        match self {
            Self::Fixed { address, device } => {
                let addresses = replicate::resolve(std::slice::from_ref(address))?;
                Ok(Target { name: address.clone(), device: *device, addresses })
            }
            Self::Named { vault, name, device, neighbours } => {
                let known = vault.home().peer_of(device).ok().flatten();
                let mut addresses = known.and_then(|peer| addresses_of(&peer).ok()).unwrap_or_default();
                let tag = Tag::of(vault.replication_key(), device);
                let heard = neighbours.iter().flat_map(|neighbours| neighbours.addresses_of(device, tag));
                heard.for_each(|address| {
                    if !addresses.contains(&address) {
                        addresses.push(address)
                    }
                });
                match addresses.is_empty() {
                    true => Err(ReplicateError::NoAddress(format!("{name} has none here, and was not heard on the local network"))),
                    false => Ok(Target { name: name.clone(), device: *device, addresses }),
                }
            }
        }
    }
}
