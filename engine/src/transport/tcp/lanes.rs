//! Lanes on TCP connections of their own: how they are dialled, matched to their connection, and used.
//!
//! Their connection need not be TCP itself: all that ties a lane to it is the token, which a QUIC connection has as well. So one
//! session can move its bytes from QUIC streams to TCP lanes and back while everything else stays where it is.

use super::super::{Connection, Stats, TransportError};
use super::{
    Dial, LANE_ALPN,
    record::Use,
    stream::{Meter, TlsStream},
};
use crate::{
    id::DeviceId,
    limits::{HANDSHAKE_MS, LANES_MAX},
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};

/// What the token of a connection's lanes is derived under.
const TOKEN_LABEL: &[u8] = b"EXPORTER-mirror-lane";
/// Direction and token.
const OPENING_BYTES: usize = 1 + TOKEN_BYTES;
const TOKEN_BYTES: usize = 32;
/// The listener's first byte on a lane that it claims.
const CLAIMED: u8 = 1;

/// Proves that a lane belongs to a connection: only its two ends can know it.
type Token = [u8; TOKEN_BYTES];

/// Which way a lane's bytes flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    ToListener = 0,
    ToDialer = 1,
}

/// The TCP lanes of one connection, at one of its ends.
pub(in super::super) struct LaneSet {
    peer: DeviceId,
    meter: Arc<Meter>,
    source: Source,
}

/// How a connection comes by its lanes.
enum Source {
    Dialer(LaneDialer),
    Listener(LaneQueues),
}

impl LaneSet {
    /// For the end that dials, at whichever of `dials` answers first in their order.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when the connection has no exporter.
    pub(in super::super) fn dialling(connection: &Connection, dials: Vec<Dial>) -> Result<Arc<Self>, TransportError> {
        Ok(Self::new(connection, Source::Dialer(LaneDialer::new(dials, token(connection)?))))
    }

    /// For the end that listens: from now on lanes find it in `registry`.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when the connection has no exporter.
    pub(in super::super) fn listening(connection: &Connection, registry: &Registry) -> Result<Arc<Self>, TransportError> {
        let token = token(connection)?;
        let set = Self::new(connection, Source::Listener(LaneQueues::new()));
        registry.register(token, &set);
        Ok(set)
    }

    fn new(connection: &Connection, source: Source) -> Arc<Self> {
        Arc::new(Self { peer: connection.peer(), meter: connection.lane_meter(), source })
    }

    /// Bytes on the wire of all its lanes so far.
    pub(in super::super) fn stats(&self) -> Stats {
        self.meter.stats()
    }

    /// A lane to the peer: dialled, or one that the peer has parked.
    pub(in super::super) async fn open(&self) -> Result<Lane, TransportError> {
        match &self.source {
            Source::Dialer(dialer) => self.counted(dialer.lane(Direction::ToListener).await?),
            Source::Listener(queues) => claim(queues).await,
        }
    }

    /// A lane from the peer: one that it dialled, or one that is parked for it here until it uses it.
    pub(in super::super) async fn accept(&self) -> Result<Lane, TransportError> {
        match &self.source {
            Source::Dialer(dialer) => self.counted(dialer.lane(Direction::ToDialer).await?),
            Source::Listener(queues) => queues.lane(Direction::ToListener).await,
        }
    }

    fn counted(&self, mut lane: Lane) -> Result<Lane, TransportError> {
        lane.stream.count_for(&self.meter);
        Ok(lane)
    }
}

fn token(connection: &Connection) -> Result<Token, TransportError> {
    connection.exporter(TOKEN_LABEL, b"")
}

