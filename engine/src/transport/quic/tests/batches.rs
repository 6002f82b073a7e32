//! Batches through a socket that writes down what it is given.

use super::super::{batching::BatchedSocket, paths::Paths};
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::task::yield_now;

const SEGMENT: usize = 1_452;
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const OTHER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2);

/// Where to, what, in segments of which length.
type Send = (SocketAddr, Vec<u8>, Option<usize>);

/// Takes everything, like a kernel with or without GSO.
#[derive(Debug)]
struct Recorder {
    sends: Mutex<Vec<Send>>,
    segments: AtomicUsize,
    /// What a driver without GSO does: promise it, refuse the first batch, promise it no more.
    refuses_batches: bool,
    full: AtomicBool,
}

impl Recorder {
    fn new(refuses_batches: bool) -> Arc<Self> {
        Arc::new(Self { sends: Mutex::default(), segments: AtomicUsize::new(64), refuses_batches, full: AtomicBool::new(false) })
    }

    /// Sizes of the sends so far.
    fn sizes(&self) -> Vec<usize> {
        self.sends.lock().unwrap().iter().map(|(_, bytes, _)| bytes.len()).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        self.sends.lock().unwrap().iter().flat_map(|(_, bytes, _)| bytes.clone()).collect()
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Recorder {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.full.swap(false, Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.refuses_batches && transmit.segment_size.is_some() {
            self.segments.store(1, Ordering::Relaxed);
            return Ok(());
        }
        self.sends.lock().unwrap().push((transmit.destination, transmit.contents.to_vec(), transmit.segment_size));
        Ok(())
    }

    fn poll_recv(&self, _: &mut Context<'_>, _: &mut [IoSliceMut<'_>], _: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(PEER)
    }

    fn max_transmit_segments(&self) -> usize {
        self.segments.load(Ordering::Relaxed)
    }
}

fn socket(recorder: &Arc<Recorder>) -> Arc<BatchedSocket> {
    BatchedSocket::spawn(recorder.clone(), Paths::default(), 8_952)
}

fn transmit(contents: &[u8], segment: usize) -> Transmit<'_> {
    let segment_size = (contents.len() > segment).then_some(segment);
    Transmit { destination: PEER, ecn: None, contents, segment_size, src_ip: None }
}

/// `count` datagrams that can be told from one another.
fn datagrams(count: usize, segment: usize) -> Vec<u8> {
    (0..count * segment).map(|at| (at / segment * 31 + at) as u8).collect()
}

#[tokio::test]
async fn full_batches_are_joined_to_one_send_of_64_kib() {
    let recorder = Recorder::new(false);
    let socket = socket(&recorder);
    let batch = socket.max_transmit_segments();
    let all = datagrams(4 * batch, SEGMENT);
    for piece in all.chunks(batch * SEGMENT) {
        socket.try_send(&transmit(piece, SEGMENT)).unwrap();
    }
    while recorder.sizes().is_empty() {
        yield_now().await;
    }
    assert_eq!(recorder.sizes(), [all.len()]);
    assert_eq!(recorder.bytes(), all);
}

#[tokio::test]
async fn what_is_not_full_takes_along_what_is_held_and_never_waits() {
    let recorder = Recorder::new(false);
    let socket = socket(&recorder);
    let batch = socket.max_transmit_segments();
    let all = datagrams(batch + 2, SEGMENT);
    socket.try_send(&transmit(&all[..batch * SEGMENT], SEGMENT)).unwrap();
    socket.try_send(&transmit(&all[batch * SEGMENT..all.len() - 7], SEGMENT)).unwrap();
    assert_eq!(recorder.sizes(), [all.len() - 7]);
    socket.try_send(&transmit(b"ack", SEGMENT)).unwrap();
    assert_eq!(recorder.sizes(), [all.len() - 7, 3]);
}

#[tokio::test]
async fn a_batch_that_nothing_follows_leaves_by_itself() {
    let recorder = Recorder::new(false);
    let socket = socket(&recorder);
    let all = datagrams(socket.max_transmit_segments(), SEGMENT);
    socket.try_send(&transmit(&all, SEGMENT)).unwrap();
    assert_eq!(recorder.sizes(), [0; 0]);
    while recorder.sizes().is_empty() {
        yield_now().await;
    }
    assert_eq!(recorder.bytes(), all);
}

#[tokio::test]
async fn another_peer_and_another_size_do_not_join_and_do_not_overtake() {
    let recorder = Recorder::new(false);
    let socket = socket(&recorder);
    let all = datagrams(socket.max_transmit_segments(), SEGMENT);
    socket.try_send(&transmit(&all, SEGMENT)).unwrap();
    socket.try_send(&Transmit { destination: OTHER, ..transmit(b"other", SEGMENT) }).unwrap();
    assert_eq!(recorder.sizes(), [all.len(), 5]);
    socket.try_send(&transmit(&all, SEGMENT)).unwrap();
    socket.try_send(&transmit(&all[..3_000], 1_000)).unwrap();
    assert_eq!(recorder.sizes(), [all.len(), 5, all.len(), 3_000]);
}

#[tokio::test]
async fn a_refused_batch_goes_out_one_by_one_and_so_does_the_rest() {
    let recorder = Recorder::new(true);
    let socket = socket(&recorder);
    let batch = socket.max_transmit_segments();
    let all = datagrams(2 * batch + 1, SEGMENT);
    for piece in all.chunks(batch * SEGMENT) {
        socket.try_send(&transmit(piece, SEGMENT)).unwrap();
    }
    assert_eq!(recorder.bytes(), all);
    assert!(recorder.sizes().iter().all(|size| *size == SEGMENT));
    assert_eq!(socket.max_transmit_segments(), 1);
}

#[tokio::test]
async fn a_full_socket_keeps_what_is_held_for_later() {
    let recorder = Recorder::new(false);
    let socket = socket(&recorder);
    let batch = socket.max_transmit_segments();
    let all = datagrams(batch + 1, SEGMENT);
    socket.try_send(&transmit(&all[..batch * SEGMENT], SEGMENT)).unwrap();
    recorder.full.store(true, Ordering::Relaxed);
    socket.try_send(&transmit(&all[batch * SEGMENT..], SEGMENT)).unwrap();
    assert_eq!(recorder.sizes(), [0; 0]);
    while recorder.sizes().is_empty() {
        yield_now().await;
    }
    assert_eq!(recorder.bytes(), all);
}

#[tokio::test]
async fn batches_of_jumbo_datagrams_fit_a_send() {
    let recorder = Recorder::new(false);
    let socket = socket(&recorder);
    socket.try_send(&transmit(&[0; 8_952], 8_952)).unwrap();
    assert_eq!(socket.max_transmit_segments(), 7);
    socket.try_send(&transmit(&datagrams(7, 8_952), 8_952)).unwrap();
    assert_eq!(recorder.sizes(), [8_952, 7 * 8_952]);
}
