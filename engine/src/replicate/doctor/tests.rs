use super::*;
use crate::{
    codec,
    event::Key,
    home::{Home, Peer, Role},
    id::DeviceId,
    keys::DeviceKey,
    replicate::{Options, Server, Unobserved},
    transport::{Admission, Listener, Standing, TransportKind},
    vault::{InitOptions, Unwatched},
};
use std::{net::SocketAddr, sync::Arc};
use tempfile::TempDir;

const SHORT: Duration = Duration::from_millis(20);

struct Everybody;

impl Admission for Everybody {
    fn standing(&self, _: &DeviceId) -> Standing {
        Standing::Known
    }

    fn pairing_open(&self) -> bool {
        false
    }
}

fn vault(dir: &TempDir, name: &str) -> Vault {
    let home = Home::open(&dir.path().join(format!("home-{name}"))).unwrap();
    let options = InitOptions::for_this_device(name, "first");
    let vault = Vault::init(&dir.path().join(name), &home, options).unwrap().vault;
    vault.put(&Key::new("key").unwrap(), &mut &vec![7; 1 << 20][..], &Unwatched).unwrap();
    vault
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A server that answers examinations, and where it is.
async fn serve(vault: Arc<Vault>) -> (Target, tokio::task::JoinHandle<()>) {
    let server = Server::bind(vault.clone(), &[loopback()], "server", &Options::default()).await.unwrap();
    let target = Target { name: "server".into(), device: vault.device().id(), addresses: server.local_addrs().1 };
    (target, tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop))))
}

fn admit(vault: &Vault, device: DeviceId) {
    let peer = Peer { name: "client".into(), device, addresses: Vec::new(), role: Role::Member, added_ms: 0 };
    vault.home().add_peer(peer).unwrap();
}

async fn examine_with(vault: &Vault, target: &Target, kind: TransportKind) -> Result<Diagnosis, ReplicateError> {
    examine(vault, target, Choice::Only(kind), SHORT, &|_| {}).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_are_measured_over_both_transports_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (vault(&dir, "here"), Arc::new(vault(&dir, "there")));
    admit(&there, here.device().id());
    for kind in [TransportKind::Quic, TransportKind::Tcp] {
        // A server each: one examination at a time, and how soon the last is over is the network's to say.
        let (target, server) = serve(there.clone()).await;
        let diagnosis = examine_with(&here, &target, kind).await.unwrap();
        assert_eq!(diagnosis.findings.len(), 15);
        for finding in diagnosis.findings.iter().filter(|finding| finding.what != What::ReadHereCold && finding.what != What::ReadThere) {
            assert!(finding.outcome.as_ref().is_ok_and(|rate| rate.bytes > 0), "{kind}: {finding:?}");
        }
        assert!(diagnosis.push().is_some() && diagnosis.pull().is_some());
        server.abort();
    }
    let left = fs::read_dir(there.dir()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("probe"));
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_not_known_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (vault(&dir, "here"), Arc::new(vault(&dir, "there")));
    let (target, server) = serve(there).await;
    for kind in [TransportKind::Quic, TransportKind::Tcp] {
        let error = examine_with(&here, &target, kind).await.unwrap_err();
        assert!(matches!(error, ReplicateError::Transport(TransportError::Refused)), "{kind}: {error}");
    }
    server.abort();
}

#[test]
fn a_peer_without_the_protocol_is_named_as_older() {
    assert!(matches!(unsupported(TransportError::Version), ReplicateError::Unsupported(_)));
    assert!(matches!(unsupported(TransportError::Refused), ReplicateError::Transport(TransportError::Refused)));
}

/// A peer that answers everything with `answer`.
async fn liar(answer: Answer) -> (Target, tokio::task::JoinHandle<()>) {
    let device = DeviceKey::generate().unwrap();
    let listener = Listener::bind(&[loopback()], &device, Arc::new(Everybody), Tuning::default()).unwrap();
    let target = Target { name: "liar".into(), device: device.id(), addresses: listener.local_addrs().1 };
    let lying = async move {
        let connection = listener.accept().await.unwrap();
        let (mut out, mut inward) = connection.take_control().unwrap();
        while let Ok(Some(request)) = hear::<Request>(&mut inward).await {
            let answer = if request == Request::Ping { Answer::Pong } else { answer.clone() };
            if say(&mut out, &answer).await.is_err() {
                return;
            }
        }
    };
    (target, tokio::spawn(lying))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_lies_about_sizes_or_answers_out_of_place_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let here = vault(&dir, "here");
    for lie in [Answer::Measured { bytes: u64::MAX, elapsed_us: 1, count: 0 }, Answer::Pong] {
        let (target, lying) = liar(lie).await;
        let error = examine_with(&here, &target, TransportKind::Tcp).await.unwrap_err();
        assert!(matches!(error, ReplicateError::Peer(_)), "{error}");
        lying.abort();
    }
}

#[test]
fn time_asked_for_is_bounded_and_long_reasons_are_cut() {
    assert_eq!(bounded_ms(u64::MAX), crate::limits::DOCTOR_STAGE_MS_MAX);
    let answer = Answer::not("x".repeat(10_000));
    assert!(codec::encode(&answer).len() <= crate::limits::DOCTOR_MESSAGE_BYTES_MAX);
}

fn bounded_ms(ms: u64) -> u64 {
    wire::bounded(ms).as_millis() as u64
}
