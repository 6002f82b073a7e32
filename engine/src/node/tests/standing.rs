//! What stands still, says so, and goes on by itself.

use super::world::{PATIENCE, Running, World, holds, is_live, listening, put};
use crate::{
    event::Key,
    node::{Node, NodeOptions, NodeStatus, PauseReason, Report, State, Told},
    replicate::ReplicateError,
    vault::{DeleteLimit, Unlock, Vault, VaultError},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::time::timeout;

fn paused(status: &NodeStatus, reason: PauseReason) -> bool {
    status.paused.as_ref().is_some_and(|pause| pause.reason == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_nothing_and_gives_what_it_has_until_there_is_room() {
    let world = World::new().await;
    let (_first, mut second) = world.nodes(NodeOptions::default()).await;
    second.live().await;
    world.disk.full.store(true, SeqCst);
    put(&world.first, "large", 2_000_000);
    let status = second.until("paused", |status| paused(status, PauseReason::NoSpace)).await;
    assert!(status.paused.unwrap().next_in.is_some(), "it tries again by itself");
    second.live().await;
    world.disk.full.store(false, SeqCst);
    second.equals(&world.first).await;
    second.until("not paused", |status| status.paused.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_takes_nothing_and_gives_what_it_has_until_it_is_writable() {
    let world = World::new().await;
    put(&world.second, "mine", 2_000_000);
    let mine = world.second.store().frontier();
    put(&world.first, "theirs", 2_000_000);
    world.disk.read_only.store(true, SeqCst);
    let (_first, mut second) = world.nodes(NodeOptions::default()).await;
    let status = second.until("paused", |status| paused(status, PauseReason::Disk)).await;
    assert!(status.paused.unwrap().next_in.is_some(), "it tries again by itself");
    holds(&world.first, &mine).await;
    world.disk.read_only.store(false, SeqCst);
    second.equals(&world.first).await;
    second.until("not paused", |status| status.paused.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_deletion_stands_still_for_one_peer_until_a_person_lets_it_pass() {
    let world = World::new().await;
    let keys: Vec<Key> = ["one", "two", "three"].map(|key| Key::new(key).unwrap()).into();
    ["one", "two", "three"].iter().for_each(|key| put(&world.first, key, 10));
    let options = NodeOptions { max_delete: Some(DeleteLimit::Keys(2)), ..NodeOptions::default() };
    let (_first, mut second) = world.nodes(options).await;
    second.equals(&world.first).await;
    world.first.remove(&keys, None).unwrap();
    let blown = |status: &NodeStatus| matches!(&status.peers[0].state, State::Paused(pause) if pause.reason == PauseReason::Fuse);
    second.until("paused by its fuse", blown).await;
    assert_ne!(second.node.status().root, world.first.store().root());
    assert!(second.node.status().paused.is_none(), "others may go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_unplugged_is_waited_for_and_opened_anew() {
    let world = World::new().await;
    let (path, home) = (world.path("b"), world.home("b"));
    let (at, name) = (path.clone(), home.clone());
    let reopen = Arc::new(move || Vault::open(&at, &name, Unlock::Device).map(|(vault, _)| vault));
    let (_first, mut second) = world.nodes(NodeOptions { reopen: Some(reopen), ..NodeOptions::default() }).await;
    second.live().await;
    let elsewhere = world.path("elsewhere");
    std::fs::rename(&path, &elsewhere).unwrap();
    second.until("gone", |status| paused(status, PauseReason::Gone)).await;
    put(&world.first, "meanwhile", 10);
    std::fs::rename(&elsewhere, &path).unwrap();
    second.equals(&world.first).await;
    assert!(second.node.status().paused.is_none());
    assert!(!Arc::ptr_eq(&second.node.vault(), &world.second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_stops_it_and_lets_it_go_on() {
    let world = World::new().await;
    let (mut first, mut second) = world.nodes(NodeOptions::default()).await;
    second.live().await;
    second.node.pause();
    let is_paused = |status: &NodeStatus| matches!(&status.peers[0].state, State::Paused(pause) if pause.reason == PauseReason::User);
    second.until("paused", is_paused).await;
    first.until("alone", |status| !status.peers.iter().any(is_live)).await;
    put(&world.first, "meanwhile", 10);
    second.node.resume();
    second.equals(&world.first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_ends_the_session_of_a_peer_begins_none_of_its_own() {
    let world = World::new().await;
    let (mut first, mut second) = world.nodes(listening()).await;
    second.live().await;
    // From now on both could dial, and the first waits because the second has.
    first.node.addresses(world.second.device().id(), second.at());
    first.live().await;
    first.node.pause();
    let is_paused = |status: &NodeStatus| matches!(&status.peers[0].state, State::Paused(pause) if pause.reason == PauseReason::User);
    first.until("paused", is_paused).await;
    put(&world.second, "meanwhile", 10);
    first.node.resume();
    first.equals(&world.second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lets_it_go_on_by_hand_need_not_wait_for_the_next_try() {
    let world = World::new().await;
    let (_first, mut second) = world.nodes(NodeOptions::default()).await;
    second.live().await;
    world.disk.full.store(true, SeqCst);
    put(&world.first, "large", 2_000_000);
    second.until("paused", |status| paused(status, PauseReason::NoSpace)).await;
    second.live().await;
    world.disk.full.store(false, SeqCst);
    second.node.resume();
    second.equals(&world.first).await;
}

/// The report is called in the task of the session, so what panics there panics in the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_down_ends_alone_and_is_begun_again() {
    let world = World::new().await;
    let breaks = AtomicU32::new(0);
    let (_first, other) = world.nodes(NodeOptions::default()).await;
    other.node.stop().await;
    let report: Report = Arc::new(move |told| {
        let live = matches!(told, Told::Changed { state: State::Live(_), .. });
        assert!(!(live && breaks.fetch_add(1, SeqCst) < 2), "a fault of this program, as a test");
    });
    let node = Node::start(world.second.clone(), NodeOptions::default(), report).await.unwrap();
    put(&world.first, "after it", 10);
    let mut changes = world.second.store().changes();
    let equal = changes.wait_for(|_| world.second.store().root() == world.first.store().root());
    timeout(PATIENCE, equal).await.unwrap().unwrap();
    assert!(node.status().peers[0].sessions >= 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_holds_from_the_moment_that_it_is_set_and_no_longer() {
    let world = World::new().await;
    let (_first, mut second) = world.nodes(NodeOptions::default()).await;
    second.live().await;
    second.node.limits().receive.set(Some(1));
    put(&world.first, "large", 2_000_000);
    let known = second.until("on its way", |status| status.peers[0].lag.bytes_in.is_some_and(|bytes| bytes > 100_000)).await;
    assert_eq!(known.limits, (None, Some(1)));
    second.node.limits().receive.set(None);
    second.equals(&world.first).await;
    let status = second.until("counted", |status| status.peers[0].lag.age == Some(Duration::ZERO)).await;
    assert!(status.peers[0].traffic.bytes_received >= 2_000_000 && status.is_identical());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_a_directory_and_the_next_when_it_has_ended() {
    let world = World::new().await;
    let first = Running::start(&world.first, NodeOptions::default()).await;
    let second = Node::start(world.first.clone(), listening(), Arc::new(drop)).await;
    let Err(ReplicateError::Vault(VaultError::Busy(by))) = second else { panic!("two daemons") };
    assert!(by.contains(&format!("process {}", std::process::id())), "{by}");
    first.node.stop().await;
    Running::start(&world.first, NodeOptions::default()).await.node.stop().await;
}
