//! The lanes of one session: opened and accepted when the session says that bulk data flows, each a task of its own.
//!
//! ```text
//! server thread ─ spans ─► one queue ─┬─ gate ─► QUIC lane      the gate says which kind may take the next span;
//!                                     ├─ gate ─► TCP lane       a task measures both and moves it (`choice`)
//!                                     └─ gate ─► TCP lane
//! ```
//! Only the sender chooses. The receiver takes what comes on any lane, and a lane at rest costs it nothing.
//! The connection's own kind of lane must work; the other kind is a bonus, and that it cannot be had is no error.

use super::{
    ReplicateError,
    choice::{Carrier, Chooser, Pull, Sample, Supply, TcpLanes},
    keeper, lanes,
    lanes::LaneError,
    pace::Pace,
};
use crate::{
    clock,
    io::piece::Piece,
    limits::{LANES_MAX, MIB, QUIC_WINDOW_BYTES_MAX},
    meter::Meter,
    session::Side,
    transport::{Connection, LaneKind, TransportError, TransportKind},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};

/// What QUIC holds of what it was given, at least, beside what congestion control lets be under way: enough for a fast link, and not so
/// much that what it was given takes long to leave when the other kind takes over.
const BACKLOG_BYTES_MIN: u64 = 2 * MIB as u64;

/// TCP lanes of one session: a second connection hides its neighbour's stalls.
pub(super) const TCP_LANES: usize = 2;

/// What lanes need to know of the session that they serve.
pub(super) struct Setup {
    pub(super) connection: Connection,
    pub(super) side: Side,
    /// Lanes to open; none lets the transport's default stand.
    pub(super) count: Option<usize>,
    pub(super) pace_in: Pace,
    pub(super) pace_out: Pace,
    /// Chunks to send.
    pub(super) spans: mpsc::Receiver<Piece>,
    /// Where chunks that arrive go.
    pub(super) keeper: mpsc::Sender<keeper::Job>,
    pub(super) meter: Arc<Meter>,
}

/// Lanes under way. Dropped, they end.
pub(super) struct Carriers {
    connection: Connection,
    side: Side,
    count: Option<usize>,
    pace_in: Arc<Pace>,
    pace_out: Arc<Pace>,
    queue: Arc<Queue>,
    gate: watch::Receiver<Pull>,
    /// For the task that measures, once it is started.
    gate_control: Option<watch::Sender<Pull>>,
    keeper: mpsc::Sender<keeper::Job>,
    lanes: JoinSet<Result<(), LaneError>>,
    meter: Arc<Meter>,
}

impl Carriers {
    pub(super) fn new(setup: Setup) -> Self {
        let (gate_control, gate) = watch::channel(Pull::Both);
        Self {
            connection: setup.connection,
            side: setup.side,
            count: setup.count,
            pace_in: Arc::new(setup.pace_in),
            pace_out: Arc::new(setup.pace_out),
            queue: Arc::new(Queue::new(setup.spans)),
            gate,
            gate_control: Some(gate_control),
            keeper: setup.keeper,
            lanes: JoinSet::new(),
            meter: setup.meter,
        }
    }

    /// Opens lanes to the peer, of every kind that the connection has.
    pub(super) fn open(&mut self) {
        let kinds = self.connection.lane_kinds();
        if kinds.len() > 1
            && let Some(control) = self.gate_control.take()
        {
            control.send_replace(Pull::Neither);
            self.lanes.spawn(choose(self.connection.clone(), self.queue.clone(), control));
        }
        for kind in kinds {
            for _ in 0..self.count_of(*kind) {
                self.open_one(*kind);
            }
        }
    }

    fn open_one(&mut self, kind: LaneKind) {
        let (connection, queue, pace) = (self.connection.clone(), self.queue.clone(), self.pace_out.clone());
        let meter = self.meter.clone();
        let spans = Spans { queue: queue.clone(), gate: self.gate.clone(), carrier: carrier(kind) };
        self.lanes.spawn(async move {
            let lane = match connection.open_lane_over(kind).await {
                Err(error) => return not_opened(&connection, kind, error),
                Ok(lane) => lane,
            };
            if kind == LaneKind::Tcp {
                queue.tcp_lanes.fetch_add(1, Relaxed);
                queue.news.notify_one();
            }
            lanes::send(lane, spans, pace, meter).await
        });
    }

    /// Takes the lanes that the peer opens, of every kind that the connection has.
    ///
    /// How many there are is for the sender to say: one that is opened and not read would hold back what it carries for ever.
    /// Only of TCP lanes does the dialer decide, because it dials them for the listener, and the listener waits for one.
    pub(super) fn accept(&mut self) {
        for kind in self.connection.lane_kinds() {
            let dials = self.side == Side::Dialer && *kind == LaneKind::Tcp;
            let count = if dials { self.count_of(*kind) } else { LANES_MAX };
            (0..count).for_each(|_| self.accept_one(*kind));
        }
    }

    fn accept_one(&mut self, kind: LaneKind) {
        let (connection, keeper, pace) = (self.connection.clone(), self.keeper.clone(), self.pace_in.clone());
        let meter = self.meter.clone();
        self.lanes.spawn(async move {
            match connection.accept_lane_over(kind).await {
                Err(error) => not_opened(&connection, kind, error),
                Ok(lane) => lanes::receive(lane, keeper, keeper::Job::Run, pace, meter).await,
            }
        });
    }

