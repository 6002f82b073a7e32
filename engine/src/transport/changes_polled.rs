//! When this machine's network is another one, where nothing tells it: the addresses from which it would reach others are looked at.
//!
//! Only the system's table of routes is asked; nothing is sent. A change on a network without a route outwards is not seen here.

use std::{
    io,
    net::{IpAddr, UdpSocket},
    time::Duration,
};
use tokio::time::sleep;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(3);
/// Any address outside does (these are for documentation, RFC 5737 and 3849).
const ROUTES: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// A watch for changes of the network.
#[derive(Debug)]
pub struct NetworkChanges([Option<IpAddr>; 2]);

impl NetworkChanges {
    /// Compares with what is now.
    ///
    /// # Errors
    /// None here.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(sources()))
    }

    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// None here.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            sleep(LOOK).await;
            let now = sources();
            if std::mem::replace(&mut self.0, now) != now {
                return Ok(());
            }
        }
    }
}

fn sources() -> [Option<IpAddr>; 2] {
    ROUTES.map(|(from, to)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
}
