//! What a node holds of a running session: hears what it tells, and can ask it to end.

use super::{Told, link::Link, shared::Shared};
use crate::{
    replicate::{Observer, Progress},
    vault::Vault,
};
use std::sync::Arc;
use tokio::sync::watch;

/// The observer of one session.
pub(super) struct Leash {
    shared: Arc<Shared>,
    vault: Arc<Vault>,
    link: Arc<Link>,
    number: u64,
    stop: watch::Receiver<bool>,
}

impl Leash {
    pub(super) fn new(shared: &Arc<Shared>, vault: &Arc<Vault>, link: &Arc<Link>, number: u64, stop: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { shared: shared.clone(), vault: vault.clone(), link: link.clone(), number, stop })
    }
}

impl Observer for Leash {
    fn progress(&self, progress: Progress) {
        self.link.note(self.number, &progress, self.vault.store());
        if matches!(progress, Progress::Identical { .. }) {
            self.shared.is_well();
        }
        if matches!(progress, Progress::Connected { .. } | Progress::Live) {
            self.shared.tell_news(&self.link);
        }
    }

    fn cancelled(&self) -> bool {
        *self.stop.borrow()
    }

    fn stopping(&self) -> Option<watch::Receiver<bool>> {
        Some(self.stop.clone())
    }
}

impl Shared {
    /// Says so if `link` is in another state than was last said.
    pub(super) fn tell_news(&self, link: &Link) {
        if let Some(state) = link.news() {
            (self.report)(Told::Changed { peer: link.device, state });
        }
    }
}
