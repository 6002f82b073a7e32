//! What all tasks of a node share, and what outlives a vault that is opened anew.

use super::{NodeOptions, Pause, PauseReason, Report, Told, link::Link};
use crate::{
    clock,
    id::DeviceId,
    replicate::{Absence, Limits},
    vault::Vault,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// A try ends the sessions that are up, so there is some time between two.
const TRY_AFTER: Duration = Duration::from_secs(1);

/// Shared by the tasks of one node.
pub(super) struct Shared {
    pub(super) options: NodeOptions,
    pub(super) report: Report,
    pub(super) limits: Arc<Limits>,
    pub(super) since_ms: u64,
    vault: Mutex<Arc<Vault>>,
    links: Mutex<BTreeMap<DeviceId, Arc<Link>>>,
    numbers: AtomicU64,
    /// What stands still, and until when.
    pub(super) standing: watch::Sender<Option<Standing>>,
    absence: Mutex<Absence>,
    /// Ports that are open: QUIC's, TCP's.
    pub(super) ports: Mutex<(Vec<SocketAddr>, Vec<SocketAddr>)>,
    /// The node is to end.
    pub(super) stop: watch::Sender<bool>,
    /// Something was found, or the list of peers may have changed.
    pub(super) look: Notify,
}

/// Why the vault stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) reason: PauseReason,
    pub(super) text: String,
    pub(super) since_ms: u64,
    pub(super) until: Option<Instant>,
}

impl Standing {
    /// As others see it.
    pub(super) fn shown(&self) -> Pause {
        let next_in = self.until.map(|until| until.saturating_duration_since(clock::now()));
        Pause { reason: self.reason, text: self.text.clone(), since_ms: self.since_ms, next_in }
    }
}

impl Shared {
    pub(super) fn new(vault: Arc<Vault>, options: NodeOptions, report: Report) -> Self {
        Self {
            limits: options.sync.limits.clone(),
            options,
            report,
            since_ms: clock::wall_ms(),
            vault: Mutex::new(vault),
            links: Mutex::default(),
            numbers: AtomicU64::default(),
            standing: watch::Sender::new(None),
            absence: Mutex::default(),
            ports: Mutex::default(),
            stop: watch::Sender::new(false),
            look: Notify::new(),
        }
    }

    pub(super) fn vault(&self) -> Arc<Vault> {
        locked(&self.vault).clone()
    }

    pub(super) fn replace_vault(&self, vault: Arc<Vault>) {
        *locked(&self.vault) = vault;
    }

    /// A number for a session, which no other has.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed)
    }

    /// What is known of `device`, from now on if nothing was.
    pub(super) fn link(&self, device: DeviceId) -> Arc<Link> {
        locked(&self.links).entry(device).or_insert_with(|| Arc::new(Link::new(device, clock::now()))).clone()
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        locked(&self.links).values().cloned().collect()
    }

    /// Forgets devices of which nothing is left to say.
    pub(super) fn forget(&self, keep: impl Fn(&Link) -> bool) {
        locked(&self.links).retain(|_, link| keep(link));
    }

    /// Everybody dials now.
    pub(super) fn wake(&self) {
        self.links().iter().for_each(|link| link.wake.notify_one());
    }

    /// The vault stands still, until the next try.
    pub(super) fn stand_still(&self, reason: PauseReason, text: String) {
        let until = match reason {
            PauseReason::User => None,
            _ => Some(clock::now() + locked(&self.absence).pause().max(TRY_AFTER)),
        };
        let before = self.standing.borrow().clone();
        let since_ms = before.filter(|before| before.reason == reason).map_or_else(clock::wall_ms, |before| before.since_ms);
        let standing = Standing { reason, text, since_ms, until };
        let shown = standing.shown();
        self.standing.send_replace(Some(standing));
        (self.report)(Told::Paused(Some(shown)));
    }

    /// It does no more, or finds that it still cannot: sessions that only send make room for such that do both, and everybody dials now.
    pub(super) fn try_again(&self) {
        if self.standing.send_replace(None).is_some() {
            (self.report)(Told::Paused(None));
            self.links().iter().for_each(|link| link.stop(|_| true));
        }
        self.wake();
    }

    /// A session has brought both to the same: unless the vault stands still, what made it do so is over.
    pub(super) fn is_well(&self) {
        if self.standing.borrow().is_none() {
            locked(&self.absence).over();
        }
    }
}

/// What a thread that panicked left is whole: nothing is ever half changed under these locks.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