    /// More lanes than these cost more than they bring where two cores do everything.
    fn count_of(&self, kind: LaneKind) -> usize {
        self.count.unwrap_or(match kind {
            LaneKind::Tcp => TCP_LANES,
            LaneKind::Quic | LaneKind::Memory => 1,
        })
    }

    /// Waits until a lane ends; none when there is no lane. Cancel-safe.
    ///
    /// # Errors
    /// What the end of a lane means for the session, when it is not a clean one.
    pub(super) async fn ended(&mut self) -> Option<Result<(), ReplicateError>> {
        self.lanes.join_next().await.map(verdict)
    }
}

fn verdict(lane: Result<Result<(), LaneError>, JoinError>) -> Result<(), ReplicateError> {
    match lane {
        // The end of the connection is the control stream's to report: it knows whether that was the end of the session, too.
        Ok(Ok(()) | Err(LaneError::Stopped | LaneError::Transport(TransportError::Closed(_)))) => Ok(()),
        Ok(Err(LaneError::Transport(error))) => Err(error.into()),
        Ok(Err(error)) => Err(ReplicateError::Peer(error.to_string())),
        Err(error) => Err(ReplicateError::broke_down(error)),
    }
}

/// A lane that could not be had: the session's trouble only when it is of the connection's own kind.
fn not_opened(connection: &Connection, kind: LaneKind, error: TransportError) -> Result<(), LaneError> {
    if connection.lane_kinds().first() == Some(&kind) {
        return Err(error.into());
    }
    tracing::info!(%kind, %error, "lanes of this kind cannot be had");
    Ok(())
}

/// Memory's lanes have no rival, and pass for QUIC's.
fn carrier(kind: LaneKind) -> Carrier {
    match kind {
        LaneKind::Tcp => Carrier::Tcp,
        LaneKind::Quic | LaneKind::Memory => Carrier::Quic,
    }
}

/// Spans that wait for a lane.
struct Queue {
    spans: Mutex<mpsc::Receiver<Piece>>,
    /// Whether a lane had to wait for a span since this was last asked.
    waited: AtomicBool,
    /// TCP lanes that are connected.
    tcp_lanes: AtomicUsize,
    /// There is one more.
    news: Notify,
}

impl Queue {
    fn new(spans: mpsc::Receiver<Piece>) -> Self {
        Self { spans: Mutex::new(spans), waited: AtomicBool::default(), tcp_lanes: AtomicUsize::default(), news: Notify::new() }
    }

    async fn next(&self) -> Option<Piece> {
        let mut spans = self.spans.lock().await;
        match spans.try_recv() {
            Ok(span) => Some(span),
            Err(_) => {
                self.waited.store(true, Relaxed);
                spans.recv().await
            }
        }
    }
}

/// The queue as a lane of one kind sees it.
pub(super) struct Spans {
    queue: Arc<Queue>,
    gate: watch::Receiver<Pull>,
    carrier: Carrier,
}

impl Spans {
    /// The next span, once this kind may take one; none when no more will come. Cancel-safe.
    pub(super) async fn next(&self) -> Option<Piece> {
        let mut gate = self.gate.clone();
        loop {
            // A gate that nobody moves any more stays as it is, and so does what it says.
            let open = gate.wait_for(|pull| pull.allows(self.carrier)).await.is_ok();
            if !open {
                return None;
            }
            tokio::select! {
                biased;
                Ok(_) = gate.wait_for(|pull| !pull.allows(self.carrier)) => {}
                span = self.queue.next() => return span,
            }
        }
    }
}

/// Measures what each kind carries and moves the gate, until the session ends.
async fn choose(connection: Connection, queue: Arc<Queue>, gate: watch::Sender<Pull>) -> Result<(), LaneError> {
    let mut chooser = Chooser::new(sample(&connection, &queue));
    loop {
        let pull = chooser.step(sample(&connection, &queue));
        let changed = gate.send_if_modified(|now| std::mem::replace(now, pull) != pull);
        if changed {
            tracing::info!(?pull, reason = chooser.reason(), "lanes");
        }
        let _ = timeout(chooser.next_step(), queue.news.notified()).await;
    }
}

fn sample(connection: &Connection, queue: &Queue) -> Sample {
    let (quic, tcp) = (connection.stats_over(TransportKind::Quic), connection.stats_over(TransportKind::Tcp));
    // A connection that closes has no bound of its own any more.
    let window = quic.congestion_window.unwrap_or_default().saturating_mul(2);
    connection.limit_backlog(window.clamp(BACKLOG_BYTES_MIN, QUIC_WINDOW_BYTES_MAX));
    Sample {
        now: clock::now(),
        quic: quic.bytes_sent.saturating_sub(quic.bytes_lost.unwrap_or_default()),
        tcp: tcp.bytes_sent,
        cpu: clock::process_cpu(),
        rtt: quic.rtt.unwrap_or_default(),
        lost: quic.packets_lost.unwrap_or_default(),
        tcp_lanes: if queue.tcp_lanes.load(Relaxed) > 0 { TcpLanes::Ready } else { TcpLanes::Dialling },
        supply: if queue.waited.swap(false, Relaxed) { Supply::Short } else { Supply::Plenty },
        path: connection.remote_addr(),
    }
}
