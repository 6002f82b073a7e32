//! When this machine's network is another one: an address came or went, a link went up or down. Linux: rtnetlink tells it.
//!
//! The kernel multicasts a message for each change (rtnetlink(7)); what it says does not matter here, so nothing of it is decoded. Listening
//! costs nothing while nothing happens, and needs no privilege. Elsewhere `changes_polled.rs` does the same by looking.

use crate::clock;
use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, netlink},
};
use std::{
    io,
    time::{Duration, Instant},
};
use tokio::{net::UnixDatagram, time::sleep};

/// Groups of rtnetlink: links, IPv4 addresses, IPv6 addresses (RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// One change of a network is several messages: the first is told at once, those that follow so soon as one more.
const SETTLE: Duration = Duration::from_millis(50);
/// What is read of messages at once, to be thrown away.
const READ_BYTES: usize = 4096;

/// A listener for changes of the network. Its socket is of another family than its type says; nothing but waiting and `recv` is asked of it.
#[derive(Debug)]
pub struct NetworkChanges {
    socket: UnixDatagram,
    told: Option<Instant>,
}

impl NetworkChanges {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system has no such socket for this process: some sandboxes do not.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn listen() -> io::Result<Self> {
        // Of this family, protocol 0 is rtnetlink.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        net::bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self { socket: UnixDatagram::from_std(socket.into())?, told: None })
    }

    /// Waits for the next change; for those that come with one that was told already, until they are over. Cancel-safe.
    ///
    /// # Errors
    /// When nothing can be heard any more.
    pub async fn next(&mut self) -> io::Result<()> {
        self.socket.readable().await?;
        if let Some(told) = self.told {
            sleep(SETTLE.saturating_sub(clock::now().duration_since(told))).await;
        }
        let mut heard = [0; READ_BYTES];
        loop {
            match self.socket.try_recv(&mut heard) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.told = Some(clock::now());
                    return Ok(());
                }
                // More came than the socket could hold: that is a change, too.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
