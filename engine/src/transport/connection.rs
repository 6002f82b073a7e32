//! One connection, whatever carries it: dispatch by enum, no trait objects, no generics above this layer.

use super::{
    CloseReason, LaneKind, Protocol, TransportError, TransportKind,
    memory::{MemoryConnection, MemoryControlReceiver, MemoryControlSender, MemoryLaneReceiver, MemoryLaneSender},
    quic::{QuicConnection, QuicControlReceiver, QuicControlSender, QuicLaneReceiver, QuicLaneSender},
    tcp::{LaneSet, Meter, TcpConnection, TcpControlReceiver, TcpControlSender, TcpLaneReceiver, TcpLaneSender},
};
use crate::{
    id::DeviceId,
    io::piece::Piece,
    limits::{KIB, MESSAGE_BYTES_MAX},
};
use bytes::{Bytes, BytesMut};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Room that a read makes when its buffer has none.
const READ_BYTES: usize = 64 * KIB;

macro_rules! dispatch {
    ($on:expr, $to:ident => $call:expr) => {
        match $on {
            Inner::Quic($to) => $call,
            Inner::Tcp($to) => $call,
            Inner::Memory($to) => $call,
        }
    };
}

/// What a connection is, once for each carrier.
#[derive(Clone)]
pub(super) enum Inner<Q, T, M> {
    Quic(Q),
    Tcp(T),
    Memory(M),
}

/// A connection to a device that has proved its key. Cheap to clone; all clones are the same connection.
///
/// When the last clone, control half and lane are gone, the peer is told [`CloseReason::Abandoned`].
#[derive(Clone)]
pub struct Connection {
    inner: Inner<QuicConnection, TcpConnection, MemoryConnection>,
    /// Over TCP the only lanes; over QUIC more of them, where both ends have TCP.
    tcp_lanes: Option<Arc<LaneSet>>,
}

/// Counters of a connection. What a carrier cannot know is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Bytes sent. QUIC: UDP payloads; TCP: TLS bytes of control and lanes; both with the handshake and without IP, UDP and TCP
    /// headers. Memory: messages and lane bytes.
    pub bytes_sent: u64,
    /// Bytes received, counted alike.
    pub bytes_received: u64,
    /// The path's round-trip time, smoothed (QUIC).
    pub rtt: Option<Duration>,
    /// The shortest round trip so far (QUIC).
    pub rtt_min: Option<Duration>,
    /// Which part of what was sent in the last round trips was lost, 0 to 1 (QUIC).
    pub loss: Option<f32>,
    /// Packets sent (QUIC).
    pub packets_sent: Option<u64>,
    /// How often the peer's flow control let no more be sent, although there was more (QUIC).
    pub windows_used_up: Option<u64>,
    /// Packets that were lost and sent again (QUIC).
    pub packets_lost: Option<u64>,
    /// Bytes in them (QUIC).
    pub bytes_lost: Option<u64>,
    /// Bytes that congestion control lets be in flight (QUIC).
    pub congestion_window: Option<u64>,
}

impl Connection {
    pub(super) fn new(inner: Inner<QuicConnection, TcpConnection, MemoryConnection>) -> Self {
        Self { inner, tcp_lanes: None }
    }

    /// The same connection with TCP lanes.
    pub(super) fn with_lanes(self, lanes: Arc<LaneSet>) -> Self {
        Self { tcp_lanes: Some(lanes), ..self }
    }

    /// The device at the other end.
    pub fn peer(&self) -> DeviceId {
        dispatch!(&self.inner, inner => inner.peer())
    }

    /// What carries it.
    pub fn kind(&self) -> TransportKind {
        match &self.inner {
            Inner::Quic(_) => TransportKind::Quic,
            Inner::Tcp(_) => TransportKind::Tcp,
            Inner::Memory(_) => TransportKind::Memory,
        }
    }

    /// What it is for.
    pub fn protocol(&self) -> Protocol {
        dispatch!(&self.inner, inner => inner.protocol())
    }

