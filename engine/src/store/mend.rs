//! Opening and recovery: one procedure that makes the index say what packs and log hold.
//!
//! ```text
//! open      index usable: only what lies behind `indexed_to` is scanned, and hashed, because it was never published
//!           no index:     every pack is scanned by its headers, its last 128 MiB hashed; the whole log is read
//! recover   everything is scanned and hashed; with a dry run on a private index, changing nothing
//! ```
//! Idempotent: whatever it has done when it is cut off, the next open does the rest. It holds the log's lock throughout, so two
//! processes that open a vault after a crash mend it one after the other.

use super::{
    FILE_MODE, HEADS_FILE, INDEX_FILE, Inner, LOCK_FILE, Store, StoreError,
    index::{Index, Opened},
    log::LogState,
    require_directory,
    segment::SegmentKind,
};
use crate::{
    id::VaultId,
    io::{buffers::Buffers, durable::Disk},
    limits::{CHECKPOINT_BYTES, CHUNK_BYTES_MAX, KIB},
};
use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

/// One thing that was mended, would be mended, or can't be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// File, relative to the vault.
    pub file: PathBuf,
    /// What was wrong and what was done about it, as a sentence.
    pub what: String,
    /// Whether acknowledged data may be missing because of it.
    pub loss: bool,
}

impl Repair {
    pub(super) fn harmless(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self { file: file.into(), what: what.into(), loss: false }
    }

    pub(super) fn loss(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self { file: file.into(), what: what.into(), loss: true }
    }
}

/// Whether [`recover`] only says what it would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// Say it.
    Yes,
    /// Do it.
    No,
}

/// Whether files may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    Make,
    Describe,
}

/// What is known before the packs are looked at, and so how much of them has to be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// The index: what it covers is durable, the rest was never published and is hashed.
    Index,
    /// Nothing: the end of each pack, which a crash may have torn, is hashed; the rest is checked when it is read.
    Nothing,
    /// Nothing, and nothing is believed.
    Distrust,
}

impl Knowledge {
    /// From where on the records of a pack of `length` bytes are hashed.
    pub(super) fn hash_from(self, length: u64) -> u64 {
        match self {
            Self::Index | Self::Distrust => 0,
            Self::Nothing => unsynced_from(length),
        }
    }
}

/// From where on a pack of `length` bytes may hold what no sync has covered: writers make a checkpoint more often than that.
pub(super) fn unsynced_from(length: u64) -> u64 {
    length.saturating_sub(2 * CHECKPOINT_BYTES)
}

/// Rebuilds `index.db` from packs and log, checking every record, cuts torn tails of files that nobody writes, and reports what is
/// damaged or gone. Needs no key. Running it twice changes nothing more.
///
/// # Errors
/// As [`Store::open`].
pub fn recover(dir: &Path, vault: &VaultId, dry_run: DryRun) -> Result<Vec<Repair>, StoreError> {
    require_directories(dir)?;
    let (index, changes) = match dry_run {
        DryRun::Yes => (Index::private(vault)?, Changes::Describe),
        DryRun::No => {
            let unwritable = || StoreError::ReadOnly { what: "cannot write index.db".to_owned() };
            (new_index(dir, vault)?.ok_or_else(unwritable)?, Changes::Make)
        }
    };
    let inner = Inner::new(dir, vault, Disk::default(), index);
    inner.mend(Knowledge::Distrust, changes)
}

/// Opens the store in `dir`, see [`Store::open`].
pub(super) fn open(dir: &Path, vault: &VaultId, disk: Disk) -> Result<(Store, Vec<Repair>), StoreError> {
    require_directories(dir)?;
    let (index, knowledge) = match Index::open(&dir.join(INDEX_FILE), vault)? {
        Opened::Usable(index) => (Some(*index), Knowledge::Index),
        Opened::Unusable => (new_index(dir, vault)?, Knowledge::Nothing),
        Opened::Unwritable => (None, Knowledge::Nothing),
    };
    let Some(index) = index else { return open_privately(dir, vault, disk) };
    let inner = Inner::new(dir, vault, disk.clone(), index);
    match inner.mend(knowledge, Changes::Make) {
        Ok(repairs) => Ok((Store { inner: Arc::new(inner) }, repairs)),
        Err(StoreError::ReadOnly { .. } | StoreError::NoSpace { .. }) => {
            drop(inner);
            open_privately(dir, vault, disk)
        }
        Err(error) => Err(error),
    }
}

