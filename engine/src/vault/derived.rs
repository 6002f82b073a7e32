//! What an open vault derives from its log: the view, followed as the log grows, and begun again when it cannot be true.
//!
//! The view is a cache in a file of its own, so it can be wrong in two ways that a user must never meet: the file is damaged, or
//! the log was put back to an older state behind its back (a backup, another copy of the directory). Either way it is thrown away
//! and the log applied from its start, once; what is wrong after that is reported.
//!
//! An event whose body makes no sense is one without operations here. A replica that holds no key can sign such an event, and it
//! must not keep those that do from reading everything else.

use super::{
    Sealing, Vault, VaultError,
    view::{Outcome, Position, Resealed, View, ViewError},
};
use crate::{
    event::{Dot, Event, Operation},
    id::{ReplicaId, VaultId},
    limits::EVENT_BODY_BYTES_MAX,
    merge::OpenedEvent,
    store::{LogPosition, StoreError},
};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The view of one open vault.
#[derive(Debug)]
pub(super) struct Derived {
    /// None for a view in memory.
    path: Option<PathBuf>,
    vault: VaultId,
    replica: ReplicaId,
    view: Mutex<View>,
    /// A second connection for look-ups of ingest, which must not wait for the writer's transactions. None for a view in memory.
    lookups: Option<Mutex<View>>,
    /// Whether the view has been held against the log since the vault was opened.
    compared: AtomicBool,
}

impl Derived {
    /// Opens the view at `path`, or one in memory.
    pub(super) fn open(path: Option<PathBuf>, vault: &VaultId, replica: &ReplicaId) -> Result<Self, ViewError> {
        let view = Mutex::new(View::open(path.as_deref(), vault, replica)?);
        let lookups = path.as_deref().map(|path| View::open(Some(path), vault, replica)).transpose()?.map(Mutex::new);
        Ok(Self { path, vault: *vault, replica: *replica, view, lookups, compared: AtomicBool::new(false) })
    }

    /// The view.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view, through the connection that waits for no writer.
    pub(super) fn lookups(&self) -> MutexGuard<'_, View> {
        self.lookups.as_ref().unwrap_or(&self.view).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of cached pages of all connections.
    pub(super) fn give_back(&self) -> Result<(), ViewError> {
        self.view().give_back()?;
        self.lookups().give_back()
    }

    /// Throws the view away; it stands before the whole log then.
    fn begin_again(&self) -> Result<(), ViewError> {
        let mut view = self.view();
        if let Some(path) = &self.path {
            View::discard(path)?;
        }
        *view = View::open(self.path.as_deref(), &self.vault, &self.replica)?;
        if let Some(lookups) = &self.lookups {
            *lookups.lock().unwrap_or_else(PoisonError::into_inner) = View::open(self.path.as_deref(), &self.vault, &self.replica)?;
        }
        Ok(())
    }
}

/// Why the view could not follow the log.
enum Stray {
    /// It says what the log does not say: begin again.
    Untrue(String),
    Failed(VaultError),
}

impl From<ViewError> for Stray {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Damaged(_) | ViewError::OutOfOrder { .. } => Self::Untrue(error.to_string()),
            other => Self::Failed(other.into()),
        }
    }
}

