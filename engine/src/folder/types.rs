//! What goes into a followed folder, and what it says of itself.

use crate::{
    limits::{FOLDER_PROBLEMS_MAX, FUSE_KEYS_MAX, FUSE_PERCENT},
    vault::DeleteLimit,
};
use std::{collections::BTreeMap, path::PathBuf};

/// Which way changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// From the folder into the vault.
    In,
    /// From the vault into the folder.
    Out,
    /// Both ways.
    Both,
}

impl Flow {
    pub(super) fn takes_in(self) -> bool {
        self != Self::Out
    }

    pub(super) fn writes_out(self) -> bool {
        self != Self::In
    }
}

/// How a folder is followed.
#[derive(Debug, Clone)]
pub struct FolderOptions {
    /// Which way changes go.
    pub flow: Flow,
    /// Only keys below this, without it; all keys if none.
    pub prefix: Option<String>,
    /// How many files may vanish at once before they are taken for lost instead of deleted; any number if none.
    pub delete_limit: Option<DeleteLimit>,
}

impl FolderOptions {
    /// All keys, and the limit on deletions that peers have, too.
    pub fn new(flow: Flow) -> Self {
        Self { flow, prefix: None, delete_limit: Some(DeleteLimit::Share { percent: FUSE_PERCENT, keys: FUSE_KEYS_MAX }) }
    }
}

/// What a folder is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FolderState {
    /// Everything is being looked at for the first time.
    #[default]
    Starting,
    /// Folder and vault are the same, as far as is known.
    Followed,
    /// Nothing is taken in or written out, for this reason, until it has passed.
    Paused(String),
    /// The last try failed for this reason; it is tried again.
    Failing(String),
}

/// How a folder stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FolderStatus {
    /// The folder.
    pub dir: PathBuf,
    /// What it is doing.
    pub state: FolderState,
    /// Files, directories and links taken into the vault since it was opened.
    pub taken_in: u64,
    /// Deletions taken into the vault.
    pub deletions_in: u64,
    /// Files, directories and links written out.
    pub written_out: u64,
    /// Those removed because they are deleted in the vault.
    pub removed: u64,
    /// Versions kept beside each other.
    pub kept_beside: u64,
    /// What could not be done, by path or key, each with its reason; some of them if there are many.
    pub problems: BTreeMap<String, String>,
}

impl FolderStatus {
    pub(super) fn problem(&mut self, what: String, reason: String) {
        if self.problems.len() < FOLDER_PROBLEMS_MAX || self.problems.contains_key(&what) {
            self.problems.insert(what, reason);
        }
    }
}

/// Sees how a folder stands, each time that it has changed. Called on the folder's thread; must return at once.
pub trait FolderObserver: Send + Sync {
    /// It stands so now.
    fn changed(&self, status: &FolderStatus);
}

/// Sees nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unseen;

impl FolderObserver for Unseen {
    fn changed(&self, _: &FolderStatus) {}
}
