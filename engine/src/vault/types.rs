//! What goes into and comes out of a vault's operations.

pub use super::view::Standing;
use super::{
    EpochStatus,
    membership::{PASSPHRASE, RECOVERY_PHRASE},
};
pub use crate::store::Repair;
use crate::{
    event::{Key, Value, ValueKind},
    home::{Contact, Gone, Peer, ScrubRecord},
    id::{ChunkId, DeviceId, EventId, ReplicaId, Root, VaultId},
    keys::Certificate,
    members::{Admittance, Role},
    merge::{Place, Rule},
    meter::Shares,
    store::{Fork, Hole, Lost},
};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// How to make a vault.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Name for people; the directory's name by default.
    pub name: String,
    /// Opens the vault on any device. At least one of passphrase, recovery phrase and device slot must be there.
    pub passphrase: Option<Zeroizing<Vec<u8>>>,
    /// Make a recovery phrase.
    pub recovery: bool,
    /// Let this device open it without asking.
    pub device_slot: bool,
    /// What this device is called; its id's first digits if that is no name.
    pub device_name: String,
}

impl InitOptions {
    /// A vault that this device opens without being asked, and no other before it is invited.
    pub fn for_this_device(name: impl Into<String>, device_name: impl Into<String>) -> Self {
        Self { name: name.into(), passphrase: None, recovery: false, device_slot: true, device_name: device_name.into() }
    }
}

/// A new vault.
#[derive(Debug)]
pub struct Initialised {
    /// The vault, open.
    pub vault: super::Vault,
    /// 24 words; shown once, kept nowhere.
    pub recovery_phrase: Option<Zeroizing<String>>,
}

/// How to get at the vault's keys.
#[derive(Debug, Clone)]
pub enum Unlock {
    /// With this device's slot. [`VaultError::Locked`] if there is none.
    Device,
    /// With the passphrase: one key derivation, then [`VaultError::WrongPassphrase`] if it does not fit.
    Passphrase(Zeroizing<Vec<u8>>),
    /// With the recovery phrase.
    Recovery(Zeroizing<String>),
}

/// Who and what a vault is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultInfo {
    /// The vault.
    pub id: VaultId,
    /// Its name.
    pub name: String,
    /// This replica.
    pub replica: ReplicaId,
    /// This device.
    pub device: DeviceId,
    /// Without the vault's key: stores and serves, cannot read.
    pub keyless: bool,
}

/// What to add.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    /// Files and trees. A tree's keys begin with its own name (its last component), like `cp -r`; `.` and `/` add their contents.
    pub paths: Vec<PathBuf>,
    /// Goes before every key.
    pub prefix: Option<String>,
    /// Globs (`*`, `?`, `**`, a leading `/` anchors) matched against key and last component.
    pub exclude: Vec<String>,
    /// Only say what would be added.
    pub dry_run: bool,
}

/// What an `add` or `put` did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AddReport {
    /// Files, directories and links looked at.
    pub seen: u64,
    /// New keys.
    pub added: u64,
    /// Keys with a new value.
    pub changed: u64,
    /// Keys that were as they are.
    pub unchanged: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes of new chunks.
    pub bytes_stored: u64,
    /// New chunks.
    pub chunks_stored: u64,
    /// Things that could not be added, each with its reason.
    pub skipped: Vec<(PathBuf, String)>,
    /// Where the time went: files are what sends, packs and log what receives.
    pub stages: Shares,
}

/// A current (or deleted) key.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// What it is; none when deleted.
    pub kind: Option<ValueKind>,
    /// Bytes.
    pub size: u64,
    /// Modification time in milliseconds since 1970.
    pub modified_ms: i64,
    /// The event that set it.
    pub event: EventId,
    /// Who wrote that.
    pub replica: ReplicaId,
    /// Whether the newest version is a deletion.
    pub deleted: bool,
    /// Whether other versions are in conflict with it.
    pub conflict: bool,
}

/// One change in the history.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The event.
    pub event: EventId,
    /// Its author.
    pub replica: ReplicaId,
    /// The author's sequence number.
    pub sequence: u64,
    /// Wall time at the author, milliseconds since 1970.
    pub wall_ms: u64,
    /// The key.
    pub key: Key,
    /// `put`, `delete` or `resolve`.
    pub action: &'static str,
    /// Bytes, of a put.
    pub size: u64,
    /// Reason, of a deletion.
    pub reason: Option<String>,
}

/// What `rm` and `undelete` did.
#[derive(Debug, Clone, Default)]
pub struct KeysReport {
    /// Keys changed.
    pub done: u64,
    /// Keys that were not there (or not deleted).
    pub missing: Vec<Key>,
}

/// One version of a key, as an explanation tells of it.
#[derive(Debug, Clone)]
pub struct VersionInfo {
    /// Its event, author, sequence number and logical time.
    pub place: Place,
    /// Wall time at the author, milliseconds since 1970. Only for display.
    pub wall_ms: u64,
    /// The value; none of a deletion.
    pub value: Option<Value>,
    /// Reason, of a deletion.
    pub reason: Option<String>,
    /// The event that a resolution chose.
    pub chosen: Option<EventId>,
    /// Whether it stands.
    pub standing: Standing,
    /// The versions that its author had before it: the causal chain, a step back.
    pub follows: Vec<EventId>,
}

