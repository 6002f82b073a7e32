//! The folders of a kept vault: each is followed on a thread of its own, and begun anew when that ended.
//!
//! ```text
//!   follow(vault) ─► place: vault, stage ◄─┐
//!                          │               │ open ─► run ─► ended: why?  wait, longer each time
//!                          └─ woken ──────►└──── thread ◄────┘
//! ```
//! Whatever passes while a folder is open (it is gone, its disk is full) the engine waits for by itself. What is left is what keeps a folder from
//! being opened: it is not there yet, another program follows it, the vault cannot be read here.
//!
//! # Invariants
//! - A folder is never open twice here: the thread lets go of it before it opens it again.
//! - Nobody waits for a folder but `stop`.

use super::{plan::FolderPlan, state::FollowedState};
use crate::{failure::Failure, render};
use mirror_engine::{
    clock,
    folder::{Folder, FolderObserver, FolderState, FolderStatus},
    vault::Vault,
};
use std::{
    path::Path,
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Before a folder that did not open is tried again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// A disk that is plugged in is seen within this.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// All of one vault.
pub(super) struct Folders(Vec<Following>);

struct Following {
    shared: Arc<Shared>,
    /// None when the system gave none.
    thread: Option<JoinHandle<()>>,
}

/// What the thread and those who ask share.
struct Shared {
    plan: FolderPlan,
    place: Mutex<Place>,
    woken: Condvar,
}

struct Place {
    /// None once it is to end.
    vault: Option<Arc<Vault>>,
    stage: Stage,
}

enum Stage {
    Beginning,
    Open(Arc<Folder>),
    Trouble(Failure),
}

impl Folders {
    /// Begins to follow all of `plans`.
    pub(super) fn start(plans: &[FolderPlan], vault: &Arc<Vault>) -> Self {
        Self(plans.iter().map(|plan| Following::start(plan.clone(), Arc::clone(vault))).collect())
    }

    /// Has them follow `vault` from now on, unless they do; begins anew what has no thread.
    pub(super) fn follow(&mut self, vault: &Arc<Vault>) {
        self.0.iter_mut().for_each(|following| following.follow(vault));
    }

    pub(super) fn states(&self) -> Vec<FollowedState> {
        self.0.iter().map(|following| following.shared.state()).collect()
    }

    /// Ends in order: what is being taken in or written out gets to its commit point.
    pub(super) async fn stop(self) {
        self.0.iter().for_each(|following| following.shared.set_vault(None));
        let threads: Vec<_> = self.0.into_iter().filter_map(|following| following.thread).collect();
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().try_for_each(JoinHandle::join)).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("a thread that followed a folder has failed");
        }
    }
}

impl Following {
    fn start(plan: FolderPlan, vault: Arc<Vault>) -> Self {
        let place = Mutex::new(Place { vault: Some(vault), stage: Stage::Beginning });
        let shared = Arc::new(Shared { plan, place, woken: Condvar::new() });
        let thread = shared.spawn();
        Self { shared, thread }
    }

    fn follow(&mut self, vault: &Arc<Vault>) {
        let is_same = self.shared.place().vault.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, vault));
        if !is_same {
            self.shared.set_vault(Some(Arc::clone(vault)));
        }
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            self.shared.place().stage = Stage::Beginning;
            self.thread = self.shared.spawn();
        }
    }
}

