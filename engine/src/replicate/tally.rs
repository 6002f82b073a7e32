//! What a session came to: counts gathered from its events while it runs, and the summary or error at its end.

use super::{ByTransport, Findings, ReplicateError, Shares, Stage, Summary, keeper, server};
use crate::{
    event::Frontier,
    id::Root,
    session::{ByeCode, Outcome, SessionError},
    transport::{Connection, TransportError},
    vault::VaultError,
};
use std::time::Duration;

/// What has been counted from the session's events.
pub(super) struct Tally {
    pub(super) events_sent: u64,
    pub(super) events_received: u64,
    pub(super) chunks_received: u64,
    pub(super) bytes_received: u64,
    /// Chunks that had been lost and have come.
    pub(super) chunks_healed: u64,
    /// What was lost is being asked for.
    pub(super) healing: bool,
    pub(super) first_chunk: Option<Duration>,
    pub(super) resumed: bool,
    pub(super) root: Root,
    pub(super) peer_root: Option<Root>,
    pub(super) peer_frontier: Option<Frontier>,
    pub(super) outcome: Option<Outcome>,
    /// Whether both sides stayed.
    pub(super) live: bool,
    pub(super) chunks_total: u64,
    pub(super) bytes_total: u64,
    pub(super) chunks_to_send: u64,
    pub(super) bytes_to_send: u64,
}

impl Tally {
    pub(super) fn new(root: Root, resumed: bool) -> Self {
        Self {
            events_sent: 0,
            events_received: 0,
            chunks_received: 0,
            bytes_received: 0,
            chunks_healed: 0,
            healing: false,
            first_chunk: None,
            resumed,
            root,
            peer_root: None,
            peer_frontier: None,
            outcome: None,
            live: false,
            chunks_total: 0,
            bytes_total: 0,
            chunks_to_send: 0,
            bytes_to_send: 0,
        }
    }
}

/// What a session did until it ended, and how it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) summary: Summary,
    pub(super) result: Result<(), ReplicateError>,
}

impl Ended {
    /// The summary of a session that came to its end.
    ///
    /// # Errors
    /// Why it did not.
    pub(super) fn whole(self) -> Result<Summary, ReplicateError> {
        self.result.map(|()| self.summary)
    }
}

pub(super) fn conclude(
    connection: &Connection,
    result: Result<(), ReplicateError>,
    tally: Tally,
    ((kept, served, stages), findings): ((keeper::Kept, server::Served, Shares), Findings),
    elapsed: Duration,
    dry_run: bool,
) -> Ended {
    let stats = connection.stats();
    let transports = ByTransport::of(connection);
    if kept.unwanted > 0 {
        tracing::debug!(kept.unwanted, "chunks arrived that nobody had asked for");
    }
    let summary = Summary {
        peer: connection.peer(),
        transport: transports.most().unwrap_or(connection.kind()),
        transports,
        reconnects: 0,
        plain_lanes: connection.had_plain_lanes(),
        resumed: tally.resumed,
        events_sent: tally.events_sent,
        events_received: tally.events_received,
        chunks_sent: served.chunks,
        chunks_received: tally.chunks_received,
        // Of what was sent, the peer had what it did not ask for.
        chunks_present: kept.present + served.offered.saturating_sub(served.chunks),
        bytes_sent: served.bytes,
        bytes_received: tally.bytes_received,
        chunks_unavailable: 0,
        chunks_healed: tally.chunks_healed,
        chunks_lost: 0,
        wire_bytes_sent: stats.bytes_sent,
        wire_bytes_received: stats.bytes_received,
        elapsed,
        first_chunk: tally.first_chunk,
        limiting_stage: if tally.bytes_received + served.bytes > 0 { stages.limiting() } else { Stage::RoundTrips },
        stages,
        findings,
        root: tally.root,
        peer_root: tally.peer_root,
    };
    match (result, tally.outcome) {
        (Ok(()), Some(Outcome::Partial { here, there, lost_here, lost_there })) => {
            let chunks_lost = lost_here + lost_there;
            // Equal logs: what waits on either side is of another branch of a forked log, or of somebody else.
            if chunks_lost == 0 && tally.peer_root == Some(tally.root) {
                return Ended { result: Ok(()), summary };
            }
            let chunks_unavailable = here.iter().map(|waiting| waiting.chunks).sum::<u64>().max(there) + chunks_lost;
            let summary = Summary { chunks_unavailable, chunks_lost, ..summary };
            // What waits for ever is no hole that another peer could fill.
            if !summary.findings.forks.is_empty() {
                return Ended { result: Ok(()), summary };
            }
            Ended { result: Err(ReplicateError::Partial(Box::new(summary.clone()))), summary }
        }
        (Ok(()), Some(Outcome::Diverged)) if !summary.findings.forks.is_empty() => Ended { result: Ok(()), summary },
        (result, outcome) => Ended { result: result.and_then(|()| verdict(outcome, dry_run, tally.live)), summary },
    }
}

fn verdict(outcome: Option<Outcome>, dry_run: bool, live: bool) -> Result<(), ReplicateError> {
    match outcome {
        Some(Outcome::Complete | Outcome::Partial { .. }) | None => Ok(()),
        Some(Outcome::Diverged) => {
            Err(ReplicateError::Fork("both replicas hold as many events of every author, and not the same: a log was forked".into()))
        }
        Some(Outcome::Stopped) if dry_run || live => Ok(()),
        Some(Outcome::PeerEnded { code: ByeCode::Done | ByeCode::Stopped, .. }) if live => Ok(()),
        Some(Outcome::Stopped) => Err(ReplicateError::Cancelled),
        Some(Outcome::PeerEnded { code: ByeCode::Refused, reason }) => Err(ReplicateError::Refused(reason)),
        Some(Outcome::PeerEnded { code: ByeCode::Violation, reason }) => Err(ReplicateError::Peer(reason)),
        // It keeps its reason to itself: there may be paths in it.
        Some(Outcome::PeerEnded { reason, .. }) if reason.is_empty() => {
            Err(ReplicateError::PeerStopped("it has trouble of its own, which it names where it runs".into()))
        }
        Some(Outcome::PeerEnded { reason, .. }) => Err(ReplicateError::PeerStopped(reason)),
        Some(Outcome::Failed(error)) => Err(session_failed(error)),
    }
}

fn session_failed(error: SessionError) -> ReplicateError {
    match error {
        SessionError::NotAMember(_) | SessionError::Refused { .. } => ReplicateError::Refused(error.to_string()),
        SessionError::Protocol { .. } => ReplicateError::Peer(error.to_string()),
        SessionError::NotAllowed { what } => ReplicateError::NotAllowed(what),
        SessionError::TimedOut { .. } => ReplicateError::Transport(TransportError::Timeout),
        // What the threads of this side found is known as it is; the session by itself only finds that events and chunks do not fit.
        SessionError::Here { reason } => VaultError::Damaged(reason).into(),
    }
}