/// Opens a vault whose index cannot be written: its disk is full or read-only. It can be read and served all the same.
fn open_privately(dir: &Path, vault: &VaultId, disk: Disk) -> Result<(Store, Vec<Repair>), StoreError> {
    let inner = Inner::new(dir, vault, disk, Index::private(vault)?);
    let mut repairs = inner.mend(Knowledge::Nothing, Changes::Describe)?;
    repairs.retain(|repair| repair.file != Path::new(INDEX_FILE));
    repairs.push(Repair::harmless(INDEX_FILE, "it cannot be written here; this process has built one of its own, in memory"));
    Ok((Store { inner: Arc::new(inner) }, repairs))
}

fn require_directories(dir: &Path) -> Result<(), StoreError> {
    [SegmentKind::Pack, SegmentKind::Log].into_iter().try_for_each(|kind| require_directory(dir, kind.directory()))
}

/// An empty index in the place of whatever is there; none if it cannot be written.
fn new_index(dir: &Path, vault: &VaultId) -> Result<Option<Index>, StoreError> {
    match Index::create(&dir.join(INDEX_FILE), vault)? {
        Opened::Usable(index) => Ok(Some(*index)),
        Opened::Unusable | Opened::Unwritable => Ok(None),
    }
}

/// The lock file, if it can be had; where it can't, nothing can be written and nothing needs to be locked out.
fn open_lock(dir: &Path) -> Option<File> {
    let path = dir.join(LOCK_FILE);
    let writable = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&path);
    writable.or_else(|_| File::open(&path)).ok()
}

impl Inner {
    fn new(dir: &Path, vault: &VaultId, disk: Disk, index: Index) -> Self {
        Self {
            dir: dir.to_owned(),
            vault: *vault,
            disk,
            index,
            log: Mutex::default(),
            log_snapshot: Mutex::default(),
            grown: watch::Sender::default(),
            log_lock: open_lock(dir),
            overlay: Mutex::default(),
            maps: Mutex::default(),
            branches: Mutex::default(),
            buffers: Buffers::new(CHUNK_BYTES_MAX + 2 * KIB),
            closed_packs: Mutex::new(HashSet::new()),
        }
    }

    fn mend(&self, knowledge: Knowledge, changes: Changes) -> Result<Vec<Repair>, StoreError> {
        let mut guard = self.lock_log_only()?;
        let mut repairs = Vec::new();
        let has_files = !SegmentKind::Pack.list(&self.dir)?.is_empty() || !SegmentKind::Log.list(&self.dir)?.is_empty();
        if knowledge == Knowledge::Nothing && has_files {
            repairs.push(Repair::harmless(INDEX_FILE, "it was missing or could not be read; it was rebuilt from packs and log"));
        }
        self.mend_packs(knowledge, changes, &mut repairs)?;
        self.read_branches()?;
        self.mend_log(&mut guard.state, changes, &mut repairs)?;
        self.prove_branches()?;
        if knowledge != Knowledge::Index && changes == Changes::Make {
            self.settle_tails()?;
        }
        if knowledge != Knowledge::Index {
            let missing = self.missing_chunks(&mut |_| std::ops::ControlFlow::Continue(()))?.len();
            self.survey()?;
            if missing > 0 {
                repairs.push(Repair::loss("packs", format!("{missing} chunks that events name are in no pack; peers may have them")));
            }
        }
        self.report_lost_events(&guard.state, &mut repairs);
        Ok(repairs)
    }

    /// Events that were acknowledged and are not in the log.
    fn report_lost_events(&self, state: &LogState, repairs: &mut Vec<Repair>) {
        for (author, head) in &state.accepted.0 {
            let held = state.heads.get(author).map_or(0, |head| head.sequence);
            if held < head.sequence {
                let (name, accepted) = (author.short(), head.sequence);
                let what =
                    format!("the log of replica {name} ends at event {held}, but {accepted} was acknowledged; peers may have the rest");
                repairs.push(Repair::loss(HEADS_FILE, what));
            }
        }
    }
}
