//! Which author writes the log of a vault directory here: the same as last time, or a new one.
//!
//! An author's log must never fork, and it would if two copies of a vault directory wrote on as the same author, or one that was restored
//! from a backup wrote sequence numbers a second time. So the author is not part of the vault directory but of this device, kept for the
//! directory's canonical path, and a new incarnation is drawn whenever the directory may not be the one that wrote last:
//! - it has another inode: the directory was replaced by a copy;
//! - its log holds less than this device has acknowledged, or something else: it was restored or rolled back;
//! - a peer holds more of this author's log than the directory does ([`OwnReplica::retire`]): this whole machine was restored, vault and
//!   home together, which can't be seen from here.
//!
//! A new incarnation costs a new author and nothing more, so every doubt is decided for it. What this device writes between the restore and
//! the first peer that knows more forks its log all the same: the store keeps the proof of that, see its `forks`.
//!
//! # How far the recorded head may be wrong
//! [`OwnReplica::record_head`] runs after the event is durable in the log, so a record is never ahead of the log and a crash is never taken
//! for a rollback. It is not synced, so after a power cut, and only then, it may lag behind what was acknowledged; the next opening brings
//! it up to the log, durably. It is one write in place into alternating sectors, each with a checksum: torn, it is the head before.

use super::{HomeError, VaultHome, directory_name, failed, lock};
use crate::{
    codec,
    event::{Head, Incarnation, author},
    id::{DeviceId, EventId, ReplicaId},
    keys::{private_file, random_bytes},
};
use minicbor::{Decode, Encode};
use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U64};

const FORMAT: u8 = 1;
const FILE_BYTES_MAX: usize = 128;
/// The two places of a head lie in sectors of their own, so that one torn write never hurts both.
const PLACE_BYTES: u64 = 512;
const PLACES: u64 = 2;
/// Where the end of an author is noted, behind its heads.
const RETIRED_PLACE: u64 = PLACES * PLACE_BYTES;

/// Whether the author is the one that wrote here last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// This directory is new to this device.
    Fresh,
    /// The same.
    Same,
    /// Another than last time.
    Renewed(RenewalReason),
}

/// Why there is a new author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewalReason {
    /// Another directory lies where the old one lay: a copy, or a new replica.
    OtherDirectory,
    /// The log holds less than was acknowledged here: it was restored from a backup or rolled back.
    RolledBack {
        /// The head acknowledged last.
        acknowledged: Head,
        /// The head that the log has now.
        found: Option<Head>,
    },
    /// The log holds another event where the last acknowledged one was.
    OtherHistory {
        /// The head acknowledged last.
        acknowledged: Head,
    },
    /// What this device had recorded can't be read.
    RecordDamaged,
    /// A peer held more of the author's log than there was here: this machine was put back to an earlier state.
    PeerAhead {
        /// The sequence number that the peer had.
        sequence: u64,
    },
}

impl fmt::Display for RenewalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherDirectory => f.write_str("the vault directory was replaced by another one"),
            Self::RolledBack { acknowledged, found } => {
                let found = found.map_or(0, |head| head.sequence);
                write!(f, "the log ends at event {found}, although event {} was acknowledged", acknowledged.sequence)
            }
            Self::PeerAhead { sequence } => {
                write!(f, "a peer has event {sequence} of this replica's log, which this machine did not have any more")
            }
            Self::OtherHistory { acknowledged } => {
                write!(f, "event {} of the log is not the one that was acknowledged", acknowledged.sequence)
            }
            Self::RecordDamaged => f.write_str("this device's record of the vault directory is damaged"),
        }
    }
}

/// Who wrote the log of a vault directory before, and how far that was acknowledged.
pub type Predecessor = (ReplicaId, Head);

/// The author that writes the log of one vault directory here.
#[derive(Debug)]
pub struct OwnReplica {
    incarnation: Incarnation,
    id: ReplicaId,
    continuity: Continuity,
    predecessor: Option<Predecessor>,
    head_path: PathBuf,
    heads: File,
}

impl OwnReplica {
    /// With the device, the author: goes into the headers of events.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The author.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Whether it is the author that wrote here last.
    pub fn continuity(&self) -> Continuity {
        self.continuity
    }

    /// Of a new author: whose place it takes, if that one is known to have written anything.
    pub fn predecessor(&self) -> Option<Predecessor> {
        self.predecessor
    }

