//! Raw sockets between two devices that already talk: opened by the listener on a port of their own, used by the dialer with a token.
//!
//! The token is random, is said over the authenticated connection and good for one measurement. Only who shows it from the address
//! that the connection comes from is sent anything: a peer cannot have somebody else flooded.

use super::wire::{Link, Way};
use crate::probe::{self, Datagrams, Rate};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

pub(super) type Token = [u8; 32];

/// How long the other end may take to show up at a port.
const KNOCK: Duration = Duration::from_secs(2);
/// How much longer than it sends it may take until all has arrived.
const DRAIN: Duration = Duration::from_secs(3);
/// Datagrams that open the way for those that come back: one may be lost.
const KNOCKS: usize = 5;

fn anywhere(peer: IpAddr) -> SocketAddr {
    let ip = if peer.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    SocketAddr::new(ip, 0)
}

/// Nobody came in time.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "port closed")
}

/// The listener's port for one measurement.
pub(super) enum Port {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Port {
    pub(super) async fn tcp(peer: IpAddr) -> io::Result<Self> {
        TcpListener::bind(anywhere(peer)).await.map(Self::Tcp)
    }

    pub(super) async fn udp(peer: IpAddr) -> io::Result<Self> {
        UdpSocket::bind(anywhere(peer)).await.map(Self::Udp)
    }

    pub(super) fn number(&self) -> io::Result<u16> {
        Ok(match self {
            Self::Tcp(listener) => listener.local_addr()?,
            Self::Udp(socket) => socket.local_addr()?,
        }
        .port())
    }

    /// The listener's part of a measurement: what it sent, or what arrived.
    pub(super) async fn serve(self, peer: IpAddr, token: &Token, link: &Link) -> io::Result<Datagrams> {
        match self {
            Self::Tcp(listener) => {
                let mut stream = timeout(KNOCK, visitor(&listener, peer, token)).await.map_err(|_| closed())??;
                let rate = match link.way {
                    Way::Up => probe::tcp_receive(&mut stream, link.time() + DRAIN).await?,
                    Way::Down => probe::tcp_send(&mut stream, link.time()).await?,
                };
                Ok(Datagrams { count: 0, rate })
            }
            Self::Udp(socket) => match link.way {
                Way::Up => probe::udp_receive(&socket, token, link.time() + KNOCK).await,
                Way::Down => {
                    let to = timeout(KNOCK, caller(&socket, peer, token)).await.map_err(|_| closed())??;
                    probe::udp_send(&socket, to, token, link.time(), link.bits_per_s_max).await
                }
            },
        }
    }
}

/// The one who shows the token from where the connection comes from; others are turned away.
async fn visitor(listener: &TcpListener, peer: IpAddr, token: &Token) -> io::Result<TcpStream> {
    loop {
        let (mut stream, from) = listener.accept().await?;
        let mut shown = Token::default();
        let complete = timeout(KNOCK / 4, stream.read_exact(&mut shown)).await.is_ok_and(|read| read.is_ok());
        if from.ip().to_canonical() == peer && complete && shown == *token {
            return Ok(stream);
        }
    }
}

async fn caller(socket: &UdpSocket, peer: IpAddr, token: &Token) -> io::Result<SocketAddr> {
    let mut shown = [0; 64];
    loop {
        let (bytes, from) = socket.recv_from(&mut shown).await?;
        if from.ip().to_canonical() == peer && shown[..bytes] == *token {
            return Ok(from);
        }
    }
}

/// The dialer's part over TCP: what it sent, or what arrived.
pub(super) async fn tcp(to: SocketAddr, token: &Token, link: &Link) -> io::Result<Rate> {
    let mut stream = timeout(KNOCK, TcpStream::connect(to)).await.map_err(|_| closed())??;
    stream.write_all(token).await?;
    match link.way {
        Way::Up => probe::tcp_send(&mut stream, link.time()).await,
        Way::Down => probe::tcp_receive(&mut stream, link.time() + DRAIN).await,
    }
}

/// The dialer's part over UDP.
pub(super) async fn udp(to: SocketAddr, token: &Token, link: &Link) -> io::Result<Datagrams> {
    let socket = UdpSocket::bind(anywhere(to.ip())).await?;
    match link.way {
        Way::Up => probe::udp_send(&socket, to, token, link.time(), link.bits_per_s_max).await,
        Way::Down => {
            for _ in 0..KNOCKS {
                socket.send_to(token, to).await?;
            }
            probe::udp_receive(&socket, token, link.time() + DRAIN).await
        }
    }
}
