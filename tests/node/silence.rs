//! A link that is silent for a while and comes back: nobody waits for the pauses of the transports.

use crate::world::{LOOPBACK, Running, World, holds, knows, listening, put};
use mirror_engine::{
    home::Role,
    node::NodeOptions,
    replicate::Options,
    transport::{Choice, TransportKind},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::{net::UdpSocket, task::JoinSet, time::sleep};

/// Longer than the silence after which another dial goes out; QUIC's next probe then comes about as much later again.
const SILENCE: Duration = Duration::from_secs(6);

/// A path for datagrams that can be cut: what is sent meanwhile is lost.
struct Path {
    at: SocketAddr,
    cut: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Path {
    async fn to(node: SocketAddr) -> Self {
        let outside = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
        let (at, cut) = (outside.local_addr().unwrap(), Arc::<AtomicBool>::default());
        let (mut task, open) = (JoinSet::new(), cut.clone());
        task.spawn(forward(outside, node, open));
        Self { at, cut, _task: task }
    }
}

/// A socket of its own towards the node for each that sends, as a NAT has.
async fn forward(outside: Arc<UdpSocket>, node: SocketAddr, cut: Arc<AtomicBool>) {
    let mut back = JoinSet::new();
    let mut inside: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok((length, from)) = outside.recv_from(&mut datagram).await else { continue };
        let socket = match inside.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let socket = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
                socket.connect(node).await.unwrap();
                back.spawn(answer(outside.clone(), socket.clone(), from, cut.clone()));
                place.insert(socket)
            }
        };
        if !cut.load(SeqCst) {
            let _ = socket.send(&datagram[..length]).await;
        }
    }
}

async fn answer(outside: Arc<UdpSocket>, inside: Arc<UdpSocket>, to: SocketAddr, cut: Arc<AtomicBool>) {
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok(length) = inside.recv(&mut datagram).await else { continue };
        if !cut.load(SeqCst) {
            let _ = outside.send_to(&datagram[..length], to).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_in_a_silence_arrives_soon_after_it() {
    let (world, a) = World::new();
    let b = world.join(&a, "b", Role::Owner).await;
    let first = Running::start(&a, listening()).await;
    let path = Path::to(first.node.local_addrs().0[0]).await;
    knows(&b, &a, &[path.at]);
    let sync = Options { choice: Choice::Only(TransportKind::Quic), ..Options::default() };
    let mut second = Running::start(&b, NodeOptions { sync, ..NodeOptions::default() }).await;
    second.live().await;
    path.cut.store(true, SeqCst);
    put(&a, "in the silence", b"1");
    put(&b, "in the silence", b"2");
    sleep(SILENCE).await;
    path.cut.store(false, SeqCst);
    let back = Instant::now();
    holds(&b, &a.store().frontier()).await;
    holds(&a, &b.store().frontier()).await;
    let took = back.elapsed();
    assert!(took < SILENCE / 2, "{took:?}");
}