    /// Ends this author: a peer holds its log up to `sequence`, and this machine does not, so an event written as this author could take
    /// a number a second time. Durable on return, and seen at once by every process that writes as it ([`OwnReplica::retired`]); the next
    /// opening draws a new incarnation.
    ///
    /// # Errors
    /// [`HomeError::Io`]: this author could go on writing, so the caller must not.
    pub fn retire(&self, sequence: u64) -> Result<(), HomeError> {
        let end = Head { sequence, event: EventId::from_bytes([0; 32]) };
        let record = HeadRecord::new(&self.incarnation, &end);
        self.heads.write_all_at(record.as_bytes(), RETIRED_PLACE).map_err(failed("writing", &self.head_path))?;
        self.heads.sync_data().map_err(failed("syncing", &self.head_path))
    }

    /// The sequence number that a peer had when this author was ended. To be asked before each event is signed: one small read.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub fn retired(&self) -> Result<Option<u64>, HomeError> {
        Ok(self.head_at(RETIRED_PLACE)?.map(|head| head.sequence))
    }

    /// Notes that the log now ends at `head`. One small write, without a sync.
    ///
    /// Called once for each commit, after the log is durable and before the commit is acknowledged, under the lock under which the log
    /// is appended to.
    ///
    /// # Errors
    /// [`HomeError::Io`]. The commit stands nevertheless; only a later rollback might go unnoticed.
    pub fn record_head(&self, head: &Head) -> Result<(), HomeError> {
        let place = head.sequence % PLACES * PLACE_BYTES;
        let record = HeadRecord::new(&self.incarnation, head);
        self.heads.write_all_at(record.as_bytes(), place).map_err(failed("writing", &self.head_path))
    }

    /// The newest head on record that was written by this incarnation.
    fn recorded_head(&self) -> Result<Option<Head>, HomeError> {
        let mut newest: Option<Head> = None;
        for place in 0..PLACES {
            let head = self.head_at(place * PLACE_BYTES)?;
            newest = newest.into_iter().chain(head).max_by_key(|head| head.sequence);
        }
        Ok(newest)
    }

    /// What this incarnation wrote at `offset`, if it did.
    fn head_at(&self, offset: u64) -> Result<Option<Head>, HomeError> {
        let mut bytes = [0; size_of::<HeadRecord>()];
        match self.heads.read_exact_at(&mut bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(failed("reading", &self.head_path)(error)),
            Ok(()) => Ok(HeadRecord::read_from_bytes(&bytes).ok().and_then(|record| record.head(&self.incarnation))),
        }
    }
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeadRecord {
    sequence: U64,
    event: [u8; 32],
    /// Also over the incarnation, so that a head of an earlier author does not count.
    check: [u8; 32],
}

impl HeadRecord {
    fn new(incarnation: &Incarnation, head: &Head) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mirror 2026-11 v1 recorded head");
        hasher.update(&incarnation.0).update(&head.sequence.to_le_bytes()).update(head.event.as_bytes());
        Self { sequence: U64::new(head.sequence), event: *head.event.as_bytes(), check: *hasher.finalize().as_bytes() }
    }

    fn head(&self, incarnation: &Incarnation) -> Option<Head> {
        let head = Head { sequence: self.sequence.get(), event: EventId::from_bytes(self.event) };
        (Self::new(incarnation, &head).check == self.check).then_some(head)
    }
}

/// What identifies a directory beyond its path.
///
/// The number of the file system is recorded for people and not compared: it changes with every start on btrfs, NFS and removable disks.
/// A copy on another file system that lies at the same path with the same inode still shows by its head, once one of the two is behind.
#[derive(Debug, Clone, Copy, Encode, Decode)]
struct ReplicaFile {
    #[n(0)]
    format: u8,
    #[n(1)]
    incarnation: Incarnation,
    #[n(2)]
    inode: u64,
    #[n(3)]
    file_system: u64,
}

/// How far an author's log goes in a vault directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnLog {
    /// Its newest event there.
    pub held: Option<Head>,
    /// The newest that was ever acknowledged there, as the directory itself remembers it.
    pub accepted: Option<Head>,
}