/// A lane's TLS connection, and the dialer's permit for it.
pub(in super::super) struct Lane {
    stream: TlsStream,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A lane being dialled in the background, so that giving up the wait does not give up the lane.
type Dialling = AsyncMutex<Option<JoinHandle<Result<Lane, TransportError>>>>;

/// The dialer's side: dials for both directions.
struct LaneDialer {
    context: Arc<DialContext>,
    opening: Dialling,
    accepting: Dialling,
}

struct DialContext {
    dials: Vec<Dial>,
    /// Which of them answered last.
    answered: AtomicUsize,
    token: Token,
    to_listener: Arc<Semaphore>,
    to_dialer: Arc<Semaphore>,
}

impl LaneDialer {
    fn new(dials: Vec<Dial>, token: Token) -> Self {
        let permits = || Arc::new(Semaphore::new(LANES_MAX));
        let context =
            Arc::new(DialContext { dials, answered: AtomicUsize::default(), token, to_listener: permits(), to_dialer: permits() });
        Self { context, opening: Dialling::default(), accepting: Dialling::default() }
    }

    async fn lane(&self, direction: Direction) -> Result<Lane, TransportError> {
        let mut slot = match direction {
            Direction::ToListener => self.opening.lock().await,
            Direction::ToDialer => self.accepting.lock().await,
        };
        let context = self.context.clone();
        let dialling = slot.get_or_insert_with(|| tokio::spawn(async move { context.dial(direction).await }));
        let lane = dialling.await;
        *slot = None;
        lane.unwrap_or(Err(TransportError::Cancelled))
    }
}

impl Drop for LaneDialer {
    fn drop(&mut self) {
        for slot in [&mut self.opening, &mut self.accepting] {
            if let Some(dialling) = slot.get_mut() {
                dialling.abort();
            }
        }
    }
}

impl DialContext {
    async fn dial(&self, direction: Direction) -> Result<Lane, TransportError> {
        let permits = match direction {
            Direction::ToListener => &self.to_listener,
            Direction::ToDialer => &self.to_dialer,
        };
        let permit = permits.clone().acquire_owned().await.map_err(|_| TransportError::Cancelled)?;
        let stream = timeout(Duration::from_millis(HANDSHAKE_MS), self.connect(direction)).await.map_err(|_| TransportError::Timeout)??;
        if direction == Direction::ToDialer {
            claimed(&stream).await?;
        }
        Ok(Lane { stream, _permit: Some(permit) })
    }

