//! Quinn's socket, with batches of the size that the kernel takes.
//!
//! ```text
//! quinn ── 9 datagrams ─►┐
//! quinn ── 9 datagrams ─►├ held: up to 64 KiB ── one send (GSO) ─► kernel
//! quinn ── 3 datagrams ─►┘
//! ```
//! A send costs the kernel the same for one datagram and for 64 KiB of them, and what was sent together the receiver gets together.
//! Quinn makes batches of at most ten datagrams. A full one is therefore held back and joined with those that follow; the first that is
//! not full is the last that quinn has, so it takes everything along. When none follows (the window is full, or the pacer says wait), a
//! task of its own sends what is held as soon as nothing else is ready to run. What is not a full batch is never held.
//!
//! # Invariants
//! - Datagrams to one peer leave in the order in which quinn gave them.
//! - A send never holds more than a UDP packet may. Ten jumbo datagrams would: the kernel refuses them, quinn takes the refusal for a lost
//!   MTU probe, and the path falls back to the smallest size. A path grows only after a probe of the new size went out through this
//!   very socket, so batches are bounded by the largest datagram ever sent.
//! - When the system turns out not to know GSO, the refused batch goes out one by one: slower from then on, nothing lost.

use super::paths::{Admit, ETHERNET_PAYLOAD_BYTES, Paths};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use std::{
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{sync::Notify, task::yield_now};

/// Largest UDP payload over IPv4: what one send may hold, segments and all.
const SEND_BYTES_MAX: usize = 65_507;
/// Most datagrams that quinn puts into one batch, whatever it is told.
const LIBRARY_BATCH_MAX: usize = 10;

/// See the module. Made by [`BatchedSocket::spawn`].
#[derive(Debug)]
pub(super) struct BatchedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    paths: Paths,
    /// Largest datagram ever sent.
    segment_bytes: AtomicUsize,
    held: Mutex<Held>,
    /// Told when something is held.
    holding: Arc<Notify>,
    /// Buffers of one receive call are this large at most, in segments.
    receive_segments: usize,
}

/// Full batches to one peer that wait for more.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    segment: usize,
    to: Envelope,
}

/// All that datagrams of one send have in common, but for their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Envelope {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
}

impl Envelope {
    fn of(transmit: &Transmit<'_>) -> Self {
        Self { destination: transmit.destination, ecn: transmit.ecn, src_ip: transmit.src_ip }
    }

    fn around<'a>(&self, contents: &'a [u8], segment: usize) -> Transmit<'a> {
        let segment_size = (contents.len() > segment).then_some(segment);
        Transmit { destination: self.destination, ecn: self.ecn, contents, segment_size, src_ip: self.src_ip }
    }
}

impl BatchedSocket {
    /// Wraps `inner` and starts the task that sends what is left held. The task ends with the socket.
    pub(super) fn spawn(inner: Arc<dyn AsyncUdpSocket>, paths: Paths, datagram_bytes_max: usize) -> Arc<Self> {
        let socket = Arc::new(Self::new(inner, paths, datagram_bytes_max));
        tokio::spawn(flush_when_idle(Arc::downgrade(&socket), socket.holding.clone()));
        socket
    }

    fn new(inner: Arc<dyn AsyncUdpSocket>, paths: Paths, datagram_bytes_max: usize) -> Self {
        let to = Envelope { destination: SocketAddr::from(([0; 4], 0)), ecn: None, src_ip: None };
        Self {
            receive_segments: inner.max_receive_segments().min(SEND_BYTES_MAX.div_ceil(datagram_bytes_max)),
            inner,
            paths,
            segment_bytes: AtomicUsize::new(ETHERNET_PAYLOAD_BYTES),
            held: Mutex::new(Held { bytes: Vec::with_capacity(SEND_BYTES_MAX), segment: 1, to }),
            holding: Arc::default(),
        }
    }

    /// Datagrams of `segment` bytes in one send.
    fn send_segments(&self, segment: usize) -> usize {
        self.inner.max_transmit_segments().min(SEND_BYTES_MAX / segment.max(1)).max(1)
    }

    /// Datagrams that quinn is told to put in a batch: as many as it can, so that whole batches fill a send best.
    fn batch_segments(&self) -> usize {
        let fit = self.send_segments(self.segment_bytes.load(Ordering::Relaxed));
        (1..=LIBRARY_BATCH_MAX.min(fit)).max_by_key(|batch| (fit / batch * batch, *batch)).unwrap_or(1)
    }

