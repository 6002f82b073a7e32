//! A vault on this machine: what commands do with it. Above the store (bytes) it has the keys (meaning).
//!
//! A [`Vault`] is a [`Store`] with secrets, this device's identity, and the view that both derive from the log. Operations that
//! read first catch up with the log, which other processes may have extended; operations that write commit one or more
//! events and are durable when they return.

mod check;
mod config;
mod conflicts;
mod content;
mod create;
mod derived;
mod epochs;
mod errors;
mod forks;
mod fuse;
mod history;
mod ingest;
mod intake;
mod leaving;
mod membership;
#[cfg(test)]
pub(crate) mod replicas;
mod restore;
mod rewrite;
mod scribe;
mod scrub;
mod target;
#[cfg(test)]
mod tests;
mod types;
pub mod view;
mod walk;
mod why;

pub use config::{Config, ConfigError, FILE as CONFIG_FILE, FORMAT};
pub use create::{Origin, create_replica};
pub use epochs::{EpochBegun, EpochStatus};
pub use fuse::{DeleteLimit, Fuse};
pub(crate) use ingest::{Gathered, Intake, Moving};
pub(crate) use intake::Changes;
pub use leaving::Left;
pub use rewrite::Rewrite;
pub(crate) use scribe::{Failure, Judged, Scribe, writer_of};
pub use scrub::Scrub;
pub(crate) use target::{Target, relative_path};
pub use types::*;
pub use why::{PeerWord, Subject, Whereabouts, Why, Word};

