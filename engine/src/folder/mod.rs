//! A folder: a directory of files followed into a vault, and out of it.
//!
//! ```text
//!   inotify, FSEvents ─► where? ─► look ─► inward: read, seal, one event ─► log ─► every session, at once
//!                                   ▲ │
//!                        state: what both last had in common (stamp, digest)
//!                                   │ ▼
//!   log has grown ─► which keys? ─► outward: temporary file, sync, rename ─► what the system then tells of it is as noted: no echo
//! ```
//! Three copies decide, as in Unison (Pierce, Vouillon: What's in Unison?, 2004): the file, the vault, and what both were when they were last the
//! same. Whoever has only two of them must guess who changed what. See `inward.rs` for the table.
//!
//! Invariants
//! - A file that nobody has taken in is never replaced or removed. What two sides have changed stays on both, under names that are the same everywhere.
//! - A name has a whole file or none; nothing is written outside the folder, nor through a link.
//! - What the state says was durable before it was noted. Without it everything is compared by content, and nothing is deleted.
//! - Files that vanish all at once stop the folder, not the files of others: see `guard.rs`.

mod events;
mod guard;
mod inward;
mod look;
mod naming;
mod outward;
mod state;
#[cfg(test)]
mod tests;
mod types;

pub use types::{Flow, FolderObserver, FolderOptions, FolderState, FolderStatus, Unseen};

use crate::{
    clock,
    event::Key,
    limits::{FOLDER_LOOK_MS, FOLDER_MOVING_TRIES, FOLDER_PAGE, FOLDER_RETRY_MS, FOLDER_RETRY_MS_MAX, FOLDER_ROOT_MS},
    replicate,
    store::LogPosition,
    vault::{Changes, Moving, Vault, VaultError, Watch},
};
use events::{Dirt, Told};
use guard::{Guard, Identity, identity};
use look::Scope;
use naming::Naming;
use notify::RecommendedWatcher;
use outward::Undone;
use state::State;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::sleep_until,
};

/// A directory that is followed.
#[derive(Debug)]
pub struct Folder {
    vault: Arc<Vault>,
    naming: Naming,
    flow: Flow,
    state: State,
    guard: Guard,
    status: watch::Sender<FolderStatus>,
    stopping: AtomicBool,
    stopped: Notify,
}

impl Folder {
    /// Prepares to follow `dir`, which must be there. Nothing is read or written before [`Folder::run`].
    ///
    /// # Errors
    /// [`VaultError::Keyless`], [`VaultError::Nested`] when the vault or this device's directory lies in `dir` or the other way round,
    /// [`VaultError::Busy`] when it is followed already, [`VaultError::Usage`] for a prefix that is no path, or the system's.
    pub fn open(vault: Arc<Vault>, dir: &Path, options: FolderOptions) -> Result<Self, VaultError> {
        if vault.info().keyless {
            return Err(VaultError::Keyless);
        }
        let root = fs::canonicalize(dir).map_err(|error| VaultError::io(format!("looking at {}", dir.display()), error))?;
        if !root.is_dir() {
            return Err(VaultError::Usage(format!("{} is not a directory", dir.display())));
        }
        let naming = Naming::new(root.clone(), options.prefix.as_deref())?;
        let path = vault.home().folder_path(vault.dir(), &root, naming.prefix())?;
        for private in [vault.dir(), path.as_path()] {
            refuse_nested(&root, private)?;
        }
        let state = State::open(&path, &root)?;
        let status = FolderStatus { dir: root, ..FolderStatus::default() };
        Ok(Self {
            vault,
            naming,
            flow: options.flow,
            state,
            guard: Guard::new(options.delete_limit),
            status: watch::Sender::new(status),
            stopping: AtomicBool::new(false),
            stopped: Notify::new(),
        })
    }

    /// The folder, as it was found.
    pub fn dir(&self) -> &Path {
        self.naming.root()
    }

    /// How it stands.
    pub fn status(&self) -> FolderStatus {
        self.status.borrow().clone()
    }

    /// How it stands, each time that this has changed.
    pub fn statuses(&self) -> watch::Receiver<FolderStatus> {
        self.status.subscribe()
    }

