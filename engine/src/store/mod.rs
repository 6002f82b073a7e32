//! The store: everything that a replica without a key needs. Packs, log, heads, index, journal.
//!
//! ```text
//! VAULT/packs/00000001.pack   chunk frames; one writer each, any number of readers
//! VAULT/log/00000001.seg      chunk list and event frames, in an order in which what an event depends on comes before it
//! VAULT/log/forks/            events that forked logs hold beside those in the log, see `forks`
//! VAULT/log/lock              flock: one process appends to the log, or repairs, at a time
//! VAULT/heads                 the newest event ever accepted of each author
//! VAULT/index.db              where everything lies: a cache, see `index`
//! VAULT/quarantine/           records that proved damaged, kept aside, see `quarantine`
//! ```
//!
//! # What "acknowledged" means
//! ```text
//! PackWriter::append -> checkpoint: write, fdatasync pack, (new file: fsync packs/), publish in the index
//! append_own / append_foreign: every chunk published? -> write lists and events, fdatasync log -> replace heads -> return
//! ```
//! When an append to the log returns, its events are acknowledged: they and their chunks survive any crash. An event is visible only
//! when every chunk that it names was durable here.
//!
//! # Invariants
//! - Only checked frames ([`Verified`](crate::frame::Verified)) get in, and what gets out has been checked again.
//! - Packs and log are the truth. Nothing else is needed to open a vault; what was not indexed is scanned at open.
//! - A file is cut only behind its last good frame, and only by the process that holds its lock. Damage in the middle is reported and
//!   left as it is.
//! - After a failed sync a file is never written or trusted again by this process. What another process left unsynced is written once more
//!   before it counts.
//! - Several processes may have the same vault open. What one has published, all see; what it has appended to the log, the others
//!   see after [`Store::refresh`].

mod check;
mod error;
mod forks;
mod heads;
mod index;
mod journal;
mod leaving;
mod log;
mod log_read;
mod lost;
mod membership;
mod mend;
mod mend_log;
mod mend_packs;
mod mend_tails;
mod pack;
mod packs;
mod quarantine;
mod rollback;
mod scrub;
mod segment;
mod spans;
#[cfg(test)]
mod tests;
mod verify;

pub use check::{Pending, Standing};
pub use error::StoreError;
pub use forks::{Fork, KeptAside};
pub use leaving::LeftBranch;
pub use log::Slot;
pub use log_read::{Batch, LogPosition};
pub use lost::{LostList, LostPage};
pub use mend::{DryRun, Repair, recover};
pub use pack::{Appended, Looked, PackWriter};
pub use rollback::{Hole, Lost};
pub use scrub::{ScrubPlace, ScrubStep};
pub use spans::{Span, Spans};
pub use verify::{Depth, StoreReport};

use crate::{
    bitmap::Bitmap,
    event::{ChunkList, Dot, Frontier, Head, Heads},
    id::{ChunkId, IdMap, Root, VaultId},
    io::{buffers::Buffers, durable::Disk},
    limits::LIST_ENTRIES_MAX,
};
use forks::Branches;
use index::{Index, KnownHead, lock};
use log::LogState;
use packs::MapCache;
use segment::SegmentKind;
use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

const HEADS_FILE: &str = "heads";
const INDEX_FILE: &str = "index.db";
const LOCK_FILE: &str = "log/lock";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Where a chunk's frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Number of the pack.
    pub pack: u32,
    /// Where in the pack its header begins.
    pub offset: u64,
    /// Bytes of the frame: header and record.
    pub length: u32,
}

impl Location {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Chunks that are durable.
    pub chunks: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// The packs, log and index of one vault directory. Cheap to clone, `Send + Sync`; several processes may have one open.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What clones of a [`Store`] and its writers share.
#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    vault: VaultId,
    disk: Disk,
    index: Index,
    log: Mutex<LogState>,
    /// The log as it was when its lock was last released: what readers see, who must not wait for a sync.
    log_snapshot: Mutex<Arc<LogState>>,
    /// Where the log ends, for those who wait for more.
    grown: watch::Sender<LogPosition>,
    /// Open on `log/lock`; none where the file cannot be made, and nothing can be written there.
    log_lock: Option<File>,
    /// Chunks that are written but not yet published: readable here, not durable.
    overlay: Mutex<IdMap<ChunkId, Location>>,
    maps: Mutex<MapCache>,
    /// Events of forked logs that the log does not take.
    branches: Mutex<Arc<Branches>>,
    /// For chunks on their way to a socket.
    buffers: Buffers,
    /// Packs that this process must not write to: a sync failed, or the header is damaged.
    closed_packs: Mutex<HashSet<u32>>,
}

impl Store {
    /// Makes the files of an empty store in `dir`, which must exist and hold none.
    ///
    /// # Errors
    /// [`StoreError`] when there is one already or the system refuses.
    pub fn create(dir: &Path, vault: &VaultId) -> Result<(), StoreError> {
        for kind in [SegmentKind::Pack, SegmentKind::Log] {
            let path = dir.join(kind.directory());
            DirBuilder::new().mode(DIRECTORY_MODE).create(&path).map_err(|error| StoreError::io("create", &path, error))?;
        }
        heads::write(&Disk::default(), &dir.join(HEADS_FILE), vault, &Heads::default())
    }

    /// Opens the store in `dir` and mends what a crash or a missing index left; says what it mended or could not.
    /// Takes milliseconds when nothing has to be mended, whatever the store's size.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when `packs/` or `log/` is not there: an incomplete directory is never taken for an empty vault.
    /// [`StoreError::WrongVault`], [`StoreError::TooNew`], and what the system says.
    pub fn open(dir: &Path, vault: &VaultId) -> Result<(Self, Vec<Repair>), StoreError> {
        Self::open_on(dir, vault, Disk::default())
    }