use crate::{
    chunk::Cutter,
    clock,
    event::{ChunkList, ChunkRef, Event, EventHeader, Incarnation, KIND_OPERATIONS, Key, Operation, body_context, encode_operations},
    home::{Home, OwnReplica, VaultHome},
    id::{ChunkId, EventId, PlaintextId, VaultId},
    io::durable::Disk,
    keys::{DeviceKey, ReplicationKey, Secrets},
    limits::{EVENT_BODY_BYTES_MAX, KIB},
    seal::KeyRing,
    store::{Slot, Store},
};
use derived::Derived;
use epochs::Keychain;
use ingest::KnownChunk;
use std::{
    collections::HashSet,
    io::{Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};
use view::{FileState, StandingFile};
pub(crate) use walk::{Found, Stamp, found};

/// Plaintext of a body that fits an event even if it does not shrink: a kibibyte is more than what sealing adds.
const BODY_PLAINTEXT_BYTES_MAX: usize = EVENT_BODY_BYTES_MAX - KIB;

/// A vault that is open. `Send + Sync`; several processes may have the same one open.
pub struct Vault {
    dir: PathBuf,
    config: Config,
    id: VaultId,
    store: Arc<Store>,
    home: VaultHome,
    device: DeviceKey,
    own: OwnReplica,
    replication: ReplicationKey,
    keychain: Arc<Keychain>,
    /// None on a keyless replica.
    sealing: Option<Arc<Sealing>>,
    /// What the passphrase or phrase that opened it can sign as.
    spare: Option<DeviceKey>,
    memory_bytes: u64,
}

/// What only a replica with the vault's key has.
struct Sealing {
    cutter: Cutter,
    derived: Derived,
}

impl Vault {
    /// Makes a new vault in `dir`, which must be empty or not there.
    ///
    /// # Errors
    /// [`VaultError::NotEmpty`], [`VaultError::Usage`] when nothing could ever open it again, or the system's.
    pub fn init(dir: &Path, home: &Home, options: InitOptions) -> Result<Initialised, VaultError> {
        create::init(dir, home, options)
    }

    /// Opens the vault in `dir`. What a crash left is mended and returned; what cannot be mended is named there as a loss.
    ///
    /// # Errors
    /// [`VaultError::NoVault`], [`VaultError::Locked`], [`VaultError::WrongPassphrase`], [`VaultError::TooNew`],
    /// [`VaultError::Damaged`], or the system's.
    pub fn open(dir: &Path, home: &Home, unlock: Unlock) -> Result<(Self, Vec<Repair>), VaultError> {
        create::open(dir, home, unlock, Disk::default())
    }

    /// [`Vault::open`] by this device, with every change to packs, log and heads made through `disk`.
    #[cfg(test)]
    pub(crate) fn open_on(dir: &Path, home: &Home, disk: Disk) -> Result<(Self, Vec<Repair>), VaultError> {
        create::open(dir, home, Unlock::Device, disk)
    }

    /// The vault directory at or above `start`, as git finds its repository.
    pub fn find(start: &Path) -> Option<PathBuf> {
        start.ancestors().find(|dir| dir.join(CONFIG_FILE).is_file()).map(Path::to_owned)
    }

    /// Bounds what `add` and `put` hold at once. What else an operation needs does not grow with the vault: about 100 MiB.
    pub fn limit_memory(&mut self, bytes: u64) {
        self.memory_bytes = bytes;
    }

    /// The vault's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether its directory still is where it was: a disk may be unplugged under an open vault.
    pub fn is_there(&self) -> bool {
        self.dir.join(CONFIG_FILE).exists()
    }

    /// Who and what it is.
    pub fn info(&self) -> VaultInfo {
        VaultInfo {
            id: self.id,
            name: self.config.name.clone(),
            replica: self.own.id(),
            device: self.device.id(),
            keyless: self.sealing.is_none(),
        }
    }

    /// Packs and log.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// This device's directory for this vault: peers and tickets.
    pub fn home(&self) -> &VaultHome {
        &self.home
    }

    /// Who writes this replica's log.
    pub(crate) fn own(&self) -> &OwnReplica {
        &self.own
    }

    /// This device's key.
    pub fn device(&self) -> &DeviceKey {
        &self.device
    }

    /// The first epoch's key of what every replica reads, also one without the vault's key.
    pub fn replication_key(&self) -> &ReplicationKey {
        &self.replication
    }

    /// What a new replica of the same role must be given: the first epoch's secrets. Those of the others lie in the log.
    pub fn secrets(&self) -> Option<&Secrets> {
        self.sealing.as_ref().map(|_| self.keychain.first())
    }

    /// `vault.toml`.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Adds files and trees; see [`AddOptions`]. Files whose size, times and inode are as they were are not read.
    ///
    /// # Errors
    /// What can't be read is in the report; an error means that not everything was looked at. What was committed stays.
    pub fn add(&self, options: &AddOptions, watch: &dyn Watch) -> Result<AddReport, VaultError> {
        ingest::add(self, options, watch)
    }

    /// Puts the bytes of `source` under `key`.
    ///
    /// # Errors
    /// As [`Vault::add`]; nothing is visible then.
    pub fn put(&self, key: &Key, source: &mut dyn Read, watch: &dyn Watch) -> Result<AddReport, VaultError> {
        ingest::put(self, key, source, watch)
    }

    /// Streams the current value of `key`; every byte handed to `sink` has been verified. Returns its metadata.
    ///
    /// # Errors
    /// [`VaultError::NoSuchKey`], [`VaultError::Damaged`] naming the chunk, or the sink's.
    pub fn get(&self, key: &Key, sink: &mut dyn Write) -> Result<Entry, VaultError> {
        self.get_value(key, sink)
    }

    /// Current keys below `prefix` (all if empty), sorted by key. Deleted ones too if asked for.
    ///
    /// # Errors
    /// When the log or the view cannot be read.
    pub fn list(&self, prefix: &[u8], deleted: bool, each: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), VaultError> {
        self.list_keys(prefix, deleted, each)
    }

    /// Every change (of `key`), oldest first in this replica's order.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self, key: Option<&Key>, each: &mut dyn FnMut(LogEntry) -> ControlFlow<()>) -> Result<(), VaultError> {
        self.log_entries(key, each)
    }

    /// Deletes keys and everything below them. A key that is not there is reported, the others are deleted.
    ///
    /// # Errors
    /// When the event cannot be stored.
    pub fn remove(&self, keys: &[Key], reason: Option<&str>) -> Result<KeysReport, VaultError> {
        self.remove_keys(keys, reason)
    }

    /// Brings deleted keys and everything below them back, each with its newest value.
    ///
    /// # Errors
    /// When the event cannot be stored.
    pub fn undelete(&self, keys: &[Key]) -> Result<KeysReport, VaultError> {
        self.undelete_keys(keys)
    }

    /// Writes what lies at or below `prefixes` (everything if there are none) as files below `destination`.
    ///
    /// # Errors
    /// [`VaultError::WouldClobber`] before anything is written; single keys that fail are in the report.
    pub fn restore(&self, destination: &Path, prefixes: &[Key], overwrite: bool, watch: &dyn Watch) -> Result<RestoreReport, VaultError> {
        restore::restore(self, destination, prefixes, overwrite, watch)
    }

    /// Roots and counts.
    ///
    /// # Errors
    /// When the log or the view cannot be read.
    pub fn status(&self) -> Result<Status, VaultError> {
        check::status(self)
    }

    /// The peers that this device knows, with what each held when it was last talked with.
    ///
    /// # Errors
    /// When the peers or the log cannot be read.
    pub fn peers(&self) -> Result<Vec<PeerStatus>, VaultError> {
        check::peers(self)
    }

    /// Checks the vault's structure and, with `read_data`, every byte. Works without the vault's key.
    ///
    /// # Errors
    /// When checking itself fails; damage is in the report.
    pub fn verify(&self, read_data: bool, watch: &dyn Watch) -> Result<VerifyReport, VaultError> {
        check::verify(self, read_data, watch)
    }

    /// Current keys that need one of `chunks`; none on a keyless replica, which knows no keys.
    ///
    /// # Errors
    /// When the log or the view cannot be read.
    pub fn keys_with(&self, chunks: &HashSet<ChunkId>) -> Result<Vec<Key>, VaultError> {
        check::keys_with(self, chunks)
    }

    /// Rebuilds what can be rebuilt (index, torn tails, heads); with `dry_run` only says what it would do. Needs no key.
    ///
    /// # Errors
    /// [`VaultError::NoVault`], or the system's.
    pub fn recover(dir: &Path, dry_run: bool, watch: &dyn Watch) -> Result<Vec<Repair>, VaultError> {
        check::recover(dir, dry_run, watch)
    }

    /// Whether everything is here that was ever accepted here. What writes asks first: a change on top of an older state would
    /// contradict what the user did since, and all of that comes back with the next pull.
    ///
    /// # Errors
    /// [`VaultError::RolledBack`], until a peer has given back what is gone or [`Vault::accept_loss`].
    pub fn check_whole(&self) -> Result<(), VaultError> {
        self.store.lost().first().map_or(Ok(()), |lost| Err(VaultError::RolledBack(*lost)))
    }

    /// Whether this replica's author may still write.
    fn check_author(&self) -> Result<(), VaultError> {
        self.own.retired()?.map_or(Ok(()), |sequence| Err(VaultError::Retired(sequence)))
    }

    /// Goes on from what is here: what is gone is not waited for any more.
    ///
    /// # Errors
    /// When this cannot be noted.
    pub fn accept_loss(&self) -> Result<(), VaultError> {
        self.store.accept_loss()?;
        Ok(self.home.replace_seen(&self.dir, &self.store.heads())?)
    }

    /// Lets go of what is cached of the index and the view, which is bounded but never shrinks by itself: for a process that has done much and
    /// comes to rest. Waits for who writes; the next ones who ask read files again.
    ///
    /// # Errors
    /// SQLite's; caches are left as they were then.
    pub fn give_back(&self) -> Result<(), VaultError> {
        self.store.give_back()?;
        self.sealing.as_ref().map_or(Ok(()), |sealing| Ok(sealing.derived.give_back()?))
    }

    fn sealing(&self) -> Result<&Sealing, VaultError> {
        self.sealing.as_deref().ok_or(VaultError::Keyless)
    }

    /// The sealing keys of all epochs, by what is known of the log now.
    fn seal_keys(&self) -> Result<Arc<KeyRing>, VaultError> {
        self.keys().ring.clone().ok_or(VaultError::Keyless)
    }

    fn cutter(&self) -> Result<&Cutter, VaultError> {
        Ok(&self.sealing()?.cutter)
    }

    /// Seals and signs `operations`, and commits them as this replica's next event, or events if they do not fit one. Their chunks are
    /// durable already. Returns the last event.
    fn append(&self, operations: &[Operation], lists: Vec<ChunkList>) -> Result<EventId, VaultError> {
        self.append_where(operations, lists, &mut |_| Ok(()))
    }

    /// [`Vault::append`], if `fits` agrees with the place that each event gets.
    fn append_where(
        &self,
        operations: &[Operation],
        lists: Vec<ChunkList>,
        fits: &mut dyn FnMut(&Slot) -> Result<(), VaultError>,
    ) -> Result<EventId, VaultError> {
        let plaintext = encode_operations(operations).map_err(VaultError::internal)?;
        if plaintext.len() > BODY_PLAINTEXT_BYTES_MAX && operations.len() > 1 {
            let (first, rest) = operations.split_at(operations.len() / 2);
            self.append_where(first, lists, fits)?;
            return self.append_where(rest, Vec::new(), fits);
        }
        self.sealing()?;
        self.require_writer()?;
        self.check_whole()?;
        self.commit(KIND_OPERATIONS, &lists, &mut |slot| {
            fits(slot)?;
            Ok(self.seal_keys()?.current().seal_body(&plaintext, &body_context(&self.own.id(), slot.sequence)))
        })
    }

    /// Signs what `seal` makes for the place of this replica's next event, and commits it.
    fn commit(
        &self,
        kind: u16,
        lists: &[ChunkList],
        seal: &mut dyn FnMut(&Slot) -> Result<Vec<u8>, VaultError>,
    ) -> Result<EventId, VaultError> {
        let event = self.store.append_own(&self.own.id(), &mut |slot: Slot| -> Result<_, VaultError> {
            self.check_author()?;
            let body = seal(&slot)?;
            let event = self.sign((&self.device, self.own.incarnation()), slot, kind, lists, &body).map_err(VaultError::internal)?;
            Ok((event, lists.to_vec()))
        })?;
        let head = crate::event::Head { sequence: event.header().sequence, event: event.id() };
        self.own.record_head(&head)?;
        Ok(event.id())
    }

    fn sign(
        &self,
        (device, incarnation): (&DeviceKey, Incarnation),
        slot: Slot,
        kind: u16,
        lists: &[ChunkList],
        body: &[u8],
    ) -> Result<Event, crate::event::EventError> {
        let header = EventHeader {
            vault: self.id,
            device: device.id(),
            incarnation,
            sequence: slot.sequence,
            lamport: slot.lamport,
            previous: slot.previous,
            deps: slot.deps,
            epoch: self.keys().current,
            lists: lists.iter().map(ChunkList::reference).collect(),
            kind,
            body_hash: [0; 32],
            wall_ms: clock::wall_ms(),
        };
        Event::sign(header, body, device)
    }

    /// For each plaintext the chunk that an event already names for it, and whether a pack here holds it.
    fn known_chunks(&self, plaintexts: &[PlaintextId]) -> Result<Vec<Option<KnownChunk>>, VaultError> {
        let chunks = self.look_up(|view| view.known_plaintexts(plaintexts))?;
        let named: Vec<_> = chunks.iter().flatten().copied().collect();
        let mut present = self.store.contains(&named)?.into_iter();
        Ok(chunks.into_iter().map(|chunk| chunk.map(|chunk| KnownChunk { chunk, present: present.next().unwrap_or(false) })).collect())
    }

    /// What is known of each file from the last time it was read.
    fn known_files(&self, files: &[walk::Found]) -> Result<Vec<ingest::Known>, VaultError> {
        use std::os::unix::ffi::OsStrExt;
        let paths: Vec<&[u8]> = files.iter().map(|found| found.path.as_os_str().as_bytes()).collect();
        let (known, held) = self.look_up(|view| {
            let known = view.standing_files(&paths)?;
            let strange = files.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(found, _)| &found.key);
            let held = view.hold(strange)?;
            Ok((known, held))
        })?;
        let mut held = held.into_iter();
        let judge = |(found, known): (&walk::Found, Option<StandingFile>)| match known {
            None if held.next() == Some(false) => ingest::Known::New,
            Some((state, stands)) if stands == Some(state.event) && found.is_as(&state) => ingest::Known::Unchanged,
            None | Some(_) => ingest::Known::Changed,
        };
        Ok(files.iter().zip(known).map(judge).collect())
    }

    /// Notes what only saves work next time: pieces below nodes, and the stamps of files.
    fn remember(&self, pieces: &[ChunkRef], states: &[(Vec<u8>, FileState)]) -> Result<(), VaultError> {
        let plaintexts: Vec<_> = pieces.iter().map(|piece| (piece.plaintext, piece.chunk, piece.length)).collect();
        self.ask(|view| {
            view.add_plaintexts(&plaintexts)?;
            view.put_file_states(states)
        })
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("dir", &self.dir).field("id", &self.id).finish_non_exhaustive()
    }
}
