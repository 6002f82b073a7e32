//! The lanes of one session: opened and accepted when the session says that bulk data flows, each a task of its own.

use super::{ReplicateError, keeper, lanes, pace::Pace};
use crate::{
    limits::LANES_MAX,
    session::Side,
    transport::{Connection, TransportError, TransportKind},
    vault::VaultError,
};
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::{JoinError, JoinSet},
};

/// What lanes need to know of the session that they serve.
pub(super) struct Setup {
    pub(super) connection: Connection,
    pub(super) side: Side,
    /// Lanes to open; none lets the transport's default stand.
    pub(super) count: Option<usize>,
    pub(super) pace_in: Pace,
    pub(super) pace_out: Pace,
    /// Chunks to send.
    pub(super) spans: mpsc::Receiver<Bytes>,
    /// Where chunks that arrive go.
    pub(super) keeper: mpsc::Sender<keeper::Job>,
}

/// Lanes under way. Dropped, they end.
pub(super) struct Carriers {
    connection: Connection,
    side: Side,
    count: usize,
    pace_in: Arc<Pace>,
    pace_out: Arc<Pace>,
    spans: Arc<Mutex<mpsc::Receiver<Bytes>>>,
    keeper: mpsc::Sender<keeper::Job>,
    lanes: JoinSet<Result<(), lanes::LaneError>>,
    heard: Arc<AtomicU64>,
}

impl Carriers {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            count: setup.count.unwrap_or(default_lanes(setup.connection.kind())),
            connection: setup.connection,
            side: setup.side,
            pace_in: Arc::new(setup.pace_in),
            pace_out: Arc::new(setup.pace_out),
            spans: Arc::new(Mutex::new(setup.spans)),
            keeper: setup.keeper,
            lanes: JoinSet::new(),
            heard: Arc::default(),
        }
    }

    /// Opens lanes to the peer.
    pub(super) fn open(&mut self) {
        for _ in 0..self.count {
            let (connection, spans, pace) = (self.connection.clone(), self.spans.clone(), self.pace_out.clone());
            self.lanes.spawn(async move { lanes::send(connection.open_lane().await?, spans, pace).await });
        }
    }

    /// Takes the lanes that the peer opens.
    ///
    /// How many there are is for the sender to say: one that is opened and not read would hold back what it carries for ever.
    /// Only a TCP dialer decides, because it dials them for the listener, and the listener waits for one.
    pub(super) fn accept(&mut self) {
        let dials = self.side == Side::Dialer && self.connection.kind() == TransportKind::Tcp;
        let count = if dials { self.count } else { LANES_MAX };
        for _ in 0..count {
            let (connection, keeper, pace) = (self.connection.clone(), self.keeper.clone(), self.pace_in.clone());
            let heard = self.heard.clone();
            self.lanes.spawn(async move { lanes::receive(connection.accept_lane().await?, keeper, keeper::Job::Run, pace, heard).await });
        }
    }

    /// Bytes that have come on lanes.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Waits until a lane ends; none when there is no lane. Cancel-safe.
    ///
    /// # Errors
    /// What the end of a lane means for the session, when it is not a clean one.
    pub(super) async fn ended(&mut self) -> Option<Result<(), ReplicateError>> {
        self.lanes.join_next().await.map(verdict)
    }
}

/// More lanes than one cost more than they bring where two cores do everything; a second TCP connection hides its neighbour's stalls.
fn default_lanes(kind: TransportKind) -> usize {
    match kind {
        TransportKind::Tcp => 2,
        TransportKind::Quic | TransportKind::Memory => 1,
    }
}

fn verdict(lane: Result<Result<(), lanes::LaneError>, JoinError>) -> Result<(), ReplicateError> {
    match lane {
        // The end of the connection is the control stream's to report: it knows whether that was the end of the session, too.
        Ok(Ok(()) | Err(lanes::LaneError::Stopped | lanes::LaneError::Transport(TransportError::Closed(_)))) => Ok(()),
        Ok(Err(lanes::LaneError::Transport(error))) => Err(error.into()),
        Ok(Err(error)) => Err(ReplicateError::Peer(error.to_string())),
        Err(error) => Err(VaultError::internal(error).into()),
    }
}