    /// Where the other end is now (QUIC may migrate); none in memory.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        match &self.inner {
            Inner::Quic(inner) => Some(inner.remote_addr()),
            Inner::Tcp(inner) => Some(inner.remote_addr()),
            Inner::Memory(_) => None,
        }
    }

    /// 32 bytes that only the two ends of this very connection know, equal on both (TLS exporter, RFC 8446, section 7.5).
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when TLS cannot give them.
    pub fn exporter(&self, label: &[u8], context: &[u8]) -> Result<[u8; 32], TransportError> {
        dispatch!(&self.inner, inner => inner.exporter(label, context))
    }

    /// The two halves of the control stream: once, to whoever asks first.
    pub fn take_control(&self) -> Option<(ControlSender, ControlReceiver)> {
        let (sender, receiver) = match &self.inner {
            Inner::Quic(inner) => inner.take_control().map(|(s, r)| (Inner::Quic(s), Inner::Quic(r)))?,
            Inner::Tcp(inner) => inner.take_control().map(|(s, r)| (Inner::Tcp(s), Inner::Tcp(r)))?,
            Inner::Memory(inner) => inner.take_control().map(|(s, r)| (Inner::Memory(s), Inner::Memory(r)))?,
        };
        Some((ControlSender { inner: sender, last: LastSend::Whole }, ControlReceiver(receiver)))
    }

    /// Whether any of its lanes went without TLS.
    pub fn had_plain_lanes(&self) -> bool {
        self.tcp_lanes.as_ref().is_some_and(|lanes| lanes.were_plain())
    }

    /// What its lanes can be, its own kind first. Where there are two, both ends may use either at any time.
    pub fn lane_kinds(&self) -> &'static [LaneKind] {
        match (&self.inner, &self.tcp_lanes) {
            (Inner::Quic(_), None) => &[LaneKind::Quic],
            (Inner::Quic(_), Some(_)) => &[LaneKind::Quic, LaneKind::Tcp],
            (Inner::Tcp(_), _) => &[LaneKind::Tcp],
            (Inner::Memory(_), _) => &[LaneKind::Memory],
        }
    }

    /// Opens a lane of the connection's own kind: [`Connection::open_lane_over`].
    ///
    /// # Errors
    /// Why the connection ended, or why the lane could not be dialled.
    pub async fn open_lane(&self) -> Result<LaneSender, TransportError> {
        self.open_lane_over(self.lane_kinds()[0]).await
    }

    /// Waits for a lane of the connection's own kind: [`Connection::accept_lane_over`].
    ///
    /// # Errors
    /// Why the connection ended, or why the lane could not be dialled.
    pub async fn accept_lane(&self) -> Result<LaneReceiver, TransportError> {
        self.accept_lane_over(self.lane_kinds()[0]).await
    }

    /// Opens a lane to the peer. Waits while [`crate::limits::LANES_MAX`] are open; TCP lanes it dials, or waits for the peer to dial.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why the connection ended, why the lane could not be dialled, or that this connection has no lanes of this kind.
    pub async fn open_lane_over(&self, kind: LaneKind) -> Result<LaneSender, TransportError> {
        let inner = match (&self.inner, &self.tcp_lanes, kind) {
            (Inner::Quic(inner), _, LaneKind::Quic) => Inner::Quic(inner.open_lane().await?),
            (Inner::Memory(inner), _, LaneKind::Memory) => Inner::Memory(inner.open_lane().await?),
            (_, Some(lanes), LaneKind::Tcp) => Inner::Tcp(TcpLaneSender::new(self.clone(), self.while_alive(lanes.open()).await?)),
            _ => return Err(no_such_lanes(kind)),
        };
        Ok(LaneSender { inner, last: LastSend::Whole })
    }

    /// Waits for a lane that the peer opens. It may show only once it carries bytes. Cancel-safe.
    ///
    /// # Errors
    /// Like [`Connection::open_lane_over`].
    pub async fn accept_lane_over(&self, kind: LaneKind) -> Result<LaneReceiver, TransportError> {
        Ok(LaneReceiver(match (&self.inner, &self.tcp_lanes, kind) {
            (Inner::Quic(inner), _, LaneKind::Quic) => Inner::Quic(inner.accept_lane().await?),
            (Inner::Memory(inner), _, LaneKind::Memory) => Inner::Memory(inner.accept_lane().await?),
            (_, Some(lanes), LaneKind::Tcp) => Inner::Tcp(TcpLaneReceiver::new(self.clone(), self.while_alive(lanes.accept()).await?)),
            _ => return Err(no_such_lanes(kind)),
        }))
    }

    /// Waits for `lane`, but not longer than the connection lives. A lane error that comes with the end of the connection is
    /// reported as that.
    async fn while_alive<T>(&self, lane: impl Future<Output = Result<T, TransportError>>) -> Result<T, TransportError> {
        let result = tokio::select! {
            biased;
            error = self.closed() => return Err(error),
            result = lane => result,
        };
        result.map_err(|error| self.end_so_far().unwrap_or(error))
    }

    /// Why the connection ended, if it has.
    pub(super) fn end_so_far(&self) -> Option<TransportError> {
        dispatch!(&self.inner, inner => inner.end_so_far())
    }

    /// Its counters so far, lanes of all kinds included.
    pub fn stats(&self) -> Stats {
        let (own, lanes) = (self.own_stats(), self.lane_stats());
        let (bytes_sent, bytes_received) = (own.bytes_sent + lanes.bytes_sent, own.bytes_received + lanes.bytes_received);
        Stats { bytes_sent, bytes_received, ..own }
    }

    /// What went over one transport: of a QUIC connection, its TCP lanes are the part that went over TCP.
    pub fn stats_over(&self, kind: TransportKind) -> Stats {
        match (self.kind(), kind) {
            (TransportKind::Quic, TransportKind::Tcp) => self.lane_stats(),
            (TransportKind::Quic, TransportKind::Quic) => self.own_stats(),
            (own, asked) if own == asked => self.stats(),
            _ => Stats::default(),
        }
    }

    /// Holds at most `bytes` that were sent on QUIC's lanes and not acknowledged; what is sent beyond that waits. TCP's buffers are the
    /// system's, which sizes them by the path.
    pub fn limit_backlog(&self, bytes: u64) {
        if let Inner::Quic(inner) = &self.inner {
            inner.limit_backlog(bytes);
        }
    }

    /// Makes the peer of a QUIC connection say at once that it is there.
    pub fn probe(&self) {
        if let Inner::Quic(inner) = &self.inner {
            inner.probe();
        }
    }

    /// Where its TCP lanes are to count: a TCP connection takes their bytes for a sign of life.
    pub(super) fn lane_meter(&self) -> Arc<Meter> {
        match &self.inner {
            Inner::Tcp(inner) => inner.lane_meter(),
            Inner::Quic(_) | Inner::Memory(_) => Arc::default(),
        }
    }

    fn own_stats(&self) -> Stats {
        dispatch!(&self.inner, inner => inner.stats())
    }

    fn lane_stats(&self) -> Stats {
        self.tcp_lanes.as_ref().map(|lanes| lanes.stats()).unwrap_or_default()
    }

    /// Waits until what was said on the control stream is on its way, at most a second: closing takes along what is not.
    pub async fn said(&self) {
        match &self.inner {
            Inner::Quic(quic) => quic.said().await,
            // Messages are with the system, or with the peer, when their sending is done.
            Inner::Tcp(_) | Inner::Memory(_) => {}
        }
    }

    /// Ends the connection at once, for a reason that the peer gets to know. The first reason counts.
    ///
    /// What the peer has not acknowledged in its own messages may be lost: say goodbye in the protocol first, then close.
    pub fn close(&self, reason: CloseReason) {
        dispatch!(&self.inner, inner => inner.close(reason));
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> TransportError {
        dispatch!(&self.inner, inner => inner.closed().await)
    }

    /// After [`Connection::close`]: waits until the goodbye is on its way, at most a second. For a process about to exit. Over TCP other
    /// reasons than [`CloseReason::Done`] also wait for the peer to hang up: it may be sending, and the answer to that destroys them.
    pub async fn flushed(&self) {
        dispatch!(&self.inner, inner => inner.flushed().await);
    }
}

