//! Who does not even speak the protocol.

use crate::{
    peer::{EvilPeer, new_device},
    world::World,
};
use mirror_engine::{limits::SESSIONS_PER_DEVICE_MAX, transport::TransportKind};
use std::net::UdpSocket;
use tokio::{io::AsyncWriteExt, net::TcpStream};

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
