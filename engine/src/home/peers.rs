//! `peers.toml`: the other replicas of a vault that this device knows. Whoever is not in it is refused.

use super::{HomeError, VaultHome, check_addresses, check_name, failed, lock};
use crate::{
    id::DeviceId,
    keys::private_file,
    limits::{PEERS_FILE_BYTES_MAX, PEERS_MAX},
    members::Role,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{io, path::PathBuf};

const FORMAT: u32 = 1;

/// Another replica of the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// What people call it here; 1 to 255 bytes, unique.
    pub name: String,
    /// Its device key, pinned in every connection; unique.
    #[serde(serialize_with = "write_device", deserialize_with = "read_device")]
    pub device: DeviceId,
    /// Where it may be reached, best first.
    pub addresses: Vec<String>,
    /// What it may do.
    pub role: Role,
    /// When it was first added: milliseconds since 1970.
    pub added_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct PeersFile {
    format: u32,
    #[serde(default, rename = "peer")]
    peers: Vec<Peer>,
}

impl VaultHome {
    /// All peers, in the order in which they were added.
    ///
    /// # Errors
    /// [`HomeError::Damaged`] when `peers.toml` is not of this format, [`HomeError::Io`].
    pub fn peers(&self) -> Result<Vec<Peer>, HomeError> {
        let path = self.peers_path();
        let bytes = match private_file::read(&path, PEERS_FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("reading", &path))?,
        };
        let damaged = |reason: String| HomeError::Damaged { file: path.clone(), reason };
        let text = std::str::from_utf8(&bytes).map_err(|error| damaged(error.to_string()))?;
        let file: PeersFile = toml::from_str(text).map_err(|error| damaged(error.message().to_owned()))?;
        match file.format {
            FORMAT if file.peers.len() <= PEERS_MAX => Ok(file.peers),
            FORMAT => Err(HomeError::TooMany("peers")),
            newer => Err(damaged(format!("it has format {newer}, this program reads {FORMAT}"))),
        }
    }

    /// The peer called `name`.
    ///
    /// # Errors
    /// [`HomeError::NoSuchPeer`], or as [`VaultHome::peers`].
    pub fn peer(&self, name: &str) -> Result<Peer, HomeError> {
        self.peers()?.into_iter().find(|peer| peer.name == name).ok_or_else(|| HomeError::NoSuchPeer(name.to_owned()))
    }

    /// The peer with this device key, if it is known.
    ///
    /// # Errors
    /// As [`VaultHome::peers`].
    pub fn peer_of(&self, device: &DeviceId) -> Result<Option<Peer>, HomeError> {
        Ok(self.peers()?.into_iter().find(|peer| peer.device == *device))
    }

    /// Adds `peer`. If its device is known, name, addresses and role are replaced; the day it was first added stays.
    ///
    /// # Errors
    /// [`HomeError::NameTaken`] when another device has the name; [`HomeError::Invalid`] and [`HomeError::TooMany`] outside the limits.
    pub fn add_peer(&self, mut peer: Peer) -> Result<(), HomeError> {
        check_name(&peer.name).and_then(|()| check_addresses(&peer.addresses)).map_err(HomeError::Invalid)?;
        if i64::try_from(peer.added_ms).is_err() {
            return Err(HomeError::Invalid("the time is out of range"));
        }
        let _held = lock(&self.dir)?;
        let mut peers = self.peers()?;
        if let Some(other) = peers.iter().find(|other| other.name == peer.name && other.device != peer.device) {
            return Err(HomeError::NameTaken { name: peer.name, device: other.device });
        }
        match peers.iter().position(|known| known.device == peer.device) {
            Some(at) => {
                peer.added_ms = peers[at].added_ms;
                peers[at] = peer;
            }
            None if peers.len() < PEERS_MAX => peers.push(peer),
            None => return Err(HomeError::TooMany("peers")),
        }
        self.write_peers(peers)
    }

    /// Forgets the peer called `name`, who is refused from the next connection on.
    ///
    /// # Errors
    /// [`HomeError::NoSuchPeer`], or as [`VaultHome::peers`].
    pub fn remove_peer(&self, name: &str) -> Result<Peer, HomeError> {
        let _held = lock(&self.dir)?;
        let mut peers = self.peers()?;
        let at = peers.iter().position(|peer| peer.name == name).ok_or_else(|| HomeError::NoSuchPeer(name.to_owned()))?;
        let removed = peers.remove(at);
        self.write_peers(peers)?;
        Ok(removed)
    }

    fn write_peers(&self, peers: Vec<Peer>) -> Result<(), HomeError> {
        let path = self.peers_path();
        let text = toml::to_string(&PeersFile { format: FORMAT, peers })
            .map_err(|error| HomeError::Io { what: format!("encoding {}", path.display()), source: io::Error::other(error) })?;
        private_file::write(&path, text.as_bytes()).map_err(failed("writing", &path))
    }

    fn peers_path(&self) -> PathBuf {
        self.dir.join("peers.toml")
    }
}

fn write_device<S: Serializer>(device: &DeviceId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(device)
}

fn read_device<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DeviceId, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}
