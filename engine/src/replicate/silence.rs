//! A session that stays and hears nothing: dialled anew beside the silent connection, again and again, until one of the two answers.
//!
//! What QUIC and TCP lost in a silence they repeat after pauses that double, so a link that is back after ten seconds may wait ten more. A
//! new dial goes out at once:
//! ```text
//! last heard ── 1.5 s (TCP 4 s) ── dial ─ 0.25 s ─ dial ─ 0.25 s ─ ... the first to connect takes over, and the silent one is given up
//! ```
//! Where every third packet is lost, such a silence comes and goes by itself, and a new connection has to begin again with a chunk that was half
//! there. So over such a path QUIC's silence is borne for longer, and every session asks soon for what it has sent: the library asks after pauses
//! that double.
//!
//! When this machine's network has changed, the peer is nudged and has to answer within a round trip and 0.25 s over QUIC, and TCP's silence
//! counts after a second already: its address may be another one, and what was sent from the old one is answered by nobody.
//!
//! A session over TCP, which may be because UDP was blocked, looks for QUIC now and then, and goes over to it while nothing is carried.
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
    transport::{Changes, Choice, CloseReason, Connection, Dialer, Protocol, Stats, TransportError, TransportKind},
};
use std::{
    future::pending,
    ops::ControlFlow,
    pin::pin,
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
/// The same over a path that loses more than [`LOSSY`]: five keep-alives lost in a row, and what was between them.
const QUIC_LOSSY_SILENCE: Duration = Duration::from_secs(6);
const LOSSY: f32 = 0.25;
/// Round trips of silence after which the peer of such a path is asked, and how long they are at least; at most [`LISTEN`].
const ASKED_AFTER: u32 = 4;
const ASKED_AFTER_MIN: Duration = Duration::from_millis(50);
/// So often it is looked whether a path has become one.
const ASKED_SELDOM: Duration = Duration::from_secs(1);
/// TCP's leave every 2.5 s.
const TCP_SILENCE: Duration = Duration::from_secs(4);
/// What is borne of QUIC when the network has just changed, beyond the round trip of the nudge that goes out then (the shortest one so far: what
/// a cut holds back makes others as long as the cut),
const QUIC_CHANGED_SILENCE: Duration = Duration::from_millis(250);
/// and of TCP, which acknowledges unseen,
const TCP_CHANGED_SILENCE: Duration = Duration::from_secs(1);
/// and for how long.
const CHANGED: Duration = Duration::from_secs(3);
/// Another try over QUIC, where TCP was the first to connect.
const QUIC_AGAIN: Duration = Duration::from_millis(250);
/// A session over TCP looks for QUIC after so long, then after pauses that double,
const QUIC_TRIED_AFTER: Duration = Duration::from_secs(10);
/// up to this.
const QUIC_TRIED_SELDOM: Duration = Duration::from_secs(600);
/// Who carries less while a dial is under way carries no chunk.
const QUIET_BYTES: u64 = 16 << 10;
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
            let dialled = dial(&dialer, &target, choice);
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
                None => pending().await,
            }
        }
    }
}

/// [`Dialer::dial_auto`], but where TCP connects first QUIC gets another moment: of a link that has just come back TCP may know first, because
/// QUIC's first packets were lost.
async fn dial(dialer: &Dialer, target: &Target, choice: Choice) -> Result<Connection, TransportError> {
    let connection = dialer.dial_auto(&target.addresses, target.device, Protocol::Session, choice).await?;
    if choice != Choice::Auto || connection.kind() != TransportKind::Tcp {
        return Ok(connection);
    }
    Ok(dial_quic(dialer, target, QUIC_AGAIN).await.unwrap_or(connection))
}

/// A connection over QUIC, with TCP lanes, if there is one within `time`, which is too little for TCP.
async fn dial_quic(dialer: &Dialer, target: &Target, time: Duration) -> Option<Connection> {
    let dialled = dialer.dial_auto(&target.addresses, target.device, Protocol::Session, Choice::First(TransportKind::Quic));
    timeout(time, dialled).await.ok()?.ok()
}

