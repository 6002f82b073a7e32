//! Two replicas on loopback, of which one's disk can be made to refuse. What needs no such disk is shared with the tests over real sockets.

pub(super) use super::sockets::{LOOPBACK, PATIENCE, Running, holds, is_live, listening};

use super::sockets;
use crate::{
    home::{Home, Role},
    io::durable::{Disk, Observer, Operation, Permit},
    node::NodeOptions,
    vault::Vault,
};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// A disk with faults.
#[derive(Default)]
pub(super) struct Faulty {
    /// Refuses to write.
    pub(super) full: AtomicBool,
    /// Was mounted anew, for reading only.
    pub(super) read_only: AtomicBool,
    /// Whoever writes next panics.
    pub(super) breaks: AtomicBool,
}

impl Observer for Faulty {
    fn before(&self, operation: &Operation<'_>) -> io::Result<Permit> {
        match operation {
            Operation::Write { .. } if self.breaks.swap(false, SeqCst) => panic!("a fault of this program, as a test"),
            Operation::Write { .. } if self.read_only.load(SeqCst) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Operation::Write { .. } if self.full.load(SeqCst) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(Permit::Whole),
        }
    }
}

/// Two replicas of one vault.
pub(super) struct World {
    replicas: sockets::World,
    pub(super) first: Arc<Vault>,
    pub(super) second: Arc<Vault>,
    pub(super) disk: Arc<Faulty>,
}

impl World {
    pub(super) async fn new() -> Self {
        let (replicas, first) = sockets::World::new();
        drop(replicas.join(&first, "b", Role::Owner).await);
        let disk = Arc::new(Faulty::default());
        let (second, _) = Vault::open_on(&replicas.path("b"), &replicas.home("b"), Disk::observed(disk.clone())).unwrap();
        Self { first, second: Arc::new(second), disk, replicas }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.replicas.path(name)
    }

    pub(super) fn home(&self, name: &str) -> Home {
        self.replicas.home(name)
    }

    /// A node on the first replica, and one on the second that follows it.
    pub(super) async fn nodes(&self, options: NodeOptions) -> (Running, Running) {
        let first = Running::start(&self.first, listening()).await;
        sockets::knows(&self.second, &self.first, &first.at());
        (first, Running::start(&self.second, options).await)
    }
}

/// A value of so many bytes, of which no two pieces are the same.
pub(super) fn put(vault: &Vault, key: &str, bytes: usize) {
    let value: Vec<u8> = (0..bytes as u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    sockets::put(vault, key, &value);
}

impl Running {
    /// Waits until it holds all that `other` holds.
    pub(super) async fn equals(&mut self, other: &Vault) {
        self.until("equal", |status| status.root == other.store().root()).await;
    }
}