fn no_such_lanes(kind: LaneKind) -> TransportError {
    TransportError::Protocol(format!("the connection has no {kind} lanes"))
}

/// The sending half of the control stream.
pub struct ControlSender {
    inner: Inner<QuicControlSender, TcpControlSender, MemoryControlSender>,
    last: LastSend,
}

/// What became of the last send on a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastSend {
    Whole,
    /// It was dropped half-way: nobody knows what has gone out.
    Torn,
}

impl LastSend {
    fn begin(&mut self) -> Result<(), TransportError> {
        match std::mem::replace(self, Self::Torn) {
            Self::Whole => Ok(()),
            Self::Torn => Err(TransportError::Cancelled),
        }
    }
}

impl ControlSender {
    /// Sends one message. Returns when it is handed to the transport, which is before it arrives.
    ///
    /// Not cancel-safe: a send that is dropped half-way leaves the stream unusable, and later sends say so.
    ///
    /// # Errors
    /// [`TransportError::MessageTooLong`], or why the connection ended.
    pub async fn send(&mut self, message: Bytes) -> Result<(), TransportError> {
        self.send_each(vec![message]).await
    }

    /// [`ControlSender::send`] of each of `messages`, in their order; short ones go together.
    ///
    /// # Errors
    /// As [`ControlSender::send`]. If one is too long none is sent.
    pub async fn send_each(&mut self, messages: Vec<Bytes>) -> Result<(), TransportError> {
        if let Some(message) = messages.iter().find(|message| message.len() > MESSAGE_BYTES_MAX) {
            return Err(TransportError::MessageTooLong(message.len()));
        }
        self.last.begin()?;
        let sent = dispatch!(&mut self.inner, inner => inner.send_each(messages).await);
        self.last = LastSend::Whole;
        sent
    }

