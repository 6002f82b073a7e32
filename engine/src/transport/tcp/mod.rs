//! TCP: a control connection and one connection for each lane, each with its own TLS and the same mutual keys.
//!
//! ```text
//! dialer                                          listener
//!   ── TLS, ALPN mirror/1 ────────────────────────►  control: frames of `control`, both ways
//!   ── TLS, ALPN mirror-lane/1 ── 0 token ── bytes ►  a lane to the listener
//!   ── TLS, ALPN mirror-lane/1 ── 1 token ────────►  parked, until the listener wants to send:
//!   ◄───────────────────────────── 1 ── bytes ──────  a lane to the dialer
//! ```
//! Only the dialer dials: the listener may be unable to (NAT). The token is an exporter of the control connection (which may be
//! QUIC, see `lanes`), so a lane belongs to exactly one connection, and another known device cannot slip one in. The dialer keeps one lane parked while it waits in
//! `accept_lane`, which returns when the listener claims it, as on QUIC.
//!
//! # Liveness
//! A keep-alive frame leaves every quarter of [`TCP_IDLE_MS`]; a connection that stays silent for all of it, control and lanes, is dead.
//! When the control connection ends, everything on it ends.
//!
//! # Goodbye
//! ```text
//! who closes                                        the other
//!   ── close frame · FIN ─────────────────────────►  reads both, answers with its own
//!   ◄──────────────────────────── close frame · FIN
//! ```
//! A socket that is closed while input comes is reset, and the reset may destroy a goodbye that was lost on the way and would have been
//! sent again. So whoever hangs up reads on until the other has, in the background, for at most a second. A process about to exit waits
//! for that, but not after [`CloseReason::Done`]: then each end has all that it needs, the goodbye carries no news, and the answer would
//! cost a round trip. It has been given to the system, which delivers it when the process is gone; if even so a reset wins, who has
//! nothing left to hear takes that for the end.

mod lanes;
mod plain;
mod record;
mod stream;

pub(super) use lanes::{LaneSet, Registry, TcpLaneReceiver, TcpLaneSender};
pub(super) use stream::Meter;

use self::{
    record::{Records, Use},
    stream::TlsStream,
};
use super::{
    Admission, CloseReason, Protocol, Stats, TransportError, TransportKind, Tuning, admit,
    control::{self, Frame, Frames},
    quic::canonical,
    sent_away, socket, tls,
};
use crate::{id::DeviceId, limits::TCP_IDLE_MS};
use bytes::Bytes;
use rustls::{ServerConfig, pki_types::ServerName};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{Mutex as AsyncMutex, mpsc, watch},
    time::{sleep, timeout},
};

/// ALPN of a lane.
const LANE_ALPN: &[u8] = b"mirror-lane/1";
/// Reads whose messages wait for a receiver: one, and one more is under way.
const READS_WAITING: usize = 1;
/// How long a goodbye may take, the wait for the other side to hang up included.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);

/// What a listener answers to on TCP.
pub(super) const ALPN: [&[u8]; 4] = [Protocol::Session.alpn(), Protocol::Pairing.alpn(), Protocol::Doctor.alpn(), LANE_ALPN];

/// Where and how to dial, for the control connection and for every lane after it.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) addr: SocketAddr,
    pub(super) identity: tls::Identity,
    pub(super) expected: DeviceId,
    pub(super) tuning: Tuning,
}

impl Dial {
    async fn socket(&self) -> Result<TcpStream, TransportError> {
        let unreachable = |error: std::io::Error| TransportError::unreachable(TransportKind::Tcp, self.addr, error);
        let tcp = TcpStream::connect(self.addr).await.map_err(unreachable)?;
        socket::prepare(&tcp, &self.tuning)?;
        Ok(tcp)
    }

    async fn connect(&self, alpn: &[u8], what: Use) -> Result<TlsStream, TransportError> {
        let tcp = self.socket().await?;
        let (config, pinned) = self.identity.client(self.expected, alpn)?;
        let records = Records::client(config, ServerName::from(self.addr.ip()), what)?;
        let stream = TlsStream::new(tcp, records);
        stream.handshake().await.map_err(|error| pinned.explain(error))?;
        Ok(stream)
    }
}

/// Dials. Returns after two round trips, before the listener has seen our key.
pub(super) async fn dial(dial: Dial, protocol: Protocol) -> Result<TcpConnection, TransportError> {
    let stream = dial.connect(protocol.alpn(), Use::Control).await?;
    Ok(TcpConnection::start(stream, dial.expected, protocol, dial.addr))
}

/// What accepted sockets are held against.
#[derive(Clone)]
pub(super) struct Accept {
    pub(super) config: Arc<ServerConfig>,
    pub(super) admission: Arc<dyn Admission>,
    pub(super) registry: Arc<Registry>,
    pub(super) tuning: Tuning,
}

