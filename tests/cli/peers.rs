//! Peers that are not there, do not answer, go away in the middle, or are not who they should be; and what strangers learn.

use crate::support::{Closed, Device, Relay, Sandbox, Serving, Silence, incompressible};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

/// A dial gives up after 5 s; the rest is for a slow machine.
const DIAL_MAX: Duration = Duration::from_secs(20);

fn pull(device: &Device, address: &str, id: &str, transport: &str) -> (Option<i32>, serde_json::Value) {
    let begun = Instant::now();
    let ran = device.run(&["--json", "pull", address, "--device", id, "--transport", transport]);
    assert!(begun.elapsed() < DIAL_MAX, "{transport}: {:?}", begun.elapsed());
    (ran.code, ran.json().pop().unwrap())
}

/// A device with a vault, its server, and a second replica.
fn pair(sandbox: &Sandbox) -> (Device, Serving, Device) {
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    (a, serving, b)
}

fn name_of(vault: &Device) -> String {
    vault.status()["vault"].as_str().unwrap().to_owned()
}

#[test]
fn a_peer_that_is_not_there_ends_with_16_over_every_transport() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let closed = Closed::new();
    let address = closed.address.to_string();
    for transport in ["tcp", "quic", "auto"] {
        let (code, error) = pull(&device, &address, &"0".repeat(64), transport);
        assert_eq!((code, &error["code"]), (Some(16), &16.into()), "{transport}: {error}");
        assert!(error["causes"][0].as_str().unwrap().contains(&address), "{error}");
    }
    let error = device.run(&["--json", "pull", "no.such.host.invalid", "--device", &"0".repeat(64)]).ended_with(16).last("error");
    assert!(error["message"].as_str().unwrap().contains("no.such.host.invalid"), "{error}");
}

#[test]
fn a_peer_that_takes_the_connection_and_says_nothing_is_given_up() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let silence = Silence::new();
    for transport in ["tcp", "quic", "auto"] {
        let (code, error) = pull(&device, &silence.address.to_string(), &"0".repeat(64), transport);
        assert!(matches!(code, Some(5 | 16)), "{transport}: {error}");
        assert!(error["hint"].is_string(), "{error}");
    }
}

#[test]
fn a_peer_that_speaks_something_else_is_no_peer() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let greeter = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n"));
        drop(stream.read(&mut [0; 1024]));
    });
    let (code, error) = pull(&device, &address, &"0".repeat(64), "tcp");
    assert!(matches!(code, Some(5 | 16)), "{error}");
    greeter.join().unwrap();
}

#[test]
fn a_wire_that_is_cut_in_mid_frame_is_temporary_and_the_next_pull_goes_on() {
    let sandbox = Sandbox::new();
    let (a, serving, b) = pair(&sandbox);
    a.run_with(&["put", "large"], &incompressible(24 << 20, 1)).ok();
    // In the handshake, in the hello, and in the middle of a chunk.
    for bytes in [100, 3_000, 9 << 20] {
        let wire = Relay::to(&serving.tcp, bytes);
        let (code, error) = pull(&b, &wire.address.to_string(), &serving.device, "tcp");
        assert!(matches!(code, Some(5 | 16)), "after {bytes} bytes: {error}");
        b.run(&["get", "large"]).ended_with(1);
        b.verify();
    }
    let wire = Relay::to(&serving.tcp, u64::MAX);
    let (code, summary) = pull(&b, &wire.address.to_string(), &serving.device, "tcp");
    assert_eq!((code, &summary["resumed"], &summary["identical"]), (Some(0), &true.into(), &true.into()), "{summary}");
    assert!(b.run(&["get", "large"]).ok().stdout == incompressible(24 << 20, 1));
}

