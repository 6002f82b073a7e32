//! Lanes on TCP connections of their own: how they are dialled, matched to their connection, and used.
//!
//! Their connection need not be TCP itself: all that ties a lane to it is the token, which a QUIC connection has as well. So one
//! session can move its bytes from QUIC streams to TCP lanes and back while everything else stays where it is.

use super::super::{Connection, PlainLanes, Stats, TransportError};
use super::{
    Dial, LANE_ALPN,
    plain::{self, Opening, PlainStream, UsedNumbers},
    record::Use,
    stream::{Meter, TlsStream},
};
use crate::{
    id::DeviceId,
    io::piece::Piece,
    limits::{HANDSHAKE_MS, LANES_MAX},
};
use bytes::BytesMut;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
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

/// Which way a lane's bytes flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    ToListener = 0,
    ToDialer = 1,
}

impl Direction {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::ToListener, Self::ToDialer].into_iter().find(|direction| *direction as u8 == byte)
    }
}

/// The TCP lanes of one connection, at one of its ends.
pub(in super::super) struct LaneSet {
    peer: DeviceId,
    meter: Arc<Meter>,
    source: Source,
    /// Whether a lane of it went without TLS.
    plain: AtomicBool,
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
        let set = Self::new(connection, Source::Listener(LaneQueues::new(token)));
        registry.register(token, &set);
        Ok(set)
    }

    fn new(connection: &Connection, source: Source) -> Arc<Self> {
        Arc::new(Self { peer: connection.peer(), meter: connection.lane_meter(), source, plain: AtomicBool::default() })
    }

    /// Whether any of its lanes went without TLS.
    pub(in super::super) fn were_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    /// Puts a lane that was dialled where whoever uses it looks.
    fn queue(&self, direction: Direction, stream: LaneStream) -> Result<(), TransportError> {
        let Source::Listener(queues) = &self.source else { return Err(refused("not a listener's connection")) };
        let queued = queues.queue(direction).sender.try_send(Lane { stream, _permit: None });
        queued.map_err(|_| refused("too many lanes wait already"))
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
        self.plain.fetch_or(matches!(lane.stream, LaneStream::Plain(_)), Ordering::Relaxed);
        Ok(lane)
    }
}

fn token(connection: &Connection) -> Result<Token, TransportError> {
    connection.exporter(TOKEN_LABEL, b"")
}

/// A lane's TCP connection, and the dialer's permit for it.
pub(in super::super) struct Lane {
    stream: LaneStream,
    _permit: Option<OwnedSemaphorePermit>,
}

enum LaneStream {
    Tls(Box<TlsStream>),
    Plain(PlainStream),
}

impl LaneStream {
    fn count_for(&mut self, meter: &Arc<Meter>) {
        match self {
            Self::Tls(stream) => stream.count_for(meter),
            Self::Plain(stream) => stream.count_for(meter),
        }
    }

    async fn write(&self, piece: &Piece) -> Result<(), TransportError> {
        match self {
            Self::Tls(stream) => stream.write(&piece.bytes).await,
            Self::Plain(stream) => stream.write(piece).await,
        }
    }

    async fn finish(&self) -> Result<(), TransportError> {
        match self {
            Self::Tls(stream) => stream.finish().await,
            Self::Plain(stream) => stream.finish().await,
        }
    }

    async fn read(&mut self, into: &mut BytesMut, room: usize) -> Result<usize, TransportError> {
        match self {
            Self::Tls(stream) => stream.read(into, room).await,
            Self::Plain(stream) => stream.read(into, room).await,
        }
    }

    /// Tells the dialer that its parked lane is wanted.
    async fn claim(&self) -> Result<(), TransportError> {
        match self {
            Self::Tls(stream) => stream.write(&[CLAIMED]).await,
            Self::Plain(stream) => stream.write_all(&[CLAIMED]).await,
        }
    }

    /// Waits until the listener wants the lane.
    async fn claimed(&self) -> Result<(), TransportError> {
        let first = match self {
            Self::Tls(stream) => {
                let mut first = BytesMut::new();
                stream.read(&mut first, 1).await?;
                first.first().copied()
            }
            Self::Plain(stream) => stream.read_claim().await?,
        };
        match first {
            Some(CLAIMED) => Ok(()),
            _ => Err(TransportError::Protocol("a lane was not claimed as agreed".to_owned())),
        }
    }
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
    /// Plain lanes opened so far: the number of the next.
    plain_lanes: AtomicU64,
    /// Whether the peer has refused one.
    plain_refused: AtomicBool,
    to_listener: Arc<Semaphore>,
    to_dialer: Arc<Semaphore>,
}

