//! A session that stays and hears nothing: dialled anew beside the silent connection, again and again, until one of the two answers.
//!
//! What QUIC and TCP lost in a silence they repeat after pauses that double, so a link that is back after ten seconds may wait ten more. A
//! new dial goes out at once:
//! ```text
//! last heard ── 1.5 s (TCP 4 s) ── dial ─ 0.25 s ─ dial ─ 0.25 s ─ ... the first to connect takes over, and the silent one is given up
//! ```
//! Only who dialled does so. Of a peer that is merely frozen nothing comes of it, and the connection's own time limit ends the session.

use super::{Target, failover::Spare};
use crate::{
    clock,
    transport::{Choice, CloseReason, Connection, Dialer, Protocol, TransportError, TransportKind},
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

/// Puts a connection into `spare`, and gives `connection` up, when that has gone silent and the peer can be reached.
pub(super) async fn dial_beside(connection: Connection, dialer: Dialer, target: Target, choice: Choice, spare: Spare) {
    let patience = if connection.kind() == TransportKind::Tcp { TCP_SILENCE } else { QUIC_SILENCE };
    let mut heard = Heard { bytes: 0, at: clock::now() };
    let mut dials = JoinSet::new();
    let mut pause = patience;
    loop {
        select! {
            Some(Ok(Some(other))) = dials.join_next() => {
                *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
                return connection.close(CloseReason::Broken);
            }
            () = sleep(pause) => {}
        }
        let silent = heard.look(&connection);
        pause = patience.saturating_sub(silent).max(LISTEN);
        if silent < patience {
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