    async fn connect(&self, direction: Direction) -> Result<TlsStream, TransportError> {
        let stream = self.dial_any().await?;
        let mut opening = [direction as u8; OPENING_BYTES];
        opening[1..].copy_from_slice(&self.token);
        stream.write(&opening).await?;
        Ok(stream)
    }
}

impl DialContext {
    /// Beginning with the address that answered last; the error is that of the last one tried.
    async fn dial_any(&self) -> Result<TlsStream, TransportError> {
        let first = self.answered.load(Ordering::Relaxed);
        let mut failed = TransportError::Unreachable { causes: Vec::new() };
        for at in (0..self.dials.len()).map(|step| (first + step) % self.dials.len()) {
            match self.dials[at].connect(LANE_ALPN, Use::Lane).await {
                Ok(stream) => {
                    self.answered.store(at, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// Waits until the listener wants the lane.
async fn claimed(stream: &TlsStream) -> Result<(), TransportError> {
    let mut first = BytesMut::new();
    stream.read(&mut first, 1).await?;
    match first.first() {
        Some(&CLAIMED) => Ok(()),
        _ => Err(TransportError::Protocol("a lane was not claimed as agreed".to_owned())),
    }
}

/// The listener's side: lanes that have been dialled and wait for somebody to use them.
struct LaneQueues {
    to_listener: Queue,
    to_dialer: Queue,
}

struct Queue {
    sender: mpsc::Sender<Lane>,
    receiver: AsyncMutex<mpsc::Receiver<Lane>>,
}

impl LaneQueues {
    fn new() -> Self {
        let queue = || {
            let (sender, receiver) = mpsc::channel(LANES_MAX);
            Queue { sender, receiver: AsyncMutex::new(receiver) }
        };
        Self { to_listener: queue(), to_dialer: queue() }
    }

    fn queue(&self, direction: Direction) -> &Queue {
        match direction {
            Direction::ToListener => &self.to_listener,
            Direction::ToDialer => &self.to_dialer,
        }
    }

    async fn lane(&self, direction: Direction) -> Result<Lane, TransportError> {
        self.queue(direction).receiver.lock().await.recv().await.ok_or(TransportError::LaneReset)
    }
}

/// A listener's live connections by the token of their lanes.
#[derive(Default)]
pub(in super::super) struct Registry {
    connections: Mutex<HashMap<Token, Weak<LaneSet>>>,
    registered: Notify,
}

impl Registry {
    /// Lets lanes with `token` find their connection. Entries of dead connections go at the same occasion.
    fn register(&self, token: Token, set: &Arc<LaneSet>) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|_, set| set.strong_count() > 0);
        connections.insert(token, Arc::downgrade(set));
        drop(connections);
        self.registered.notify_waiters();
    }

    /// Reads what a new lane says it is for, and puts it into its connection's queue.
    pub(super) async fn attach(&self, mut stream: TlsStream, peer: DeviceId) -> Result<(), TransportError> {
        let (direction, token) = opening(&stream).await?;
        let set = self.find(&token).await;
        let Source::Listener(queues) = &set.source else { return Err(refused("not a listener's connection")) };
        if set.peer != peer {
            return Err(refused("not this device's connection"));
        }
        stream.count_for(&set.meter);
        let queued = queues.queue(direction).sender.try_send(Lane { stream, _permit: None });
        queued.map_err(|_| refused("too many lanes wait already"))
    }

    /// The connection of `token`. The lane may be faster than its connection's last steps, so this waits; the handshake's time
    /// limit ends it.
    async fn find(&self, token: &Token) -> Arc<LaneSet> {
        loop {
            let registered = self.registered.notified();
            let found = self.connections.lock().unwrap_or_else(PoisonError::into_inner).get(token).and_then(Weak::upgrade);
            if let Some(set) = found {
                return set;
            }
            registered.await;
        }
    }
}

async fn opening(stream: &TlsStream) -> Result<(Direction, Token), TransportError> {
    let mut bytes = BytesMut::new();
    while bytes.len() < OPENING_BYTES {
        let missing = OPENING_BYTES - bytes.len();
        if stream.read(&mut bytes, missing).await? == 0 {
            return Err(refused("it ended before it began"));
        }
    }
    let direction = match bytes[0] {
        0 => Direction::ToListener,
        1 => Direction::ToDialer,
        _ => return Err(refused("it has no direction")),
    };
    let mut token = [0; TOKEN_BYTES];
    token.copy_from_slice(&bytes[1..]);
    Ok((direction, token))
}

fn refused(why: &str) -> TransportError {
    TransportError::Protocol(format!("a lane was dropped: {why}"))
}

/// Takes a parked lane and tells the dialer so. Lanes whose dialer has gone away meanwhile are passed over.
async fn claim(queues: &LaneQueues) -> Result<Lane, TransportError> {
    loop {
        let lane = queues.lane(Direction::ToDialer).await?;
        if lane.stream.write(&[CLAIMED]).await.is_ok() {
            return Ok(lane);
        }
    }
}

/// What a broken lane means: the connection's end if it has come, else the lane's own.
fn lane_error(connection: &Connection, error: TransportError) -> TransportError {
    match (connection.end_so_far(), error) {
        (Some(end), _) => end,
        (None, TransportError::Io { .. }) => TransportError::LaneReset,
        (None, other) => other,
    }
}

pub(in super::super) struct TcpLaneSender {
    connection: Connection,
    lane: Lane,
}

impl TcpLaneSender {
    pub(in super::super) fn new(connection: Connection, lane: Lane) -> Self {
        Self { connection, lane }
    }

    pub(in super::super) async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        let sent = tokio::select! {
            biased;
            sent = self.lane.stream.write(&bytes) => sent,
            error = self.connection.closed() => Err(error),
        };
        sent.map_err(|error| lane_error(&self.connection, error))
    }

    pub(in super::super) async fn finish(self) -> Result<(), TransportError> {
        let finished = tokio::select! {
            biased;
            finished = self.lane.stream.finish() => finished,
            error = self.connection.closed() => Err(error),
        };
        finished.map_err(|error| lane_error(&self.connection, error))
    }
}

pub(in super::super) struct TcpLaneReceiver {
    connection: Connection,
    lane: Lane,
}

impl TcpLaneReceiver {
    pub(in super::super) fn new(connection: Connection, lane: Lane) -> Self {
        Self { connection, lane }
    }

    pub(in super::super) async fn read(&mut self, buffer: &mut BytesMut, room: usize) -> Result<usize, TransportError> {
        let read = tokio::select! {
            biased;
            read = self.lane.stream.read(buffer, room) => read,
            error = self.connection.closed() => Err(error),
        };
        read.map_err(|error| lane_error(&self.connection, error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Admission, Choice, Dialer, LaneKind, Listener, Protocol, TransportKind, Tuning, tls::Identity};
    use super::*;
    use crate::keys::DeviceKey;
    use std::net::SocketAddr;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    struct Everyone;

    impl Admission for Everyone {
        fn is_known(&self, _: &DeviceId) -> bool {
            true
        }
        fn pairing_open(&self) -> bool {
            false
        }
    }

    fn listener() -> (Listener, DeviceKey) {
        let server = DeviceKey::from_seed(&[2; 32]);
        (Listener::bind(&[LOOPBACK], &server, Arc::new(Everyone), Tuning::default()).unwrap(), server)
    }

    fn dial(addr: SocketAddr, listener: &DeviceKey, device: &DeviceKey) -> Dial {
        let identity = Identity::new(device).unwrap();
        Dial { addr, identity, expected: listener.id(), tuning: Tuning::default() }
    }

    /// A lane to the listener, opened with whatever token, by whatever device.
    async fn rogue(dial: Dial, token: Token) -> TlsStream {
        let lane = LaneDialer::new(vec![dial], token).lane(Direction::ToListener).await.unwrap();
        lane.stream.write(b"rogue").await.unwrap();
        lane.stream
    }

    #[tokio::test]
    async fn a_lane_with_a_wrong_token_or_of_another_device_is_dropped_whatever_carries_its_connection() {
        for choice in [Choice::Auto, Choice::Only(TransportKind::Tcp)] {
            let (client, other) = (DeviceKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[3; 32]));
            let (listener, server) = listener();
            let addr = listener.local_addrs().1[0];
            let dialer = Dialer::new(&client, Tuning::default()).unwrap();
            let dialled = dialer.dial_auto(&[addr], server.id(), Protocol::Session, choice).await.unwrap();
            let accepted = listener.accept().await.unwrap();

            let _guessed = rogue(dial(addr, &server, &client), [7; TOKEN_BYTES]).await;
            let stolen = rogue(dial(addr, &server, &other), token(&dialled).unwrap()).await;
            assert!(!matches!(stolen.read(&mut BytesMut::new(), 1).await, Ok(1..)), "the listener hangs up");

            let mut lane = dialled.open_lane_over(LaneKind::Tcp).await.unwrap();
            lane.send(Bytes::from_static(b"true")).await.unwrap();
            lane.finish().await.unwrap();
            let mut received = BytesMut::with_capacity(100);
            accepted.accept_lane_over(LaneKind::Tcp).await.unwrap().read(&mut received).await.unwrap();
            assert_eq!(received, "true");
        }
    }

    #[tokio::test]
    async fn lanes_are_dialled_at_the_address_that_answers() {
        let (listener, server) = listener();
        let (client, addr) = (DeviceKey::from_seed(&[1; 32]), listener.local_addrs().1[0]);
        let closed = std::net::TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
        let dials = vec![dial(closed, &server, &client), dial(addr, &server, &client)];
        let dialer = LaneDialer::new(dials, [7; TOKEN_BYTES]);
        dialer.lane(Direction::ToListener).await.unwrap();
        assert_eq!(dialer.context.answered.load(Ordering::Relaxed), 1);
    }
}
