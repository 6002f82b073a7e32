//! A TCP socket with TLS on it, driven by tokio. Reading and writing go on at the same time; the records are behind a mutex that
//! is never held across a wait.

use super::{
    super::{Stats, TransportError, tls},
    LANE_ALPN,
    record::{Incoming, Input, Records, Use, WRITE_BYTES},
};
use crate::id::DeviceId;
use bytes::BytesMut;
use rustls::{
    ServerConfig,
    server::{Acceptor, ClientHello},
};
use socket2::SockRef;
use std::{
    io,
    net::Shutdown,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpStream, task::coop, time::timeout};

/// How long a side that has said goodbye waits for the other to hang up.
const LINGER: Duration = Duration::from_secs(1);
/// Unread input is thrown away in pieces of this size while lingering.
const LINGER_BYTES: usize = 16 << 10;

/// Bytes on the wire of one connection, control and lanes.
#[derive(Default)]
pub(in super::super) struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Meter {
    pub(super) fn stats(&self) -> Stats {
        let (bytes_sent, bytes_received) = (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed));
        Stats { bytes_sent, bytes_received, ..Stats::default() }
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add(&self, other: &Self) {
        self.sent.fetch_add(other.sent.load(Ordering::Relaxed), Ordering::Relaxed);
        self.received.fetch_add(other.received.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// How much of what was to be sent the socket has taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    Part,
}

/// TLS over a TCP connection.
pub(super) struct TlsStream {
    socket: TcpStream,
    records: Mutex<Records>,
    meter: Arc<Meter>,
}

impl TlsStream {
    /// A handshake to be made on a connected socket.
    pub(super) fn new(socket: TcpStream, records: Records) -> Self {
        Self { socket, records: Mutex::new(records), meter: Arc::default() }
    }

    /// The listener's end: looks at the dialer's first message to learn what the connection is for, then starts accordingly.
    pub(super) async fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> Result<(Self, Use), TransportError> {
        let mut incoming = Incoming::for_handshake();
        let what = first_message(&socket, &mut incoming).await?;
        let received = incoming.unprocessed().len() as u64;
        let stream = Self::new(socket, Records::server(config, what, incoming)?);
        stream.meter.received.fetch_add(received, Ordering::Relaxed);
        Ok((stream, what))
    }

    /// From now on counts for the connection that this lane belongs to, its handshake included.
    pub(super) fn count_for(&mut self, meter: &Arc<Meter>) {
        meter.add(&self.meter);
        self.meter = meter.clone();
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    pub(super) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn peer(&self) -> Result<DeviceId, TransportError> {
        tls::peer_of(self.records().common().peer_certificates())
    }

    /// Runs the handshake to its end on this side. When it fails, the peer is told before this returns.
    pub(super) async fn handshake(&self) -> Result<(), TransportError> {
        loop {
            if let Err(error) = self.handshake_step() {
                self.say_goodbye().await;
                return Err(error);
            }
            self.flush().await?;
            if !self.records().common().is_handshaking() {
                return Ok(());
            }
            if self.fill().await? == 0 {
                return Err(truncated());
            }
        }
    }

    fn handshake_step(&self) -> Result<(), TransportError> {
        match self.records().decrypt(&mut BytesMut::new(), 0).map_err(tls::failure)? {
            Input::Ended => Err(truncated()),
            Input::Full | Input::Drained => Ok(()),
        }
    }

    /// Appends up to `room` bytes of plaintext to `into`, waiting for at least one; 0 is the proper end. Cancel-safe.
    pub(super) async fn read(&self, into: &mut BytesMut, room: usize) -> Result<usize, TransportError> {
        let before = into.len();
        loop {
            // The socket may never run dry: let others have their turn.
            coop::consume_budget().await;
            let input = self.records().decrypt(into, room).map_err(tls::failure);
            if let Err(error) = self.try_flush() {
                tracing::trace!(%error, "an answer of TLS could not be sent");
            }
            let input = input?;
            if into.len() > before {
                return Ok(into.len() - before);
            }
            if input == Input::Ended {
                return Ok(0);
            }
            if self.fill().await? == 0 {
                return Err(truncated());
            }
        }
    }

    /// Encrypts and writes all of `bytes`.
    pub(super) async fn write(&self, bytes: &[u8]) -> Result<(), TransportError> {
        for piece in bytes.chunks(WRITE_BYTES) {
            self.records().encrypt(piece)?;
            self.flush().await?;
        }
        Ok(())
    }

    /// Ends our direction: TLS first, so that the peer can tell it from a cut, then TCP.
    pub(super) async fn finish(&self) -> Result<(), TransportError> {
        self.records().end()?;
        self.flush().await?;
        self.shutdown();
        Ok(())
    }

    /// Hangs up and lingers, for at most a second each.
    pub(super) async fn say_goodbye(&self) {
        match timeout(LINGER, self.hang_up()).await {
            Ok(Ok(())) => self.linger().await,
            _ => tracing::trace!("the peer does not take the goodbye"),
        }
    }

    /// Sends what is pending and ends our direction: the system does the rest, unless the peer goes on sending.
    pub(super) async fn hang_up(&self) -> Result<(), TransportError> {
        self.flush().await?;
        self.shutdown();
        Ok(())
    }

    /// Reads until the peer hangs up, too, for at most a second: closing a socket that holds unread input, or that input still comes
    /// to, resets the connection and destroys what was sent last.
    pub(super) async fn linger(&self) {
        let mut scrap = vec![0; LINGER_BYTES];
        let ended = async {
            while self.receive(&mut scrap).await? > 0 {}
            Ok::<_, TransportError>(())
        };
        if !matches!(timeout(LINGER, ended).await, Ok(Ok(()))) {
            tracing::trace!("the peer did not hang up in order");
        }
    }

    fn shutdown(&self) {
        if let Err(error) = SockRef::from(&self.socket).shutdown(Shutdown::Write) {
            tracing::trace!(%error, "the peer has hung up already");
        }
    }

    async fn flush(&self) -> Result<(), TransportError> {
        while self.try_flush().map_err(TransportError::io("sending over TCP"))? == Sent::Part {
            self.socket.writable().await.map_err(TransportError::io("sending over TCP"))?;
        }
        Ok(())
    }

    /// Writes what the socket takes without waiting.
    fn try_flush(&self) -> io::Result<Sent> {
        let mut records = self.records();
        while !records.outgoing.unsent().is_empty() {
            match self.socket.try_write(records.outgoing.unsent()) {
                Ok(count) => {
                    records.outgoing.sent(count);
                    self.meter.sent.fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Part),
                Err(error) => return Err(error),
            }
        }
        Ok(Sent::All)
    }

    /// One large read into the records; 0 is the end of the TCP stream.
    async fn fill(&self) -> Result<usize, TransportError> {
        loop {
            {
                let mut records = self.records();
                match self.socket.try_read(records.space()?) {
                    Ok(count) => {
                        records.filled(count);
                        self.meter.received.fetch_add(count as u64, Ordering::Relaxed);
                        return Ok(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(TransportError::io("receiving over TCP")(error)),
                }
            }
            self.socket.readable().await.map_err(TransportError::io("receiving over TCP"))?;
        }
    }

    async fn receive(&self, into: &mut [u8]) -> Result<usize, TransportError> {
        receive(&self.socket, into).await
    }
}

/// Reads until there is a whole ClientHello and looks at the protocol in it. The bytes stay for the session that is to answer.
async fn first_message(socket: &TcpStream, incoming: &mut Incoming) -> Result<Use, TransportError> {
    let mut acceptor = Acceptor::default();
    loop {
        let count = receive(socket, incoming.space()?).await?;
        if count == 0 {
            return Err(truncated());
        }
        incoming.filled(count);
        let mut news = &incoming.unprocessed()[incoming.unprocessed().len() - count..];
        while !news.is_empty() {
            acceptor.read_tls(&mut news).map_err(TransportError::io("reading the first TLS message"))?;
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(purpose(&accepted.client_hello())),
                Ok(None) => {}
                Err((error, _)) => return Err(tls::failure(error)),
            }
        }
    }
}

fn purpose(hello: &ClientHello<'_>) -> Use {
    match hello.alpn().is_some_and(|mut names| names.any(|name| name == LANE_ALPN)) {
        true => Use::Lane,
        false => Use::Control,
    }
}

/// One read from a bare socket.
async fn receive(socket: &TcpStream, into: &mut [u8]) -> Result<usize, TransportError> {
    loop {
        match socket.try_read(into) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(TransportError::io("receiving over TCP")(error)),
        }
        socket.readable().await.map_err(TransportError::io("receiving over TCP"))?;
    }
}

/// The TCP stream ended where TLS did not.
fn truncated() -> TransportError {
    TransportError::io("the connection was cut")(io::ErrorKind::UnexpectedEof.into())
}
