//! A session that stays and hears nothing: dialled anew beside the silent connection, again and again, until one of the two answers.
//!
//! What QUIC and TCP lost in a silence they repeat after pauses that double, so a link that is back after ten seconds may wait ten more. A
//! new dial goes out at once:
//! ```text
//! last heard ── 1.5 s (TCP 4 s) ── dial ─ 0.25 s ─ dial ─ 0.25 s ─ ... the first to connect takes over, and the silent one is given up
//! ```
//! When this machine's network has changed, its address may be another one, and what was sent from the old one is answered by nobody. QUIC is
//! asked for a sign of life at once and dialled anew if none comes; TCP, which cannot be asked, if it is silent for a second.
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
/// What is borne of TCP when the network has just changed,
const TCP_CHANGED: Duration = Duration::from_secs(1);
/// and of QUIC, beyond the two round trips that an answer to a probe may take,
const QUIC_CHANGED: Duration = Duration::from_millis(250);
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

/// When something was last heard, and how much silence is borne.
struct Silence {
    kind: TransportKind,
    bytes: u64,
    at: Instant,
    /// The network is another one since then.
    changed: Option<Instant>,
}

impl Silence {
    fn over(kind: TransportKind) -> Self {
        Self { kind, bytes: 0, at: clock::now(), changed: None }
    }

    /// The network is another one, and QUIC's connections have just been asked for a sign of life.
    fn change(&mut self, now: Instant) {
        self.changed = Some(now);
        if self.kind != TransportKind::Tcp {
            self.at = now;
        }
    }

    /// So much was received by `now`. Returns how long nothing has come.
    fn look(&mut self, received: u64, now: Instant) -> Duration {
        if received != self.bytes {
            (self.bytes, self.at) = (received, now);
            // QUIC's probe is answered; TCP was asked nothing.
            self.changed = self.changed.filter(|_| self.kind == TransportKind::Tcp);
        }
        now.duration_since(self.at)
    }

    fn borne(&self, round_trip: Option<Duration>, now: Instant) -> Duration {
        match (self.kind, self.changed) {
            (TransportKind::Tcp, Some(at)) if now.duration_since(at) < CHANGED => TCP_CHANGED,
            (TransportKind::Tcp, _) => TCP_SILENCE,
            (_, Some(_)) => QUIC_SILENCE.min(QUIC_CHANGED + 2 * round_trip.unwrap_or_default()),
            (_, None) => QUIC_SILENCE,
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
    let mut silence = Silence::over(connection.kind());
    let mut changes = if worker::is_alone() { None } else { NetworkChanges::listen().ok() };
    let mut dials = Dials::new(dialer, target, choice);
    let mut pause = silence.borne(None, clock::now());
    loop {
        select! {
            Ok(other) = dials.ended() => {
                *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
                return connection.close(CloseReason::Broken);
            }
            () = changed(&mut changes) => {
                dials.dialer.probe();
                silence.change(clock::now());
            }
            () = sleep(pause) => {}
        }
        let (stats, now) = (connection.stats_over(connection.kind()), clock::now());
        let silent = silence.look(stats.bytes_received, now);
        let borne = silence.borne(stats.rtt, now);
        pause = borne.saturating_sub(silent).max(LISTEN);
        if silent < borne {
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

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Option<Duration> = Some(Duration::from_millis(20));

    #[test]
    fn when_the_network_has_changed_quic_is_asked_and_dialled_anew_if_it_does_not_answer() {
        let began = clock::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut silence = Silence::over(TransportKind::Quic);
        assert_eq!(silence.look(1, at(0)), Duration::ZERO);
        assert_eq!(silence.borne(RTT, at(900)), QUIC_SILENCE);
        silence.change(at(900));
        assert_eq!(silence.look(1, at(900)), Duration::ZERO, "the probe has just left");
        assert_eq!(silence.borne(RTT, at(900)), QUIC_CHANGED + Duration::from_millis(40));
        assert!(silence.look(1, at(1_200)) > silence.borne(RTT, at(1_200)), "time to dial");
        assert_eq!(silence.look(2, at(1_210)), Duration::ZERO);
        assert_eq!(silence.borne(RTT, at(1_210)), QUIC_SILENCE, "the answer has come: keep-alives are waited for as ever");
        silence.change(at(2_000));
        assert_eq!(silence.borne(Some(Duration::from_secs(2)), at(2_000)), QUIC_SILENCE, "however long the path is");
    }

    #[test]
    fn tcp_cannot_be_asked_and_is_silent_sooner_for_some_time() {
        let began = clock::now();
        let mut silence = Silence::over(TransportKind::Tcp);
        silence.look(1, began);
        silence.change(began);
        let borne = |after| silence.borne(RTT, began + after);
        assert_eq!([borne(Duration::ZERO), borne(CHANGED)], [TCP_CHANGED, TCP_SILENCE]);
    }
}