    /// Takes the batch over if it is full and another one would fit behind it.
    fn hold(&self, held: &mut Held, transmit: &Transmit<'_>, segment: usize) -> Hold {
        let batch = self.batch_segments();
        let full = batch > 1 && transmit.contents.len() == batch * segment;
        let after = held.bytes.len() / segment + 2 * batch;
        if !full || after > self.send_segments(segment) {
            return Hold::Last;
        }
        held.append(transmit, segment);
        Hold::Held
    }

    fn send_held(&self, held: &mut Held) -> io::Result<()> {
        if !held.bytes.is_empty() {
            self.send(&held.to.around(&held.bytes, held.segment))?;
            held.bytes.clear();
        }
        Ok(())
    }

    /// One send; when the system refuses a batch as such, its datagrams one by one.
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let before = self.inner.max_transmit_segments();
        self.inner.try_send(transmit)?;
        match transmit.segment_size {
            Some(segment) if before > 1 && self.inner.max_transmit_segments() == 1 => self.send_singly(transmit, segment),
            _ => Ok(()),
        }
    }

    /// What no longer fits the socket's buffer is lost like any datagram.
    fn send_singly(&self, transmit: &Transmit<'_>, segment: usize) -> io::Result<()> {
        tracing::debug!("no segmentation offload here: datagrams go one by one");
        let to = Envelope::of(transmit);
        for datagram in transmit.contents.chunks(segment) {
            match self.inner.try_send(&to.around(datagram, segment)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                sent => sent?,
            }
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.send_held(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether more may follow.
enum Hold {
    Held,
    Last,
}

impl Held {
    fn takes(&self, transmit: &Transmit<'_>, segment: usize, segments_max: usize) -> Joins {
        let fits = (self.bytes.len() + transmit.contents.len()).div_ceil(self.segment) <= segments_max;
        // Only the last datagram of a send may be shorter than the others.
        let short = transmit.segment_size.is_none() && segment < self.segment;
        let whole = self.bytes.len().is_multiple_of(self.segment);
        let alike = self.to == Envelope::of(transmit) && whole && (segment == self.segment || short);
        match (self.bytes.is_empty(), alike && fits) {
            (true, _) => Joins::Empty,
            (false, true) => Joins::Behind,
            (false, false) => Joins::Apart,
        }
    }

    fn append(&mut self, transmit: &Transmit<'_>, segment: usize) {
        if self.bytes.is_empty() {
            (self.segment, self.to) = (segment, Envelope::of(transmit));
        }
        self.bytes.extend_from_slice(transmit.contents);
    }
}

/// How a send relates to what is held.
enum Joins {
    /// Nothing is.
    Empty,
    /// It may go out in the same send.
    Behind,
    /// It may not.
    Apart,
}

/// Sends what is held once nothing else is ready to run: `yield_now` comes back only then.
async fn flush_when_idle(socket: Weak<BatchedSocket>, holding: Arc<Notify>) {
    loop {
        holding.notified().await;
        yield_now().await;
        let Some(socket) = socket.upgrade() else { return };
        let mut poller = socket.inner.clone().create_io_poller();
        while socket.flush().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            if poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.is_err() {
                break;
            }
        }
    }
}

impl Drop for BatchedSocket {
    fn drop(&mut self) {
        self.holding.notify_one();
    }
}

impl AsyncUdpSocket for BatchedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut joins = held.takes(transmit, segment, self.send_segments(held.segment));
        if matches!(joins, Joins::Apart) {
            self.send_held(&mut held)?;
            joins = Joins::Empty;
        }
        if self.paths.admit(transmit.destination, transmit.contents.len(), segment) == Admit::Withhold {
            return Ok(());
        }
        self.segment_bytes.fetch_max(segment, Ordering::Relaxed);
        match (self.hold(&mut held, transmit, segment), joins) {
            (Hold::Held, _) => self.holding.notify_one(),
            (Hold::Last, Joins::Behind) => {
                held.append(transmit, segment);
                if self.send_held(&mut held).is_err() {
                    // It is ours now: the task waits until the socket takes it.
                    self.holding.notify_one();
                }
            }
            (Hold::Last, _) => return self.send(transmit),
        }
        Ok(())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.batch_segments()
    }

    /// Times the largest datagram this is 64 KiB: no receive is larger.
    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }
}
