//! Who does not even speak the protocol.

use crate::{
    peer::{EvilPeer, new_device},
    world::World,
};
use mirror_engine::{
    limits::{HANDSHAKES_MAX, SESSIONS_PER_DEVICE_MAX},
    transport::{Dialer, Protocol, TransportKind, Tuning},
};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

const NOISE: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    &[0xff; 4_000],
    // A TLS record that claims to be a long handshake and goes no further.
    &[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc],
    &[22],
];

#[tokio::test(flavor = "multi_thread")]
async fn noise_and_silence_on_both_ports_disturb_nobody() {
    let world = World::start().await;
    let mut open = Vec::new();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    for noise in NOISE {
        let mut tcp = TcpStream::connect(world.addr).await.unwrap();
        tcp.write_all(noise).await.unwrap();
        // Held open: whoever waits for more of it must not make others wait.
        open.push(tcp);
        udp.send_to(&noise[..noise.len().min(1_200)], world.addr).unwrap();
    }
    for length in [0, 1, 20, 1_200, 1_452] {
        udp.send_to(&vec![0xc3; length], world.addr).unwrap();
    }
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_slow_handshakes_at_once_keep_nobody_out() {
    let world = World::start().await;
    let mut open = Vec::new();
    for _ in 0..200 {
        let mut tcp = TcpStream::connect(world.addr).await.unwrap();
        tcp.write_all(&[22]).await.unwrap();
        open.push(tcp);
    }
    world.end_sound().await;
}

/// First packets of QUIC handshakes, each whole and none like another: as sent to somebody who does not answer.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap();
    let mut packets = Vec::new();
    let mut datagram = vec![0; 2_000];
    while packets.len() < count {
        let device = new_device();
        let dialer = Dialer::new(&device, Tuning::default()).unwrap();
        let dial = dialer.dial(at, device.id(), Protocol::Session, TransportKind::Quic);
        let heard = async {
            loop {
                let length = silent.recv(&mut datagram).await.unwrap();
                // A dialler also sends one byte to hear whether the port is closed.
                if length >= 1_200 {
                    return datagram[..length].to_vec();
                }
            }
        };
        tokio::select! {
            packet = heard => packets.push(packet),
            _ = dial => panic!("nobody answers there"),
        }
    }
    packets
}

/// Sends `packets` from ever another port, some thousands a second, until it is told to stop.
fn flood(to: SocketAddr, packets: Vec<Vec<u8>>, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let mut packets = packets.iter().cycle();
    while !stop.load(SeqCst) {
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        for packet in packets.by_ref().take(25) {
            // What the system does not take is lost, as on any path.
            let _ = from.send_to(packet, to);
            sent.fetch_add(1, SeqCst);
        }
        // A pace, not a wait: the machine has other things to do.
        thread::sleep(Duration::from_millis(5));
    }
}

/// What this process has open, and how much memory of its own it has touched.
#[cfg(target_os = "linux")]
fn taken() -> (usize, usize) {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    (files, kib)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn a_flood_of_handshakes_that_are_never_finished_keeps_nobody_out_and_takes_no_more_and_no_more() {
    const FLOOD: u64 = 10_000;
    let mut world = World::start().await;
    world.assert_sound().await;
    let packets = first_packets(100).await;
    let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let before = taken();
    let flooding = thread::spawn({
        let (to, stop, sent) = (world.addr, stop.clone(), sent.clone());
        move || flood(to, packets, stop, sent)
    });
    // Beside it, TLS that is begun and never goes on.
    let mut open = std::collections::VecDeque::new();
    while sent.load(SeqCst) < FLOOD {
        let mut tcp = TcpStream::connect(world.addr).await.unwrap();
        let _ = tcp.write_all(&[22, 3, 1]).await;
        open.push_back(tcp);
        if open.len() > 2 * HANDSHAKES_MAX {
            open.pop_front();
        }
    }
    let during = taken();
    timeout(2 * crate::world::PATIENCE, world.assert_sound()).await.expect("a known device is served in the flood");
    stop.store(true, SeqCst);
    flooding.join().unwrap();
    // Of each connection both ends are this process's.
    assert!(during.0 < before.0 + 2 * (2 * HANDSHAKES_MAX + 1) + 20, "open files: {before:?} {during:?}");
    assert!(during.1 < before.1 + (64 << 10), "KiB of memory: {before:?} {during:?}");
    drop(open);
    world.end_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_device_that_opens_session_after_session_leaves_room() {
    let world = World::start().await;
    let device = new_device();
    world.admit(&device);
    let mut silent = Vec::new();
    for _ in 0..4 * SESSIONS_PER_DEVICE_MAX {
        silent.push(EvilPeer::connect(&world, &device, TransportKind::Quic).await);
    }
    world.end_sound().await;
}
