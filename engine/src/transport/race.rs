//! Many ways to one device, tried in a sensible order: the first to connect wins.
//!
//! Like happy eyeballs (RFC 8305): the next way starts when the one before has failed or has had its time, and none that is
//! under way is given up before another has connected. A failure starts the next at once, so two closed ports are reported in the
//! time that it takes to hear so, and a blocked UDP port costs one second.

use super::{Choice, TransportError, TransportKind, error::Cause, quic::causes};
use crate::limits::{CONNECT_MS, TCP_AFTER_MS};
use std::{collections::VecDeque, net::SocketAddr, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Head start of an address over the next one (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// One way to try, and when at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) kind: TransportKind,
    pub(super) addr: SocketAddr,
    after: Duration,
}

/// What to try in which order.
pub(super) fn plan(addrs: &[SocketAddr], choice: Choice) -> VecDeque<Attempt> {
    let second_after = Duration::from_millis(TCP_AFTER_MS);
    let kinds = match choice {
        Choice::First(TransportKind::Tcp) => vec![(TransportKind::Tcp, Duration::ZERO), (TransportKind::Quic, second_after)],
        Choice::Auto | Choice::First(_) => vec![(TransportKind::Quic, Duration::ZERO), (TransportKind::Tcp, second_after)],
        Choice::Only(kind) => vec![(kind, Duration::ZERO)],
    };
    let staggered = |(kind, start): (TransportKind, Duration)| {
        addrs.iter().zip(0..).map(move |(addr, rank)| Attempt { kind, addr: *addr, after: start + STAGGER * rank })
    };
    let mut attempts: Vec<Attempt> = kinds.into_iter().flat_map(staggered).collect();
    attempts.sort_by_key(|attempt| attempt.after);
    attempts.into()
}

/// Runs `dial` for each attempt until one connects, all have failed, or time is up. Those under way are then dropped.
pub(super) async fn run<T, F>(mut waiting: VecDeque<Attempt>, dial: impl Fn(Attempt) -> F) -> Result<T, TransportError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, TransportError>> + Send + 'static,
{
    let start = Instant::now();
    let deadline = start + Duration::from_millis(CONNECT_MS);
    let mut running = JoinSet::new();
    let mut pending: Vec<Attempt> = Vec::new();
    let mut failures = Vec::new();
    let launch = |waiting: &mut VecDeque<Attempt>, running: &mut JoinSet<_>, pending: &mut Vec<Attempt>| {
        if let Some(attempt) = waiting.pop_front() {
            let dialled = dial(attempt);
            pending.push(attempt);
            running.spawn(async move { (attempt, dialled.await) });
        }
    };
    launch(&mut waiting, &mut running, &mut pending);
    while !pending.is_empty() {
        let next = waiting.front().map_or(deadline, |attempt| start + attempt.after).min(deadline);
        select! {
            Some(finished) = running.join_next() => {
                let Ok((attempt, result)) = finished else { continue };
                let error = match result {
                    Ok(connection) => return Ok(connection),
                    Err(error) => error,
                };
                // A device that has answered does so no differently over the other transport.
                let settled = |other: &Attempt| *other == attempt || other.addr == attempt.addr && rank(&error) < SILENCE;
                pending.retain(|other| !settled(other));
                waiting.retain(|other| !settled(other));
                failures.push((attempt, error));
                launch(&mut waiting, &mut running, &mut pending);
            }
            () = sleep_until(next) => {
                if next == deadline {
                    break;
                }
                launch(&mut waiting, &mut running, &mut pending);
            }
        }
    }
    let silent = pending.iter().map(|attempt| (*attempt, late(attempt)));
    Err(verdict(failures.into_iter().chain(silent).collect()))
}

fn late(attempt: &Attempt) -> TransportError {
    TransportError::unreachable(attempt.kind, attempt.addr, format_args!("no answer within {CONNECT_MS} ms"))
}

/// Rank of failures that say nothing about who is there.
const SILENCE: u8 = 3;

/// How much a failure says, the most first.
fn rank(error: &TransportError) -> u8 {
    match error {
        TransportError::Refused => 0,
        TransportError::WrongPeer { .. } => 1,
        TransportError::Version => 2,
        _ => SILENCE,
    }
}

/// The failure that says most; when nobody answered, all of them.
fn verdict(failures: Vec<(Attempt, TransportError)>) -> TransportError {
    let telling = failures.iter().map(|(_, error)| error).min_by_key(|error| rank(error)).filter(|error| rank(error) < SILENCE);
    match telling {
        Some(error) => error.clone(),
        None => {
            let causes: Vec<Cause> = failures.iter().flat_map(|(attempt, error)| causes(attempt.kind, attempt.addr, error)).collect();
            TransportError::Unreachable { causes }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn refused(attempt: Attempt) -> TransportError {
        TransportError::unreachable(attempt.kind, attempt.addr, "refused")
    }

    #[test]
    fn quic_comes_first_and_addresses_take_turns() {
        let order: Vec<_> = plan(&[addr(1), addr(2)], Choice::Auto).into_iter().map(|a| (a.kind, a.addr.port())).collect();
        assert_eq!(order, [(TransportKind::Quic, 1), (TransportKind::Quic, 2), (TransportKind::Tcp, 1), (TransportKind::Tcp, 2)]);
        let first: Vec<_> = plan(&[addr(1)], Choice::First(TransportKind::Tcp)).into_iter().map(|a| a.kind).collect();
        assert_eq!(first, [TransportKind::Tcp, TransportKind::Quic]);
        assert!(plan(&[addr(1)], Choice::Only(TransportKind::Tcp)).iter().all(|attempt| attempt.kind == TransportKind::Tcp));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_on_quic_brings_tcp_after_a_second() {
        let start = Instant::now();
        let winner = run(plan(&[addr(1)], Choice::Auto), |attempt| async move {
            match attempt.kind {
                TransportKind::Quic => pending().await,
                kind => Ok(kind),
            }
        });
        assert_eq!(winner.await.unwrap(), TransportKind::Tcp);
        assert_eq!(start.elapsed(), Duration::from_millis(TCP_AFTER_MS));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_starts_the_next_at_once_and_all_are_named() {
        let start = Instant::now();
        let error = run::<(), _>(plan(&[addr(1), addr(2)], Choice::Auto), |attempt| async move { Err(refused(attempt)) }).await;
        assert!(matches!(error, Err(TransportError::Unreachable { causes }) if causes.len() == 4));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_everywhere_ends_at_the_limit_and_is_named() {
        let start = Instant::now();
        let error = run::<(), _>(plan(&[addr(1)], Choice::Auto), |_| pending()).await;
        assert!(matches!(error, Err(TransportError::Unreachable { causes }) if causes.len() == 2));
        assert_eq!(start.elapsed(), Duration::from_millis(CONNECT_MS));
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_identity_outweighs_silence_and_ends_the_wait() {
        let start = Instant::now();
        let (expected, found) = (crate::id::DeviceId::from_bytes([1; 32]), crate::id::DeviceId::from_bytes([2; 32]));
        let error = run::<(), _>(plan(&[addr(1)], Choice::Auto), |attempt| async move {
            match attempt.kind {
                TransportKind::Quic => pending().await,
                _ => Err(TransportError::WrongPeer { expected, found }),
            }
        });
        assert!(matches!(error.await, Err(TransportError::WrongPeer { .. })));
        assert_eq!(start.elapsed(), Duration::from_millis(TCP_AFTER_MS));
    }

    #[tokio::test]
    async fn no_address_is_unreachable() {
        let error = run::<(), _>(plan(&[], Choice::Auto), |_| pending()).await;
        assert!(matches!(error, Err(TransportError::Unreachable { causes }) if causes.is_empty()));
    }
}