impl LaneDialer {
    fn new(dials: Vec<Dial>, token: Token) -> Self {
        let permits = || Arc::new(Semaphore::new(LANES_MAX));
        let context = Arc::new(DialContext {
            dials,
            answered: AtomicUsize::default(),
            token,
            plain_lanes: AtomicU64::default(),
            plain_refused: AtomicBool::default(),
            to_listener: permits(),
            to_dialer: permits(),
        });
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
            stream.claimed().await?;
        }
        Ok(Lane { stream, _permit: Some(permit) })
    }

    /// A plain lane where both ends allow it, else one over TLS.
    async fn connect(&self, direction: Direction) -> Result<LaneStream, TransportError> {
        let allowed = self.dials.iter().any(|dial| dial.tuning.plain_lanes == PlainLanes::Allowed);
        if allowed && !self.plain_refused.load(Ordering::Relaxed) {
            match self.dial_any(direction, Opened::Plain).await {
                Ok(stream) => return Ok(stream),
                Err(error) => self.note_refusal(&error),
            }
        }
        self.dial_any(direction, Opened::OverTls).await
    }

    fn note_refusal(&self, error: &TransportError) {
        if !self.plain_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "the peer takes no plain lanes: lanes go over TLS");
        }
    }

    /// Beginning with the address that answered last; the error is that of the last one tried.
    async fn dial_any(&self, direction: Direction, opened: Opened) -> Result<LaneStream, TransportError> {
        let first = self.answered.load(Ordering::Relaxed);
        let mut failed = TransportError::Unreachable { causes: Vec::new() };
        for at in (0..self.dials.len()).map(|step| (first + step) % self.dials.len()) {
            match self.dial_one(&self.dials[at], direction, opened).await {
                Ok(stream) => {
                    self.answered.store(at, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn dial_one(&self, dial: &Dial, direction: Direction, opened: Opened) -> Result<LaneStream, TransportError> {
        match opened {
            Opened::Plain => {
                let number = self.plain_lanes.fetch_add(1, Ordering::Relaxed);
                let stream = PlainStream::open(dial.socket().await?, &self.token, direction, number).await?;
                Ok(LaneStream::Plain(stream))
            }
            Opened::OverTls => {
                let stream = dial.connect(LANE_ALPN, Use::Lane).await?;
                let mut opening = [direction as u8; OPENING_BYTES];
                opening[1..].copy_from_slice(&self.token);
                stream.write(&opening).await?;
                Ok(LaneStream::Tls(Box::new(stream)))
            }
        }
    }
}

/// How a lane is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    OverTls,
    Plain,
}

/// The listener's side: lanes that have been dialled and wait for somebody to use them.
struct LaneQueues {
    token: Token,
    used: UsedNumbers,
    to_listener: Queue,
    to_dialer: Queue,
}

struct Queue {
    sender: mpsc::Sender<Lane>,
    receiver: AsyncMutex<mpsc::Receiver<Lane>>,
}

impl LaneQueues {
    fn new(token: Token) -> Self {
        let queue = || {
            let (sender, receiver) = mpsc::channel(LANES_MAX);
            Queue { sender, receiver: AsyncMutex::new(receiver) }
        };
        Self { token, used: UsedNumbers::default(), to_listener: queue(), to_dialer: queue() }
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
        let set = self.find(|registered| *registered == token).await;
        if set.peer != peer {
            return Err(refused("not this device's connection"));
        }
        stream.count_for(&set.meter);
        set.queue(direction, LaneStream::Tls(Box::new(stream)))
    }

    /// The same for a lane without TLS: no device has proved itself on it, its opening proves that it is the connection's.
    pub(super) async fn attach_plain(&self, socket: TcpStream, allowed: PlainLanes) -> Result<(), TransportError> {
        if allowed == PlainLanes::Refused {
            return Err(refused("plain lanes are not allowed here"));
        }
        let opening = Opening::read(&socket).await?;
        let set = self.find(|registered| plain::tag(registered) == opening.connection).await;
        let Source::Listener(queues) = &set.source else { return Err(refused("not a listener's connection")) };
        queues.used.admit(&queues.token, &opening)?;
        let mut stream = PlainStream::accept(socket).await?;
        stream.count_for(&set.meter);
        set.plain.store(true, Ordering::Relaxed);
        set.queue(opening.direction, LaneStream::Plain(stream))
    }

    /// The connection whose token is the one asked for. The lane may be faster than its connection's last steps, so this waits; the
    /// handshake's time limit ends it.
    async fn find(&self, is_asked_for: impl Fn(&Token) -> bool) -> Arc<LaneSet> {
        loop {
            let registered = self.registered.notified();
            let found = {
                let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
                connections.iter().find(|(token, _)| is_asked_for(token)).and_then(|(_, set)| set.upgrade())
            };
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
    let direction = Direction::from_byte(bytes[0]).ok_or_else(|| refused("it has no direction"))?;
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
        if lane.stream.claim().await.is_ok() {
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

    pub(in super::super) async fn send(&mut self, piece: &Piece) -> Result<(), TransportError> {
        let sent = tokio::select! {
            biased;
            sent = self.lane.stream.write(piece) => sent,
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
    use super::super::super::{
        Choice, Dialer, LaneKind, Listener, Protocol, TransportKind, Tuning,
        tests::{Known, LOOPBACK, key},
        tls::Identity,
    };
    use super::*;
    use crate::keys::DeviceKey;
    use bytes::Bytes;
    use std::net::SocketAddr;

    /// A listening device that knows the devices 1 and 3.
    fn listener(tuning: Tuning) -> (Listener, DeviceKey) {
        let server = key(2);
        (Listener::bind(&[LOOPBACK], &server, Known::only(&[&key(1), &key(3)]), tuning).unwrap(), server)
    }

    fn dial(addr: SocketAddr, listener: &DeviceKey, device: &DeviceKey) -> Dial {
        let identity = Identity::new(device).unwrap();
        Dial { addr, identity, expected: listener.id(), tuning: Tuning::default() }
    }

    /// A lane to the listener, opened with whatever token, by whatever device.
    async fn rogue(dial: Dial, token: Token) -> LaneStream {
        let lane = LaneDialer::new(vec![dial], token).lane(Direction::ToListener).await.unwrap();
        lane.stream.write(&Bytes::from_static(b"rogue").into()).await.unwrap();
        lane.stream
    }

    #[tokio::test]
    async fn a_lane_with_a_wrong_token_or_of_another_device_is_dropped_whatever_carries_its_connection() {
        for choice in [Choice::Auto, Choice::Only(TransportKind::Tcp)] {
            let (client, other) = (key(1), key(3));
            let (listener, server) = listener(Tuning::default());
            let addr = listener.local_addrs().1[0];
            let dialer = Dialer::new(&client, Tuning::default()).unwrap();
            let dialled = dialer.dial_auto(&[addr], server.id(), Protocol::Session, choice).await.unwrap();
            let accepted = listener.accept().await.unwrap();

            let _guessed = rogue(dial(addr, &server, &client), [7; TOKEN_BYTES]).await;
            let mut stolen = rogue(dial(addr, &server, &other), token(&dialled).unwrap()).await;
            assert!(!matches!(stolen.read(&mut BytesMut::new(), 1).await, Ok(1..)), "the listener hangs up");

            let mut lane = dialled.open_lane_over(LaneKind::Tcp).await.unwrap();
            lane.send(Bytes::from_static(b"true")).await.unwrap();
            lane.finish().await.unwrap();
            let mut received = BytesMut::with_capacity(100);
            accepted.accept_lane_over(LaneKind::Tcp).await.unwrap().read(&mut received).await.unwrap();
            assert_eq!(received, "true");
        }
    }

    fn allowing(plain_lanes: PlainLanes) -> Tuning {
        Tuning { plain_lanes, ..Tuning::default() }
    }

    /// A connection whose ends allow plain lanes as said; the listener must live as long.
    async fn pair(dialling: PlainLanes, listening: PlainLanes) -> (Connection, Connection, Listener) {
        let (listener, server) = listener(allowing(listening));
        let addr = listener.local_addrs().1[0];
        let dialer = Dialer::new(&key(1), allowing(dialling)).unwrap();
        let dialled = dialer.dial(addr, server.id(), Protocol::Session, TransportKind::Tcp).await.unwrap();
        let accepted = listener.accept().await.unwrap();
        (dialled, accepted, listener)
    }

    /// Sends `piece` both ways over lanes of their own and gives back what came.
    async fn exchange(dialled: &Connection, accepted: &Connection, piece: Piece) -> [BytesMut; 2] {
        let send = async |from: &Connection| {
            let mut lane = from.open_lane().await.unwrap();
            lane.send(piece.clone()).await.unwrap();
            lane.send(Bytes::from_static(b", in memory")).await.unwrap();
            lane.finish().await.unwrap();
        };
        let receive = async |at: &Connection| {
            let (mut lane, mut all) = (at.accept_lane().await.unwrap(), BytesMut::new());
            while lane.read(&mut all).await.unwrap() > 0 {}
            all
        };
        let ((), one) = tokio::join!(send(dialled), receive(accepted));
        let ((), other) = tokio::join!(send(accepted), receive(dialled));
        [one, other]
    }

    fn piece_of_a_file() -> Piece {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before in the file after").unwrap();
        Piece::of_file(Bytes::from_static(b"in the file"), Arc::new(file), 7)
    }

    #[tokio::test]
    async fn lanes_are_plain_where_both_ends_allow_it_and_over_tls_where_one_does_not() {
        use PlainLanes::{Allowed, Refused};
        for (dialling, listening) in [(Allowed, Allowed), (Allowed, Refused), (Refused, Allowed)] {
            let (dialled, accepted, _listener) = pair(dialling, listening).await;
            let received = exchange(&dialled, &accepted, piece_of_a_file()).await;
            assert_eq!(received, ["in the file, in memory"; 2]);
            let plain = dialling == Allowed && listening == Allowed;
            assert_eq!((dialled.had_plain_lanes(), accepted.had_plain_lanes()), (plain, plain));
        }
    }

    #[tokio::test]
    async fn an_opening_of_a_plain_lane_works_once_and_one_without_the_token_never() {
        let (dialled, accepted, listener) = pair(PlainLanes::Allowed, PlainLanes::Allowed).await;
        let (addr, token) = (listener.local_addrs().1[0], token(&dialled).unwrap());
        let open = async |token: Token, number: u64| {
            PlainStream::open(TcpStream::connect(addr).await.unwrap(), &token, Direction::ToListener, number).await
        };
        open(token, 77).await.unwrap();
        accepted.accept_lane().await.unwrap();
        assert!(open(token, 77).await.is_err(), "used before");
        let mut forged = plain::Opening::new(&token, Direction::ToListener, 78).to_bytes();
        *forged.last_mut().unwrap() ^= 1;
        let socket = TcpStream::connect(addr).await.unwrap();
        socket.writable().await.unwrap();
        assert_eq!(socket.try_write(&forged).unwrap(), forged.len());
        socket.readable().await.unwrap();
        assert!(!matches!(socket.try_read(&mut [0]), Ok(1..)), "the listener hangs up");
    }

    #[tokio::test]
    async fn a_plain_lane_that_was_cut_does_not_look_finished() {
        let (dialled, accepted, _listener) = pair(PlainLanes::Allowed, PlainLanes::Allowed).await;
        let mut lane = dialled.open_lane().await.unwrap();
        lane.send(Bytes::from_static(b"whole")).await.unwrap();
        drop(lane);
        let (mut receiver, mut all) = (accepted.accept_lane().await.unwrap(), BytesMut::new());
        let end = loop {
            match receiver.read(&mut all).await {
                Ok(1..) => {}
                end => break end,
            }
        };
        assert!(matches!(end, Err(TransportError::LaneReset)), "{end:?}");
        assert_eq!(all, "whole");
    }

    #[tokio::test]
    async fn lanes_are_dialled_at_the_address_that_answers() {
        let (listener, server) = listener(Tuning::default());
        let (client, addr) = (key(1), listener.local_addrs().1[0]);
        let closed = std::net::TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
        let dials = vec![dial(closed, &server, &client), dial(addr, &server, &client)];
        let dialer = LaneDialer::new(dials, [7; TOKEN_BYTES]);
        dialer.lane(Direction::ToListener).await.unwrap();
        assert_eq!(dialer.context.answered.load(Ordering::Relaxed), 1);
    }
}
