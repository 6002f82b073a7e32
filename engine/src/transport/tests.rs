//! The contract, over every carrier with one body, and what strangers can do to a listener.

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

const LIMIT: Duration = Duration::from_secs(20);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const WIRES: [TransportKind; 2] = [TransportKind::Quic, TransportKind::Tcp];

struct Known {
    devices: Vec<DeviceId>,
    pairing: AtomicBool,
}

impl Admission for Known {
    fn is_known(&self, device: &DeviceId) -> bool {
        self.devices.contains(device)
    }

    fn pairing_open(&self) -> bool {
        self.pairing.load(Ordering::SeqCst)
    }
}

fn key(seed: u8) -> DeviceKey {
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
        let admission = Arc::new(Known { devices: vec![client.id()], pairing: AtomicBool::new(false) });
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

#[tokio::test]
async fn messages_cross_both_ways_at_every_size() {
    over_all(|a, b| async move {
        let (mut to_b, mut from_b) = a.take_control().unwrap();
        let (mut to_a, mut from_a) = b.take_control().unwrap();
        assert!(a.take_control().is_none());
        let sizes = [0, 1, 4, 5, 1_000, 16_383, 16_384, 16_385, 65_536, MIB, MESSAGE_BYTES_MAX];
        let messages: Vec<Bytes> = sizes.into_iter().map(pattern).collect();
        let send = async |sender: &mut ControlSender| {
            for message in &messages {
                sender.send(message.clone()).await.unwrap();
            }
        };
        let receive = async |receiver: &mut ControlReceiver| {
            for message in &messages {
                assert!(receiver.recv().await.unwrap().unwrap() == *message, "{} bytes", message.len());
            }
        };
        tokio::join!(send(&mut to_b), receive(&mut from_a), send(&mut to_a), receive(&mut from_b));
        let too_long = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
        assert!(matches!(to_b.send(too_long).await, Err(TransportError::MessageTooLong(_))));
        to_b.send(Bytes::from_static(b"still fine")).await.unwrap();
        assert_eq!(from_a.recv().await.unwrap().unwrap(), "still fine");
    })
    .await;
}

#[tokio::test]
async fn lanes_carry_bytes_both_ways_and_many_at_a_time() {
    over_all(|a, b| async move {
        let data = pattern(5 * MIB + 12_345);
        let through = async |from: &Connection, to: &Connection| {
            let (sent, lane) = tokio::join!(send_lane(from, &data), async { read_lane(to.accept_lane().await?).await });
            sent.unwrap();
            assert!(lane.unwrap() == data);
        };
        tokio::join!(through(&a, &b), through(&b, &a), through(&a, &b), through(&b, &a));
        let (sent, received) = (a.stats().bytes_sent, b.stats().bytes_received);
        assert!(sent >= 2 * data.len() as u64 && received >= 2 * data.len() as u64, "{sent} {received}");
    })
    .await;
}

#[tokio::test]
async fn small_buffers_lose_nothing() {
    over_all(|a, b| async move {
        let data = pattern(200_000);
        let reading = async {
            let mut lane = b.accept_lane().await.unwrap();
            let mut all = BytesMut::new();
            loop {
                let mut buffer = BytesMut::with_capacity(1_000);
                let room = buffer.capacity();
                let count = lane.read(&mut buffer).await.unwrap();
                assert!(count <= room && count == buffer.len());
                if count == 0 {
                    assert_eq!(lane.read(&mut buffer).await.unwrap(), 0, "the end stays the end");
                    return all;
                }
                all.extend_from_slice(&buffer);
            }
        };
        let (sent, all) = tokio::join!(send_lane(&a, &data), reading);
        sent.unwrap();
        assert!(all == data);
    })
    .await;
}

#[tokio::test]
async fn a_lane_that_was_not_finished_does_not_look_finished() {
    over_all(|a, b| async move {
        let mut lane = a.open_lane().await.unwrap();
        lane.send(pattern(100_000)).await.unwrap();
        let mut receiver = b.accept_lane().await.unwrap();
        let mut buffer = BytesMut::with_capacity(MIB);
        receiver.read(&mut buffer).await.unwrap();
        drop(lane);
        let rest = read_lane(receiver).await;
        assert!(matches!(rest, Err(TransportError::LaneReset)), "{rest:?}");
        let (mut to_b, _from_b) = a.take_control().unwrap();
        let (_to_a, mut from_a) = b.take_control().unwrap();
        to_b.send(Bytes::from_static(b"alive")).await.unwrap();
        assert_eq!(from_a.recv().await.unwrap().unwrap(), "alive");
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_its_sender() {
    over_all(|a, b| async move {
        let mut lane = a.open_lane().await.unwrap();
        lane.send(pattern(1_000)).await.unwrap();
        drop(b.accept_lane().await.unwrap());
        let piece = pattern(MIB);
        let error = loop {
            if let Err(error) = lane.send(piece.clone()).await {
                break error;
            }
        };
        assert!(matches!(error, TransportError::LaneReset), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn giving_up_a_wait_for_a_lane_does_not_lose_the_lane() {
    over_all(|a, b| async move {
        for _ in 0..3 {
            assert!(timeout(Duration::from_millis(1), a.accept_lane()).await.is_err());
        }
        let data = pattern(10_000);
        let (sent, lane) = tokio::join!(send_lane(&b, &data), async { read_lane(a.accept_lane().await?).await });
        sent.unwrap();
        assert!(lane.unwrap() == data);
    })
    .await;
}

#[tokio::test]
async fn exporters_agree_and_differ_by_connection_label_and_context() {
    over_all(|a, b| async move {
        let of_a = a.exporter(b"label", b"context").unwrap();
        assert_eq!(of_a, b.exporter(b"label", b"context").unwrap());
        assert_ne!(of_a, a.exporter(b"label", b"other").unwrap());
        assert_ne!(of_a, a.exporter(b"other", b"context").unwrap());
    })
    .await;
    let net = Net::new();
    let (one, _one) = net.pair(TransportKind::Tcp).await;
    let (two, _two) = net.pair(TransportKind::Tcp).await;
    assert_ne!(one.exporter(b"label", b"").unwrap(), two.exporter(b"label", b"").unwrap());
}

#[tokio::test]
async fn a_clean_close_ends_control_and_other_reasons_are_told() {
    for reason in [CloseReason::Done, CloseReason::Busy, CloseReason::Shutdown, CloseReason::Refused, CloseReason::Abandoned] {
        over_all(|a, b| async move {
            let (_to_a, mut from_a) = b.take_control().unwrap();
            a.close(reason);
            a.flushed().await;
            match (reason, from_a.recv().await) {
                (CloseReason::Done, Ok(None)) | (CloseReason::Refused, Err(TransportError::Refused)) => {}
                (sent, Err(TransportError::Closed(told))) => assert_eq!(sent, told),
                (sent, other) => panic!("{sent:?} became {other:?}"),
            }
            b.closed().await;
            assert!(b.open_lane().await.is_err() && b.accept_lane().await.is_err() && a.open_lane().await.is_err());
        })
        .await;
    }
}

#[tokio::test]
async fn dropping_every_handle_is_not_success() {
    over_all(|a, b| async move {
        drop(a);
        let error = b.closed().await;
        assert!(matches!(error, TransportError::Closed(CloseReason::Abandoned)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn everything_that_waits_ends_with_the_connection() {
    over_all(|a, b| async move {
        let (_to_b, mut from_b) = a.take_control().unwrap();
        let opening = async {
            let mut lane = b.open_lane().await.unwrap();
            lane.send(pattern(1)).await.unwrap();
            lane
        };
        let (_sender, lane) = tokio::join!(opening, a.accept_lane());
        let mut lane = lane.unwrap();
        lane.read(&mut BytesMut::with_capacity(10)).await.unwrap();
        let mut buffer = BytesMut::new();
        let waiting = async { tokio::join!(a.accept_lane(), from_b.recv(), lane.read(&mut buffer), a.closed()) };
        let (ended, ()) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            b.close(CloseReason::Busy);
        });
        let busy = |error: &TransportError| matches!(error, TransportError::Closed(CloseReason::Busy));
        assert!(busy(&ended.0.err().unwrap()) && busy(&ended.1.unwrap_err()) && busy(&ended.2.unwrap_err()) && busy(&ended.3));
    })
    .await;
}

async fn refusal(connection: Result<Connection, TransportError>) -> TransportError {
    match connection {
        Ok(connection) => timeout(LIMIT, connection.closed()).await.expect("a refusal comes at once"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn another_key_than_expected_is_a_changed_identity() {
    let net = Net::new();
    let dialer = Dialer::new(&net.client, Tuning::default()).unwrap();
    for kind in WIRES {
        let error = dialer.dial(net.addr(), key(9).id(), Protocol::Session, kind).await.err().unwrap();
        let TransportError::WrongPeer { expected, found } = error else { panic!("{kind}: {error:?}") };
        assert_eq!((expected, found), (key(9).id(), net.server.id()));
    }
}

#[tokio::test]
async fn an_unknown_device_is_refused_and_never_surfaces() {
    let net = Net::new();
    for kind in WIRES {
        for protocol in [Protocol::Session, Protocol::Pairing] {
            let error = refusal(net.dial_as(&key(9), protocol, kind).await).await;
            assert!(matches!(error, TransportError::Refused), "{kind}: {error:?}");
        }
        let (_, accepted) = net.pair(kind).await;
        assert_eq!(accepted.peer(), net.client.id());
    }
}

#[tokio::test]
async fn while_pairing_is_open_a_stranger_may_pair_and_nothing_else() {
    let net = Net::new();
    net.admission.pairing.store(true, Ordering::SeqCst);
    for kind in WIRES {
        let error = refusal(net.dial_as(&key(9), Protocol::Session, kind).await).await;
        assert!(matches!(error, TransportError::Refused), "{kind}: {error:?}");
        let dialled = net.dial_as(&key(9), Protocol::Pairing, kind).await.unwrap();
        let accepted = net.listener.accept().await.unwrap();
        assert_eq!((accepted.peer(), accepted.protocol(), dialled.protocol()), (key(9).id(), Protocol::Pairing, Protocol::Pairing));
    }
}

#[tokio::test]
async fn a_device_that_is_removed_is_refused_from_then_on() {
    struct Once(AtomicBool);
    impl Admission for Once {
        fn is_known(&self, _: &DeviceId) -> bool {
            self.0.load(Ordering::SeqCst)
        }
        fn pairing_open(&self) -> bool {
            false
        }
    }
    let admission = Arc::new(Once(AtomicBool::new(true)));
    let listener = Listener::bind(&[LOOPBACK], &key(2), admission.clone(), Tuning::default()).unwrap();
    let dialer = Dialer::new(&key(1), Tuning::default()).unwrap();
    let addr = listener.local_addrs().0[0];
    for kind in WIRES {
        admission.0.store(true, Ordering::SeqCst);
        let dialled = dialer.dial(addr, key(2).id(), Protocol::Session, kind).await.unwrap();
        let _accepted = listener.accept().await.unwrap();
        admission.0.store(false, Ordering::SeqCst);
        let error = refusal(dialer.dial(addr, key(2).id(), Protocol::Session, kind).await).await;
        assert!(matches!(error, TransportError::Refused), "{kind}: {error:?}");
        drop(dialled);
    }
}

#[tokio::test]
async fn noise_and_silence_do_not_disturb_a_good_connection() {
    let net = Net::new();
    let mut silent = Vec::new();
    for _ in 0..2 * crate::limits::HANDSHAKES_MAX {
        silent.push(TcpStream::connect(net.addr()).await.unwrap());
    }
    for noise in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 70_000], &[0xff; 40_000]] {
        let mut stream = TcpStream::connect(net.addr()).await.unwrap();
        // The listener may hang up before all of it is written.
        drop(stream.write_all(noise).await);
        let mut answer = Vec::new();
        drop(timeout(Duration::from_millis(20), stream.read_to_end(&mut answer)).await);
        let udp = UdpSocket::bind(LOOPBACK).await.unwrap();
        for first in [0x00, 0x40, 0xc0, 0xff] {
            let datagram = [&[first], &noise[..noise.len().min(1_300)]].concat();
            udp.send_to(&datagram, net.addr()).await.unwrap();
        }
    }
    for kind in WIRES {
        let (dialled, accepted) = timeout(LIMIT, net.pair(kind)).await.unwrap();
        let (mut sender, _receiver) = dialled.take_control().unwrap();
        sender.send(Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(accepted.take_control().unwrap().1.recv().await.unwrap().unwrap(), "hello");
    }
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_message_is_an_error() {
    let (a, b, cut) = cuttable_pair(key(1).id(), key(2).id());
    let (mut to_b, _from_b) = a.take_control().unwrap();
    let (_to_a, mut from_a) = b.take_control().unwrap();
    cut.cut_after(150);
    to_b.send(pattern(100)).await.unwrap();
    assert!(matches!(to_b.send(pattern(100)).await, Err(TransportError::Io { .. })));
    assert_eq!(from_a.recv().await.unwrap().unwrap(), pattern(100));
    assert!(matches!(from_a.recv().await, Err(TransportError::Io { .. })));
}

/// Passes bytes between a dialer and a listener, and stops after so many from the dialer.
async fn relay(from: TcpListener, to: SocketAddr, mut budget: usize) {
    let (mut dialer, _) = from.accept().await.unwrap();
    let mut listener = TcpStream::connect(to).await.unwrap();
    let (mut up, mut down) = (vec![0; 4_096], vec![0; 4_096]);
    while budget > 0 {
        tokio::select! {
            read = dialer.read(&mut up) => {
                let count = read.unwrap().min(budget);
                listener.write_all(&up[..count]).await.unwrap();
                budget -= count;
            }
            read = listener.read(&mut down) => {
                let count = read.unwrap();
                dialer.write_all(&down[..count]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_tcp_connection_cut_in_the_middle_of_a_message_is_an_error_on_both_ends() {
    let net = Net::new();
    let between = TcpListener::bind(LOOPBACK).await.unwrap();
    let addr = between.local_addr().unwrap();
    let relayed = tokio::spawn(relay(between, net.addr(), 100_000));
    let dialer = Dialer::new(&net.client, Tuning::default()).unwrap();
    let dialled = dialer.dial(addr, net.server.id(), Protocol::Session, TransportKind::Tcp).await.unwrap();
    let accepted = net.listener.accept().await.unwrap();
    let (mut sender, mut answers) = dialled.take_control().unwrap();
    let (_, mut receiver) = accepted.take_control().unwrap();
    let (_, received, answered) =
        timeout(LIMIT, async { tokio::join!(sender.send(pattern(MIB)), receiver.recv(), answers.recv()) }).await.unwrap();
    assert!(received.is_err() && answered.is_err(), "{received:?} {answered:?}");
    relayed.await.unwrap();
}

#[tokio::test]
async fn with_udp_blocked_tcp_takes_over_after_a_second() {
    let (client, server) = (key(1), key(2));
    let admission = Arc::new(Known { devices: vec![client.id()], pairing: AtomicBool::new(false) });
    let listener = Listener::bind_only(TransportKind::Tcp, &[LOOPBACK], &server, admission, Tuning::default()).unwrap();
    let addr = listener.local_addrs().1[0];
    let dialer = Dialer::new(&client, Tuning::default()).unwrap();

    // Nothing listens on UDP: the system says so and nobody waits.
    let start = Instant::now();
    let connection = dialer.dial_auto(&[addr], server.id(), Protocol::Session, Choice::Auto).await.unwrap();
    assert!(connection.kind() == TransportKind::Tcp && start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());

    let _swallows = UdpSocket::bind(addr).await.unwrap();
    let start = Instant::now();
    let connection = dialer.dial_auto(&[addr], server.id(), Protocol::Session, Choice::Auto).await.unwrap();
    assert!(connection.kind() == TransportKind::Tcp && start.elapsed() < Duration::from_millis(1_800), "{:?}", start.elapsed());
    let error = dialer.dial_auto(&[addr], key(9).id(), Protocol::Session, Choice::Auto).await;
    assert!(matches!(error, Err(TransportError::WrongPeer { .. })));
}

#[tokio::test]
async fn closed_ports_are_unreachable_at_once_and_each_is_named() {
    let addr = Net::new().addr();
    let dialer = Dialer::new(&key(1), Tuning::default()).unwrap();
    let start = Instant::now();
    let error = dialer.dial_auto(&[addr], key(2).id(), Protocol::Session, Choice::Auto).await.err().unwrap();
    let TransportError::Unreachable { causes } = &error else { panic!("{error:?}") };
    let kinds: Vec<_> = causes.iter().map(|cause| cause.kind).collect();
    assert_eq!(kinds, [TransportKind::Quic, TransportKind::Tcp], "{error}");
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
}

#[tokio::test]
async fn quic_wins_where_both_work() {
    let net = Net::new();
    let dialer = Dialer::new(&net.client, Tuning::default()).unwrap();
    let connection = dialer.dial_auto(&[net.addr()], net.server.id(), Protocol::Session, Choice::Auto).await.unwrap();
    assert_eq!(connection.kind(), TransportKind::Quic);
    assert_eq!(connection.remote_addr(), Some(net.addr()));
    assert!(connection.stats().rtt.is_some());
}

#[tokio::test]
async fn a_dual_stack_listener_answers_on_both_families() {
    let any: SocketAddr = "[::]:0".parse().unwrap();
    if std::net::UdpSocket::bind(any).is_err() {
        return;
    }
    let net = Net::on(any);
    let dialer = Dialer::new(&net.client, Tuning::default()).unwrap();
    let port = net.addr().port();
    for host in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        for kind in WIRES {
            let addr = SocketAddr::new(host.parse().unwrap(), port);
            let (dialled, accepted) = tokio::join!(dialer.dial(addr, net.server.id(), Protocol::Session, kind), net.listener.accept());
            let seen = accepted.unwrap().remote_addr().unwrap();
            assert_eq!(seen.is_ipv4(), dialled.unwrap().remote_addr().unwrap().is_ipv4(), "{host} {kind}");
        }
    }
}

#[tokio::test]
async fn a_closed_listener_accepts_nobody_and_keeps_what_it_has() {
    for kind in WIRES {
        let net = Net::new();
        let (dialled, accepted) = net.pair(kind).await;
        net.listener.close();
        assert!(net.dial_as(&net.client, Protocol::Session, kind).await.is_err());
        let (mut sender, _receiver) = dialled.take_control().unwrap();
        sender.send(Bytes::from_static(b"still here")).await.unwrap();
        assert_eq!(accepted.take_control().unwrap().1.recv().await.unwrap().unwrap(), "still here");
        assert!(timeout(LIMIT, net.listener.accept()).await.unwrap().is_none());
    }
}
