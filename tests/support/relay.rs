//! Peers that misbehave below the protocol: a wire that is cut, and ports where nobody speaks.

use rustix::net::{self, AddressFamily, SocketType};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// A TCP wire to a peer that lets so many bytes through from the peer, over all its connections, and is then cut.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
}

impl Relay {
    pub(crate) fn to(peer: &str, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (peer, left) = (peer.to_owned(), Arc::new(AtomicU64::new(bytes)));
        // Ends with the test: it only waits, and holds nothing.
        thread::spawn(move || {
            for dialer in listener.incoming().flatten() {
                let Ok(peer) = TcpStream::connect(&peer) else { return };
                let (back, forth) = (dialer.try_clone().unwrap(), peer.try_clone().unwrap());
                let (left, unlimited) = (Arc::clone(&left), Arc::new(AtomicU64::new(u64::MAX)));
                thread::spawn(move || carry(peer, back, &left));
                thread::spawn(move || carry(dialer, forth, &unlimited));
            }
        });
        Self { address }
    }
}

/// Carries bytes until `left` of them have passed, then cuts both ways, in the middle of whatever is being said.
fn carry(mut from: TcpStream, mut to: TcpStream, left: &AtomicU64) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        let take = |left: u64| Some(left.saturating_sub(got as u64));
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_default();
        let passed = before.min(got as u64) as usize;
        if to.write_all(&buffer[..passed]).is_err() || passed < got {
            break;
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}

/// UDP and TCP on one port where nobody listens, and where nobody else can come to listen meanwhile.
pub(crate) struct Closed {
    pub(crate) address: SocketAddr,
    _tcp: OwnedFd,
    _udp: UdpSocket,
}

impl Closed {
    pub(crate) fn new() -> Self {
        loop {
            // Bound, and nobody listens: who connects is refused.
            let tcp = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            net::bind(&tcp, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = net::getsockname(&tcp).unwrap().try_into().unwrap();
            if let Ok(udp) = UdpSocket::bind(address) {
                // Connected to itself it takes nothing from others: the system says that nobody is there.
                udp.connect(address).unwrap();
                return Self { address, _tcp: tcp, _udp: udp };
            }
        }
    }
}

/// UDP and TCP on one port, where connections are taken and nothing is ever said.
pub(crate) struct Silence {
    pub(crate) address: SocketAddr,
    _tcp: TcpListener,
    _udp: UdpSocket,
}

impl Silence {
    pub(crate) fn new() -> Self {
        loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = tcp.local_addr().unwrap();
            // Another program may have the same number for UDP.
            if let Ok(udp) = UdpSocket::bind(address) {
                return Self { address, _tcp: tcp, _udp: udp };
            }
        }
    }
}
