//! Connections inside one process, for tests: same contract, no sockets, and a way to cut the wire at an exact byte.

use super::{CloseReason, Connection, Protocol, Stats, TransportError, connection::Inner};
use crate::{id::DeviceId, limits::LANES_MAX};
use bytes::{Buf, Bytes, BytesMut};
use ring::rand::{SecureRandom, SystemRandom};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

/// Messages, or pieces of a lane, on the wire before a sender has to wait.
const IN_FLIGHT: usize = 16;

/// A connection between `a` and `b`, as `a` sees it and as `b` sees it, for [`Protocol::Session`].
pub fn pair(a: DeviceId, b: DeviceId) -> (Connection, Connection) {
    let (left, right, _) = cuttable_pair(a, b);
    (left, right)
}

/// Like [`pair`], with the scissors.
pub fn cuttable_pair(a: DeviceId, b: DeviceId) -> (Connection, Connection, Cut) {
    let wire = Arc::new(Wire::new());
    let (to_b, from_a) = direction();
    let (to_a, from_b) = direction();
    let left = MemoryConnection::new(b, Side::Left, wire.clone(), to_b, from_b);
    let right = MemoryConnection::new(a, Side::Right, wire.clone(), to_a, from_a);
    (Connection::new(Inner::Memory(left)), Connection::new(Inner::Memory(right)), Cut { wire })
}

/// Breaks a [`cuttable_pair`].
#[derive(Clone)]
pub struct Cut {
    wire: Arc<Wire>,
}

impl Cut {
    /// Breaks it now: both ends get an IO error.
    pub fn cut(&self) {
        self.wire.end(cut_error());
    }

    /// Breaks it when `bytes` more have been sent, both ways together; the piece that crosses the line is lost whole.
    pub fn cut_after(&self, bytes: u64) {
        self.wire.budget.store(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

fn cut_error() -> TransportError {
    TransportError::io("the memory connection was cut")(io::ErrorKind::ConnectionReset.into())
}

#[derive(Clone, Copy)]
enum Side {
    Left = 0,
    Right = 1,
}

/// What both ends share.
struct Wire {
    secret: [u8; 32],
    budget: AtomicI64,
    sent: [AtomicU64; 2],
    end: watch::Sender<Option<TransportError>>,
}

impl Wire {
    fn new() -> Self {
        let mut secret = [0; 32];
        if SystemRandom::new().fill(&mut secret).is_err() {
            tracing::warn!("no randomness: exporters of memory connections are all alike");
        }
        Self { secret, budget: AtomicI64::new(i64::MAX), sent: Default::default(), end: watch::Sender::new(None) }
    }

    fn end(&self, error: TransportError) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(error);
            first
        });
    }

    fn check(&self) -> Result<(), TransportError> {
        self.end.borrow().clone().map_or(Ok(()), Err)
    }

    /// Accounts for `bytes` and breaks the wire when they are too many.
    fn spend(&self, side: Side, bytes: usize) -> Result<(), TransportError> {
        self.check()?;
        if self.budget.fetch_sub(bytes as i64, Ordering::SeqCst) < bytes as i64 {
            self.end(cut_error());
            return self.check();
        }
        self.sent[side as usize].fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn ended(&self) -> TransportError {
        let mut end = self.end.subscribe();
        let seen = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        seen.unwrap_or(TransportError::Closed(CloseReason::Abandoned))
    }
}

/// Ends the wire when the last clone of one side is gone.
struct Handle {
    peer: DeviceId,
    side: Side,
    wire: Arc<Wire>,
    control: Mutex<Option<(mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>)>>,
    lanes_out: mpsc::Sender<mpsc::Receiver<Piece>>,
    lanes_in: AsyncMutex<mpsc::Receiver<mpsc::Receiver<Piece>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.wire.end(TransportError::closed(CloseReason::Abandoned));
    }
}

enum Piece {
    Bytes(Bytes),
    End,
}

struct Out {
    control: mpsc::Sender<Bytes>,
    lanes: mpsc::Sender<mpsc::Receiver<Piece>>,
}

struct In {
    control: mpsc::Receiver<Bytes>,
    lanes: mpsc::Receiver<mpsc::Receiver<Piece>>,
}

fn direction() -> (Out, In) {
    let (control, control_in) = mpsc::channel(IN_FLIGHT);
    let (lanes, lanes_in) = mpsc::channel(LANES_MAX);
    (Out { control, lanes }, In { control: control_in, lanes: lanes_in })
}

#[derive(Clone)]
pub(super) struct MemoryConnection(Arc<Handle>);

impl MemoryConnection {
    fn new(peer: DeviceId, side: Side, wire: Arc<Wire>, out: Out, inward: In) -> Self {
        Self(Arc::new(Handle {
            peer,
            side,
            wire,
            control: Mutex::new(Some((out.control, inward.control))),
            lanes_out: out.lanes,
            lanes_in: AsyncMutex::new(inward.lanes),
        }))
    }