    /// [`Store::open`] with every change to packs, log and heads made through `disk`.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(dir: &Path, vault: &VaultId, disk: Disk) -> Result<(Self, Vec<Repair>), StoreError> {
        mend::open(dir, vault, disk)
    }

    /// The vault directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The vault.
    pub fn vault(&self) -> &VaultId {
        &self.inner.vault
    }

    /// The newest event held of each author.
    pub fn heads(&self) -> Heads {
        self.inner.log_snapshot().held()
    }

    /// The newest event of each author that was ever acknowledged here. Ahead of [`Store::heads`] only when events were lost.
    pub fn accepted(&self) -> Heads {
        self.inner.log_snapshot().accepted.clone()
    }

    /// Highest sequence number held of each author.
    pub fn frontier(&self) -> Frontier {
        self.inner.log_snapshot().frontier()
    }

    /// Lets go of what is cached of the index.
    ///
    /// # Errors
    /// When the index fails.
    pub(crate) fn give_back(&self) -> Result<(), StoreError> {
        self.inner.index.give_back()
    }

    /// Digest over all heads: equal on two replicas exactly when they hold the same events.
    pub fn root(&self) -> Root {
        self.heads().root()
    }

    /// Tells each time that the log has grown, as far as this process knows: by its own appends at once, by those of other processes
    /// with [`Store::refresh`]. What is told is durable, and to be read anew: several changes may be told as one.
    pub fn changes(&self) -> watch::Receiver<LogPosition> {
        self.inner.grown.subscribe()
    }

    /// Whether anybody listens to [`Store::changes`].
    pub fn is_watched(&self) -> bool {
        self.inner.grown.receiver_count() > 0
    }

    /// Numbers of events and durable chunks. Does not count them.
    ///
    /// # Errors
    /// When the index fails.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        self.inner.index.counts()
    }

    /// Which of `ids` are here, in their order. Written ones count, durable or not.
    ///
    /// # Errors
    /// When the index fails.
    pub fn contains(&self, ids: &[ChunkId]) -> Result<Vec<bool>, StoreError> {
        Ok(self.locate(ids)?.iter().map(Option::is_some).collect())
    }

    /// Which entries of `list` are not here.
    ///
    /// # Errors
    /// When the index fails.
    pub fn missing(&self, list: &ChunkList) -> Result<Bitmap, StoreError> {
        Ok(self.missing_each(&[list])?.remove(0))
    }

    /// [`Store::missing`] of each of `lists`, in their order. Short ones are looked up together: what a look-up costs by itself is more
    /// than what it costs for one more chunk.
    ///
    /// # Errors
    /// When the index fails.
    pub fn missing_each(&self, lists: &[&ChunkList]) -> Result<Vec<Bitmap>, StoreError> {
        lacking(lists, |ids| self.locate(ids))
    }

    /// Where the frames of `ids` lie, in their order.
    ///
    /// # Errors
    /// When the index fails.
    pub fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>, StoreError> {
        self.inner.locate(ids)
    }

    /// A writer of chunks. Each has its own pack, so any number can work at once.
    pub fn writer(&self) -> PackWriter {
        PackWriter::new(Arc::clone(&self.inner))
    }
}

impl Inner {
    fn path(&self, kind: SegmentKind, number: u32) -> PathBuf {
        self.dir.join(kind.file(number))
    }

    fn log_snapshot(&self) -> Arc<LogState> {
        Arc::clone(&lock(&self.log_snapshot))
    }

    fn heads_path(&self) -> PathBuf {
        self.dir.join(HEADS_FILE)
    }

    fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>, StoreError> {
        // The overlay first: what leaves it between the two looks is in the index by the second.
        let written: Vec<Option<Location>> = {
            let overlay = lock(&self.overlay);
            ids.iter().map(|id| overlay.get(id).copied()).collect()
        };
        let published = self.index.locate(ids)?;
        Ok(published.into_iter().zip(written).map(|(published, written)| published.or(written)).collect())
    }
}

/// Which entries of each of `lists` a look-up does not find. It is asked for as many chunks at once as a single list may have.
fn lacking(
    lists: &[&ChunkList],
    look_up: impl Fn(&[ChunkId]) -> Result<Vec<Option<Location>>, StoreError>,
) -> Result<Vec<Bitmap>, StoreError> {
    let mut lacking = Vec::with_capacity(lists.len());
    let mut rest = lists;
    while !rest.is_empty() {
        let mut entries = 0;
        let fits = |list: &&&ChunkList| {
            entries += list.entries().len();
            entries <= LIST_ENTRIES_MAX
        };
        let (together, later) = rest.split_at(rest.iter().take_while(fits).count());
        let ids: Vec<ChunkId> = together.iter().flat_map(|list| list.entries()).map(|entry| entry.id).collect();
        let mut places = look_up(&ids)?.into_iter();
        for list in together {
            let absent = (0_u32..).zip(places.by_ref().take(list.entries().len())).filter(|(_, place)| place.is_none());
            lacking.push(Bitmap::from_positions(list.entries().len(), absent.map(|(position, _)| position)));
        }
        rest = later;
    }
    Ok(lacking)
}

fn require_directory(dir: &Path, name: &str) -> Result<(), StoreError> {
    let path = dir.join(name);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(StoreError::Damaged(format!("{name} is not a directory"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(StoreError::Damaged(format!("{name}/ is missing"))),
        Err(error) => Err(StoreError::io("read", &path, error)),
    }
}

fn head_of(known: &KnownHead) -> Head {
    Head { sequence: known.sequence, event: known.event }
}

fn dot_of(author: &crate::id::ReplicaId, known: &KnownHead) -> Dot {
    Dot { author: *author, sequence: known.sequence }
}
