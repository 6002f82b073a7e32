//! The contract over every carrier with one body, dialling, and what strangers can do to a listener.

mod contract;
mod dialling;
mod handshakes;

use super::{memory::cuttable_pair, *};
use crate::{
    keys::DeviceKey,
    limits::{MESSAGE_BYTES_MAX, MIB},
};
use bytes::{Bytes, BytesMut};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(60);
pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const WIRES: [TransportKind; 2] = [TransportKind::Quic, TransportKind::Tcp];

pub(super) struct Known {
    devices: Vec<DeviceId>,
    pairing: AtomicBool,
}

impl Known {
    pub(super) fn only(devices: &[&DeviceKey]) -> Arc<Self> {
        Arc::new(Self { devices: devices.iter().map(|device| device.id()).collect(), pairing: AtomicBool::new(false) })
    }
}

impl Admission for Known {
    fn standing(&self, device: &DeviceId) -> Standing {
        if self.devices.contains(device) { Standing::Known } else { Standing::Stranger }
    }

    fn pairing_open(&self) -> bool {
        self.pairing.load(Ordering::SeqCst)
    }
}

pub(super) fn key(seed: u8) -> DeviceKey {
    DeviceKey::from_seed(&[seed; 32])
}

/// A listening server that knows one client.
struct Net {
    client: DeviceKey,
    server: DeviceKey,
    admission: Arc<Known>,
    listener: Listener,
}

impl Net {
    fn new() -> Self {
        Self::on(LOOPBACK)
    }

    fn on(addr: SocketAddr) -> Self {
        let (client, server) = (key(1), key(2));
        let admission = Known::only(&[&client]);
        let listener = Listener::bind(&[addr], &server, admission.clone(), Tuning::default()).unwrap();
        Self { client, server, admission, listener }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addrs().0[0]
    }

    async fn dial_as(&self, device: &DeviceKey, protocol: Protocol, kind: TransportKind) -> Result<Connection, TransportError> {
        let dialer = Dialer::new(device, Tuning::default()).unwrap();
        dialer.dial(self.addr(), self.server.id(), protocol, kind).await
    }

    async fn pair(&self, kind: TransportKind) -> (Connection, Connection) {
        let (dialled, accepted) = tokio::join!(self.dial_as(&self.client, Protocol::Session, kind), self.listener.accept());
        (dialled.unwrap(), accepted.unwrap())
    }
}

/// Runs `test` over every carrier: first the end that dialled, then the one that listened.
async fn over_all<F: Future<Output = ()>>(test: impl Fn(Connection, Connection) -> F) {
    for kind in WIRES {
        let net = Net::new();
        let (dialled, accepted) = net.pair(kind).await;
        assert_eq!((dialled.kind(), dialled.peer(), accepted.peer()), (kind, net.server.id(), net.client.id()));
        timeout(LIMIT, test(dialled, accepted)).await.unwrap_or_else(|_| panic!("{kind} hangs"));
    }
    let (a, b) = memory::pair(key(1).id(), key(2).id());
    timeout(LIMIT, test(a, b)).await.expect("memory hangs");
}

/// Something that no two positions have in common for long.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect()
}

async fn read_lane(mut lane: LaneReceiver) -> Result<BytesMut, TransportError> {
    let mut all = BytesMut::new();
    let mut buffer = BytesMut::with_capacity(MIB);
    while lane.read(&mut buffer).await? > 0 {
        all.unsplit(buffer.split());
        buffer.reserve(MIB);
    }
    Ok(all)
}

async fn send_lane(connection: &Connection, data: &Bytes) -> Result<(), TransportError> {
    let mut lane = connection.open_lane().await?;
    for start in (0..data.len()).step_by(700_000) {
        lane.send(data.slice(start..data.len().min(start + 700_000))).await?;
    }
    lane.finish().await
}
