//! A session that stays and hears nothing: dialled anew beside the silent connection, again and again, until one of the two answers.
//!
//! What QUIC and TCP lost in a silence they repeat after pauses that double, so a link that is back after ten seconds may wait ten more. A
//! new dial goes out at once:
//! ```text
//! last heard ── 1.5 s (TCP 4 s) ── dial ─ 0.25 s ─ dial ─ 0.25 s ─ ... the first to connect takes over, and the silent one is given up
//! ```
//! When this machine's network has changed, the peer is nudged and has to answer within 0.3 s over QUIC, and TCP's silence counts after a
//! second already: its address may be another one, and what was sent from the old one is answered by nobody.
//!
//! One in four of these dials gets all its time and all its ways; the others are given up before TCP would join in, so that no more than
//! [`DIALS_MAX`] are under way and few of them have a socket of their own.
//!
//! Who was dialled tells that it hears nothing, to whoever may dial the peer in turn: of a listener that is elsewhere by now the dialer knows
//! nothing. Of a peer that is merely frozen nothing comes of it all, and the connection's own time limit ends the session.

use super::{Haste, Observer, Options, Progress, Target, failover::Spare, outgoing::next_change};
use crate::{
    clock,
    limits::{CONNECT_MS, TCP_AFTER_MS},
    transport::{Changes, Choice, CloseReason, Connection, Dialer, Protocol, TransportError, TransportKind},
};
use std::{
    sync::{Arc, PoisonError},
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
/// What is borne of QUIC when the network has just changed: a round trip and what may delay it, for the nudge that goes out then,
const QUIC_CHANGED_SILENCE: Duration = Duration::from_millis(300);
/// and of TCP, which acknowledges unseen,
const TCP_CHANGED_SILENCE: Duration = Duration::from_secs(1);
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
    after_change: Duration,
    changed: Option<Instant>,
}

impl Patience {
    fn with(connection: &Connection) -> Self {
        let (usual, after_change) = match connection.kind() {
            TransportKind::Tcp => (TCP_SILENCE, TCP_CHANGED_SILENCE),
            TransportKind::Quic | TransportKind::Memory => (QUIC_SILENCE, QUIC_CHANGED_SILENCE),
        };
        Self { usual, after_change, changed: None }
    }

    fn now(&self) -> Duration {
        match self.changed {
            Some(at) if clock::now().duration_since(at) < CHANGED => self.after_change,
            _ => self.usual,
        }
    }
}

/// Whether anything is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    Heard,
    Silent,
}

/// Listens to a connection, and tells when it falls silent and when it is heard again.
struct Listening {
    connection: Connection,
    observer: Arc<dyn Observer>,
    changes: Option<Changes>,
    patience: Patience,
    heard: Heard,
    hearing: Hearing,
    pause: Duration,
}

impl Listening {
    fn to(connection: &Connection, options: &Options, observer: Arc<dyn Observer>) -> Self {
        let patience = Patience::with(connection);
        Self {
            connection: connection.clone(),
            observer,
            changes: options.network.changes().ok(),
            pause: patience.now(),
            patience,
            heard: Heard { bytes: 0, at: clock::now() },
            hearing: Hearing::Heard,
        }
    }

    /// Waits until there is reason to look, and looks. Cancel-safe.
    async fn look(&mut self) -> Hearing {
        select! {
            () = next_change(&mut self.changes) => {
                // What was heard before says nothing about the network that is there now.
                self.heard.look(&self.connection);
                (self.heard.at, self.patience.changed) = (clock::now(), Some(clock::now()));
            }
            () = sleep(self.pause) => {}
        }
        let (silent, patience) = (self.heard.look(&self.connection), self.patience.now());
        self.pause = patience.saturating_sub(silent).max(LISTEN);
        let hearing = if silent < patience { Hearing::Heard } else { Hearing::Silent };
        if std::mem::replace(&mut self.hearing, hearing) != hearing {
            self.observer.progress(match hearing {
                Hearing::Heard => Progress::Heard,
                Hearing::Silent => Progress::Silent,
            });
        }
        hearing
    }
}

/// Tells when a connection that the peer has dialled falls silent: then the peer may not know where we are, and has to be dialled.
pub(super) async fn listen(connection: Connection, options: Options, observer: Arc<dyn Observer>) {
    let mut listening = Listening::to(&connection, &options, observer);
    loop {
        listening.look().await;
    }
}

/// Puts a connection into `spare`, and gives `connection` up, when that has gone silent and the peer can be reached.
pub(super) async fn dial_beside(
    connection: Connection,
    (dialer, target): (Dialer, Target),
    options: Options,
    observer: Arc<dyn Observer>,
    spare: Spare,
) {
    let mut listening = Listening::to(&connection, &options, observer);
    let mut dials = Dials::new(dialer, target, options.choice);
    loop {
        let hearing = select! {
            Ok(other) = dials.ended() => {
                *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
                return connection.close(CloseReason::Broken);
            }
            hearing = listening.look() => hearing,
        };
        match hearing {
            Hearing::Heard => dials.running.abort_all(),
            Hearing::Silent => dials.begin_next(),
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
