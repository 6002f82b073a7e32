//! The ceiling: bare bytes over TCP, and over UDP in datagrams of the size that QUIC's have.
//!
//! The receiving end counts, from the first byte to the last, so that what waits in buffers at the sender's is not taken for moved. One TCP
//! stream with the system's own congestion control; one UDP socket with one call for each datagram, so that UDP's figure is what the system
//! takes by calls, not what a network card could carry. Bytes that do not begin with the token that both ends have are not counted.

use super::control::{RawKind, Received};
use crate::failure::{Code, Failure};
use mirror_engine::keys::DeviceKey;
use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};
use tokio::task::{JoinHandle, spawn_blocking};

/// What a TLS record holds 16 times: large enough that calls do not limit, small enough for the second-level cache.
const TCP_BUFFER_BYTES: usize = 256 * 1024;
/// Ethernet's 1,500 less IPv6 and UDP headers.
const DATAGRAM_BYTES: usize = 1_452;
/// How long the receiving end waits for the other one to begin.
const BEGIN: Duration = Duration::from_secs(10);
/// UDP has no end: silence of this length is one.
const SILENCE: Duration = Duration::from_millis(300);

/// A word that nobody guesses.
pub(super) fn token() -> Result<String, Failure> {
    Ok(DeviceKey::generate().map_err(|error| Failure::new(Code::Failed, error.to_string()))?.id().to_string())
}

/// Opens a port and counts what comes in, on a thread of its own.
pub(super) async fn receive(kind: RawKind, ip: IpAddr, token: String) -> Result<(u16, JoinHandle<Result<Received, Failure>>), Failure> {
    let failed = |error| Failure::io("cannot open a port", &error);
    let address = SocketAddr::new(ip, 0);
    match kind {
        RawKind::Tcp => {
            let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
            let port = listener.local_addr().map_err(failed)?.port();
            Ok((port, tokio::spawn(async move { accept(&listener, token).await })))
        }
        RawKind::Udp => {
            let socket = UdpSocket::bind(address).map_err(failed)?;
            let port = socket.local_addr().map_err(failed)?.port();
            Ok((port, spawn_blocking(move || count_datagrams(&socket, token.as_bytes()).map_err(|error| receiving(&error)))))
        }
    }
}

fn receiving(error: &std::io::Error) -> Failure {
    Failure::io("cannot receive bare bytes", error)
}

async fn accept(listener: &tokio::net::TcpListener, token: String) -> Result<Received, Failure> {
    let late = |_| Failure::new(Code::Unreachable, "nobody connected to the port for bare TCP");
    let (stream, _) = tokio::time::timeout(BEGIN, listener.accept()).await.map_err(late)?.map_err(|error| receiving(&error))?;
    let stream = stream.into_std().map_err(|error| receiving(&error))?;
    let counted = spawn_blocking(move || count_stream(stream, token.as_bytes())).await;
    counted.map_err(|error| Failure::new(Code::Failed, error.to_string()))?.map_err(|error| receiving(&error))
}

fn count_stream(mut stream: TcpStream, token: &[u8]) -> std::io::Result<Received> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(BEGIN))?;
    let mut buffer = vec![0; TCP_BUFFER_BYTES];
    stream.read_exact(&mut buffer[..token.len()])?;
    if buffer[..token.len()] != *token {
        return Err(std::io::Error::new(ErrorKind::PermissionDenied, "a stranger connected"));
    }
    let (began, mut bytes) = (Instant::now(), 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(Received { bytes, datagrams: 0, elapsed_s: began.elapsed().as_secs_f64() }),
            more => bytes += more as u64,
        }
    }
}

fn count_datagrams(socket: &UdpSocket, token: &[u8]) -> std::io::Result<Received> {
    socket.set_read_timeout(Some(BEGIN))?;
    let mut buffer = [0; 2 * DATAGRAM_BYTES];
    let (mut received, mut span) = (Received::default(), None::<(Instant, Instant)>);
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) if buffer[..length].starts_with(token) => {
                let now = Instant::now();
                if span.is_none() {
                    socket.set_read_timeout(Some(SILENCE))?;
                }
                span = Some((span.map_or(now, |(began, _)| began), now));
                received.bytes += length as u64;
                received.datagrams += 1;
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
        }
    }
    received.elapsed_s = span.map_or(0.0, |(began, ended)| (ended - began).as_secs_f64());
    Ok(received)
}

/// What was handed to the system, which is more than what arrives.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) datagrams: u64,
}

/// Sends for so long.
pub(super) fn send(kind: RawKind, to: SocketAddr, token: &str, time: Duration) -> Result<Sent, Failure> {
    let sent = match kind {
        RawKind::Tcp => send_stream(to, token.as_bytes(), time),
        RawKind::Udp => send_datagrams(to, token.as_bytes(), time),
    };
    sent.map_err(|error| {
        Failure::io(format!("cannot send bare bytes to {to}"), &error).hint("open that port, or all of them, for the test")
    })
}

fn send_stream(to: SocketAddr, token: &[u8], time: Duration) -> std::io::Result<Sent> {
    let mut stream = TcpStream::connect_timeout(&to, BEGIN)?;
    stream.write_all(token)?;
    let (buffer, began) = (vec![0x5a; TCP_BUFFER_BYTES], Instant::now());
    while began.elapsed() < time {
        stream.write_all(&buffer)?;
    }
    Ok(Sent::default())
}

fn send_datagrams(to: SocketAddr, token: &[u8], time: Duration) -> std::io::Result<Sent> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(to)?;
    let mut datagram = [0x5a; DATAGRAM_BYTES];
    datagram[..token.len()].copy_from_slice(token);
    let (mut sent, began) = (Sent::default(), Instant::now());
    while began.elapsed() < time {
        match socket.send(&datagram) {
            Ok(_) => sent.datagrams += 1,
            // The network card's queue is full.
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock)
                    || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
