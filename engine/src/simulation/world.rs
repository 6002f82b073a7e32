//! Some replicas and a network, and what must hold at every moment.
//!
//! # What must hold
//! - What a replica has acknowledged, to its user or to a peer, it holds ever after, whatever happened to it.
//! - Two replicas never hold different events in one place of an author's log.
//! - What is visible is what was written: every value can be read, and is one that somebody put there.
//! - Once network and disks are well, all hold the same and show the same, and `verify` finds nothing wrong.

use super::{
    dice::Dice,
    disk::Crash,
    net::{Net, Plugged, Weather},
    replica::{ENDED, Ended, Heard, Program, Replica},
    template,
};
use crate::{
    event::{Dot, Frontier, Key},
    id::EventId,
    replicate::ReplicateError,
    transport::{CloseReason, TransportError},
    vault::{Unwatched, Vault, VaultError},
};
use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

/// How long everything may take to become equal once nothing is in the way.
const HEALED_WITHIN: Duration = Duration::from_secs(90);
const KEYS: u64 = 12;

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) net: Net,
    pub(super) replicas: Vec<Replica>,
    /// What each replica has acknowledged.
    acknowledged: Vec<Frontier>,
    /// Up to where each replica's log was compared with the others'.
    compared: Vec<Frontier>,
    events: HashMap<Dot, EventId>,
    /// What was heard of a replica, and of which.
    heard: Vec<(usize, Arc<Heard>)>,
    /// What everybody may find below each key.
    values: BTreeMap<u64, Vec<blake3::Hash>>,
    puts: u64,
    _directory: TempDir,
}

impl World {
    /// `count` replicas that hold the same and serve it. Nodes know each other.
    pub(super) async fn new(mut dice: Dice, count: usize, program: Program) -> Self {
        let directory = template::directory();
        let net = Net::new(dice.split());
        let replicas: Vec<Replica> = (0..count).map(|number| Replica::new(number, program, directory.path(), &net, &mut dice)).collect();
        let mut world = Self {
            dice,
            net,
            acknowledged: vec![Frontier::new(); count],
            compared: vec![Frontier::new(); count],
            replicas,
            events: HashMap::new(),
            heard: Vec::new(),
            values: BTreeMap::new(),
            puts: 0,
            _directory: directory,
        };
        for number in 0..count {
            world.start(number).await;
        }
        if program == Program::Node {
            world.introduce();
        }
        world
    }

    fn introduce(&self) {
        for (number, other) in (0..self.replicas.len()).flat_map(|number| (0..self.replicas.len()).map(move |other| (number, other))) {
            if number != other {
                let peer = &self.replicas[other];
                self.replicas[number].know(format!("replica {other}"), peer.device, template::ROLES[other], peer.address());
            }
        }
    }

    /// Those who are on the network hear where the others are.
    pub(super) fn announce(&self) {
        for (replica, other) in self.replicas.iter().flat_map(|replica| self.replicas.iter().map(move |other| (replica, other))) {
            if replica.device != other.device {
                replica.hear_of(other.device, other.address());
            }
        }
    }

    pub(super) async fn start(&mut self, number: usize) {
        match self.replicas[number].start().await {
            Ok(()) => self.compared[number] = Frontier::new(),
            // The disk fails, or fails no more when it is tried again.
            Err(error) if error == ENDED || error.contains("Input/output error") => {}
            Err(error) => panic!("replica {number}: {error}"),
        }
    }

    pub(super) async fn crash(&mut self, number: usize, crash: Crash) {
        self.note_what_was_heard();
        self.replicas[number].crash(crash).await;
    }

    /// Puts a new value on replica `number`; whether it was acknowledged.
    pub(super) fn put(&mut self, number: usize, bytes: usize) -> Result<(), VaultError> {
        let key = self.dice.below(KEYS);
        self.puts += 1;
        let mut value = vec![0; bytes];
        blake3::Hasher::new().update(&self.puts.to_le_bytes()).finalize_xof().fill(&mut value);
        self.values.entry(key).or_default().push(blake3::hash(&value));
        let Some(vault) = self.replicas[number].vault() else { return Ok(()) };
        vault.put(&name(key), &mut &value[..], &Unwatched).map(drop)
    }

