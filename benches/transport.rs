//! Both transports over loopback: bytes on a lane, messages there and back, handshakes.

use crate::support::{MIB, random, runtime, sized};
use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use mirror_engine::{
    id::DeviceId,
    keys::DeviceKey,
    transport::{Admission, CloseReason, Connection, Dialer, Listener, Protocol, Standing, TransportError, TransportKind, Tuning},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// Bytes handed to a lane at once, about a span.
const PIECE_BYTES: usize = 256 << 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("transport");
    group.sample_size(20);
    let runtime = runtime();
    for kind in [TransportKind::Quic, TransportKind::Tcp] {
        let net = runtime.block_on(async { Net::new() });
        bench_lane(&mut group, &runtime, &net, kind);
        bench_round_trip(&mut group, &runtime, &net, kind);
        bench_handshake(&mut group, &runtime, &net, kind);
    }
    group.finish();
}

struct Everyone;

impl Admission for Everyone {
    fn standing(&self, _: &DeviceId) -> Standing {
        Standing::Known
    }

    fn pairing_open(&self) -> bool {
        false
    }
}

/// One who listens and one who dials.
struct Net {
    listener: Listener,
    server: DeviceId,
    dialer: Dialer,
}

impl Net {
    fn new() -> Self {
        let (client, server) = (DeviceKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]));
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::bind(&[loopback], &server, Arc::new(Everyone), Tuning::default()).expect("a free port on loopback");
        Self { listener, server: server.id(), dialer: Dialer::new(&client, Tuning::default()).expect("a key for TLS") }
    }

    async fn connect(&self, kind: TransportKind) -> (Connection, Connection) {
        let address = self.listener.local_addrs().0[0];
        let dialled = self.dialer.dial(address, self.server, Protocol::Session, kind);
        let (dialled, accepted) = tokio::join!(dialled, self.listener.accept());
        (dialled.expect("loopback is reachable"), accepted.expect("the listener is open"))
    }
}

/// One lane on a connection that is there already, from the first byte to the reader's end.
fn bench_lane(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, net: &Net, kind: TransportKind) {
    let data = Bytes::from(random(1, sized(MIB, 128 * MIB)));
    let (dialled, accepted) = runtime.block_on(net.connect(kind));
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function(format!("{kind} lane"), |bencher| {
        bencher.iter(|| {
            let sending = runtime.spawn(send(dialled.clone(), data.clone()));
            let received = runtime.block_on(async {
                let received = receive(&accepted).await.expect("the lane is read");
                sending.await.expect("no panic").expect("the lane is sent");
                received
            });
            assert_eq!(received, data.len());
        });
    });
    close(runtime, &dialled);
}

async fn send(connection: Connection, data: Bytes) -> Result<(), TransportError> {
    let mut lane = connection.open_lane().await?;
    for start in (0..data.len()).step_by(PIECE_BYTES) {
        lane.send(data.slice(start..data.len().min(start + PIECE_BYTES))).await?;
    }
    lane.finish().await
}

async fn receive(connection: &Connection) -> Result<usize, TransportError> {
    let (mut lane, mut buffer, mut received) = (connection.accept_lane().await?, BytesMut::with_capacity(MIB), 0);
    loop {
        match lane.read(&mut buffer).await? {
            0 => return Ok(received),
            bytes => received += bytes,
        }
        buffer.clear();
    }
}

/// A message of 64 bytes there, and one back.
fn bench_round_trip(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, net: &Net, kind: TransportKind) {
    let (dialled, accepted) = runtime.block_on(net.connect(kind));
    let (mut there, mut back) = dialled.take_control().expect("nobody took it");
    let (mut answers, mut questions) = accepted.take_control().expect("nobody took it");
    let echo = runtime.spawn(async move {
        while let Ok(Some(question)) = questions.recv().await {
            if answers.send(question).await.is_err() {
                return;
            }
        }
    });
    let message = Bytes::from(random(2, 64));
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{kind} round trip"), |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                there.send(message.clone()).await.expect("the connection is open");
                assert_eq!(back.recv().await.expect("the connection is open").as_ref(), Some(&message));
            });
        });
    });
    close(runtime, &dialled);
    runtime.block_on(echo).expect("no panic");
}

/// A new connection until both ends have it.
fn bench_handshake(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, net: &Net, kind: TransportKind) {
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("{kind} handshake"), |bencher| {
        bencher.iter_custom(|times| {
            (0..times)
                .map(|_| {
                    let began = Instant::now();
                    let (dialled, _accepted) = runtime.block_on(net.connect(kind));
                    let took = began.elapsed();
                    close(runtime, &dialled);
                    took
                })
                .sum::<Duration>()
        });
    });
}

fn close(runtime: &Runtime, connection: &Connection) {
    connection.close(CloseReason::Done);
    runtime.block_on(connection.flushed());
}
