//! (being written) Signatures that the command line uses.
#![allow(missing_docs, unused_variables)]
use crate::{
    home::{Home, HomeError},
    id::{DeviceId, Root},
    transport::{Choice, Congestion, TransportError, TransportKind},
    vault::{Vault, VaultError},
};
use std::{net::SocketAddr, path::Path, time::Duration};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Push,
    Pull,
    Both,
}
#[derive(Debug, Clone)]
pub struct SyncOptions {
    pub direction: Direction,
    pub choice: Choice,
    pub lanes: Option<usize>,
    pub congestion: Option<Congestion>,
    /// Bytes per second, sending and receiving.
    pub bandwidth_limit: (Option<u64>, Option<u64>),
    pub dry_run: bool,
    pub max_delete: Option<u64>,
}
#[derive(Debug, Clone)]
pub struct Target {
    pub device: DeviceId,
    pub addresses: Vec<SocketAddr>,
}
#[derive(Debug, Clone)]
pub struct Summary {
    pub peer: DeviceId,
    pub transport: TransportKind,
    pub resumed: bool,
    pub events_sent: u64,
    pub events_received: u64,
    pub chunks_sent: u64,
    pub chunks_received: u64,
    pub chunks_present: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub elapsed: Duration,
    pub goodput_bits_per_s: u64,
    pub limiting_stage: &'static str,
    pub root: Root,
    pub peer_root: Root,
    pub identical: bool,
    pub wire_bytes_sent: u64,
    pub wire_bytes_received: u64,
    pub round_trips: u32,
}
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Progress {
    Connected { transport: TransportKind },
    Totals { chunks: u64, bytes: u64 },
    Moved { chunks: u64, bytes: u64 },
}
pub trait Observer: Send + Sync {
    fn progress(&self, progress: Progress);
    fn cancelled(&self) -> bool;
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Member,
    Keyless,
}
#[derive(Debug, Clone)]
pub struct Listening {
    pub quic: SocketAddr,
    pub tcp: SocketAddr,
    pub device: DeviceId,
}
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicateError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the ticket cannot be used: {0}")]
    Ticket(String),
    #[error("{0}")]
    Forked(String),
    #[error("the peer deletes {deleted} keys, more than {allowed}")]
    Fuse { deleted: u64, allowed: u64 },
    #[error("interrupted")]
    Cancelled,
}
pub fn sync(vault: &Vault, target: &Target, options: &SyncOptions, watch: &dyn Observer) -> Result<Summary, ReplicateError> {
    Err(VaultError::NotYet.into())
}
pub fn serve(
    vault: &Vault,
    listen: &[SocketAddr],
    on_listening: &mut dyn FnMut(Listening),
    watch: &dyn Observer,
) -> Result<(), ReplicateError> {
    Err(VaultError::NotYet.into())
}
pub fn invite(vault: &Vault, role: Role, addresses: &[String], expires: Duration) -> Result<String, ReplicateError> {
    Err(VaultError::NotYet.into())
}
pub fn clone_vault(ticket: &str, dir: &Path, home: &Home, watch: &dyn Observer) -> Result<(Vault, Summary), ReplicateError> {
    Err(VaultError::NotYet.into())
}