impl Shared {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        let shared = Arc::clone(self);
        let spawned = thread::Builder::new().name("folder".into()).spawn(move || shared.work());
        spawned.map_err(|error| self.place().stage = Stage::Trouble(Failure::io("cannot start to follow a folder", &error))).ok()
    }

    /// What follows the vault so far ends; the thread goes on with `vault`, if any.
    fn set_vault(&self, vault: Option<Arc<Vault>>) {
        let mut place = self.place();
        place.vault = vault;
        if let Stage::Open(folder) = &place.stage {
            folder.stop();
        }
        self.woken.notify_all();
    }

    /// The thread.
    fn work(&self) {
        let (mut pause, mut said) = (PAUSE_MIN, None);
        while let Some(vault) = self.vault() {
            let begun = clock::now();
            let Err(failure) = self.run(&vault) else { continue };
            if begun.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            if said.as_ref() != Some(&failure) {
                say(&self.plan, &failure);
                said = Some(failure.clone());
            }
            self.wait(&vault, failure, pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn vault(&self) -> Option<Arc<Vault>> {
        self.place().vault.clone()
    }

    /// Until it is stopped, or fails.
    fn run(&self, vault: &Arc<Vault>) -> Result<(), Failure> {
        if !self.plan.dir.exists() {
            let dir = self.plan.dir.display();
            return Err(Failure::usage(format!("there is no folder {dir}")).hint(format!("make it: mkdir -p {dir}")));
        }
        let folder = Arc::new(Folder::open(Arc::clone(vault), &self.plan.dir, self.plan.options.clone())?);
        if !self.begin(vault, &folder) {
            return Ok(());
        }
        let ended = folder.run(&Teller::default());
        self.place().stage = Stage::Beginning;
        Ok(ended?)
    }

    /// Whether it is this vault still that is to be followed.
    fn begin(&self, vault: &Arc<Vault>, folder: &Arc<Folder>) -> bool {
        let mut place = self.place();
        let is_meant = place.is_of(vault);
        if is_meant {
            place.stage = Stage::Open(Arc::clone(folder));
        }
        is_meant
    }

    /// For `pause`, or until something else is to be done.
    fn wait(&self, vault: &Arc<Vault>, failure: Failure, pause: Duration) {
        let mut place = self.place();
        place.stage = Stage::Trouble(failure);
        let waited = self.woken.wait_timeout_while(place, pause, |place| place.is_of(vault));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self) -> FollowedState {
        let known = match &self.place().stage {
            Stage::Beginning => FolderStatus::default(),
            Stage::Open(folder) => folder.status(),
            Stage::Trouble(failure) => FolderStatus { state: FolderState::Failing(why(failure)), ..FolderStatus::default() },
        };
        render::folder_state(&FolderStatus { dir: self.plan.dir.clone(), ..known }, &self.plan.options, &way_out(&self.plan.dir))
    }
}

impl Place {
    fn is_of(&self, vault: &Arc<Vault>) -> bool {
        self.vault.as_ref().is_some_and(|wanted| Arc::ptr_eq(wanted, vault))
    }
}

/// What ends a pause of the folder `dir`.
fn way_out(dir: &Path) -> String {
    let pid = process::id();
    if dir.is_dir() {
        return format!(
            "it goes on by itself once they are back; if they are meant to be gone, say max_delete = \"none\" below its [[vault]] in mirord.toml for now, then: kill -HUP {pid}"
        );
    }
    format!("it goes on by itself once {} is back; to follow it no more, take it out of mirord.toml, then: kill -HUP {pid}", dir.display())
}

/// In a line: what is wrong, why, and what helps.
fn why(failure: &Failure) -> String {
    let causes = failure.causes.iter().map(|cause| format!(": {cause}"));
    let hint = failure.hint.iter().map(|hint| format!("; {hint}"));
    std::iter::once(failure.message.clone()).chain(causes).chain(hint).collect()
}

fn say(plan: &FolderPlan, failure: &Failure) {
    tracing::warn!(folder = %plan.dir.display(), "not followed, tried again: {}", why(failure));
}

/// Says in the log what becomes of a folder.
#[derive(Default)]
struct Teller(Mutex<FolderStatus>);

impl FolderObserver for Teller {
    fn changed(&self, status: &FolderStatus) {
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (notes, warnings) = render::folder_text(&before, status);
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        notes.iter().for_each(|note| tracing::info!("{note}"));
        *before = status.clone();
    }
}
