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
        Self::with(peer, Cut::after(bytes), Cut::after(u64::MAX))
    }

    /// A wire that is cut once, after so many bytes to the peer, and carries everything from then on.
    pub(crate) fn cut_once_to(peer: &str, bytes: u64) -> Self {
        Self::with(peer, Cut::after(u64::MAX), Cut { left: bytes.into(), then: u64::MAX })
    }

    fn with(peer: &str, back: Cut, forth: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (peer, cuts) = (peer.to_owned(), Arc::new((back, forth)));
        // Ends with the test: it only waits, and holds nothing.
        thread::spawn(move || {
            for dialer in listener.incoming().flatten() {
                let Ok(peer) = TcpStream::connect(&peer) else { return };
                let (back, forth) = (dialer.try_clone().unwrap(), peer.try_clone().unwrap());
                let (of_back, of_forth) = (Arc::clone(&cuts), Arc::clone(&cuts));
                thread::spawn(move || carry(peer, back, &of_back.0));
                thread::spawn(move || carry(dialer, forth, &of_forth.1));
            }
        });
        Self { address }
    }
}

/// After how many bytes one way of a wire is cut, and after how many more from then on.
struct Cut {
    left: AtomicU64,
    then: u64,
}

impl Cut {
    /// For good.
    fn after(bytes: u64) -> Self {
        Self { left: bytes.into(), then: 0 }
    }
}

/// Carries bytes until so many have passed, then cuts both ways, in the middle of whatever is being said.
fn carry(mut from: TcpStream, mut to: TcpStream, cut: &Cut) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        let take = |left: u64| Some(left.saturating_sub(got as u64));
        let before = cut.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_default();
        let passed = before.min(got as u64) as usize;
        if passed < got {
            cut.left.store(cut.then, Ordering::Relaxed);
        }
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
