//! Into the vault: what has changed on the disk, held against what both last had in common and what stands now.
//!
//! ```text
//!   disk is as what stands            noted, nothing said
//!   disk is as it was, vault is not   left for the way out
//!   disk changed, vault is as it was  put, or deleted
//!   both changed                      put; what nobody here had seen is put beside it under the name of its conflict
//!   gone here, changed there          nothing: a change is worth more than a deletion
//!   nothing in common is known        what stands stays; the file is put beside it, under the name of a conflict
//! ```
//! So nothing that anybody has not seen is superseded without its bytes staying in the folder, on every replica under the same name.
//!
//! A version of a conflict that lies beside the one that stands is not a key. Removing it means that the one that stands is right. A change
//! of the one that stands ends the conflict for the vault; the others then become keys of their own, and stay until somebody removes them.

use super::{
    Folder,
    guard::{Identity, identity},
    look::{self, Parents, Scope},
    naming::copy_key,
    outward::is_directory,
    state::{Digest, Row},
    types::Flow,
};
use crate::{
    event::{ChunkList, Dot, Key, Operation, Value, ValueKind},
    limits::EVENT_OPERATIONS_MAX,
    merge::{Action, Version},
    vault::{Found, Gathered, Intake, Moving, Stamp, VaultError, Watch},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// What remains to be done after a look.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Paths to be looked at again: they are changing, or might have without a trace.
    pub(super) paths: BTreeSet<PathBuf>,
    /// Keys to be held against the vault again.
    pub(super) keys: BTreeSet<Key>,
    /// Why deletions were not taken in.
    pub(super) paused: Option<String>,
}

/// What one look decides, as it goes on.
struct Decider<'a> {
    folder: &'a Folder,
    left: Mutex<Left>,
}

impl Folder {
    /// Takes in what has changed within `scope`. `moving` says what becomes of files that change while they are read.
    pub(super) fn take_in(&self, scope: &Scope, moving: Moving) -> Result<Left, VaultError> {
        let before = identity(self.naming.root());
        let decider = Decider { folder: self, left: Mutex::default() };
        let unread = look::changed(&self.naming, &self.state, scope, &mut |found| decider.read(found, moving, self))?;
        unread.into_iter().for_each(|(path, reason)| self.problem(path.display().to_string(), reason));
        let mut gone = look::gone(&self.naming, &self.state, scope)?;
        let mut left = decider.left.into_inner().unwrap_or_else(PoisonError::into_inner);
        if gone.is_empty() {
            return Ok(left);
        }
        match self.may_forget(&mut gone, before)? {
            Ok(()) => self.forget(&gone, &mut left)?,
            Err(reason) => left.paused = Some(reason),
        }
        Ok(left)
    }

    /// Whether `gone`, without what is back by now, are deletions; why not, else. The directory was `before`, and may have gone itself meanwhile.
    fn may_forget(&self, gone: &mut Vec<(Key, Row)>, before: Option<Identity>) -> Result<Result<(), String>, VaultError> {
        let mut parents = Parents::default();
        gone.retain(|(key, _)| parents.stamp(&self.naming, key) == Ok(None));
        if let Some(reason) = self.guard.absent(&self.naming, &self.state)? {
            return Ok(Err(reason));
        }
        if identity(self.naming.root()) != before {
            return Ok(Err("the folder was replaced while it was looked at".into()));
        }
        self.guard.allows(gone.len() as u64, &self.state)
    }

    /// Takes in that `gone` are gone.
    fn forget(&self, gone: &[(Key, Row)], left: &mut Left) -> Result<(), VaultError> {
        let names: BTreeSet<&Key> = gone.iter().map(|(key, _)| key).collect();
        for page in gone.chunks(EVENT_OPERATIONS_MAX / 16) {
            let (mut deleted, mut unsettled) = (0, BTreeSet::new());
            self.vault.append_decided(&[], &mut || {
                let mut operations = Vec::new();
                unsettled.clear();
                let (copies, own): (Vec<_>, Vec<_>) = page.iter().partition(|(_, row)| row.of.is_some());
                for (key, row) in own {
                    match self.deletion(key, row, &names)? {
                        Some(said) => operations.extend(said),
                        None => _ = unsettled.insert(key.clone()),
                    }
                }
                deleted = operations.iter().filter(|operation| matches!(operation, Operation::Delete(..))).count() as u64;
                let of: BTreeSet<&Key> = copies.iter().filter_map(|(_, row)| row.of.as_ref()).filter(|of| !names.contains(of)).collect();
                for key in of {
                    operations.extend(self.resolution(key, &names)?);
                }
                Ok(operations)
            })?;
            let keys: Vec<Key> = page.iter().map(|(key, _)| key.clone()).collect();
            self.state.change(&[], &keys)?;
            left.keys.extend(unsettled);
            self.update(|status| status.deletions_in += deleted);
        }
        Ok(())
    }

