//! A thread of a session that panics takes its session with it at once, and nothing else.

use super::world::{LOOPBACK, PATIENCE, World, put};
use crate::{
    limits::IDLE_MS,
    replicate::{self, Observer, Options, Progress, ReplicateError, Server, Summary, Target, Unobserved},
    transport::{Choice, TransportKind},
    vault::Vault,
};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::{task::JoinHandle, time::timeout};

/// Before anybody is taken for silent, and far longer than anything here takes.
const AT_ONCE: Duration = Duration::from_millis(IDLE_MS);

async fn serve(vault: &Arc<Vault>) -> (Target, JoinHandle<()>) {
    let server = Server::bind(vault.clone(), &[LOOPBACK], "there", &Options::default()).await.unwrap();
    let target = Target { name: "there".into(), device: vault.device().id(), addresses: server.local_addrs().1 };
    (target, tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(drop))))
}

async fn sync(vault: &Vault, target: &Target, observer: Arc<dyn Observer>) -> Result<Summary, ReplicateError> {
    let options = Options { choice: Choice::Only(TransportKind::Tcp), ..Options::default() };
    timeout(AT_ONCE, replicate::sync(vault, target, &options, observer)).await.expect("it ends at once")
}

/// The fault is over: the rest arrives, whole.
async fn go_on(dialer: &Vault, target: &Target, other: &Vault) {
    timeout(PATIENCE, sync(dialer, target, Arc::new(Unobserved))).await.unwrap().unwrap();
    assert_eq!(dialer.store().root(), other.store().root());
    dialer.store().refresh().unwrap();
    assert!(dialer.store().is_whole().unwrap() && other.store().is_whole().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiving_thread_that_panics_ends_its_session_at_once_and_the_next_goes_on() {
    for bytes in [10, 3_000_000] {
        let world = World::new().await;
        put(&world.first, "value", bytes);
        let (target, serving) = serve(&world.first).await;
        world.disk.breaks.store(true, SeqCst);
        let ended = sync(&world.second, &target, Arc::new(Unobserved)).await;
        assert!(matches!(ended, Err(ReplicateError::BrokeDown(_))), "{ended:?}");
        assert!(!world.disk.breaks.load(SeqCst));
        go_on(&world.second, &target, &world.first).await;
        serving.abort();
    }
}

/// Breaks down when it is told of chunks that were sent, which the sending thread tells.
struct Breaking;

impl Observer for Breaking {
    fn progress(&self, progress: Progress) {
        assert!(!matches!(progress, Progress::Sent { .. }), "a fault of this program, as a test");
    }

    fn cancelled(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sending_thread_that_panics_ends_its_session_at_once_and_the_next_goes_on() {
    for bytes in [10, 3_000_000] {
        let world = World::new().await;
        put(&world.second, "value", bytes);
        let (target, serving) = serve(&world.first).await;
        let ended = sync(&world.second, &target, Arc::new(Breaking)).await;
        assert!(matches!(ended, Err(ReplicateError::BrokeDown(_))), "{ended:?}");
        go_on(&world.second, &target, &world.first).await;
        serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_outlives_a_session_whose_thread_panics_and_its_peer_is_told() {
    let world = World::new().await;
    put(&world.first, "value", 3_000_000);
    let (target, serving) = serve(&world.second).await;
    world.disk.breaks.store(true, SeqCst);
    let ended = sync(&world.first, &target, Arc::new(Unobserved)).await;
    assert!(matches!(ended, Err(ReplicateError::PeerStopped(_))), "{ended:?}");
    go_on(&world.first, &target, &world.second).await;
    assert!(!serving.is_finished());
    serving.abort();
}
