//! The guard: files that vanish all at once are taken for lost, not for deleted.
//!
//! A disk that is not mounted leaves an empty directory, and a slip of the hand a smaller one. Deletions can be undone in a vault, but every
//! replica would carry them out first. So nothing moves either way until the files are back or somebody says that they are meant to be gone.

use super::{naming::Naming, state::State};
use crate::{
    clock,
    limits::{FOLDER_EMPTIED_KEYS, FOLDER_FUSE_MS, FUSE_KEYS_MIN},
    vault::{DeleteLimit, VaultError, writer_of},
};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Which directory a path leads to.
pub(super) type Identity = (u64, u64);

/// Deletions that were let through lately, and since when.
#[derive(Debug, Default)]
struct Recent {
    since: Option<Instant>,
    count: u64,
}

/// Watches over one folder.
#[derive(Debug)]
pub(super) struct Guard {
    limit: Option<DeleteLimit>,
    recent: Mutex<Recent>,
}

impl Guard {
    pub(super) fn new(limit: Option<DeleteLimit>) -> Self {
        Self { limit, recent: Mutex::default() }
    }

    /// Why nothing may be done at the moment; none if the folder is there with what was in it.
    pub(super) fn absent(&self, naming: &Naming, state: &State) -> Result<Option<String>, VaultError> {
        let root = naming.root();
        let Some((device, _)) = identity(root) else { return Ok(Some("the folder is not there".into())) };
        if self.limit.is_none() || !is_empty(root) {
            return Ok(None);
        }
        let known = state.count()?;
        let elsewhere = state.device()?.is_some_and(|before| before != device);
        let emptied = known > 0 && (elsewhere || known > FOLDER_EMPTIED_KEYS);
        Ok(emptied.then(|| format!("the folder is empty, and {known} things were in it: is it mounted?")))
    }

    /// Whether so many may be deleted of what is known; why not, else.
    pub(super) fn allows(&self, deletions: u64, state: &State) -> Result<Result<(), String>, VaultError> {
        let Some(limit) = self.limit else { return Ok(Ok(())) };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if recent.since.is_none_or(|since| now.duration_since(since) > Duration::from_millis(FOLDER_FUSE_MS)) {
            *recent = Recent { since: Some(now), count: 0 };
        }
        let count = recent.count + deletions;
        if count > FUSE_KEYS_MIN || matches!(limit, DeleteLimit::Keys(_)) {
            let known = state.count()? + recent.count;
            let allowed = limit.of(known);
            if count > allowed {
                return Ok(Err(format!("{count} of {known} things in the folder are gone at once, and {allowed} may be")));
            }
        }
        recent.count = count;
        Ok(Ok(()))
    }
}

/// Device and inode of the directory at `path`; none if there is none.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().filter(fs::Metadata::is_dir).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether there is nothing in a directory but what is being written.
fn is_empty(root: &Path) -> bool {
    fs::read_dir(root).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| writer_of(&entry.file_name()).is_some())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Content, Key, Value, ValueKind},
        folder::state::{Digest, Row},
        vault::Stamp,
    };

    /// A folder in whose state are `known` files of the device `device`.
    fn folder(dir: &Path, known: u64, device: u64) -> (Naming, State) {
        let root = dir.join("root");
        fs::create_dir_all(&root).unwrap();
        let state = State::open(&dir.join("state.db"), &root).unwrap();
        let value = Value { kind: ValueKind::File(0o644), modified_s: 0, modified_ns: 0, content: Content::default() };
        let stamp = Stamp { size: 0, modified_ns: 0, changed_ns: 0, inode: 1, device };
        let row = Row { digest: Digest::of(&value), stamp, settled: true, of: None };
        let rows: Vec<_> = (0..known).map(|n| (Key::new(format!("{n:05}")).unwrap(), row.clone())).collect();
        state.change(&rows, &[]).unwrap();
        (Naming::new(root, None).unwrap(), state)
    }

    const SHARE: DeleteLimit = DeleteLimit::Share { percent: 10, keys: 10_000 };

    #[test]
    fn an_emptied_or_absent_folder_is_not_deleted_content() {
        let dir = tempfile::tempdir().unwrap();
        let (device, _) = identity(dir.path()).unwrap();
        let (naming, state) = folder(dir.path(), 11, device);
        let guard = Guard::new(Some(SHARE));
        assert!(guard.absent(&naming, &state).unwrap().unwrap().contains("11 things"));
        fs::write(naming.root().join("one"), "").unwrap();
        assert_eq!(guard.absent(&naming, &state).unwrap(), None);
        fs::remove_dir_all(naming.root()).unwrap();
        assert!(guard.absent(&naming, &state).unwrap().is_some());
    }

    #[test]
    fn a_few_files_may_all_be_deleted_unless_they_were_on_another_disk() {
        for (device, paused) in [(0, false), (1, true)] {
            let dir = tempfile::tempdir().unwrap();
            let here = identity(dir.path()).unwrap().0;
            let (naming, state) = folder(dir.path(), 3, here + device);
            assert_eq!(Guard::new(Some(SHARE)).absent(&naming, &state).unwrap().is_some(), paused);
        }
    }

    #[test]
    fn deletions_that_come_one_after_the_other_are_added_up() {
        let dir = tempfile::tempdir().unwrap();
        let (_, state) = folder(dir.path(), 500, 1);
        let guard = Guard::new(Some(SHARE));
        assert_eq!(guard.allows(60, &state).unwrap(), Ok(()));
        assert!(guard.allows(60, &state).unwrap().is_err());
        assert_eq!(guard.allows(40, &state).unwrap(), Ok(()));
        assert!(Guard::new(Some(DeleteLimit::Keys(3))).allows(4, &state).unwrap().is_err());
        assert_eq!(Guard::new(None).allows(400, &state).unwrap(), Ok(()));
    }
}
