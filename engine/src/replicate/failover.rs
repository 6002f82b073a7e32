//! Going on when a connection breaks: dial again, over the other transport first, and let the next session ask for what is missing.
//!
//! Nothing has to be carried over: what arrived is in packs and journal, and the next Hello and wants say the rest. Only a connection that
//! was up and broke is replaced (silence, reset, cut), never one that was refused, closed in order or fed nonsense; and only while it gets
//! somewhere. The user who named one transport gets that one and its errors. A session that stays is not dialled again here: whoever keeps it
//! hears of everything that may bring the peer back, and decides when.
//!
//! QUIC takes [`crate::limits::QUIC_IDLE_MS`] to call a silent path dead. Where TCP answers meanwhile, that is not waited for:
//! ```text
//! 0 s last heard ── 3 s dial TCP ── 5 s still silent, TCP is there: give QUIC up, go on over that connection
//! ```

use super::{
    Observer, Options, Progress, ReplicateError, Summary, Target,
    drive::{Party, drive},
    tally::Ended,
};
use crate::{
    clock,
    session::{Side, Stay},
    transport::{Choice, CloseReason, Connection, Dialer, Protocol, TransportError, TransportKind},
    vault::Vault,
};
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet, time::sleep};

/// Connections in a row that moved nothing: after so many it is given up.
const FRUITLESS_MAX: u32 = 3;
/// Connections of one transfer at most.
const CONNECTIONS_MAX: u32 = 16;
/// Pause before a fruitless attempt is repeated, doubled each time, half of it by chance so that many peers do not come at once.
const PAUSE: Duration = Duration::from_millis(500);
/// QUIC's silence after which TCP is dialled, and after which it is preferred.
const PROBE_AFTER: Duration = Duration::from_secs(3);
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How often it is asked whether something was heard.
const LISTEN: Duration = Duration::from_millis(250);

/// Runs sessions with `target` until one comes to its end.
pub(super) async fn run(vault: &Vault, target: &Target, options: &Options, observer: Arc<dyn Observer>) -> Result<Summary, ReplicateError> {
    let dialer = Dialer::new(vault.device(), options.tuning())?;
    let caller = Caller { dialer, target: target.clone(), spare: Spare::default() };
    let observer = Arc::new(Continued::new(observer));
    let began = clock::now();
    let mut attempts = Attempts::default();
    let mut connection = caller.dial(options.choice).await?;
    let mut so_far: Option<Summary> = None;
    loop {
        observer.connected(&connection);
        let party = Party::of(vault, options);
        let silence = caller.watch(&connection, options.choice);
        let Ended { summary, result } = drive(&connection, Side::Dialer, party, observer.clone()).await?;
        drop(silence);
        let moved = summary.moved();
        let total = match so_far.take() {
            Some(earlier) => summary.after(&earlier, began.elapsed()),
            None => summary,
        };
        match result {
            Err(error) if options.choice == Choice::Auto && is_broken(&connection, &error).await && !observer.cancelled() => {
                let next = match options.stay {
                    Stay::UntilEqual => caller.replace(&connection, error.to_string(), attempts.lost(moved)).await,
                    Stay::Live => caller.spare(),
                };
                let Some(next) = next else { return Err(error) };
                connection = next;
                so_far = Some(total);
            }
            Err(ReplicateError::Partial(_)) => return Err(ReplicateError::Partial(Box::new(total))),
            Err(error) => return Err(error),
            Ok(()) => return Ok(total),
        }
    }
}

/// Whether the connection broke, as opposed to being ended for a reason.
async fn is_broken(connection: &Connection, error: &ReplicateError) -> bool {
    matches!(error, ReplicateError::Transport(_))
        && matches!(
            connection.closed().await,
            TransportError::Timeout | TransportError::Io { .. } | TransportError::LaneReset | TransportError::Closed(CloseReason::Broken)
        )
}

/// How often a transfer has lost its connection.
#[derive(Debug, Default)]
struct Attempts {
    all: u32,
    fruitless: u32,
}

impl Attempts {
    /// A connection is lost that had moved so many bytes. Whether to try again, and after which pause.
    fn lost(&mut self, moved: u64) -> Option<Duration> {
        self.all += 1;
        self.fruitless = if moved > 0 { 0 } else { self.fruitless + 1 };
        let goes_on = self.all < CONNECTIONS_MAX && self.fruitless < FRUITLESS_MAX;
        goes_on.then(|| if self.fruitless == 0 { Duration::ZERO } else { PAUSE * (1 << (self.fruitless - 1)) })
    }
}

/// Half of `pause` and up to as much again.
pub fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    if SystemRandom::new().fill(&mut random).is_err() {
        return pause;
    }
    pause / 2 + pause * u32::from(random[0]) / 510
}

/// A connection that was dialled ahead.
type Spare = Arc<Mutex<Option<Connection>>>;

/// Dials the target.
struct Caller {
    dialer: Dialer,
    target: Target,
    spare: Spare,
}

impl Caller {
    async fn dial(&self, choice: Choice) -> Result<Connection, TransportError> {
        self.dialer.dial_auto(&self.target.addresses, self.target.device, Protocol::Session, choice).await
    }