    pub(super) fn peer(&self) -> DeviceId {
        self.0.peer
    }

    pub(super) fn protocol(&self) -> Protocol {
        Protocol::Session
    }

    pub(super) fn exporter(&self, label: &[u8], context: &[u8]) -> Result<[u8; 32], TransportError> {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.wire.secret);
        hasher.update(&(label.len() as u64).to_le_bytes()).update(label).update(context);
        Ok(*hasher.finalize().as_bytes())
    }

    pub(super) fn take_control(&self) -> Option<(MemoryControlSender, MemoryControlReceiver)> {
        let (sender, receiver) = self.0.control.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let sender = MemoryControlSender { connection: self.clone(), sender };
        Some((sender, MemoryControlReceiver { connection: self.clone(), receiver }))
    }

    pub(super) async fn open_lane(&self) -> Result<MemoryLaneSender, TransportError> {
        self.0.wire.check()?;
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        tokio::select! {
            error = self.closed() => Err(error),
            sent = self.0.lanes_out.send(receiver) => match sent {
                Ok(()) => Ok(MemoryLaneSender { connection: self.clone(), sender }),
                Err(_) => Err(self.closed().await),
            },
        }
    }

    pub(super) async fn accept_lane(&self) -> Result<MemoryLaneReceiver, TransportError> {
        let mut lanes = self.0.lanes_in.lock().await;
        tokio::select! {
            biased;
            Some(receiver) = lanes.recv() => Ok(MemoryLaneReceiver { connection: self.clone(), receiver, left: Bytes::new(), ended: false }),
            error = self.closed() => Err(error),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let count = |side: usize| self.0.wire.sent[side].load(Ordering::Relaxed);
        let side = self.0.side as usize;
        Stats { bytes_sent: count(side), bytes_received: count(1 - side), ..Stats::default() }
    }

    pub(super) fn end_so_far(&self) -> Option<TransportError> {
        self.0.wire.check().err()
    }

    pub(super) fn close(&self, reason: CloseReason) {
        self.0.wire.end(TransportError::closed(reason));
    }

    pub(super) async fn closed(&self) -> TransportError {
        self.0.wire.ended().await
    }

    pub(super) async fn flushed(&self) {}

    async fn send<T>(&self, to: &mpsc::Sender<T>, bytes: usize, value: T) -> Result<(), TransportError> {
        self.0.wire.spend(self.0.side, bytes)?;
        tokio::select! {
            error = self.closed() => Err(error),
            sent = to.send(value) => sent.map_err(|_| TransportError::LaneReset),
        }
    }
}

pub(super) struct MemoryControlSender {
    connection: MemoryConnection,
    sender: mpsc::Sender<Bytes>,
}

impl MemoryControlSender {
    pub(super) async fn send_each(&mut self, messages: Vec<Bytes>) -> Result<(), TransportError> {
        for message in messages {
            self.send(message).await?;
        }
        Ok(())
    }

    async fn send(&mut self, message: Bytes) -> Result<(), TransportError> {
        match self.connection.send(&self.sender, message.len(), message).await {
            Err(TransportError::LaneReset) => Err(TransportError::Closed(CloseReason::Abandoned)),
            result => result,
        }
    }
}

pub(super) struct MemoryControlReceiver {
    connection: MemoryConnection,
    receiver: mpsc::Receiver<Bytes>,
}

impl MemoryControlReceiver {
    pub(super) async fn recv(&mut self) -> Result<Option<Bytes>, TransportError> {
        let error = tokio::select! {
            biased;
            Some(message) = self.receiver.recv() => return Ok(Some(message)),
            error = self.connection.closed() => error,
        };
        if error.is_done() { Ok(None) } else { Err(error) }
    }
}

pub(super) struct MemoryLaneSender {
    connection: MemoryConnection,
    sender: mpsc::Sender<Piece>,
}

impl MemoryLaneSender {
    pub(super) async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.connection.send(&self.sender, bytes.len(), Piece::Bytes(bytes)).await
    }

    pub(super) async fn finish(self) -> Result<(), TransportError> {
        self.connection.send(&self.sender, 0, Piece::End).await
    }
}

pub(super) struct MemoryLaneReceiver {
    connection: MemoryConnection,
    receiver: mpsc::Receiver<Piece>,
    left: Bytes,
    ended: bool,
}

impl MemoryLaneReceiver {
    pub(super) async fn read(&mut self, buffer: &mut BytesMut, room: usize) -> Result<usize, TransportError> {
        if self.left.is_empty() && !self.ended {
            let piece = tokio::select! {
                biased;
                piece = self.receiver.recv() => piece,
                error = self.connection.closed() => return Err(error),
            };
            match piece {
                Some(Piece::Bytes(bytes)) => self.left = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(self.connection.0.wire.check().err().unwrap_or(TransportError::LaneReset)),
            }
        }
        let count = room.min(self.left.len());
        buffer.extend_from_slice(&self.left[..count]);
        self.left.advance(count);
        Ok(count)
    }
}