/// A key whose maximal versions do not agree.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The key.
    pub key: Key,
    /// What stands.
    pub winner: VersionInfo,
    /// The others, highest first.
    pub losers: Vec<VersionInfo>,
}

/// Why what stands for a key stands.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The key.
    pub key: Key,
    /// What decided.
    pub rule: Rule,
    /// The versions, oldest first.
    pub versions: Vec<VersionInfo>,
    /// Versions before those, left out.
    pub older: u64,
}

/// By what conflicts are decided in bulk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preference {
    /// The version whose author's clock was latest.
    Newest,
    /// That of a replica: a peer's name, `here`, or the beginning of a replica's id.
    Replica(String),
}

/// Whether a decision is made or only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It is written.
    Made,
    /// Nothing is written.
    Tried,
}

/// What deciding conflicts did.
#[derive(Debug, Clone, Default)]
pub struct Decided {
    /// Keys decided.
    pub resolved: u64,
    /// Keys for which what was chosen stands already, without conflict.
    pub standing: u64,
    /// Keys that the rule did not decide.
    pub undecided: Vec<Key>,
}

/// What `restore` did.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Files, directories and links written.
    pub restored: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Files that already were as they should be.
    pub unchanged: u64,
    /// What was not written, each with its reason.
    pub failed: Vec<(Key, String)>,
}

/// Roots and counts.
#[derive(Debug, Clone)]
pub struct Status {
    /// Who and what.
    pub info: VaultInfo,
    /// Digest over all heads.
    pub root: Root,
    /// Current keys.
    pub keys: u64,
    /// Events held.
    pub events: u64,
    /// Chunks held.
    pub chunks: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Keys whose maximal versions differ.
    pub conflicts: u64,
    /// Who is in, as the log says; none in a vault without signed roles.
    pub membership: Option<MembershipStatus>,
    /// The key epoch that new things are sealed under; none in a vault without signed roles.
    pub epoch: Option<EpochStatus>,
    /// Chunks that events name and that are known to be gone.
    pub lost: u64,
    /// The last scrub of this directory.
    pub scrub: Option<ScrubRecord>,
    /// What was accepted here once and is gone: the vault directory was rolled back.
    pub behind: Vec<Lost>,
    /// Logs that were forked.
    pub forks: Vec<Fork>,
    /// Events that wait for one that is not here, with that one.
    pub holes: Vec<Hole>,
}

/// What membership means for this replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MembershipStatus {
    /// What this device may do; none if it is not in, or not as far as this replica knows.
    pub role: Option<Role>,
    /// Devices that are in, without what only a slot of the vault can sign as.
    pub devices: u64,
    /// Events of removed devices that are kept and have no effect.
    pub without_effect: u64,
}

/// A device that may take part, or that this one has an address of.
#[derive(Debug, Clone)]
pub struct Acquaintance {
    /// Name, device, addresses. The name and the role in here are this device's own record.
    pub peer: Peer,
    /// How it stands by the log; none in a vault without signed roles.
    pub admittance: Option<Admittance>,
}

impl Acquaintance {
    /// What it is called if it is no device: an owner that only a slot of the vault can sign as, so that whoever opens the slot is one.
    pub fn secret(&self) -> Option<&str> {
        let is_met = !self.peer.addresses.is_empty() || self.peer.added_ms != 0;
        let is_owner = self.admittance == Some(Admittance::In(Role::Owner));
        [PASSPHRASE, RECOVERY_PHRASE].into_iter().find(|name| is_owner && !is_met && self.peer.name == *name)
    }
}

/// A peer, and what it held when it was last talked with.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Who it is.
    pub peer: Peer,
    /// The end of the last session with it; none if there was none.
    pub contact: Option<Contact>,
    /// Events held here that it lacked then.
    pub lag_events: Option<u64>,
    /// Bytes of the chunks that those events add; none if there are too many to add up quickly.
    pub lag_bytes: Option<u64>,
    /// Whether it held then what is held here now.
    pub identical: Option<bool>,
    /// What both have signed the last time that they held the same; none if they never did.
    pub certificate: Option<Certificate>,
    /// Ends of logs that it held once, and had not back then.
    pub rolled_back: Vec<Gone>,
}

/// Replicas that have signed that they hold what is held here now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identical {
    /// How many, this one included.
    pub replicas: usize,
    /// Since when all of them have been known to, by this device's clock: milliseconds since 1970. None if there is none but this one.
    pub since_ms: Option<u64>,
}

impl Identical {
    /// Those of `peers` whose newest certificate is for `root`, and this one.
    pub fn at(root: &Root, peers: &[PeerStatus]) -> Self {
        let current = peers.iter().filter_map(|peer| peer.certificate.as_ref()).filter(|certificate| certificate.root() == *root);
        let since: Vec<u64> = current.map(|certificate| certificate.since_ms).collect();
        Self { replicas: 1 + since.len(), since_ms: since.into_iter().max() }
    }
}

