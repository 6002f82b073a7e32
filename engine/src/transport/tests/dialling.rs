//! Who gets in, who does not, and what happens when the network does not play along.

use super::*;
use crate::limits::{CONNECT_MS, TCP_AFTER_MS};
use tokio::net::TcpSocket;

/// So often is something tried that other load may delay.
const ATTEMPTS: usize = 8;

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
        fn standing(&self, _: &DeviceId) -> Standing {
            if self.0.load(Ordering::SeqCst) { Standing::Known } else { Standing::Stranger }
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
async fn who_it_is_not_clear_about_is_told_to_come_again_not_that_nobody_knows_them() {
    struct Unreadable;
    impl Admission for Unreadable {
        fn standing(&self, _: &DeviceId) -> Standing {
            Standing::Unclear
        }
        fn pairing_open(&self) -> bool {
            true
        }
    }
    let listener = Listener::bind(&[LOOPBACK], &key(2), Arc::new(Unreadable), Tuning::default()).unwrap();
    let dialer = Dialer::new(&key(1), Tuning::default()).unwrap();
    let addr = listener.local_addrs().0[0];
    for (kind, protocol) in WIRES.into_iter().flat_map(|kind| [(kind, Protocol::Session), (kind, Protocol::Pairing)]) {
        let error = refusal(dialer.dial(addr, key(2).id(), protocol, kind).await).await;
        assert!(matches!(error, TransportError::Closed(CloseReason::Busy)), "{kind} {protocol:?}: {error:?}");
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

/// What `dial` comes to when it takes less than `ms`, at one of some attempts: other load lengthens some of them, a pause of ours all.
async fn within<T>(ms: u64, dial: impl AsyncFn() -> T) -> T {
    let mut took = Vec::new();
    for _ in 0..ATTEMPTS {
        let start = Instant::now();
        let dialled = dial().await;
        took.push(start.elapsed());
        if start.elapsed() < Duration::from_millis(ms) {
            return dialled;
        }
    }
    panic!("not once within {ms} ms: {took:?}");
}

/// A listener on TCP alone, and the UDP port of the same number, which nobody else gets meanwhile.
async fn tcp_alone(client: &DeviceKey, server: &DeviceKey) -> (Listener, UdpSocket) {
    loop {
        let admission = Known::only(&[client]);
        let listener = Listener::bind_only(TransportKind::Tcp, &[LOOPBACK], server, admission, Tuning::default()).unwrap();
        if let Ok(udp) = UdpSocket::bind(listener.local_addrs().1[0]).await {
            return (listener, udp);
        }
    }
}

/// Connected to itself, a socket takes nothing from others: the system says that nobody is there.
async fn turn_away(udp: &UdpSocket) {
    udp.connect(udp.local_addr().unwrap()).await.unwrap();
}

#[tokio::test]
async fn with_udp_blocked_tcp_takes_over_after_a_second() {
    let (client, server) = (key(1), key(2));
    let dialer = Dialer::new(&client, Tuning::default()).unwrap();
    let (listener, swallows) = tcp_alone(&client, &server).await;
    let addr = listener.local_addrs().1[0];
    let dial = async || dialer.dial_auto(&[addr], server.id(), Protocol::Session, Choice::Auto).await.unwrap();
    assert_eq!(within(CONNECT_MS, dial).await.kind(), TransportKind::Tcp);
    let error = dialer.dial_auto(&[addr], key(9).id(), Protocol::Session, Choice::Auto).await;
    assert!(matches!(error, Err(TransportError::WrongPeer { .. })));

    // Nothing listens on UDP: the system says so and nobody waits.
    turn_away(&swallows).await;
    assert_eq!(within(TCP_AFTER_MS, dial).await.kind(), TransportKind::Tcp);
}

#[tokio::test]
async fn closed_ports_are_unreachable_at_once_and_each_is_named() {
    let (_tcp, addr, udp) = loop {
        // Bound, and nobody listens.
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.bind(LOOPBACK).unwrap();
        let addr = tcp.local_addr().unwrap();
        if let Ok(udp) = UdpSocket::bind(addr).await {
            break (tcp, addr, udp);
        }
    };
    turn_away(&udp).await;
    let dialer = Dialer::new(&key(1), Tuning::default()).unwrap();
    let dial = async || dialer.dial_auto(&[addr], key(2).id(), Protocol::Session, Choice::Auto).await.err().unwrap();
    let error = within(TCP_AFTER_MS, dial).await;
    let TransportError::Unreachable { causes } = &error else { panic!("{error:?}") };
    let kinds: Vec<_> = causes.iter().map(|cause| cause.kind).collect();
    assert_eq!(kinds, [TransportKind::Quic, TransportKind::Tcp], "{error}");
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
async fn a_raced_quic_connection_has_lanes_of_both_kinds_both_ways_and_a_pinned_one_does_not() {
    let net = Net::new();
    let dialer = Dialer::new(&net.client, Tuning::default()).unwrap();
    let dialled = dialer.dial_auto(&[net.addr()], net.server.id(), Protocol::Session, Choice::Auto).await.unwrap();
    let accepted = net.listener.accept().await.unwrap();
    assert_eq!((dialled.lane_kinds(), accepted.lane_kinds()), (&[LaneKind::Quic, LaneKind::Tcp][..], &[LaneKind::Quic, LaneKind::Tcp][..]));
    let data = pattern(MIB);
    for (from, to) in [(&dialled, &accepted), (&accepted, &dialled)] {
        let through = async |kind| {
            let sending = async {
                let mut lane = from.open_lane_over(kind).await?;
                lane.send(data.clone()).await?;
                lane.finish().await
            };
            let (sent, lane) = tokio::join!(sending, async { read_lane(to.accept_lane_over(kind).await?).await });
            sent.unwrap();
            assert!(lane.unwrap() == data, "{kind}");
        };
        timeout(LIMIT, async { tokio::join!(through(LaneKind::Quic), through(LaneKind::Tcp)) }).await.unwrap();
        let over = |kind| from.stats_over(kind).bytes_sent;
        assert!(over(TransportKind::Quic) >= MIB as u64 && over(TransportKind::Tcp) >= MIB as u64);
        assert!(from.stats().bytes_sent >= 2 * MIB as u64);
    }
    let pinned = dialer.dial_auto(&[net.addr()], net.server.id(), Protocol::Session, Choice::Only(TransportKind::Quic)).await.unwrap();
    assert_eq!(pinned.lane_kinds(), [LaneKind::Quic]);
    assert!(matches!(pinned.open_lane_over(LaneKind::Tcp).await, Err(TransportError::Protocol(_))));
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
        let late = timeout(Duration::from_millis(200), net.dial_as(&net.client, Protocol::Session, kind)).await;
        assert!(!matches!(late, Ok(Ok(_))));
        let (mut sender, _receiver) = dialled.take_control().unwrap();
        sender.send(Bytes::from_static(b"still here")).await.unwrap();
        assert_eq!(accepted.take_control().unwrap().1.recv().await.unwrap().unwrap(), "still here");
        assert!(timeout(LIMIT, net.listener.accept()).await.unwrap().is_none());
    }
}