impl VaultHome {
    /// The author that `device` writes as in `vault_dir`: the one recorded, or a new one (see [`Continuity`]), recorded before this returns.
    ///
    /// `own_log` says where the log of an author ends in `vault_dir` now. It must look at the log when it is called, not at an
    /// earlier snapshot: another process may be writing, and a head recorded since would look like a rollback.
    ///
    /// # Errors
    /// [`HomeError::Io`], [`HomeError::Key`] when there is no randomness.
    pub fn incarnation(
        &self,
        vault_dir: &Path,
        device: &DeviceId,
        own_log: impl Fn(&ReplicaId) -> OwnLog,
    ) -> Result<OwnReplica, HomeError> {
        let name = directory_name(vault_dir)?;
        let metadata = fs::metadata(vault_dir).map_err(failed("reading", vault_dir))?;
        let _held = lock(&self.dir)?;
        let path = self.dir.join("replicas").join(format!("{name}.id"));
        let mut predecessor = None;
        let reason = match read_replica(&path)? {
            None => None,
            Some(Err(RecordUnreadable)) => Some(RenewalReason::RecordDamaged),
            Some(Ok(record)) => {
                let known = self.own_replica(&name, device, record.incarnation, Continuity::Same)?;
                let reason = match known.retired()? {
                    _ if record.inode != metadata.ino() => Some(RenewalReason::OtherDirectory),
                    Some(sequence) => Some(RenewalReason::PeerAhead { sequence }),
                    None => compare(&known, own_log)?,
                };
                if reason.is_none() {
                    return Ok(known);
                }
                predecessor = known.recorded_head()?.map(|head| (known.id, head));
                reason
            }
        };
        let record =
            ReplicaFile { format: FORMAT, incarnation: Incarnation(random_bytes()?), inode: metadata.ino(), file_system: metadata.dev() };
        private_file::write(&path, &codec::encode(&record)).map_err(failed("writing", &path))?;
        let continuity = reason.map_or(Continuity::Fresh, Continuity::Renewed);
        Ok(OwnReplica { predecessor, ..self.own_replica(&name, device, record.incarnation, continuity)? })
    }

    fn own_replica(
        &self,
        name: &str,
        device: &DeviceId,
        incarnation: Incarnation,
        continuity: Continuity,
    ) -> Result<OwnReplica, HomeError> {
        let head_path = self.dir.join("replicas").join(format!("{name}.head"));
        let heads = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&head_path)
            .map_err(failed("opening", &head_path))?;
        Ok(OwnReplica { incarnation, id: author(device, &incarnation), continuity, predecessor: None, head_path, heads })
    }
}

/// Compares what is on record with the log; brings the record up to the log if the log is fine.
fn compare(known: &OwnReplica, own_log: impl Fn(&ReplicaId) -> OwnLog) -> Result<Option<RenewalReason>, HomeError> {
    // The record first: the log only grows, so a head that is recorded in between is not missed in the log.
    let recorded = known.recorded_head()?;
    let OwnLog { held: found, accepted } = own_log(&known.id);
    // The record may be lost or lag behind; then the directory itself knows better what its log has lost.
    let acknowledged = recorded.into_iter().chain(accepted).max_by_key(|head| head.sequence);
    let reason = match (acknowledged, found) {
        (Some(acknowledged), Some(found)) if found.sequence == acknowledged.sequence && found.event != acknowledged.event => {
            RenewalReason::OtherHistory { acknowledged }
        }
        (Some(acknowledged), found) if found.is_none_or(|found| found.sequence < acknowledged.sequence) => {
            RenewalReason::RolledBack { acknowledged, found }
        }
        (_, Some(found)) if recorded.is_none_or(|recorded| recorded.sequence < found.sequence) => {
            known.record_head(&found)?;
            known.heads.sync_data().map_err(failed("syncing", &known.head_path))?;
            return Ok(None);
        }
        _ => return Ok(None),
    };
    Ok(Some(reason))
}

/// The record is there and means nothing to this program.
struct RecordUnreadable;

fn read_replica(path: &Path) -> Result<Option<Result<ReplicaFile, RecordUnreadable>>, HomeError> {
    let bytes = match private_file::read(path, FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(Some(Err(RecordUnreadable))),
        other => other.map_err(failed("reading", path))?,
    };
    let record = codec::decode::<ReplicaFile>("replica", &bytes).ok().filter(|record| record.format == FORMAT);
    Ok(Some(record.ok_or(RecordUnreadable)))
}
