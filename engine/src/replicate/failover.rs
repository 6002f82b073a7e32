//! Going on when a connection breaks: dial again, over the other transport first, and let the next session ask for what is missing.
//!
//! Nothing has to be carried over: what arrived is in packs and journal, and the next Hello and wants say the rest. Only a connection that
//! was up and broke is replaced (silence, reset, cut), never one that was refused, closed in order or fed nonsense; and only while it gets
//! somewhere. The user who named one transport gets that one and its errors. A session that stays is not dialled again here: whoever keeps it
//! hears of everything that may bring the peer back, and decides when; only a connection that was dialled beside a silent one (`silence`) takes its place.
//!
//! QUIC takes [`crate::limits::QUIC_IDLE_MS`] to call a silent path dead, and one that is not dead it asks ever more seldom. Where a new
//! connection answers meanwhile, neither is waited for:
//! ```text
//! 0 s last heard ── 2 s dial ─┬─ QUIC answers: the peer is there, and not on the old path: go on over the new connection
//!                             └─ TCP answers ── 5 s still silent: give QUIC up, go on over that connection
//! ```

use super::{
    Observer, Options, Progress, ReplicateError, Summary, Target,
    drive::{Party, drive},
    silence::{dial_beside, dial_repeatedly, usual_silence},
    tally::Ended,
};
use crate::{
    clock,
    keys::random_bytes,
    session::{Side, Stay},
    transport::{Choice, CloseReason, Connection, Dialer, Protocol, TransportError, TransportKind},
    vault::Vault,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

/// Connections in a row that moved nothing: after so many it is given up.
const FRUITLESS_MAX: u32 = 3;
/// Connections of one transfer at most.
const CONNECTIONS_MAX: u32 = 16;
/// Pause before a fruitless attempt is repeated, doubled each time, half of it by chance so that many peers do not come at once.
const PAUSE: Duration = Duration::from_millis(500);
/// QUIC's silence after which is dialled, and after which TCP is preferred. Both ends say something each second.
const PROBE_AFTER: Duration = Duration::from_secs(2);
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How often it is asked whether something was heard.
const LISTEN: Duration = Duration::from_millis(250);

/// Runs sessions with `target` until one comes to its end.
pub(super) async fn run(vault: &Vault, target: &Target, options: &Options, observer: Arc<dyn Observer>) -> Result<Summary, ReplicateError> {
    let dialer = Dialer::new(vault.device(), options.tuning())?;
    let caller = Caller { dialer, target: target.clone(), spare: Spare::default() };
    let began = clock::now();
    let mut attempts = Attempts::default();
    let mut connection = match options.stay {
        Stay::Live => dial_repeatedly(&caller.dialer, &caller.target, options.choice, options.haste).await?,
        Stay::UntilEqual => caller.dial(options.choice).await?,
    };
    let mut so_far: Option<Summary> = None;
    loop {
        observer.progress(Progress::Connected { transport: connection.kind(), address: connection.remote_addr() });
        let party = Party::of(vault, options);
        let silence = caller.watch(&connection, options, &observer);
        let Ended { summary, result } = drive(&connection, Side::Dialer, party, observer.clone()).await?;
        drop(silence);
        let moved = summary.moved();
        let total = match so_far.take() {
            Some(earlier) => summary.after(&earlier, began.elapsed()),
            None => summary,
        };
        match result {
            Err(error) if may_go_on(options) && is_broken(&connection, &error).await && !observer.cancelled() => {
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

/// Whether another connection may take the place of one that breaks.
fn may_go_on(options: &Options) -> bool {
    options.choice == Choice::Auto || options.stay == Stay::Live
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
    // Two: one byte alone looks like a broken generator's.
    let Ok([random, _]) = random_bytes::<2>() else { return pause };
    pause / 2 + pause * u32::from(random) / 510
}

/// A connection that was dialled ahead.
pub(super) type Spare = Arc<Mutex<Option<Connection>>>;

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

    /// Gives `connection` up when it has gone silent and another one is answered, for as long as what is returned is kept.
    fn watch(&self, connection: &Connection, options: &Options, observer: &Arc<dyn Observer>) -> JoinSet<()> {
        let mut task = JoinSet::new();
        let (dialer, target, spare) = (self.dialer.clone(), self.target.clone(), self.spare.clone());
        if options.stay == Stay::Live {
            task.spawn(dial_beside(connection.clone(), (dialer, target), options.clone(), observer.clone(), spare));
        } else if options.choice == Choice::Auto && connection.kind() == TransportKind::Quic {
            task.spawn(listen(connection.clone(), dialer, target, spare));
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
        let (stats, now) = (connection.stats_over(TransportKind::Quic), clock::now());
        if stats.bytes_received != heard.0 {
            heard = (stats.bytes_received, now);
            answered = None;
            continue;
        }
        let silent = now.duration_since(heard.1);
        let usual = usual_silence(&stats);
        if silent >= PROBE_AFTER.max(usual) && answered.is_none() {
            answered = dialer.dial_auto(&target.addresses, target.device, Protocol::Session, Choice::Auto).await.ok();
            if received() != heard.0 {
                continue;
            }
        }
        let patience = match answered.as_ref().map(Connection::kind) {
            Some(TransportKind::Quic) => PROBE_AFTER,
            _ => SILENCE_MAX,
        };
        if silent >= patience.max(usual)
            && let Some(other) = answered.take()
        {
            *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(other);
            connection.close(CloseReason::Broken);
            return;
        }
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
}