    /// What to say when the file of `key` is gone; nothing, if the vault does not hold what the file was.
    fn deletion(&self, key: &Key, row: &Row, gone: &BTreeSet<&Key>) -> Result<Option<Vec<Operation>>, VaultError> {
        let maximal = self.vault.maximal(key)?;
        let Some(winner) = maximal.first() else { return Ok(None) };
        match winner.value() {
            Some(value) if Digest::of(value) == row.digest => {
                let mut said = self.beside(key, &maximal[1..], None, gone)?;
                said.push(Operation::Delete(key.clone(), None));
                Ok(Some(said))
            }
            Some(_) => Ok(None),
            None => Ok(Some(Vec::new())),
        }
    }

    /// What to say when a version that lay beside `key` was removed: what stands is right. Others that still lie there become keys.
    fn resolution(&self, key: &Key, gone: &BTreeSet<&Key>) -> Result<Vec<Operation>, VaultError> {
        let maximal = self.vault.maximal(key)?;
        let shown = self.shown_beside(key, &maximal)?;
        if !shown.iter().any(|(copy, _)| gone.contains(copy)) {
            return Ok(Vec::new());
        }
        let mut said = self.beside(key, &maximal[1..], None, gone)?;
        said.push(Operation::Resolve(key.clone(), maximal[0].place.event));
        Ok(said)
    }

    /// Puts `versions` of `key` beside it, but those that say what `local` says, and those whose files are `gone`.
    fn beside(&self, key: &Key, versions: &[Version], local: Option<&Value>, gone: &BTreeSet<&Key>) -> Result<Vec<Operation>, VaultError> {
        let mut said = Vec::new();
        for version in versions {
            let Some(value) = version.value().filter(|value| !is_directory(value)) else { continue };
            let agrees = local.is_some_and(|local| Action::Put(local.clone()).agrees_with(&version.action));
            let copy = copy_key(key, &version.place.dot).filter(|copy| !agrees && !gone.contains(copy));
            if let Some(copy) = copy
                && !self.is_live(&copy)?
            {
                said.push(Operation::Put(copy, value.clone()));
            }
        }
        Ok(said)
    }

    /// Whether `key` has a value in the vault.
    pub(super) fn is_live(&self, key: &Key) -> Result<bool, VaultError> {
        Ok(self.vault.maximal(key)?.first().is_some_and(|winner| winner.value().is_some()))
    }

    /// The versions in conflict with what stands for `key` that are to lie beside it, by their names.
    pub(super) fn shown_beside(&self, key: &Key, maximal: &[Version]) -> Result<BTreeMap<Key, Value>, VaultError> {
        let mut shown = BTreeMap::new();
        let mut said: Vec<&Action> = maximal.first().map(|winner| &winner.action).into_iter().collect();
        for version in maximal.iter().skip(1) {
            let Some(value) = version.value().filter(|value| !is_directory(value)) else { continue };
            if said.iter().any(|action| action.agrees_with(&version.action)) {
                continue;
            }
            said.push(&version.action);
            if let Some(copy) = copy_key(key, &version.place.dot)
                && !self.is_live(&copy)?
            {
                shown.insert(copy, value.clone());
            }
        }
        Ok(shown)
    }
}

/// What becomes of one file that was read.
struct Verdict {
    said: Vec<Operation>,
    row: Row,
    /// Whether the vault holds something else than the file, which is to be written out.
    differs: bool,
    put: u64,
    beside: u64,
}