/// Waits until the peer of a session over TCP, which may be because UDP was blocked, can be reached over QUIC; while nothing is being carried.
async fn quic_instead(connection: &Connection, (dialer, target): (&Dialer, &Target), choice: Choice) -> Connection {
    let mut pause = QUIC_TRIED_AFTER;
    while choice == Choice::Auto && connection.kind() == TransportKind::Tcp {
        sleep(pause).await;
        pause = (2 * pause).min(QUIC_TRIED_SELDOM);
        let carried = || connection.stats().bytes_received + connection.stats().bytes_sent;
        let before = carried();
        if let Some(better) = dial_quic(dialer, target, SHORT).await
            && carried() - before < QUIET_BYTES
        {
            return better;
        }
    }
    pending().await
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

    /// The network is another one: what was heard before says nothing about it.
    fn change(&mut self, received: u64, now: Instant) {
        (self.bytes, self.at, self.changed) = (received, now, Some(now));
    }

    /// So much was received by `now`. Returns how long nothing has come.
    fn look(&mut self, received: u64, now: Instant) -> Duration {
        if received != self.bytes {
            (self.bytes, self.at) = (received, now);
            // QUIC answers what reaches it, so the path is there; of TCP something may have been under way.
            self.changed = self.changed.filter(|_| self.kind == TransportKind::Tcp);
        }
        now.duration_since(self.at)
    }

    fn borne(&self, stats: &Stats, now: Instant) -> Duration {
        match (self.kind, self.changed) {
            (TransportKind::Tcp, Some(at)) if now.duration_since(at) < CHANGED => TCP_CHANGED_SILENCE,
            (TransportKind::Tcp, _) => TCP_SILENCE,
            (_, Some(_)) => QUIC_SILENCE.min(QUIC_CHANGED_SILENCE + stats.rtt_min.unwrap_or_default()).max(usual_silence(stats)),
            (_, None) => QUIC_SILENCE.max(usual_silence(stats)),
        }
    }
}

/// A silence over QUIC that says nothing, as much as is lost on the path.
pub(super) fn usual_silence(stats: &Stats) -> Duration {
    if is_lossy(stats) { QUIC_LOSSY_SILENCE } else { Duration::ZERO }
}

fn is_lossy(stats: &Stats) -> bool {
    stats.loss.is_some_and(|loss| loss > LOSSY)
}

/// After which silence the peer is asked whether it has what was sent. None where the library does it soon enough.
fn asked_after(stats: &Stats) -> Option<Duration> {
    is_lossy(stats).then(|| (ASKED_AFTER * stats.rtt.unwrap_or_default()).clamp(ASKED_AFTER_MIN, LISTEN))
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
    silence: Silence,
    hearing: Hearing,
    pause: Duration,
}

impl Listening {
    fn to(connection: &Connection, options: &Options, observer: Arc<dyn Observer>) -> Self {
        let silence = Silence::over(connection.kind());
        Self {
            connection: connection.clone(),
            observer,
            changes: options.network.changes().ok(),
            pause: silence.borne(&Stats::default(), clock::now()),
            silence,
            hearing: Hearing::Heard,
        }
    }

    /// Waits until there is reason to look, and looks. Cancel-safe.
    async fn look(&mut self) -> Hearing {
        select! {
            () = next_change(&mut self.changes) => {
                // It may be the link's return. Who is silent goes on dialling, at once.
                if self.hearing == Hearing::Heard {
                    self.silence.change(self.stats().bytes_received, clock::now());
                }
                self.connection.probe();
            }
            () = sleep(self.pause) => {}
        }
        let (stats, now) = (self.stats(), clock::now());
        let silent = self.silence.look(stats.bytes_received, now);
        let borne = self.silence.borne(&stats, now);
        self.pause = borne.saturating_sub(silent).max(LISTEN);
        let hearing = if silent < borne { Hearing::Heard } else { Hearing::Silent };
        if std::mem::replace(&mut self.hearing, hearing) != hearing {
            self.observer.progress(match hearing {
                Hearing::Heard => Progress::Heard,
                Hearing::Silent => Progress::Silent,
            });
        }
        hearing
    }

    fn stats(&self) -> Stats {
        self.connection.stats_over(self.connection.kind())
    }
}

