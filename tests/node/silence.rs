//! A link that is silent for a while and comes back: nobody waits for the pauses of the transports.

use crate::world::{LOOPBACK, Running, World, holds, is_live, knows, listening, put};
use mirror_engine::{
    home::Role,
    node::{NodeOptions, NodeStatus},
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

/// So often is something tried that other load may delay.
const ATTEMPTS: usize = 5;

/// A path for datagrams that can be cut, each way by itself: what is sent meanwhile is lost.
struct Path {
    at: SocketAddr,
    cut: Arc<Cut>,
    _task: JoinSet<()>,
}

/// Which ways are cut.
#[derive(Default)]
struct Cut {
    forth: AtomicBool,
    back: AtomicBool,
}

impl Cut {
    fn set(&self, cut: bool) {
        self.forth.store(cut, SeqCst);
        self.back.store(cut, SeqCst);
    }
}

impl Path {
    async fn to(node: SocketAddr) -> Self {
        let outside = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
        let (at, cut) = (outside.local_addr().unwrap(), Arc::<Cut>::default());
        let (mut task, open) = (JoinSet::new(), cut.clone());
        task.spawn(forward(outside, node, open));
        Self { at, cut, _task: task }
    }
}

/// A socket of its own towards the node for each that sends, as a NAT has.
async fn forward(outside: Arc<UdpSocket>, node: SocketAddr, cut: Arc<Cut>) {
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
        if !cut.forth.load(SeqCst) {
            let _ = socket.send(&datagram[..length]).await;
        }
    }
}

async fn answer(outside: Arc<UdpSocket>, inside: Arc<UdpSocket>, to: SocketAddr, cut: Arc<Cut>) {
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok(length) = inside.recv(&mut datagram).await else { continue };
        if !cut.back.load(SeqCst) {
            let _ = outside.send_to(&datagram[..length], to).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_in_a_silence_arrives_soon_after_it() {
    let mut took = Vec::new();
    // Other load lengthens some, waiting for a transport's pause lengthens all.
    while took.len() < ATTEMPTS && took.iter().all(|took| *took >= SILENCE / 2) {
        took.push(equal_after_a_silence().await);
    }
    assert!(took.iter().any(|took| *took < SILENCE / 2), "{took:?}");
}

/// How long it takes from the end of a silence in which both have written until both have it all.
async fn equal_after_a_silence() -> Duration {
    let (world, a) = World::new();
    let b = world.join(&a, "b", Role::Owner).await;
    let first = Running::start(&a, listening()).await;
    let path = Path::to(first.node.local_addrs().0[0]).await;
    knows(&b, &a, &[path.at]);
    let sync = Options { choice: Choice::Only(TransportKind::Quic), ..Options::default() };
    let mut second = Running::start(&b, NodeOptions { sync, ..NodeOptions::default() }).await;
    second.live().await;
    path.cut.set(true);
    put(&a, "in the silence", b"1");
    put(&b, "in the silence", b"2");
    sleep(SILENCE).await;
    path.cut.set(false);
    let back = Instant::now();
    holds(&b, &a.store().frontier()).await;
    holds(&a, &b.store().frontier()).await;
    back.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_carries_one_way_only_is_given_up_by_both_and_taken_up_again() {
    let (world, a) = World::new();
    let b = world.join(&a, "b", Role::Owner).await;
    let mut first = Running::start(&a, listening()).await;
    let path = Path::to(first.node.local_addrs().0[0]).await;
    knows(&b, &a, &[path.at]);
    let sync = Options { choice: Choice::Only(TransportKind::Quic), ..Options::default() };
    let mut second = Running::start(&b, NodeOptions { sync, ..NodeOptions::default() }).await;
    second.live().await;
    path.cut.back.store(true, SeqCst);
    put(&a, "unheard", b"1");
    put(&b, "heard", b"2");
    let is_gone = |status: &NodeStatus| status.peers.iter().all(|peer| !is_live(peer));
    second.until("without the first", is_gone).await;
    first.until("without the second", is_gone).await;
    path.cut.set(false);
    holds(&b, &a.store().frontier()).await;
    holds(&a, &b.store().frontier()).await;
    second.live().await;
}
