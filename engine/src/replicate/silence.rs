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
//! One in four of these dials gets all its time and all its ways; the others are given up before TCP would join in, so that no more than
//! [`DIALS_MAX`] are under way and few of them have a socket of their own.
//!
//! Only who dialled does so. Of a peer that is merely frozen nothing comes of it, and the connection's own time limit ends the session.

use super::{Haste, Target, failover::Spare, worker};
use crate::{
    clock,
    limits::{CONNECT_MS, TCP_AFTER_MS},
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
/// The same where nobody has answered for long: longer than a handshake over a long path takes.
const LISTEN_SELDOM: Duration = Duration::from_secs(1);
/// Every so many dials one gets [`CONNECT_MS`], the others [`SHORT`].
const LONG_EVERY: u64 = 4;
const SHORT: Duration = Duration::from_millis(TCP_AFTER_MS - 50);
/// QUIC's keep-alives come every second.
const QUIC_SILENCE: Duration = Duration::from_millis(1_500);
/// TCP's leave every 2.5 s.
const TCP_SILENCE: Duration = Duration::from_secs(4);
/// What is borne of either when the network has just changed,
const CHANGED_SILENCE: Duration = Duration::from_secs(1);
/// and for how long.
const CHANGED: Duration = Duration::from_secs(3);
/// Dials under way at once: a long one begins each second, and up to four short ones are beside them.
const DIALS_MAX: usize = CONNECT_MS as usize / 1_000 + LONG_EVERY as usize;

/// Dials to one target that are under way beside each other.
struct Dials {
    dialer: Dialer,
    target: Target,
    choice: Choice,
    begun: u64,
    running: JoinSet<Option<Result<Connection, TransportError>>>,
}

impl Dials {
    fn new(dialer: Dialer, target: Target, choice: Choice) -> Self {
        Self { dialer, target, choice, begun: 0, running: JoinSet::new() }
    }

    /// One more, unless there are too many; with all its time if none is given.
    fn begin(&mut self, time: Option<Duration>) {
        if self.running.len() >= DIALS_MAX {
            return;
        }
        let (dialer, target, choice) = (self.dialer.clone(), self.target.clone(), self.choice);
        self.running.spawn(async move {
            let dialled = dialer.dial_auto(&target.addresses, target.device, Protocol::Session, choice);
            match time {
                Some(time) => timeout(time, dialled).await.ok(),
                None => Some(dialled.await),
            }
        });
    }

    /// The next of a row that is begun every [`LISTEN`].
    fn begin_next(&mut self) {
        let time = (!self.begun.is_multiple_of(LONG_EVERY)).then_some(SHORT);
        self.begun += 1;
        self.begin(time);
    }

    /// How the first of them ends that comes to an end by itself; waits for ever when there is none.
    async fn ended(&mut self) -> Result<Connection, TransportError> {
        loop {
            match self.running.join_next().await {
                Some(Ok(Some(ended))) => return ended,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

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
            Some(at) if clock::since(at) < CHANGED => CHANGED_SILENCE.min(self.usual),
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
    let mut dials = Dials::new(dialer, target, choice);
    let mut pause = patience.now();
    loop {
        select! {
            Ok(other) = dials.ended() => {
                *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
                return connection.close(CloseReason::Broken);
            }
            () = changed(&mut changes) => patience.changed = Some(clock::now()),
            () = sleep(pause) => {}
        }
        let silent = heard.look(&connection);
        pause = patience.now().saturating_sub(silent).max(LISTEN);
        if silent < patience.now() {
            dials.running.abort_all();
        } else {
            dials.begin_next();
        }
    }
}

/// Connects to `target` as [`Dialer::dial_auto`] does, beginning again and again without giving up what is under way: a handshake's first
/// packet that was lost is repeated after pauses that double, too.
///
/// # Errors
/// Those of the first dial that comes to an end by failing.
pub(super) async fn dial_repeatedly(dialer: &Dialer, target: &Target, choice: Choice, haste: Haste) -> Result<Connection, TransportError> {
    let mut dials = Dials::new(dialer.clone(), target.clone(), choice);
    loop {
        let pause = match haste {
            Haste::Often => {
                dials.begin_next();
                LISTEN
            }
            Haste::Seldom => {
                dials.begin(None);
                LISTEN_SELDOM
            }
        };
        if let Ok(dialled) = timeout(pause, dials.ended()).await {
            return dialled;
        }
    }
}