    pub(super) fn remove(&mut self, number: usize) -> Result<(), VaultError> {
        let key = self.dice.below(KEYS);
        let Some(vault) = self.replicas[number].vault() else { return Ok(()) };
        vault.remove(&[name(key)], None).map(drop)
    }

    pub(super) fn undelete(&mut self, number: usize) -> Result<(), VaultError> {
        let key = self.dice.below(KEYS);
        let Some(vault) = self.replicas[number].vault() else { return Ok(()) };
        vault.undelete(&[name(key)]).map(drop)
    }

    /// Replica `from` begins a session with `to`, to become equal or to stay so.
    pub(super) fn connect(&mut self, from: usize, to: usize, kind: Talk) -> Option<AbortHandle> {
        let heard = Arc::new(Heard::default());
        self.heard.push((to, heard.clone()));
        let (device, address) = (self.replicas[to].device, self.replicas[to].address());
        let nic = self.replicas[to].nic.clone();
        let name = format!("replica {to}");
        match kind {
            Talk::Sync => {
                self.replicas[from].sync_with(name, device, address, heard);
                None
            }
            Talk::Follow => {
                let find = move || (nic.address(), address.port()).into();
                self.replicas[from].follow(name, device, find, heard)
            }
        }
    }

    fn note_what_was_heard(&mut self) {
        for (of, heard) in &self.heard {
            self.acknowledged[*of].join(&heard.take());
        }
        self.heard.retain(|(_, heard)| Arc::strong_count(heard) > 1);
        for (replica, acknowledged) in self.replicas.iter().zip(&mut self.acknowledged) {
            if let Some(vault) = replica.vault().filter(|_| !replica.disk.is_dead()) {
                acknowledged.join(&vault.store().frontier());
            }
        }
    }

    /// Holds all replicas that run against what must hold; ends those whose disk says that they have crashed.
    pub(super) async fn check(&mut self) {
        self.note_what_was_heard();
        for number in 0..self.replicas.len() {
            if self.replicas[number].disk.is_dead() && self.replicas[number].is_running() {
                let crash = if self.dice.hits(500_000) { Crash::Kill } else { Crash::PowerCut };
                self.crash(number, crash).await;
            }
            let ended = self.replicas[number].ended();
            ended.iter().for_each(|ended| expected(number, ended));
            if self.replicas[number].is_running() {
                self.compare(number);
            }
        }
    }

    fn compare(&mut self, number: usize) {
        let Some(vault) = self.replicas[number].vault().cloned() else { return };
        let held = vault.store().frontier();
        let acknowledged = &self.acknowledged[number];
        assert!(held.covers(acknowledged), "replica {number} has lost something: it holds {held:?} and acknowledged {acknowledged:?}");
        let compared = std::mem::replace(&mut self.compared[number], held.clone());
        for (author, last) in held.iter() {
            for sequence in compared.sequence_of(author) + 1..=last {
                self.compare_event(number, &vault, Dot { author: *author, sequence });
            }
        }
    }

    fn compare_event(&mut self, number: usize, vault: &Vault, dot: Dot) {
        let event = vault.store().event(&dot).unwrap_or_else(|error| panic!("replica {number}: {error}"));
        let event = event.unwrap_or_else(|| panic!("replica {number} holds {dot:?} and does not have it")).id();
        let known = *self.events.entry(dot).or_insert(event);
        assert_eq!(known, event, "replica {number} holds another event than others at {dot:?}");
    }

