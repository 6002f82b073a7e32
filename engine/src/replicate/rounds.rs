//! When the things are looked at that nobody tells: soon while something goes on, seldom in a session that is live and at rest.

use crate::{clock, session::phase::Phase};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often things are looked at that nobody tells, while something goes on: a user's wish to stop, bytes on lanes.
const LOOK: Duration = Duration::from_millis(50);
/// The same while nothing does, and the user's wish is told.
const LOOK_IDLE: Duration = Duration::from_secs(1);

/// The rounds of one session.
pub(super) struct Rounds {
    pub(super) due: Instant,
    stopping: Option<watch::Receiver<bool>>,
    bytes: u64,
}

impl Rounds {
    pub(super) fn new(stopping: Option<watch::Receiver<bool>>) -> Self {
        Self { due: clock::now(), stopping, bytes: 0 }
    }

    /// Lanes have carried `bytes` so far.
    pub(super) fn done(&mut self, phase: Phase, bytes: u64) {
        let at_rest = phase == Phase::Live && bytes == self.bytes && self.stopping.is_some();
        self.bytes = bytes;
        self.due = clock::now() + if at_rest { LOOK_IDLE } else { LOOK };
    }

    /// Something has gone on since the round that was due at `due`, unless it was that round.
    pub(super) fn stir(&mut self, due: Instant) {
        if self.due == due {
            self.due = self.due.min(clock::now() + LOOK);
        }
    }

    /// Waits until the observer wants the session to stop, if it tells.
    pub(super) async fn asked_to_stop(&mut self) {
        let told = match &mut self.stopping {
            Some(stopping) => stopping.changed().await.is_ok(),
            None => false,
        };
        if !told {
            std::future::pending::<()>().await;
        }
    }
}