/// Asks the peer of a session over QUIC again and again whether it has what was sent, where so much is lost that the library does it too late.
pub(super) async fn ask(connection: Connection) {
    let mut silence = Silence::over(TransportKind::Quic);
    while connection.kind() == TransportKind::Quic {
        let stats = connection.stats_over(TransportKind::Quic);
        let silent = silence.look(stats.bytes_received, clock::now());
        let pause = asked_after(&stats);
        if pause.is_some_and(|pause| silent >= pause) {
            connection.probe();
        }
        sleep(pause.unwrap_or(ASKED_SELDOM)).await;
    }
}

/// Tells when a connection that the peer has dialled falls silent: then the peer may not know where we are, and has to be dialled.
pub(super) async fn listen(connection: Connection, options: Options, observer: Arc<dyn Observer>) {
    let mut listening = Listening::to(&connection, &options, observer);
    loop {
        listening.look().await;
    }
}

/// Puts a connection into `spare`, and gives `connection` up, when that has gone silent and the peer can be reached, or over a better transport.
pub(super) async fn dial_beside(
    connection: Connection,
    (dialer, target): (Dialer, Target),
    options: Options,
    observer: Arc<dyn Observer>,
    spare: Spare,
) {
    let mut listening = Listening::to(&connection, &options, observer);
    let mut dials = Dials::new(dialer.clone(), target.clone(), options.choice);
    let mut quic = pin!(quic_instead(&connection, (&dialer, &target), options.choice));
    loop {
        let found = select! {
            Ok(other) = dials.ended() => ControlFlow::Break(other),
            other = &mut quic => ControlFlow::Break(other),
            hearing = listening.look() => ControlFlow::Continue(hearing),
        };
        match found {
            ControlFlow::Continue(Hearing::Heard) => dials.running.abort_all(),
            ControlFlow::Continue(Hearing::Silent) => dials.begin_next(),
            ControlFlow::Break(other) => {
                *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
                return connection.close(CloseReason::Broken);
            }
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

    fn path(loss: f32, rtt_ms: u64) -> Stats {
        Stats { rtt_min: Some(Duration::from_millis(rtt_ms)), loss: Some(loss), ..Stats::default() }
    }

    #[test]
    fn when_the_network_has_changed_quic_has_to_answer_and_is_believed_when_it_does() {
        let began = clock::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut silence = Silence::over(TransportKind::Quic);
        assert_eq!(silence.look(1, at(0)), Duration::ZERO);
        assert_eq!(silence.borne(&path(0.05, 20), at(900)), QUIC_SILENCE);
        silence.change(1, at(900));
        assert_eq!(silence.look(1, at(900)), Duration::ZERO, "the nudge has just left");
        assert_eq!(silence.borne(&path(0.05, 20), at(900)), QUIC_CHANGED_SILENCE + Duration::from_millis(20));
        assert!(silence.look(1, at(1_200)) > silence.borne(&path(0.05, 20), at(1_200)), "time to dial");
        assert_eq!(silence.look(2, at(1_210)), Duration::ZERO);
        assert_eq!(silence.borne(&path(0.05, 20), at(1_210)), QUIC_SILENCE, "the answer has come: keep-alives are waited for as ever");
        silence.change(2, at(2_000));
        assert_eq!(silence.borne(&path(0.05, 2_000), at(2_000)), QUIC_SILENCE, "however long the path is");
    }

    #[test]
    fn where_every_third_packet_is_lost_silence_is_borne_for_longer() {
        let now = clock::now();
        let mut silence = Silence::over(TransportKind::Quic);
        assert_eq!(
            [0.0, 0.2, 0.34, 0.5].map(|loss| silence.borne(&path(loss, 20), now)),
            [QUIC_SILENCE, QUIC_SILENCE, QUIC_LOSSY_SILENCE, QUIC_LOSSY_SILENCE]
        );
        silence.change(0, now);
        assert_eq!(silence.borne(&path(0.5, 20), now), QUIC_LOSSY_SILENCE, "the nudge may be lost, too");
    }

    #[test]
    fn tcp_cannot_be_asked_and_is_silent_sooner_for_some_time() {
        let began = clock::now();
        let mut silence = Silence::over(TransportKind::Tcp);
        silence.change(0, began);
        silence.look(1, began);
        let borne = |after| silence.borne(&path(0.05, 20), began + after);
        assert_eq!([borne(Duration::ZERO), borne(CHANGED)], [TCP_CHANGED_SILENCE, TCP_SILENCE]);
    }
}