/// Finishes a handshake that came in. A lane goes to its connection, and there is nothing to return.
pub(super) async fn accept(accept: Accept, tcp: TcpStream, remote: SocketAddr) -> Result<Option<TcpConnection>, TransportError> {
    socket::prepare(&tcp, &accept.tuning)?;
    if plain::is_plain(&tcp).await.map_err(TransportError::io("receiving over TCP"))? {
        return accept.registry.attach_plain(tcp, accept.tuning.plain_lanes).await.map(|()| None);
    }
    let (stream, what) = TlsStream::accept(tcp, accept.config.clone()).await?;
    stream.handshake().await?;
    let peer = stream.peer()?;
    if what == Use::Lane {
        return accept.registry.attach(stream, peer).await.map(|()| None);
    }
    let protocol = stream.records().common().alpn_protocol().and_then(Protocol::from_alpn).ok_or(TransportError::Version)?;
    if let Err(reason) = admit(&*accept.admission, &peer, protocol) {
        stream.write(&control::close(reason)).await?;
        stream.say_goodbye().await;
        return Err(sent_away(reason));
    }
    Ok(Some(TcpConnection::start(stream, peer, protocol, remote)))
}

/// A connection over TCP. Clones share it; the last one to go ends it.
#[derive(Clone)]
pub(super) struct TcpConnection(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.end(TransportError::closed(CloseReason::Abandoned));
    }
}

/// What handles and background tasks share.
struct Shared {
    peer: DeviceId,
    protocol: Protocol,
    remote: SocketAddr,
    stream: TlsStream,
    /// What its lanes carry.
    lane_meter: Arc<Meter>,
    /// Held while a frame is being written, so that frames do not mix.
    writing: AsyncMutex<LastFrame>,
    messages: Mutex<Option<mpsc::Receiver<VecDeque<Bytes>>>>,
    end: watch::Sender<Option<TransportError>>,
    /// Whether nobody need wait for the goodbye any more.
    gone: watch::Sender<bool>,
}

/// What the last frame that was begun has come to.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum LastFrame {
    #[default]
    Whole,
    /// Its send was given up: nothing that follows would be understood.
    Torn,
}

impl Shared {
    /// Ends the connection; the first reason counts.
    fn end(&self, error: TransportError) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(error);
            first
        });
    }

    async fn ended(&self) -> TransportError {
        let mut end = self.end.subscribe();
        let seen = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        seen.unwrap_or(TransportError::Closed(CloseReason::Abandoned))
    }

    /// Why the connection ended, if it has.
    fn end_so_far(&self) -> Option<TransportError> {
        self.end.borrow().clone()
    }

    /// Reads frames for as long as the connection lives.
    async fn read(self: Arc<Self>, messages: mpsc::Sender<VecDeque<Bytes>>) {
        let error = tokio::select! {
            error = self.read_frames(messages) => error,
            error = self.ended() => error,
        };
        self.end(error);
    }

    async fn read_frames(&self, messages: mpsc::Sender<VecDeque<Bytes>>) -> TransportError {
        let mut frames = Frames::default();
        loop {
            let mut read = VecDeque::new();
            let other = loop {
                match frames.next() {
                    Ok(Some(Frame::Message(message))) => read.push_back(message),
                    other => break other,
                }
            };
            // Nobody may be interested in messages; the end of the connection still matters.
            if !read.is_empty() {
                let _ = messages.send(read).await;
            }
            match other {
                Ok(Some(Frame::KeepAlive | Frame::Message(_))) => {}
                Ok(Some(Frame::Close(reason))) => return TransportError::closed(reason),
                Ok(None) => match self.read_on(&mut frames).await {
                    Ok(0) => return TransportError::Protocol("the control connection ended without a reason".to_owned()),
                    Ok(_) => {}
                    Err(error) => return error,
                },
                Err(error) => return error,
            }
        }
    }

    /// Reads on. Silence is the end only where the lanes are silent, too: they may fill a slow link.
    async fn read_on(&self, frames: &mut Frames) -> Result<usize, TransportError> {
        loop {
            let heard = self.lane_meter.received();
            match timeout(Duration::from_millis(TCP_IDLE_MS), self.stream.read(frames.buffer(), Frames::room())).await {
                Ok(read) => return read,
                Err(_) if self.lane_meter.received() == heard => return Err(TransportError::Timeout),
                Err(_) => {}
            }
        }
    }

    /// Says that we are alive until the connection ends, then says goodbye.
    async fn keep(self: Arc<Self>) {
        let error = tokio::select! {
            error = self.ended() => error,
            error = self.keep_alive() => error,
        };
        self.end(error);
        if timeout(GOODBYE_LIMIT, self.say_goodbye()).await.is_err() {
            tracing::debug!(peer = %self.peer.short(), "the goodbye did not arrive in time");
        }
        self.gone.send_replace(true);
    }

    async fn keep_alive(&self) -> TransportError {
        loop {
            sleep(Duration::from_millis(TCP_IDLE_MS / 4)).await;
            // Whoever holds the lock is sending, which says as much.
            let Ok(mut last) = self.writing.try_lock() else { continue };
            if let Err(error) = self.write_frames(&mut last, &[control::keep_alive()]).await {
                return error;
            }
        }
    }

    /// Writes frames after a whole one; `last` tells what became of them even if this is dropped on the way.
    async fn write_frames(&self, last: &mut LastFrame, pieces: &[impl AsRef<[u8]>]) -> Result<(), TransportError> {
        if *last == LastFrame::Torn {
            return Err(TransportError::Cancelled);
        }
        *last = LastFrame::Torn;
        for piece in pieces {
            self.stream.write(piece.as_ref()).await?;
        }
        *last = LastFrame::Whole;
        Ok(())
    }

    async fn say_goodbye(&self) {
        let mut last = self.writing.lock().await;
        if let Some(reason) = self.end_so_far().and_then(|end| goodbye(&end))
            && let Err(error) = self.write_frames(&mut last, &[control::close(reason)]).await
        {
            tracing::debug!(%error, "the peer does not hear the goodbye");
        }
        if self.stream.hang_up().await.is_ok() {
            if self.end_so_far().is_some_and(|end| end.is_done()) {
                self.gone.send_replace(true);
            }
            self.stream.linger().await;
        }
    }
}