    /// Sends what the peer has to acknowledge at once and does not hear of, where the transport says what has arrived: a packet that was lost
    /// before it is then known to be, and one that has answered is still there. TCP sees to that by itself.
    ///
    /// # Errors
    /// Why the connection ended.
    pub async fn nudge(&mut self) -> Result<(), TransportError> {
        self.last.begin()?;
        let sent = match &mut self.inner {
            Inner::Quic(inner) => inner.nudge().await,
            Inner::Tcp(_) | Inner::Memory(_) => Ok(()),
        };
        self.last = LastSend::Whole;
        sent
    }
}

/// The receiving half of the control stream.
pub struct ControlReceiver(Inner<QuicControlReceiver, TcpControlReceiver, MemoryControlReceiver>);

impl ControlReceiver {
    /// The next message, or `None` when the connection was closed with [`CloseReason::Done`]. Cancel-safe.
    ///
    /// # Errors
    /// Why the connection ended otherwise. A dialer learns only here, or from any later call, that it was
    /// [`TransportError::Refused`]: in TLS 1.3 the dialer is done before the listener has seen its key.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, TransportError> {
        dispatch!(&mut self.0, inner => inner.recv().await)
    }
}

/// The sending end of a lane. Dropped without [`LaneSender::finish`], the reader gets an error instead of an end.
pub struct LaneSender {
    inner: Inner<QuicLaneSender, TcpLaneSender, MemoryLaneSender>,
    last: LastSend,
}

impl LaneSender {
    /// Sends bytes, after all that went before. QUIC holds on to them until they are acknowledged, without a copy; a plain lane has the
    /// system take them from their file, if they lie in one.
    ///
    /// Not cancel-safe: it is unknown how much of a dropped send has gone out, and later sends say so.
    ///
    /// # Errors
    /// [`TransportError::LaneReset`] when the reader is gone, or why the connection ended.
    pub async fn send(&mut self, piece: impl Into<Piece>) -> Result<(), TransportError> {
        self.last.begin()?;
        let piece = piece.into();
        let sent = match &mut self.inner {
            Inner::Quic(inner) => inner.send(piece.bytes).await,
            Inner::Tcp(inner) => inner.send(&piece).await,
            Inner::Memory(inner) => inner.send(piece.bytes).await,
        };
        self.last = LastSend::Whole;
        sent
    }

    /// Marks the end. Does not wait for the reader: the session's own acknowledgements say what has arrived.
    ///
    /// # Errors
    /// Like [`LaneSender::send`].
    pub async fn finish(mut self) -> Result<(), TransportError> {
        self.last.begin()?;
        dispatch!(self.inner, inner => inner.finish().await)
    }
}

/// The receiving end of a lane. Dropping it tells the sender to stop.
pub struct LaneReceiver(Inner<QuicLaneReceiver, TcpLaneReceiver, MemoryLaneReceiver>);

impl LaneReceiver {
    /// Appends what has arrived to `buffer`, up to its spare capacity (64 KiB are made when there is none), waiting for at
    /// least one byte. Returns how many; 0 is the end. Cancel-safe.
    ///
    /// # Errors
    /// [`TransportError::LaneReset`] when the lane was dropped unfinished, or why the connection ended.
    pub async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize, TransportError> {
        if buffer.capacity() == buffer.len() {
            buffer.reserve(READ_BYTES);
        }
        let room = buffer.capacity() - buffer.len();
        dispatch!(&mut self.0, inner => inner.read(buffer, room).await)
    }
}
