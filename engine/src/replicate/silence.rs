//! A session that stays and hears nothing: dialled anew beside the silent connection, again and again, until one of the two answers.
//!
//! What QUIC and TCP lost in a silence they repeat after pauses that double, so a link that is back after ten seconds may wait ten more. A
//! new dial goes out at once:
//! ```text
//! last heard ── 1.5 s (TCP 4 s) ── dial ─ 0.25 s ─ dial ─ 0.25 s ─ ... the first to connect takes over, and the silent one is given up
//! ```
//! When this machine's network has changed, TCP's silence counts after a second already: its address may be another one, and what was sent
//! from the old one is answered by nobody.
//!
//! Only who dialled does so. Of a peer that is merely frozen nothing comes of it, and the connection's own time limit ends the session.

use super::{Target, failover::Spare, worker};
use crate::{
    clock,
    transport::{Choice, CloseReason, Connection, Dialer, NetworkChanges, Protocol, TransportError, TransportKind},
};
use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// Between two dials; between two looks at least.
const LISTEN: Duration = Duration::from_millis(250);
/// QUIC's keep-alives come every second.
const QUIC_SILENCE: Duration = Duration::from_millis(1_500);
/// TCP's leave every 2.5 s.
const TCP_SILENCE: Duration = Duration::from_secs(4);
/// What is borne of either when the network has just changed,
const CHANGED_SILENCE: Duration = Duration::from_secs(1);
/// and for how long.
const CHANGED: Duration = Duration::from_secs(3);
/// Dials under way at once: each ends by itself.
const DIALS_MAX: usize = 20;

/// Between two dials while nothing is up: longer than a handshake over a long path takes.
const AGAIN: Duration = Duration::from_secs(1);

/// When something was last heard.
struct Heard {
    bytes: u64,
    at: Instant,
}

impl Heard {
    fn look(&mut self, connection: &Connection) -> Duration {
        let (bytes, now) = (connection.stats_over(connection.kind()).bytes_received, clock::now());
        if bytes != self.bytes {
            *self = Self { bytes, at: now };
        }
        now.duration_since(self.at)
    }
}

/// How much silence is borne.
struct Patience {
    usual: Duration,
    changed: Option<Instant>,
}

impl Patience {
    fn with(connection: &Connection) -> Self {
        Self { usual: if connection.kind() == TransportKind::Tcp { TCP_SILENCE } else { QUIC_SILENCE }, changed: None }
    }

    fn now(&self) -> Duration {
        match self.changed {
            Some(at) if at.elapsed() < CHANGED => CHANGED_SILENCE.min(self.usual),
            _ => self.usual,
        }
    }
}

/// Waits until the network is another one; for ever where nothing tells.
async fn changed(changes: &mut Option<NetworkChanges>) {
    if let Some(listening) = changes
        && listening.next().await.is_ok()
    {
        return;
    }
    *changes = None;
    std::future::pending().await
}

/// Puts a connection into `spare`, and gives `connection` up, when that has gone silent and the peer can be reached.
pub(super) async fn dial_beside(connection: Connection, dialer: Dialer, target: Target, choice: Choice, spare: Spare) {
    let mut patience = Patience::with(&connection);
    let mut changes = if worker::is_alone() { None } else { NetworkChanges::listen().ok() };
    let mut heard = Heard { bytes: 0, at: clock::now() };
    let mut dials = JoinSet::new();
    let mut pause = patience.now();
    loop {
        select! {
            Some(Ok(Some(other))) = dials.join_next() => {
                *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
                return connection.close(CloseReason::Broken);
            }
            () = changed(&mut changes) => patience.changed = Some(clock::now()),
            () = sleep(pause) => {}
        }
        let silent = heard.look(&connection);
        pause = patience.now().saturating_sub(silent).max(LISTEN);
        if silent < patience.now() {
            dials.abort_all();
        } else if dials.len() < DIALS_MAX {
            let (dialer, target) = (dialer.clone(), target.clone());
            dials.spawn(async move { dialer.dial_auto(&target.addresses, target.device, Protocol::Session, choice).await.ok() });
        }
    }
}

/// Connects to `target` as [`Dialer::dial_auto`] does, beginning again every second without giving up what is under way: a handshake's
/// first packet that was lost is repeated after pauses that double, too.
///
/// # Errors
/// Those of the first dial that comes to an end by failing.
pub(super) async fn dial_repeatedly(dialer: &Dialer, target: &Target, choice: Choice) -> Result<Connection, TransportError> {
    let mut dials = JoinSet::new();
    loop {
        let (dialer, target) = (dialer.clone(), target.clone());
        dials.spawn(async move { dialer.dial_auto(&target.addresses, target.device, Protocol::Session, choice).await });
        if let Ok(Some(Ok(dialled))) = timeout(AGAIN, dials.join_next()).await {
            return dialled;
        }
    }
}