/// What to tell the peer about this end. Its own goodbye is answered, so that both hang up in order.
fn goodbye(end: &TransportError) -> Option<CloseReason> {
    match end {
        TransportError::Closed(reason) => Some(*reason),
        TransportError::Refused => Some(CloseReason::Refused),
        TransportError::Protocol(_) => Some(CloseReason::ProtocolError),
        _ => None,
    }
}

impl TcpConnection {
    fn start(stream: TlsStream, peer: DeviceId, protocol: Protocol, remote: SocketAddr) -> Self {
        let (sender, messages) = mpsc::channel(READS_WAITING);
        let shared = Arc::new(Shared {
            peer,
            protocol,
            remote,
            stream,
            lane_meter: Arc::default(),
            writing: AsyncMutex::default(),
            messages: Mutex::new(Some(messages)),
            end: watch::Sender::new(None),
            gone: watch::Sender::new(false),
        });
        tokio::spawn(shared.clone().read(sender));
        tokio::spawn(shared.clone().keep());
        Self(Arc::new(Handle { shared }))
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(super) fn peer(&self) -> DeviceId {
        self.shared().peer
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.shared().protocol
    }

    pub(super) fn remote_addr(&self) -> SocketAddr {
        canonical(self.shared().remote)
    }

    pub(super) fn exporter(&self, label: &[u8], context: &[u8]) -> Result<[u8; 32], TransportError> {
        self.shared().stream.records().exporter(label, context)
    }

    pub(super) fn take_control(&self) -> Option<(TcpControlSender, TcpControlReceiver)> {
        let messages = self.shared().messages.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let receiver = TcpControlReceiver { connection: self.clone(), messages, read: VecDeque::new() };
        Some((TcpControlSender { connection: self.clone() }, receiver))
    }

    pub(super) fn stats(&self) -> Stats {
        self.shared().stream.meter().stats()
    }

    pub(super) fn lane_meter(&self) -> Arc<Meter> {
        self.shared().lane_meter.clone()
    }

    pub(super) fn end_so_far(&self) -> Option<TransportError> {
        self.shared().end_so_far()
    }

    pub(super) fn close(&self, reason: CloseReason) {
        self.shared().end(TransportError::closed(reason));
    }

    pub(super) async fn closed(&self) -> TransportError {
        self.shared().ended().await
    }

    pub(super) async fn flushed(&self) {
        let mut gone = self.shared().gone.subscribe();
        if timeout(GOODBYE_LIMIT, gone.wait_for(|gone| *gone)).await.is_err() {
            tracing::debug!("the goodbye did not leave in time");
        }
    }
}

pub(super) struct TcpControlSender {
    connection: TcpConnection,
}

impl TcpControlSender {
    pub(super) async fn send_each(&mut self, messages: Vec<Bytes>) -> Result<(), TransportError> {
        let pieces = control::pieces(messages)?;
        let shared = self.connection.shared();
        let mut last = shared.writing.lock().await;
        let sent = tokio::select! {
            biased;
            error = shared.ended() => Err(error),
            sent = shared.write_frames(&mut last, &pieces) => sent,
        };
        drop(last);
        // The reader knows better why the connection broke: a refusal comes as an alert, then the socket is closed.
        match sent {
            Err(TransportError::Io { .. }) => Err(shared.ended().await),
            other => other,
        }
    }
}

pub(super) struct TcpControlReceiver {
    connection: TcpConnection,
    /// Messages, as many as came with one read.
    messages: mpsc::Receiver<VecDeque<Bytes>>,
    read: VecDeque<Bytes>,
}

impl TcpControlReceiver {
    pub(super) async fn recv(&mut self) -> Result<Option<Bytes>, TransportError> {
        while self.read.is_empty()
            && let Some(read) = self.messages.recv().await
        {
            self.read = read;
        }
        if let Some(message) = self.read.pop_front() {
            return Ok(Some(message));
        }
        match self.connection.closed().await {
            error if error.is_done() => Ok(None),
            error => Err(error),
        }
    }
}
