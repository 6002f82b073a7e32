//! UDP with nothing on it: how much gets through, and how much is lost.
//!
//! ```text
//! token 32 │ noise ...     every datagram begins with the token, so that what strangers send is not counted
//! ```
//! Datagrams leave in batches that the kernel cuts (GSO) where it can, as QUIC's do. UDP has no brake: sent as fast as possible, it
//! fills the link and whatever is too much is lost, so the rate that *arrives* is the link's; loss says something only at a pace below.

use super::{Rate, noise};
use crate::clock;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{sleep, timeout},
};

/// Payload of one datagram: what fits an Ethernet frame with IPv6.
pub const UDP_DATAGRAM_BYTES: usize = 1452;
const TOKEN_BYTES: usize = 32;
/// Datagrams of one batch: the most that the kernel cuts a 64 KiB buffer into.
const BATCH_DATAGRAMS: usize = 44;
/// Room for what the kernel has put together (GRO).
const RECEIVE_BYTES: usize = 64 * 1024;
/// When nothing has come for this long it was all.
const QUIET: Duration = Duration::from_millis(300);
/// Below this a pause is not worth a timer.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// What was sent, or what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Datagrams {
    /// How many.
    pub count: u64,
    /// Their payload, from the first to the last.
    pub rate: Rate,
}

/// Sends datagrams to `to` for `time`: as fast as the system takes them, or at most `bits_per_s_max`.
///
/// # Errors
/// What the system says, but for "no room" and "nobody listens".
pub async fn udp_send(
    socket: &UdpSocket,
    to: SocketAddr,
    token: &[u8; TOKEN_BYTES],
    time: Duration,
    bits_per_s_max: Option<u64>,
) -> io::Result<Datagrams> {
    let state = UdpSocketState::new(socket.into())?;
    let batch_datagrams = state.max_gso_segments().clamp(1, BATCH_DATAGRAMS);
    let batch = batch(token, batch_datagrams);
    let transmit = Transmit {
        destination: to,
        ecn: None,
        contents: &batch,
        segment_size: (batch_datagrams > 1).then_some(UDP_DATAGRAM_BYTES),
        src_ip: None,
    };
    let mut sent = Datagrams::default();
    let began = clock::now();
    loop {
        match socket.async_io(Interest::WRITABLE, || state.try_send(socket.into(), &transmit)).await {
            Ok(()) => {
                sent.count += batch_datagrams as u64;
                sent.rate.bytes += batch.len() as u64;
            }
            Err(error) if is_passing(&error) => sleep(PAUSE_MIN).await,
            Err(error) => return Err(error),
        }
        keep_pace(began, sent.rate.bytes, bits_per_s_max).await;
        if began.elapsed() >= time {
            break;
        }
    }
    sent.rate.elapsed = began.elapsed();
    Ok(sent)
}

/// The interface's queue is full, or the other end has closed its port already: nothing that ends a measurement.
fn is_passing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS) || error.kind() == io::ErrorKind::ConnectionRefused
}

fn batch(token: &[u8; TOKEN_BYTES], datagrams: usize) -> Vec<u8> {
    let mut batch = noise(datagrams * UDP_DATAGRAM_BYTES);
    batch.chunks_exact_mut(UDP_DATAGRAM_BYTES).for_each(|datagram| datagram[..TOKEN_BYTES].copy_from_slice(token));
    batch
}

async fn keep_pace(began: Instant, bytes: u64, bits_per_s_max: Option<u64>) {
    let Some(limit) = bits_per_s_max else { return };
    let due = Duration::from_secs_f64(bytes as f64 * 8.0 / limit.max(1) as f64);
    let early = due.saturating_sub(began.elapsed());
    if early >= PAUSE_MIN {
        sleep(early).await;
    }
}

/// Receives datagrams that begin with `token`, from the first until none has come for 300 ms, or `time_max` is over.
///
/// # Errors
/// What the system says.
pub async fn udp_receive(socket: &UdpSocket, token: &[u8; TOKEN_BYTES], time_max: Duration) -> io::Result<Datagrams> {
    let state = UdpSocketState::new(socket.into())?;
    let mut buffer = vec![0; RECEIVE_BYTES];
    let mut seen = Datagrams::default();
    let (mut first, mut last) = (None, clock::now());
    let end = clock::now() + time_max;
    while clock::now() < end {
        let patience = if first.is_some() { QUIET } else { end.saturating_duration_since(clock::now()) };
        let mut meta = [RecvMeta::default()];
        let receiving = socket.async_io(Interest::READABLE, || state.recv(socket.into(), &mut [IoSliceMut::new(&mut buffer)], &mut meta));
        let Ok(received) = timeout(patience, receiving).await else { break };
        received?;
        let before = seen.count;
        count(&buffer[..meta[0].len], meta[0].stride, token, &mut seen);
        if seen.count > before {
            last = clock::now();
            first.get_or_insert(last);
        }
    }
    seen.rate.elapsed = first.map_or(Duration::ZERO, |first| last.duration_since(first));
    Ok(seen)
}

fn count(bytes: &[u8], stride: usize, token: &[u8; TOKEN_BYTES], seen: &mut Datagrams) {
    for datagram in bytes.chunks(stride.max(1)).filter(|datagram| datagram.starts_with(token)) {
        seen.count += 1;
        seen.rate.bytes += datagram.len() as u64;
    }
}