    /// Ends [`Folder::run`] at its next commit point. It can be called again after that.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stopped.notify_one();
    }

    /// Follows the folder until [`Folder::stop`]. Blocks: call it on a thread of its own. What fails is said by the status and tried again.
    ///
    /// # Errors
    /// When the system gives no timers.
    pub fn run(&self, observer: &dyn FolderObserver) -> Result<(), VaultError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| VaultError::io("starting to follow a folder", error))?;
        runtime.block_on(async {
            select! {
                () = self.follow(observer) => {}
                never = replicate::watch(self.vault.store()) => match never {},
            }
        });
        self.stopping.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn follow(&self, observer: &dyn FolderObserver) {
        let mut follower = Follower::new(self);
        let mut changes = self.vault.store().changes();
        let mut statuses = self.status.subscribe();
        while !self.cancelled() {
            follower.work();
            if statuses.has_changed().unwrap_or(false) {
                observer.changed(&statuses.borrow_and_update().clone());
            }
            let due = follower.due();
            select! {
                () = self.stopped.notified() => {}
                told = follower.told() => follower.hear(told),
                _ = changes.changed() => follower.behind = true,
                () = sleep_until(due.into()) => {}
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut FolderStatus)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    fn problem(&self, what: String, reason: String) {
        self.update(|status| status.problem(what, reason));
    }

    /// Whatever could not be done about `key` has been done.
    fn settled(&self, key: &Key) {
        if self.status.borrow().problems.is_empty() {
            return;
        }
        let path = self.naming.path(key).map(|path| path.display().to_string());
        self.update(|status| {
            status.problems.remove(key.to_text().as_ref());
            path.map(|path| status.problems.remove(&path));
        });
    }
}

impl Watch for Folder {
    fn advance(&self, _: u64, _: u64) {}

    fn expect(&self, _: u64, _: u64) {}

    fn cancelled(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Neither may lie in the other: a vault would take itself in.
fn refuse_nested(root: &Path, private: &Path) -> Result<(), VaultError> {
    let nearest = private.ancestors().find_map(|path| fs::canonicalize(path).ok()).unwrap_or_else(|| private.to_owned());
    match (root.starts_with(&nearest), nearest.starts_with(root)) {
        (true, _) => Err(VaultError::Nested { inner: root.to_owned(), outer: nearest }),
        (_, true) => Err(VaultError::Nested { inner: nearest, outer: root.to_owned() }),
        (false, false) => Ok(()),
    }
}

/// Where a run stands.
struct Follower<'f> {
    folder: &'f Folder,
    /// What is listened to, and the directory that it is; none where the system cannot tell.
    listening: Option<(RecommendedWatcher, mpsc::UnboundedReceiver<Told>)>,
    root: Option<Identity>,
    dirt: Dirt,
    /// How often each of these changed while it was read.
    moving: BTreeMap<PathBuf, u32>,
    /// Whether the log says something that was not looked at.
    behind: bool,
    /// Up to where the log was written out; none before all of it was.
    position: Option<LogPosition>,
    /// Keys to be held against the log again.
    unsettled: BTreeSet<Key>,
    /// Directories that go once they are empty.
    full: BTreeSet<Key>,
    /// When all is looked at again where nobody tells.
    look: Option<Instant>,
    /// When the directory is looked for.
    root_look: Instant,
    retry: Option<Instant>,
    pause: Duration,
}

impl<'f> Follower<'f> {
    fn new(folder: &'f Folder) -> Self {
        let now = clock::now();
        Self {
            folder,
            listening: None,
            root: None,
            dirt: Dirt::default(),
            moving: BTreeMap::new(),
            behind: true,
            position: None,
            unsettled: BTreeSet::new(),
            full: BTreeSet::new(),
            look: None,
            root_look: now,
            retry: None,
            pause: Duration::from_millis(FOLDER_RETRY_MS),
        }
    }

    /// What the system tells next. Never, if it cannot.
    async fn told(&mut self) -> Told {
        let told = match &mut self.listening {
            Some((_, receiver)) => receiver.recv().await,
            None => None,
        };
        match told {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }

    fn hear(&mut self, told: Told) {
        let now = clock::now();
        let mut next = Some(told);
        while let Some(told) = next {
            if let Err(error) = &told {
                self.lose_sight(events::explain(error), now);
            }
            self.dirt.hear(told, now);
            next = self.listening.as_mut().and_then(|(_, receiver)| receiver.try_recv().ok());
        }
    }

    /// The system does not tell of everything: all of the folder is looked at now and then.
    fn lose_sight(&mut self, reason: String, now: Instant) {
        self.look = Some(now + Duration::from_millis(FOLDER_LOOK_MS));
        let seconds = FOLDER_LOOK_MS / 1_000;
        self.folder.problem(self.folder.dir().display().to_string(), format!("{reason}; looked at every {seconds} s"));
    }

    /// When there is something to do even if nothing happens.
    fn due(&self) -> Instant {
        let due = [self.look, self.dirt.due()].into_iter().flatten().fold(self.root_look, Instant::min);
        self.retry.unwrap_or(due)
    }

    /// Does what is due.
    fn work(&mut self) {
        let now = clock::now();
        if self.retry.is_some_and(|retry| retry > now) {
            return;
        }
        self.retry = None;
        match self.try_to_work(now) {
            Ok(state) => {
                let failed = matches!(state, FolderState::Paused(_));
                self.folder.update(|status| status.state = state);
                if failed {
                    self.retry = Some(now + Duration::from_millis(FOLDER_ROOT_MS));
                } else {
                    self.pause = Duration::from_millis(FOLDER_RETRY_MS);
                }
            }
            Err(VaultError::Cancelled) => {}
            Err(error) => {
                tracing::debug!(%error, "a folder could not be brought up to date");
                self.folder.update(|status| status.state = FolderState::Failing(error.to_string()));
                // Whatever was being looked at is looked at again.
                self.dirt.all(now);
                self.behind = true;
                self.retry = Some(now + self.pause);
                self.pause = (self.pause * 2).min(Duration::from_millis(FOLDER_RETRY_MS_MAX));
            }
        }
    }

    fn try_to_work(&mut self, now: Instant) -> Result<FolderState, VaultError> {
        if let Some(reason) = self.folder.guard.absent(&self.folder.naming, &self.folder.state)? {
            self.dirt.all(now);
            self.root = None;
            return Ok(FolderState::Paused(reason));
        }
        self.attend(now);
        if self.dirt.due().is_some_and(|due| due <= now)
            && let Some(reason) = self.inward(now)?
        {
            return Ok(FolderState::Paused(reason));
        }
        self.outward(now)?;
        Ok(FolderState::Followed)
    }

    /// Listens to the directory that is there now, and looks at all of it if that is another one than before.
    fn attend(&mut self, now: Instant) {
        let blind = self.look.is_some_and(|look| look <= now);
        if self.root_look > now && self.root.is_some() && !blind {
            return;
        }
        self.root_look = now + Duration::from_millis(FOLDER_ROOT_MS);
        let root = identity(self.folder.dir());
        if root == self.root && !blind {
            return;
        }
        self.root = root;
        if !self.folder.flow.takes_in() {
            return;
        }
        match events::listen(self.folder.dir()) {
            Ok(listening) => (self.listening, self.look) = (Some(listening), None),
            Err(reason) => {
                self.listening = None;
                self.lose_sight(reason, now);
            }
        }
        self.dirt.all(now);
        self.dirt.hurry();
    }

    /// Takes in what has changed. Why not everything was, if something must be cleared up first.
    fn inward(&mut self, now: Instant) -> Result<Option<String>, VaultError> {
        let scope = self.dirt.take();
        if !self.folder.flow.takes_in() {
            return Ok(None);
        }
        let whole = scope == Scope::Whole;
        let patience = self.moving.values().max().copied().unwrap_or(0) < FOLDER_MOVING_TRIES;
        let left = self.folder.take_in(&scope, if patience { Moving::Left } else { Moving::Taken })?;
        self.count_moving(&left.paths, patience);
        self.unsettled.extend(left.keys);
        self.dirt.add(left.paths, now);
        if left.paused.is_some() {
            self.dirt.all(now);
        } else if whole {
            self.tell_of_sight();
        }
        Ok(left.paused)
    }

    /// Once patience is lost, files that go on changing are taken in as they are, and then waited for anew.
    fn count_moving(&mut self, paths: &BTreeSet<PathBuf>, patience: bool) {
        self.moving.retain(|path, _| patience && paths.contains(path));
        for path in paths {
            *self.moving.entry(path.clone()).or_default() += 1;
        }
    }

    /// What was said of the directory itself is true no more once the system tells again.
    fn tell_of_sight(&self) {
        if self.look.is_none() {
            let dir = self.folder.dir().display().to_string();
            self.folder.update(|status| _ = status.problems.remove(&dir));
        }
    }

    /// Writes out what the log says.
    fn outward(&mut self, now: Instant) -> Result<(), VaultError> {
        if self.folder.flow.writes_out() && (self.behind || !self.unsettled.is_empty()) {
            let changes = self.changes()?;
            self.behind = false;
            let again = std::mem::take(&mut self.unsettled).into_iter().chain(std::mem::take(&mut self.full));
            let written = match changes {
                Changes::Keys(keys) => self.folder.write_out(&keys.into_iter().chain(again).collect()),
                Changes::Everything => self.folder.write_all(),
            };
            match written {
                Ok(undone) => {
                    self.dirt.add(undone.changed, now);
                    self.full = undone.full;
                }
                Err(error) => {
                    self.position = None;
                    return Err(error);
                }
            }
        } else {
            self.behind = false;
            self.unsettled.clear();
        }
        Ok(())
    }

    /// What the log says that was not written out.
    fn changes(&mut self) -> Result<Changes, VaultError> {
        let store = self.folder.vault.store();
        let (changes, position) = match self.position {
            Some(position) => self.folder.vault.changes_since(position)?,
            None => {
                store.refresh()?;
                let end = store.log_end();
                (Changes::Everything, self.folder.vault.changes_since(end)?.1)
            }
        };
        self.position = Some(position);
        Ok(changes)
    }
}

impl Folder {
    /// Writes out all of the folder's keys.
    fn write_all(&self) -> Result<Undone, VaultError> {
        let (mut keys, mut undone) = (BTreeSet::new(), Undone::default());
        self.vault.each_key(self.naming.prefix(), &mut |key| {
            keys.insert(key);
            if keys.len() >= FOLDER_PAGE {
                undone.join(self.write_out(&std::mem::take(&mut keys))?);
            }
            Ok(())
        })?;
        undone.join(self.write_out(&keys)?);
        // What was in them came after them.
        let full = std::mem::take(&mut undone.full);
        undone.join(self.write_out(&full)?);
        Ok(undone)
    }
}