#[test]
fn without_udp_the_transfer_goes_over_tcp() {
    let sandbox = Sandbox::new();
    let (a, serving, b) = pair(&sandbox);
    a.run_with(&["put", "k"], b"x").ok();
    // Only the TCP port leads anywhere.
    let wire = Relay::to(&serving.tcp, u64::MAX);
    let (code, summary) = pull(&b, &wire.address.to_string(), &serving.device, "auto");
    assert_eq!((code, &summary["transport"]), (Some(0), &"tcp".into()), "{summary}");
}

#[test]
fn tcp_can_be_forced_by_the_environment() {
    let sandbox = Sandbox::new();
    let (_a, serving, b) = pair(&sandbox);
    let command = ["--json", "pull", &serving.tcp, "--device", &serving.device];
    let output = b.command(&command).env("MIRROR_FORCE_TCP", "1").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains(r#""transport":"tcp""#));
}

#[test]
fn an_unpaired_device_is_refused_and_learns_nothing() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let (serving, vault) = (a.serve(), name_of(&a));
    let stranger = sandbox.device("stranger");
    stranger.run(&["init", "own", "--no-passphrase", "--no-recovery-kit"]).ok();
    let stranger = stranger.within(&sandbox.path("own"));
    for transport in ["tcp", "quic", "auto"] {
        let address = if transport == "tcp" { &serving.tcp } else { &serving.quic };
        let (code, error) = pull(&stranger, address, &serving.device, transport);
        assert_eq!((code, &error["code"]), (Some(6), &6.into()), "{transport}: {error}");
        assert_eq!(error["message"], "the peer refused this device: not paired, or not allowed", "{transport}");
        let hint = error["hint"].as_str().unwrap();
        assert!(hint.contains("mirror invite there, mirror clone TICKET DIR here"), "{hint}");
        assert!(!error.to_string().contains(&vault), "{error}");
    }
}

#[test]
fn a_known_device_that_comes_with_another_vault_is_refused_and_learns_nothing() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "secret name"], b"x").ok();
    let (mut serving, vault) = (a.serve(), name_of(&a));
    let b = sandbox.device("b");
    b.run(&["init", "own", "--no-passphrase", "--no-recovery-kit"]).ok();
    let b = b.within(&sandbox.path("own"));
    let (device, root) = (b.status()["device"].as_str().unwrap().to_owned(), a.status()["root"].clone());
    a.run(&["peer", "add", "b", "127.0.0.1:1", "--device", &device]).ok();
    for transport in ["tcp", "quic"] {
        let address = if transport == "tcp" { &serving.tcp } else { &serving.quic };
        let (code, error) = pull(&b, address, &serving.device, transport);
        assert_eq!(code, Some(6), "{transport}: {error}");
        let said = error.to_string();
        assert!(!said.contains(&vault) && !said.contains(root.as_str().unwrap()), "{said}");
        let told = serving.tells("session");
        assert_eq!((&told["device"], told["error"].is_string()), (&device.as_str().into(), true), "{told}");
    }
    assert_eq!((b.entries().len(), a.entries().len()), (0, 1));
}

#[test]
fn another_device_at_the_address_of_a_peer_is_refused() {
    let sandbox = Sandbox::new();
    let (_a, serving, b) = pair(&sandbox);
    let expected = "7".repeat(64);
    let before = b.run(&["--json", "peer", "list"]).ok().text();
    for transport in ["tcp", "quic"] {
        let address = if transport == "tcp" { &serving.tcp } else { &serving.quic };
        let (code, error) = pull(&b, address, &expected, transport);
        assert_eq!((code, &error["code"]), (Some(6), &6.into()), "{error}");
        assert_eq!(error["message"], format!("identity changed: expected device {expected}, found {}", serving.device));
        let hint = error["hint"].as_str().unwrap();
        assert!(hint.contains("mirror peer remove NAME") && hint.contains("nothing is accepted by itself"), "{hint}");
    }
    assert_eq!(b.run(&["--json", "peer", "list"]).ok().text(), before);
}

