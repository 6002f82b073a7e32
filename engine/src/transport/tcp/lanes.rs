//! Lanes on TCP connections of their own: how they are dialled, matched to their connection, and used.

use super::super::TransportError;
use super::{Dial, LANE_ALPN, Shared, TcpConnection, record::Use, stream::TlsStream};
use crate::{
    id::DeviceId,
    limits::{HANDSHAKE_MS, LANES_MAX},
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
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
pub(super) type Token = [u8; TOKEN_BYTES];

pub(super) fn token(control: &TlsStream) -> Result<Token, TransportError> {
    control.records().exporter(TOKEN_LABEL, b"")
}

/// Which way a lane's bytes flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    ToListener = 0,
    ToDialer = 1,
}

/// How a connection comes by its lanes.
pub(super) enum Lanes {
    Dialer(LaneDialer),
    Listener(LaneQueues),
}

/// A lane's TLS connection, and the dialer's permit for it.
struct Lane {
    stream: TlsStream,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A lane being dialled in the background, so that giving up the wait does not give up the lane.
type Dialling = AsyncMutex<Option<JoinHandle<Result<Lane, TransportError>>>>;

/// The dialer's side: dials for both directions.
pub(super) struct LaneDialer {
    context: Arc<DialContext>,
    opening: Dialling,
    accepting: Dialling,
}

struct DialContext {
    dial: Dial,
    token: Token,
    to_listener: Arc<Semaphore>,
    to_dialer: Arc<Semaphore>,
}

impl LaneDialer {
    pub(super) fn new(dial: Dial, token: Token) -> Self {
        let permits = || Arc::new(Semaphore::new(LANES_MAX));
        let context = Arc::new(DialContext { dial, token, to_listener: permits(), to_dialer: permits() });
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
        let stream = self.dial.connect(LANE_ALPN, Use::Lane).await?;
        let mut opening = [direction as u8; OPENING_BYTES];
        opening[1..].copy_from_slice(&self.token);
        stream.write(&opening).await?;
        Ok(stream)
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
pub(super) struct LaneQueues {
    to_listener: Queue,
    to_dialer: Queue,
}

struct Queue {
    sender: mpsc::Sender<Lane>,
    receiver: AsyncMutex<mpsc::Receiver<Lane>>,
}

impl LaneQueues {
    pub(super) fn new() -> Self {
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
    connections: Mutex<HashMap<Token, Weak<Shared>>>,
    registered: Notify,
}

impl Registry {
    /// Lets lanes with `token` find their connection. Entries of dead connections go at the same occasion.
    pub(super) fn register(&self, token: Token, shared: &Arc<Shared>) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|_, shared| shared.strong_count() > 0);
        connections.insert(token, Arc::downgrade(shared));
        drop(connections);
        self.registered.notify_waiters();
    }

    /// Reads what a new lane says it is for, and puts it into its connection's queue.
    pub(super) async fn attach(&self, mut stream: TlsStream, peer: DeviceId) -> Result<(), TransportError> {
        let (direction, token) = opening(&stream).await?;
        let shared = self.find(&token).await;
        let Lanes::Listener(queues) = &shared.lanes else { return Err(refused("not a listener's connection")) };
        if shared.peer != peer || shared.end_so_far().is_some() {
            return Err(refused("not this device's connection"));
        }
        stream.count_for(shared.stream.meter());
        let queued = queues.queue(direction).sender.try_send(Lane { stream, _permit: None });
        queued.map_err(|_| refused("too many lanes wait already"))
    }

    /// The connection of `token`. The lane may be faster than its connection's last steps, so this waits; the handshake's time
    /// limit ends it.
    async fn find(&self, token: &Token) -> Arc<Shared> {
        loop {
            let registered = self.registered.notified();
            let found = self.connections.lock().unwrap_or_else(PoisonError::into_inner).get(token).and_then(Weak::upgrade);
            if let Some(shared) = found {
                return shared;
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

impl TcpConnection {
    pub(in super::super) async fn open_lane(&self) -> Result<TcpLaneSender, TransportError> {
        let lane = match &self.shared().lanes {
            Lanes::Dialer(dialer) => self.dialled(dialer, Direction::ToListener).await?,
            Lanes::Listener(queues) => self.while_alive(claim(queues)).await?,
        };
        Ok(TcpLaneSender { connection: self.clone(), lane })
    }

    pub(in super::super) async fn accept_lane(&self) -> Result<TcpLaneReceiver, TransportError> {
        let lane = match &self.shared().lanes {
            Lanes::Dialer(dialer) => self.dialled(dialer, Direction::ToDialer).await?,
            Lanes::Listener(queues) => self.while_alive(queues.lane(Direction::ToListener)).await?,
        };
        Ok(TcpLaneReceiver { connection: self.clone(), lane })
    }

    async fn dialled(&self, dialer: &LaneDialer, direction: Direction) -> Result<Lane, TransportError> {
        let mut lane = self.while_alive(dialer.lane(direction)).await?;
        lane.stream.count_for(self.shared().stream.meter());
        Ok(lane)
    }

    /// Waits for `lane`, but not longer than the connection lives. A lane error that comes with the end of the connection is
    /// reported as that.
    async fn while_alive<T>(&self, lane: impl Future<Output = Result<T, TransportError>>) -> Result<T, TransportError> {
        let result = tokio::select! {
            biased;
            error = self.closed() => return Err(error),
            result = lane => result,
        };
        result.map_err(|error| self.shared().end_so_far().unwrap_or(error))
    }

    /// What a broken lane means: the connection's end if it has come, else the lane's own.
    fn lane_error(&self, error: TransportError) -> TransportError {
        match (self.shared().end_so_far(), error) {
            (Some(end), _) => end,
            (None, TransportError::Io { .. }) => TransportError::LaneReset,
            (None, other) => other,
        }
    }
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

pub(in super::super) struct TcpLaneSender {
    connection: TcpConnection,
    lane: Lane,
}

impl TcpLaneSender {
    pub(in super::super) async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        let sent = tokio::select! {
            biased;
            sent = self.lane.stream.write(&bytes) => sent,
            error = self.connection.closed() => Err(error),
        };
        sent.map_err(|error| self.connection.lane_error(error))
    }

    pub(in super::super) async fn finish(self) -> Result<(), TransportError> {
        let finished = tokio::select! {
            biased;
            finished = self.lane.stream.finish() => finished,
            error = self.connection.closed() => Err(error),
        };
        finished.map_err(|error| self.connection.lane_error(error))
    }
}

pub(in super::super) struct TcpLaneReceiver {
    connection: TcpConnection,
    lane: Lane,
}

impl TcpLaneReceiver {
    pub(in super::super) async fn read(&mut self, buffer: &mut BytesMut, room: usize) -> Result<usize, TransportError> {
        let read = tokio::select! {
            biased;
            read = self.lane.stream.read(buffer, room) => read,
            error = self.connection.closed() => Err(error),
        };
        read.map_err(|error| self.connection.lane_error(error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Admission, Connection, Dialer, Listener, Protocol, TransportKind, Tuning, connection::Inner, tls::Identity};
    use super::*;
    use crate::keys::DeviceKey;
    use std::net::SocketAddr;

    struct Everyone;

    impl Admission for Everyone {
        fn is_known(&self, _: &DeviceId) -> bool {
            true
        }
        fn pairing_open(&self) -> bool {
            false
        }
    }

    /// A lane to the listener, opened with whatever token, by whatever device.
    async fn rogue(addr: SocketAddr, listener: &DeviceKey, device: &DeviceKey, token: Token) -> TlsStream {
        let identity = Identity::new(device).unwrap();
        let dial = Dial { addr, identity, expected: listener.id(), tuning: Tuning::default() };
        let lane = LaneDialer::new(dial, token).lane(Direction::ToListener).await.unwrap();
        lane.stream.write(b"rogue").await.unwrap();
        lane.stream
    }

    fn true_token(connection: &Connection) -> Token {
        let Inner::Tcp(connection) = &connection.0 else { unreachable!("dialled over TCP") };
        token(&connection.shared().stream).unwrap()
    }

    #[tokio::test]
    async fn a_lane_with_a_wrong_token_or_of_another_device_is_dropped() {
        let (client, server, other) = (DeviceKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]), DeviceKey::from_seed(&[3; 32]));
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(&[loopback], &server, Arc::new(Everyone), Tuning::default()).unwrap();
        let addr = listener.local_addrs().1[0];
        let dialer = Dialer::new(&client, Tuning::default()).unwrap();
        let dialled = dialer.dial(addr, server.id(), Protocol::Session, TransportKind::Tcp).await.unwrap();
        let accepted = listener.accept().await.unwrap();

        let _guessed = rogue(addr, &server, &client, [7; TOKEN_BYTES]).await;
        let stolen = rogue(addr, &server, &other, true_token(&dialled)).await;
        assert!(!matches!(stolen.read(&mut BytesMut::new(), 1).await, Ok(1..)), "the listener hangs up");

        let mut lane = dialled.open_lane().await.unwrap();
        lane.send(Bytes::from_static(b"true")).await.unwrap();
        lane.finish().await.unwrap();
        let mut received = BytesMut::with_capacity(100);
        accepted.accept_lane().await.unwrap().read(&mut received).await.unwrap();
        assert_eq!(received, "true");
    }
}