    /// A connection in the place of `lost`, over the other transport if it can be had. None when it is time to give up.
    async fn replace(&self, lost: &Connection, why: String, mut pause: Option<Duration>) -> Option<Connection> {
        let choice = Choice::First(match lost.kind() {
            TransportKind::Tcp => TransportKind::Quic,
            TransportKind::Quic | TransportKind::Memory => TransportKind::Tcp,
        });
        let mut redials = Attempts::default();
        loop {
            sleep(jittered(pause?)).await;
            let dialled = match self.spare() {
                Some(connection) => Ok(connection),
                None => self.dial(choice).await,
            };
            match dialled {
                Ok(connection) => {
                    tracing::warn!("connection lost over {} ({why}), going on over {}", lost.kind(), connection.kind());
                    return Some(connection);
                }
                Err(error) => tracing::info!(%error, "cannot dial again"),
            }
            pause = redials.lost(0);
        }
    }

    /// The connection that was dialled ahead, if there is one.
    fn spare(&self) -> Option<Connection> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives `connection` up when it has gone silent and TCP answers, for as long as what is returned is kept.
    fn watch(&self, connection: &Connection, choice: Choice) -> JoinSet<()> {
        let mut task = JoinSet::new();
        if choice == Choice::Auto && connection.kind() == TransportKind::Quic {
            task.spawn(listen(connection.clone(), self.dialer.clone(), self.target.clone(), self.spare.clone()));
        }
        task
    }
}

async fn listen(connection: Connection, dialer: Dialer, target: Target, spare: Spare) {
    let received = || connection.stats_over(TransportKind::Quic).bytes_received;
    let mut heard: (u64, Instant) = (received(), clock::now());
    let mut answered = None;
    loop {
        sleep(LISTEN).await;
        let now = clock::now();
        if received() != heard.0 {
            heard = (received(), now);
            answered = None;
            continue;
        }
        let silent = now.duration_since(heard.1);
        if silent >= PROBE_AFTER && answered.is_none() {
            let over_tcp = Choice::Only(TransportKind::Tcp);
            answered = dialer.dial_auto(&target.addresses, target.device, Protocol::Session, over_tcp).await.ok();
        }
        if silent >= SILENCE_MAX
            && let Some(other) = answered.take()
        {
            *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
            connection.close(CloseReason::Broken);
            return;
        }
    }
}

/// Watches one transfer through several sessions: what is still to come is counted on top of what has moved.
struct Continued {
    inner: Arc<dyn Observer>,
    moved: [AtomicU64; 2],
    before: [AtomicU64; 2],
}

impl Continued {
    fn new(inner: Arc<dyn Observer>) -> Self {
        Self { inner, moved: Default::default(), before: Default::default() }
    }

    fn connected(&self, connection: &Connection) {
        for (before, moved) in self.before.iter().zip(&self.moved) {
            before.store(moved.load(Relaxed), Relaxed);
        }
        self.inner.progress(Progress::Connected { transport: connection.kind(), address: connection.remote_addr() });
    }
}

impl Observer for Continued {
    fn progress(&self, progress: Progress) {
        let told = match progress {
            Progress::Total { chunks, bytes } => {
                Progress::Total { chunks: chunks + self.before[0].load(Relaxed), bytes: bytes + self.before[1].load(Relaxed) }
            }
            Progress::Received { chunks, bytes } | Progress::Sent { chunks, bytes } => {
                self.moved[0].fetch_add(chunks, Relaxed);
                self.moved[1].fetch_add(bytes, Relaxed);
                progress
            }
            other => other,
        };
        self.inner.progress(told);
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }

    fn stopping(&self) -> Option<watch::Receiver<bool>> {
        self.inner.stopping()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_gets_somewhere_goes_on_at_once_and_one_that_does_not_gives_up() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.lost(1), Some(Duration::ZERO));
        assert_eq!(attempts.lost(0), Some(PAUSE));
        assert_eq!(attempts.lost(1), Some(Duration::ZERO), "progress forgives");
        assert_eq!(attempts.lost(0), Some(PAUSE));
        assert_eq!(attempts.lost(0), Some(2 * PAUSE));
        assert_eq!(attempts.lost(0), None);
    }

    #[test]
    fn however_much_moves_the_number_of_connections_is_bounded() {
        let mut attempts = Attempts::default();
        assert_eq!((0..100).filter(|_| attempts.lost(1).is_some()).count() as u32, CONNECTIONS_MAX - 1);
    }

    #[test]
    fn a_pause_keeps_its_length_within_half() {
        for _ in 0..100 {
            let pause = jittered(PAUSE);
            assert!(pause >= PAUSE / 2 && pause <= PAUSE, "{pause:?}");
        }
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn what_is_to_come_counts_on_top_of_what_has_moved() {
        #[derive(Default)]
        struct Total(AtomicU64);
        impl Observer for Total {
            fn progress(&self, progress: Progress) {
                if let Progress::Total { bytes, .. } = progress {
                    self.0.store(bytes, Relaxed);
                }
            }
            fn cancelled(&self) -> bool {
                false
            }
        }
        let total = Arc::new(Total::default());
        let continued = Continued::new(total.clone());
        let (connection, _peer) =
            crate::transport::memory::pair(crate::id::DeviceId::from_bytes([1; 32]), crate::id::DeviceId::from_bytes([2; 32]));
        continued.connected(&connection);
        continued.progress(Progress::Total { chunks: 10, bytes: 100 });
        continued.progress(Progress::Received { chunks: 4, bytes: 40 });
        continued.connected(&connection);
        continued.progress(Progress::Total { chunks: 6, bytes: 60 });
        assert_eq!(total.0.load(Relaxed), 100);
    }
}