impl From<VaultError> for Stray {
    fn from(error: VaultError) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Stray {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Stray> for VaultError {
    fn from(stray: Stray) -> Self {
        match stray {
            Stray::Untrue(reason) => Self::Damaged(reason),
            Stray::Failed(error) => error,
        }
    }
}

impl Vault {
    fn derived(&self) -> Result<&Derived, VaultError> {
        self.sealing().map(|Sealing { derived, .. }| derived)
    }

    /// Brings the view up to the end of the log.
    pub(super) fn catch_up(&self) -> Result<(), VaultError> {
        self.store().refresh()?;
        match self.follow() {
            Err(Stray::Untrue(reason)) => self.rebuild(&reason),
            followed => Ok(followed?),
        }
    }

    /// Asks the view. Should it prove damaged, it is rebuilt and asked again.
    pub(super) fn ask<T>(&self, question: impl Fn(&mut View) -> Result<T, ViewError>) -> Result<T, VaultError> {
        self.ask_through(Derived::view, question)
    }

    /// Asks the view without waiting for who writes to it.
    pub(super) fn look_up<T>(&self, question: impl Fn(&mut View) -> Result<T, ViewError>) -> Result<T, VaultError> {
        self.ask_through(Derived::lookups, question)
    }

    fn ask_through<T>(
        &self,
        connection: for<'d> fn(&'d Derived) -> MutexGuard<'d, View>,
        question: impl Fn(&mut View) -> Result<T, ViewError>,
    ) -> Result<T, VaultError> {
        let derived = self.derived()?;
        // Let go of before rebuilding takes it.
        let answer = question(&mut connection(derived));
        match answer.map_err(Stray::from) {
            Err(Stray::Untrue(reason)) => {
                self.rebuild(&reason)?;
                Ok(question(&mut connection(derived))?)
            }
            answer => Ok(answer?),
        }
    }

    fn rebuild(&self, reason: &str) -> Result<(), VaultError> {
        tracing::warn!("the view of the vault is rebuilt from the log: {reason}");
        self.derived()?.begin_again()?;
        Ok(self.follow()?)
    }

    fn follow(&self) -> Result<(), Stray> {
        let derived = self.derived()?;
        let mut view = derived.view();
        self.compare(&view, derived)?;
        self.heed_removals(&mut view)?;
        loop {
            self.heed_keys(&mut view)?;
            let start = view.position()?;
            let events = self.store().events_from(log_position(start), EVENT_BODY_BYTES_MAX)?;
            let Some((next, _)) = events.last() else { return Ok(()) };
            let next = *next;
            let opened: Vec<OpenedEvent> = events.iter().map(|(_, event)| self.opened(event)).collect::<Result<_, _>>()?;
            let resealed: Vec<Resealed> =
                events.iter().filter_map(|(_, event)| self.resealed_by(event).transpose()).collect::<Result<_, _>>()?;
            match view.apply(&opened, &resealed, start..(next.segment, next.offset))? {
                // Another process was faster: ask again where the view stands.
                Outcome::Applied | Outcome::Overtaken => {}
            }
        }
    }

    /// Holds the view against the log: everything that it has seen must be there, and nothing else before its position. Costs a
    /// look-up an author, so it is done once, and again when the log ends before the view.
    fn compare(&self, view: &View, derived: &Derived) -> Result<(), Stray> {
        let position = log_position(view.position()?);
        let beyond_end = position > self.store().log_end();
        if derived.compared.swap(true, Ordering::Relaxed) && !beyond_end {
            return Ok(());
        }
        let seen = view.frontier()?;
        let begins = self.store().first_beyond(&seen)?;
        if beyond_end || !self.store().frontier().covers(&seen) || begins.is_some_and(|begins| begins < position) {
            return Err(Stray::Untrue("the log is not the one that it was made from".to_owned()));
        }
        Ok(())
    }

    /// What a removal takes must not be shown any more: begin again, if the view has seen any of it, or if a removal that it heeded
    /// counts no more.
    fn heed_removals(&self, view: &mut View) -> Result<(), Stray> {
        let (known, roster) = (view.removals()?, self.store().roster());
        let mut now = roster.as_ref().map_or_else(BTreeSet::new, |roster| roster.membership().removal_places());
        now.extend(self.heed_left(view, &known)?);
        if known == now {
            return Ok(());
        }
        let takes = roster.map_or(Ok(false), |roster| self.takes_from(&view.frontier()?, roster.membership()).map_err(Stray::from))?;
        if takes || known.iter().any(|place| !now.contains(place)) {
            return Err(Stray::Untrue("a device was removed, and events of it have no effect now".to_owned()));
        }
        Ok(view.heed_removals(&now)?)
    }

    /// A branch of a forked log that was left must not be shown any more either. Noted beside the removals, by the complement of its
    /// number, which no event has.
    fn heed_left(&self, view: &View, known: &BTreeSet<Dot>) -> Result<Vec<Dot>, Stray> {
        let seen = view.frontier()?;
        let mut noted = Vec::new();
        for place in self.store().left_places() {
            let note = Dot { sequence: !place.sequence, ..place };
            if !known.contains(&note) && seen.contains(&place) {
                return Err(Stray::Untrue("a branch of a forked log was left".to_owned()));
            }
            noted.push(note);
        }
        Ok(noted)
    }

    /// What was passed over for want of a key is read once the key has come: begin again then.
    fn heed_keys(&self, view: &mut View) -> Result<(), Stray> {
        let (unread, missing) = (view.unread()?, self.epochs_without_key().into_iter().map(|(_, epoch)| epoch).collect::<BTreeSet<_>>());
        if !unread.is_subset(&missing) {
            return Err(Stray::Untrue("the key of an epoch has come".to_owned()));
        }
        if unread != missing {
            view.leave_unread(&missing)?;
        }
        Ok(())
    }

    fn opened(&self, event: &Event) -> Result<OpenedEvent, VaultError> {
        let opened = OpenedEvent::new(event, self.readable_operations_of(event)?);
        Ok(OpenedEvent { deps: self.certain(opened.deps), ..opened })
    }

    /// The operations of an event; none if its body makes no sense.
    pub(super) fn readable_operations_of(&self, event: &Event) -> Result<Vec<Operation>, VaultError> {
        match self.operations_of(event) {
            Err(VaultError::Damaged(reason)) => {
                tracing::warn!("passed over: {reason}");
                Ok(Vec::new())
            }
            operations => operations,
        }
    }
}

fn log_position((segment, offset): Position) -> LogPosition {
    LogPosition { segment, offset }
}