impl Decider<'_> {
    fn read(&self, found: Vec<Found>, moving: Moving, watch: &dyn Watch) -> Result<(), VaultError> {
        if found.is_empty() {
            return Ok(());
        }
        let not_taken = self.folder.vault.take_in(found, moving, self, watch)?;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.paths.extend(not_taken.moving.into_iter().map(|found| found.path));
        for (path, reason) in not_taken.skipped {
            if path.symlink_metadata().is_ok() {
                self.folder.problem(path.display().to_string(), reason);
            } else {
                left.paths.insert(path);
            }
        }
        Ok(())
    }

    fn judge(&self, gathered: &Gathered) -> Result<Verdict, VaultError> {
        let Gathered { found, value, settled } = gathered;
        let maximal = self.folder.vault.maximal(&found.key)?;
        let row = self.folder.state.get(&found.key)?;
        let standing = maximal.first().and_then(Version::value);
        let local = Digest::of(value);
        let note = |digest: Digest| Row { digest, stamp: found.stamp, settled: *settled, of: None };
        if let Some(standing) = standing.filter(|standing| is_as(standing, value)) {
            return Ok(Verdict { said: Vec::new(), row: note(Digest::of(standing)), differs: false, put: 0, beside: 0 });
        }
        match (&row, standing) {
            (Some(row), _) if row.digest == local => {
                let row = Row { of: row.of.clone(), ..note(local) };
                Ok(Verdict { said: Vec::new(), row, differs: true, put: 0, beside: 0 })
            }
            (None, Some(standing)) if self.folder.flow == Flow::Both => self.yielding(gathered, standing, note(local)),
            _ => self.putting(gathered, &maximal, row.as_ref(), note(local)),
        }
    }

    /// The file takes its name, what it was made without knowing goes beside it.
    fn putting(&self, gathered: &Gathered, maximal: &[Version], base: Option<&Row>, row: Row) -> Result<Verdict, VaultError> {
        let Gathered { found, value, .. } = gathered;
        let own = self.folder.vault.info().replica;
        let unseen = |version: &&Version| match base {
            Some(base) => version.value().is_some_and(|value| Digest::of(value) != base.digest),
            None => version.place.dot.author != own,
        };
        let versions: Vec<Version> = maximal.iter().filter(unseen).cloned().collect();
        let mut said = self.folder.beside(&found.key, &versions, Some(value), &BTreeSet::new())?;
        let beside = said.len() as u64;
        said.push(Operation::Put(found.key.clone(), value.clone()));
        Ok(Verdict { said, row, differs: false, put: 1, beside })
    }

    /// Nobody knows where the file comes from: what stands keeps the name, and the file goes beside it unless its bytes are the same.
    fn yielding(&self, gathered: &Gathered, standing: &Value, row: Row) -> Result<Verdict, VaultError> {
        let Gathered { found, value, .. } = gathered;
        let same_bytes = Action::Put(Value { kind: value.kind.clone(), ..standing.clone() }).agrees_with(&Action::Put(value.clone()));
        let directory = is_directory(value);
        let vault = &self.folder.vault;
        let dot = Dot { author: vault.info().replica, sequence: vault.next_sequence() };
        let copy = copy_key(&found.key, &dot).filter(|_| !directory && !same_bytes);
        let said: Vec<Operation> = copy.map(|copy| Operation::Put(copy, value.clone())).into_iter().collect();
        let beside = said.len() as u64;
        Ok(Verdict { said, row, differs: true, put: 0, beside })
    }
}

impl Intake for Decider<'_> {
    fn commit(&self, gathered: Vec<Gathered>, lists: Vec<ChunkList>) -> Result<(), VaultError> {
        let mut verdicts: Vec<Verdict> = Vec::new();
        self.folder.vault.append_decided(&lists, &mut || {
            verdicts = gathered.iter().map(|gathered| self.judge(gathered)).collect::<Result<_, _>>()?;
            Ok(verdicts.iter().flat_map(|verdict| verdict.said.iter().cloned()).collect())
        })?;
        let (put, beside) = verdicts.iter().fold((0, 0), |(put, beside), verdict| (put + verdict.put, beside + verdict.beside));
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Vec::with_capacity(gathered.len());
        for (Gathered { found, settled, .. }, verdict) in gathered.into_iter().zip(verdicts) {
            if !settled && found.is_file() {
                left.paths.insert(found.path);
            }
            if verdict.differs {
                left.keys.insert(found.key.clone());
            }
            self.folder.settled(&found.key);
            rows.push((found.key, verdict.row));
        }
        drop(left);
        self.folder.state.change(&rows, &[])?;
        self.folder.update(|status| {
            status.taken_in += put;
            status.kept_beside += beside;
        });
        Ok(())
    }
}

/// Whether the file says what stands: a value that was put without permissions and times has those that its file got.
fn is_as(standing: &Value, local: &Value) -> bool {
    let blob = standing.kind == ValueKind::Blob && matches!(local.kind, ValueKind::File(_));
    if blob {
        let as_file = Value { kind: local.kind.clone(), ..standing.clone() };
        return Action::Put(as_file).agrees_with(&Action::Put(local.clone()));
    }
    Digest::of(standing) == Digest::of(local)
}

/// Whether what lies on the disk is what `row` says.
pub(super) fn is_untouched(row: &Row, stamp: &Stamp) -> bool {
    row.settled && row.stamp == *stamp
}