#[test]
fn a_device_that_was_removed_is_refused() {
    let sandbox = Sandbox::new();
    let (a, serving, b) = pair(&sandbox);
    let peer = a.run(&["--json", "peer", "list"]).ok().last("peer");
    a.run(&["peer", "remove", peer["name"].as_str().unwrap()]).ok();
    assert_eq!(pull(&b, &serving.tcp, &serving.device, "tcp").0, Some(6));
}

#[test]
fn an_expired_ticket_is_refused_and_makes_nothing() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let ran = a.run(&["--json", "invite", "--addr", &serving.tcp, "--expires", "1ms"]).ok();
    let ticket = ran.last("ticket")["ticket"].as_str().unwrap().to_owned();
    let error = sandbox.device("b").run(&["--json", "clone", &ticket, "b"]).ended_with(6).last("error");
    assert!(error["hint"].as_str().unwrap().contains("mirror invite"), "{error}");
    assert!(!sandbox.path("b").exists());
}

#[test]
fn a_used_ticket_is_refused_reveals_nothing_and_is_told_by_the_server() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let (mut serving, vault) = (a.serve(), name_of(&a));
    let ticket = a.invite(&serving, "member");
    sandbox.device("b").run(&["clone", &ticket, "b"]).ok();
    let paired = serving.tells("paired");
    assert!(paired["error"].is_null() && paired["name"].is_string(), "{paired}");
    // With another ticket open, the server has to look at what the bearer says.
    for open in [false, true] {
        if open {
            a.invite(&serving, "member");
        }
        let error = sandbox.device("c").run(&["--json", "clone", &ticket, "c"]).ended_with(6).last("error");
        assert!(!error.to_string().contains(&vault), "{error}");
        assert!(!sandbox.path("c").exists());
    }
    assert!(serving.tells("paired")["error"].is_string());
}

#[test]
fn what_is_no_ticket_is_refused_before_anything_is_dialled() {
    let sandbox = Sandbox::new();
    for ticket in ["", "nonsense", "mirror1qqqqqqqqqqqq"] {
        let ran = sandbox.device("b").run(&["--json", "clone", ticket, "b"]);
        assert!(matches!(ran.code, Some(2 | 6)), "{ran:?}");
    }
}

#[test]
fn garbage_on_both_ports_does_not_disturb_a_server() {
    let sandbox = Sandbox::new();
    let (a, serving, b) = pair(&sandbox);
    a.run_with(&["put", "k"], b"x").ok();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut open = Vec::new();
    for (seed, length) in [0, 1, 5, 1_200, 40_000].into_iter().enumerate() {
        let garbage = incompressible(length, seed as u64);
        let mut tcp = TcpStream::connect(&serving.tcp).unwrap();
        drop(tcp.write_all(&garbage));
        drop(udp.send_to(&garbage[..length.min(1_400)], &serving.quic));
        // Some stay open and silent.
        open.push(tcp);
    }
    let mut tcp = TcpStream::connect(&serving.tcp).unwrap();
    drop(tcp.write_all(b"GET / HTTP/1.1\r\nHost: mirror\r\n\r\n"));
    for transport in ["tcp", "quic"] {
        let address = if transport == "tcp" { &serving.tcp } else { &serving.quic };
        assert_eq!(pull(&b, address, &serving.device, transport).0, Some(0));
    }
    assert_eq!(b.run(&["get", "k"]).ok().text(), "x");
    assert_eq!(serving.terminate(), Some(130));
}

#[test]
fn a_server_tells_its_sessions_in_json() {
    let sandbox = Sandbox::new();
    let (_a, mut serving, b) = pair(&sandbox);
    serving.tells("session");
    b.run_with(&["put", "k"], b"x").ok();
    b.run(&["push", &serving.quic, "--device", &serving.device]).ok();
    let told = serving.tells("session");
    assert_eq!(
        (&told["error"], &told["events_received"], &told["identical"]),
        (&serde_json::Value::Null, &1.into(), &true.into()),
        "{told}"
    );
}
