//! The ceiling: bare bytes over TCP, and over UDP in datagrams as QUIC sends them, moved by the engine's own [`probe`].
//!
//! ```text
//! send ── connect ── token 32 ── probe::tcp_send ─► probe::tcp_receive ◄── token? ── accept ── Port
//! send ────────────────────────── probe::udp_send ─► probe::udp_receive ◄───────────────────── Port
//! ```
//! What counts is what the receiving end got, from the first byte to the last: what waits in the sender's buffers has not moved. Bytes that do
//! not begin with the token that both ends have are not counted.

use super::control::RawKind;
use crate::failure::{Code, Failure};
use mirror_engine::{
    keys::DeviceKey,
    probe::{self, Datagrams},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

/// How long each end waits for the other one to begin.
const BEGIN: Duration = Duration::from_secs(10);

/// What bare bytes begin with.
pub(super) type Token = [u8; 32];

/// A word that nobody guesses.
pub(super) fn token() -> Result<Token, Failure> {
    Ok(*DeviceKey::generate().map_err(|error| Failure::new(Code::Failed, error.to_string()))?.id().as_bytes())
}

/// A port that bare bytes may come to.
pub(super) enum Port {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Port {
    /// A free one.
    pub(super) async fn open(kind: RawKind, ip: IpAddr) -> Result<Self, Failure> {
        let at = SocketAddr::new(ip, 0);
        let opened = match kind {
            RawKind::Tcp => TcpListener::bind(at).await.map(Self::Tcp),
            RawKind::Udp => UdpSocket::bind(at).await.map(Self::Udp),
        };
        opened.map_err(|error| Failure::io("cannot open a port", &error))
    }

    pub(super) fn number(&self) -> Result<u16, Failure> {
        let address = match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        };
        address.map(|address| address.port()).map_err(|error| Failure::io("cannot open a port", &error))
    }

    /// Counts what comes in, when the other end sends for `time`.
    pub(super) async fn receive(self, token: Token, time: Duration) -> Result<Datagrams, Failure> {
        let received = match self {
            Self::Tcp(listener) => receive_stream(&listener, &token, time + BEGIN).await,
            Self::Udp(socket) => probe::udp_receive(&socket, &token, time + BEGIN).await,
        };
        received.map_err(|error| Failure::io("cannot receive bare bytes", &error))
    }
}

async fn receive_stream(listener: &TcpListener, token: &Token, time_max: Duration) -> io::Result<Datagrams> {
    let (mut stream, _) = timeout(BEGIN, listener.accept()).await??;
    let mut shown = Token::default();
    timeout(BEGIN, stream.read_exact(&mut shown)).await??;
    if shown != *token {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "a stranger connected"));
    }
    Ok(Datagrams { count: 0, rate: probe::tcp_receive(&mut stream, time_max).await? })
}

/// Sends for so long. What was handed to the system is more than what arrives.
pub(super) async fn send(kind: RawKind, to: SocketAddr, token: &Token, time: Duration) -> Result<Datagrams, Failure> {
    let sent = match kind {
        RawKind::Tcp => send_stream(to, token, time).await,
        RawKind::Udp => send_datagrams(to, token, time).await,
    };
    sent.map_err(|error| {
        Failure::io(format!("cannot send bare bytes to {to}"), &error).hint("open that port, or all of them, for the test")
    })
}

async fn send_stream(to: SocketAddr, token: &Token, time: Duration) -> io::Result<Datagrams> {
    let mut stream = timeout(BEGIN, TcpStream::connect(to)).await??;
    stream.write_all(token).await?;
    Ok(Datagrams { count: 0, rate: probe::tcp_send(&mut stream, time).await? })
}

async fn send_datagrams(to: SocketAddr, token: &Token, time: Duration) -> io::Result<Datagrams> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    probe::udp_send(&socket, to, token, time, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn moved(kind: RawKind, theirs: Token, ours: Token) -> (Result<Datagrams, Failure>, Result<Datagrams, Failure>) {
        let port = Port::open(kind, LOOPBACK).await.unwrap();
        let to = SocketAddr::new(LOOPBACK, port.number().unwrap());
        tokio::join!(send(kind, to, &theirs, SHORT), port.receive(ours, SHORT))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_one_end_sends_the_other_counts() {
        let (sent, received) = moved(RawKind::Tcp, [7; 32], [7; 32]).await;
        let (sent, received) = (sent.unwrap().rate.bytes, received.unwrap().rate.bytes);
        assert!(sent > 0 && received == sent, "{received} of {sent}");
        let (sent, received) = moved(RawKind::Udp, [7; 32], [7; 32]).await;
        let (sent, received) = (sent.unwrap().count, received.unwrap().count);
        assert!(received > 0 && received <= sent, "{received} of {sent}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_stranger_is_not_counted() {
        let (_, received) = moved(RawKind::Tcp, [8; 32], [7; 32]).await;
        assert!(received.unwrap_err().causes.iter().any(|cause| cause.contains("stranger")));
    }
}
