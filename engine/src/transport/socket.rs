//! Sockets with the options that transports need: buffers, dual stack, both transports on one port.

use super::{TransportError, Tuning};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

/// Connections that the kernel holds for us before they are accepted.
const BACKLOG: i32 = 128;
/// Ports that the system chooses for TCP are tried for UDP this often.
const PORT_ATTEMPTS: usize = 16;
/// A lane that carries nothing is probed by the kernel after this long, so that a vanished peer is noticed.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Whether an IPv6 socket also takes IPv4 traffic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stack {
    /// IPv4 has a socket of its own.
    Single,
    /// One socket for both.
    Dual,
}

/// A UDP socket on `addr` with large buffers.
pub(super) fn udp(addr: SocketAddr, stack: Stack, tuning: &Tuning) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    set_stack(&socket, addr, stack)?;
    set_buffers(&SockRef::from(&socket), tuning.udp_buffer_bytes);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// A UDP socket to dial from, for one address family.
pub(super) fn udp_dialer(family: SocketAddr, tuning: &Tuning) -> io::Result<UdpSocket> {
    udp(unspecified(family), Stack::Single, tuning)
}

/// The address that means "any" in the family of `addr`.
pub(super) fn unspecified(addr: SocketAddr) -> SocketAddr {
    if addr.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// UDP payload of Ethernet's frames over IPv6: what a link takes of which nothing else is known.
pub(super) const ETHERNET_PAYLOAD_BYTES: u16 = 1_452;

/// UDP payload that fits one frame of the link towards `addr`. What lies behind the first link may take less.
pub(super) fn payload_bytes(addr: SocketAddr) -> u16 {
    let headers = if addr.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let frame = UdpSocket::bind(unspecified(addr)).and_then(|socket| socket.connect(addr).and_then(|()| frame_bytes(&socket, addr)));
    let payload = frame.map(|bytes| u16::try_from(bytes.saturating_sub(headers)).unwrap_or(u16::MAX));
    payload.unwrap_or_else(|error| {
        tracing::debug!(%addr, %error, "the link's frame size is not known");
        ETHERNET_PAYLOAD_BYTES
    })
}

#[cfg(target_os = "linux")]
fn frame_bytes(socket: &UdpSocket, addr: SocketAddr) -> io::Result<u32> {
    Ok(if addr.is_ipv4() { rustix::net::sockopt::ip_mtu(socket)? } else { rustix::net::sockopt::ipv6_mtu(socket)? })
}

/// Where the system cannot be asked, a link is taken for an Ethernet.
#[cfg(not(target_os = "linux"))]
fn frame_bytes(_: &UdpSocket, _: SocketAddr) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A TCP listener on `addr`.
pub(super) fn tcp(addr: SocketAddr, stack: Stack, tuning: &Tuning) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    set_stack(&socket, addr, stack)?;
    // A restarted daemon must get its port back although old connections linger.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if let Some(bytes) = tuning.tcp_buffer_bytes {
        set_buffers(&SockRef::from(&socket), bytes);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Both on one port. For port 0 the system chooses one for TCP, which UDP must then get too, so it may take a few attempts.
pub(super) fn pair(addr: SocketAddr, stack: Stack, tuning: &Tuning) -> io::Result<(UdpSocket, TcpListener)> {
    for _ in 1..PORT_ATTEMPTS {
        let listener = tcp(addr, stack, tuning)?;
        match udp(listener.local_addr()?, stack, tuning) {
            Err(error) if addr.port() == 0 && error.kind() == io::ErrorKind::AddrInUse => continue,
            socket => return Ok((socket?, listener)),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Options of a TCP connection, dialled or accepted: no delay, keep-alive, buffers.
pub(super) fn prepare(stream: &tokio::net::TcpStream, tuning: &Tuning) -> Result<(), TransportError> {
    let socket = SockRef::from(stream);
    socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE)))
        .map_err(TransportError::io("setting up a TCP connection"))?;
    if let Some(bytes) = tuning.tcp_buffer_bytes {
        set_buffers(&socket, bytes);
    }
    Ok(())
}

fn set_stack(socket: &Socket, addr: SocketAddr, stack: Stack) -> io::Result<()> {
    if addr.is_ipv6() { socket.set_only_v6(stack == Stack::Single) } else { Ok(()) }
}

/// The system may grant less or refuse: slower, never wrong.
fn set_buffers(socket: &SockRef<'_>, bytes: usize) {
    for result in [socket.set_recv_buffer_size(bytes), socket.set_send_buffer_size(bytes)] {
        if let Err(error) = result {
            tracing::debug!(bytes, %error, "socket buffer size not granted");
        }
    }
}