    /// What replica `number` shows: keys with versions' values, all read and checked. Nothing, where the disk fails while it looks.
    fn shown(&self, number: usize) -> Vec<(Key, EventId, Vec<u8>)> {
        let Some(vault) = self.replicas[number].vault() else { return Vec::new() };
        if vault.info().keyless {
            return Vec::new();
        }
        let mut entries = Vec::new();
        let listed = vault.list(b"", false, &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        });
        match listed {
            Err(VaultError::NoSpace(_) | VaultError::Io { .. }) if self.replicas[number].disk.fails() => return Vec::new(),
            listed => listed.unwrap_or_else(|error| panic!("replica {number}: {error}")),
        }
        let read = |entry: crate::vault::Entry| {
            let mut value = Vec::new();
            vault.get(&entry.key, &mut value).unwrap_or_else(|error| panic!("replica {number}, {}: {error}", entry.key.to_text()));
            (entry.key, entry.event, value)
        };
        entries.into_iter().map(read).collect()
    }

    pub(super) fn check_values(&self, number: usize) {
        for (key, _, value) in self.shown(number) {
            let known = self.values.iter().find(|(known, _)| name(**known) == key).map_or(&[][..], |(_, values)| values);
            assert!(known.contains(&blake3::hash(&value)), "replica {number} shows a value of {} that nobody put there", key.to_text());
        }
    }

    /// Ends all trouble, and waits until all are equal.
    pub(super) async fn heal(&mut self) {
        self.net.unblock();
        self.net.set_weather(Weather::FAIR);
        for number in 0..self.replicas.len() {
            self.replicas[number].disk.set_fault(None);
            self.replicas[number].nic.plug(Plugged::In);
        }
        self.check().await;
        for number in 0..self.replicas.len() {
            if !self.replicas[number].is_running() {
                self.start(number).await;
            }
            assert!(self.replicas[number].is_running(), "replica {number} cannot be opened");
        }
        for number in 1..self.replicas.len() {
            self.connect(number, 0, Talk::Follow);
        }
        let began = Instant::now();
        while !self.are_equal() {
            assert!(began.elapsed() < HEALED_WITHIN, "not equal {HEALED_WITHIN:?} after all was well: {}", self.describe());
            sleep(Duration::from_millis(50)).await;
            self.check().await;
        }
    }

    pub(super) fn are_equal(&self) -> bool {
        let mut roots = self.replicas.iter().map(|replica| replica.vault().map(|vault| vault.store().root()));
        let first = roots.next().flatten();
        first.is_some() && roots.all(|root| root == first)
    }

    fn describe(&self) -> String {
        let frontier = |replica: &Replica| replica.vault().map(|vault| vault.store().frontier());
        self.replicas.iter().map(|replica| format!("\n{:?}", frontier(replica))).collect()
    }

    /// Everything that equal replicas must have in common.
    pub(super) async fn check_end(&mut self) {
        self.check().await;
        let members: Vec<usize> =
            (0..self.replicas.len()).filter(|number| template::ROLES[*number] != crate::members::Role::Keyless).collect();
        let shown: Vec<_> = members.iter().map(|number| self.shown(*number)).collect();
        shown.iter().zip(&members).for_each(|(other, number)| assert!(*other == shown[0], "replicas 0 and {number} show different things"));
        for number in 0..self.replicas.len() {
            // What was opened while the disk was full has mended nothing.
            self.crash(number, Crash::Kill).await;
            self.start(number).await;
            self.compare(number);
            self.check_values(number);
            let Some(vault) = self.replicas[number].vault() else { continue };
            let report = vault.verify(true, &Unwatched).unwrap();
            assert!(report.is_clean(), "replica {number}: {report:?}");
        }
    }
}

/// Whether a session stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    Sync,
    Follow,
}

fn name(key: u64) -> Key {
    Key::new(format!("key {key}")).unwrap()
}

/// A session may end for what happens to network and disks, and for nothing else.
fn expected(number: usize, ended: &Ended) {
    use ReplicateError as R;
    let Some(error) = &ended.error else { return };
    let fine = match error {
        R::Transport(TransportError::Closed(reason)) => !matches!(reason, CloseReason::Refused | CloseReason::ProtocolError),
        R::Transport(
            TransportError::Unreachable { .. } | TransportError::Timeout | TransportError::Io { .. } | TransportError::LaneReset,
        ) => true,
        R::PeerStopped(_) | R::Partial(_) | R::Cancelled => true,
        R::Vault(error) => matches!(error, VaultError::NoSpace(_) | VaultError::Busy(_) | VaultError::Io { .. }),
        _ => false,
    };
    assert!(fine, "replica {number}, {}: {error:?}", ended.what);
}