/// What `verify` found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Events that were accepted here once and are gone.
    pub lost: Vec<Lost>,
    /// Chunks checked.
    pub chunks: u64,
    /// Bytes checked.
    pub bytes: u64,
    /// Chunks whose bytes are wrong, with where they lie.
    pub damaged: Vec<(ChunkId, String)>,
    /// Chunks that events name and no pack holds.
    pub missing: Vec<ChunkId>,
    /// Files of the vault itself that are damaged or gone.
    pub files: Vec<(PathBuf, String)>,
    /// Keys that cannot be read whole because of all that.
    pub keys_affected: Vec<Key>,
}

impl VerifyReport {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.is_undamaged() && self.lost.is_empty()
    }

    /// What is here is as it should be, although something that was here may be gone.
    pub fn is_undamaged(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty() && self.files.is_empty()
    }
}

/// Progress and cancellation of a long operation. Called from many threads; must return at once.
pub trait Watch: Send + Sync {
    /// `items` and `bytes` more are done.
    fn advance(&self, items: u64, bytes: u64);
    /// `items` and `bytes` more are known to have to be done.
    fn expect(&self, items: u64, bytes: u64);
    /// Whether to stop at the next commit point.
    fn cancelled(&self) -> bool;
}

/// Watches nothing, never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn advance(&self, _: u64, _: u64) {}
    fn expect(&self, _: u64, _: u64) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Why an operation on a vault failed. The command line turns each into an exit code and a hint in one place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// There is no vault there.
    #[error("{0} is not a vault")]
    NoVault(PathBuf),
    /// It was there, and its directory is not any more.
    #[error("the vault {0} is gone: was its disk unplugged?")]
    Gone(PathBuf),
    /// `init`, `clone` or `restore` into something that is already there.
    #[error("{0} already exists and is not empty")]
    NotEmpty(PathBuf),
    /// The vault is inside the source, or the other way round.
    #[error("{inner} lies inside {outer}")]
    Nested {
        /// The path inside.
        inner: PathBuf,
        /// The path around it.
        outer: PathBuf,
    },
    /// The device has no slot: a passphrase or recovery phrase is needed.
    #[error("the vault is locked for this device")]
    Locked,
    /// The passphrase or phrase opens no slot.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// Nothing of that kind opens the vault.
    #[error("the vault has no {0} slot")]
    NoSlot(&'static str),
    /// A log was forked or rolled back.
    #[error("{0}")]
    Fork(String),
    /// This device is not in the vault, or not as what the operation takes.
    #[error("{0}")]
    NotAllowed(String),
    /// Only an owner may do that.
    #[error("only an owner can {what}, and this device is {role}; owner: {}", owners.join(", "))]
    NotOwner {
        /// What.
        what: &'static str,
        /// What this device is, with an article.
        role: &'static str,
        /// The owners' names.
        owners: Vec<String>,
    },
    /// The vault was made before roles were signed.
    #[error("roles are not signed in this vault: it has no owners")]
    Unsigned,
    /// The vault directory holds less than it once did.
    #[error("the vault directory is older than what this device has seen: replica {} had event {}, here is {}",
        .0.author.short(), .0.accepted, .0.held)]
    RolledBack(Lost),
    /// A peer holds more of this replica's own log than was here: nothing may be written in its name.
    #[error("this machine was put back to an earlier state: a peer has event {0} of this replica's log")]
    Retired(u64),
    /// The operation needs the vault's key and this replica is keyless.
    #[error("this replica is keyless: it holds no key to read or write values")]
    Keyless,
    /// What it says of the key, if anything, lies under an epoch that this device was given no key of.
    #[error("no such key: {key}; what was written under key epoch {epoch} cannot be read here: {why}")]
    NoEpochKey {
        /// The key.
        key: String,
        /// The oldest such epoch.
        epoch: u32,
        /// Why this device has no key of it.
        why: String,
    },
    /// No such key.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// No event that begins so has said anything of the key.
    #[error("no version of {key} is by an event {event}")]
    NoSuchVersion {
        /// The key.
        key: String,
        /// What was typed of the event's id.
        event: String,
    },
    /// Written by a newer version.
    #[error("{what} has format {found}, this program reads up to {known}")]
    TooNew {
        /// The file.
        what: String,
        /// Its format.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// Something of the vault is damaged.
    #[error("damage found: {0}")]
    Damaged(String),
    /// A file in `keys/` is damaged, or asks for what no program should do. Another slot may still open the vault.
    #[error("a key slot cannot be used: {0}")]
    DamagedKey(String),
    /// No space, quota or inodes.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// `restore` would overwrite something.
    #[error("would overwrite what is in {0}")]
    WouldClobber(String),
    /// Another process holds what this needs.
    #[error("locked by another process: {0}")]
    Busy(String),
    /// An argument cannot be right.
    #[error("{0}")]
    Usage(String),
    /// The user stopped it; what was committed stays.
    #[error("interrupted")]
    Cancelled,
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done to what.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
}
