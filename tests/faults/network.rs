//! Links that break: cut, stalled, corrupted, slow; UDP blocked; peers that freeze or are gone.

use crate::{
    fixture::{MIB, PATIENCE, Random, Running, Two, assert_sound, durable_bytes, finish, keys, pack_bytes, transfer, wait_until},
    relay::{Fault, Relay, Way},
    support::{Ran, Serving, until},
};
use mirror_engine::{
    home::Home,
    replicate::{self, Observer, Options, Progress, ReplicateError, Target},
    session::Stay,
    transport::TransportKind,
    vault::{Unlock, Vault},
};
use std::{
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A silent peer is given up after 10 s; the rest is for dialling again, and for a busy machine.
pub(crate) const SILENCE: Duration = Duration::from_secs(50);

/// `a`, which has more than `b`, is served behind a relay.
pub(crate) struct Linked {
    pub(crate) two: Two,
    serving: Serving,
    pub(crate) relay: Relay,
}

impl Linked {
    pub(crate) fn new(bytes: u64) -> Self {
        Self::with_delay(bytes, Duration::ZERO)
    }

    fn with_delay(bytes: u64, delay: Duration) -> Self {
        Self::behind(bytes, |server| Relay::to(server, delay))
    }

    pub(crate) fn behind(bytes: u64, relay: impl FnOnce(&str) -> Relay) -> Self {
        let two = Two::new();
        let serving = two.a.serve();
        assert_eq!(serving.tcp, serving.quic, "both transports on one port, as the relay has them");
        let linked = Self { relay: relay(&serving.tcp), serving, two };
        linked.grow("data", bytes);
        linked
    }

    /// `a` gets a file of that many bytes more.
    pub(crate) fn grow(&self, name: &str, bytes: u64) {
        let file = self.two.sandbox.write(name, Random::new(bytes).bytes(bytes));
        self.two.a.run(&["add", file.to_str().unwrap()]).ok();
    }

    /// `b` pulls through the relay.
    pub(crate) fn pull(&self, more: &[&str], limit: Duration) -> Ran {
        Running::start(transfer(&self.two.b, "pull", &self.relay.addr, &self.serving, more)).ends_within(limit)
    }

    /// The link is well again: the rest arrives, and no more than the rest.
    #[track_caller]
    pub(crate) fn heal_and_finish(&self, more: &[&str]) -> serde_json::Value {
        self.relay.fault(Fault::None);
        assert_sound(&self.two.b);
        let missing = durable_bytes(&self.two.a) - durable_bytes(&self.two.b);
        let summary = finish(&self.two.b, "pull", &self.relay.addr, &self.serving, more);
        assert!(summary["bytes_received"].as_u64().unwrap() <= missing + missing / 100, "{missing} were missing: {summary}");
        assert_sound(&self.two.b);
        assert_eq!(keys(&self.two.a), keys(&self.two.b));
        summary
    }

    /// Sends a signal to the server.
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.serving.id().to_string()]).status().unwrap().success());
    }
}

#[test]
fn a_tcp_link_that_is_cut_is_temporary_and_the_next_pull_gets_the_rest() {
    let linked = Linked::new(24 * MIB);
    for (case, (way, after)) in
        [(Way::ToClient, 9 * MIB), (Way::ToServer, 500), (Way::ToClient, 3_000), (Way::ToClient, 1)].into_iter().enumerate()
    {
        // Something to carry, however much the cut before has let through.
        linked.grow(&format!("more-{case}"), 4 * MIB);
        linked.relay.fault(Fault::Cut { way, after });
        linked.pull(&["--transport", "tcp"], PATIENCE).ended_with(5);
    }
    linked.heal_and_finish(&["--transport", "tcp"]);
}

#[test]
fn corruption_on_tcp_is_noticed_and_nothing_of_it_is_kept() {
    let linked = Linked::new(16 * MIB);
    for (way, after) in [(Way::ToClient, 5 * MIB), (Way::ToServer, 600)] {
        linked.relay.fault(Fault::Corrupt { way, after });
        let ran = linked.pull(&["--transport", "tcp"], PATIENCE);
        assert_ne!(ran.code, Some(0), "{way:?}: {}", ran.text());
        assert_sound(&linked.two.b);
    }
    linked.heal_and_finish(&["--transport", "tcp"]);
}

#[test]
fn corruption_on_quic_is_a_lost_packet() {
    let linked = Linked::new(8 * MIB);
    linked.relay.fault(Fault::Corrupt { way: Way::ToClient, after: 2 * MIB });
    linked.pull(&["--transport", "quic"], PATIENCE).ok();
    linked.heal_and_finish(&["--transport", "quic"]);
}

#[test]
fn a_slow_path_is_no_fault_on_either_transport() {
    let linked = Linked::with_delay(2 * MIB, Duration::from_millis(40));
    assert_eq!(linked.heal_and_finish(&["--transport", "quic"])["transport"], "quic");
    linked.grow("more", 3 * MIB);
    assert_eq!(linked.heal_and_finish(&["--transport", "tcp"])["transport"], "tcp");
}

#[test]
fn where_udp_is_blocked_tcp_takes_over_within_three_seconds_and_says_so() {
    let pulled = || {
        let linked = Linked::new(MIB);
        linked.relay.fault(Fault::NoUdp { after: 0 });
        let begun = Instant::now();
        let summary = linked.pull(&[], PATIENCE).ok().last("summary");
        let took = begun.elapsed();
        assert_eq!((&summary["transport"], &summary["identical"]), (&"tcp".into(), &true.into()), "{summary}");
        linked.pull(&["--transport", "quic"], PATIENCE).ended_with(16);
        took
    };
    // Other load lengthens some of them, waiting for UDP lengthens all.
    let took: Vec<Duration> = std::iter::repeat_with(pulled).take(5).take_while(|took| *took >= Duration::from_secs(3)).collect();
    assert!(took.len() < 5, "{took:?}");
}

#[test]
fn udp_that_is_blocked_in_the_middle_is_replaced_by_tcp_and_nothing_comes_twice() {
    let linked = Linked::new(24 * MIB);
    let missing = durable_bytes(&linked.two.a) - durable_bytes(&linked.two.b);
    linked.relay.fault(Fault::NoUdp { after: 8 * MIB });
    let summary = linked.pull(&[], SILENCE).ok().last("summary");
    assert_eq!((&summary["reconnects"], &summary["identical"]), (&1.into(), &true.into()), "{summary}");
    let received = summary["bytes_received"].as_u64().unwrap();
    assert!(received >= missing && received <= missing + missing / 100, "{missing} were missing: {summary}");
    let transports = [&summary["transports"]["quic"], &summary["transports"]["tcp"]].map(|bytes| bytes.as_u64().unwrap());
    let wire = [&summary["wire_bytes_sent"], &summary["wire_bytes_received"]].map(|bytes| bytes.as_u64().unwrap());
    assert_eq!(transports.iter().sum::<u64>(), wire.iter().sum::<u64>(), "{summary}");
    assert_eq!(keys(&linked.two.a), keys(&linked.two.b));
    assert_sound(&linked.two.b);
}

/// Counts the connections over each transport, and ends when it has had one over QUIC.
#[derive(Default)]
struct UntilQuic {
    connected: Mutex<Vec<TransportKind>>,
}

impl Observer for UntilQuic {
    fn progress(&self, progress: Progress) {
        if let Progress::Connected { transport, .. } = progress {
            self.connected.lock().unwrap().push(transport);
        }
    }

    fn cancelled(&self) -> bool {
        self.connected.lock().unwrap().contains(&TransportKind::Quic)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_had_to_take_tcp_goes_over_to_quic_when_udp_is_let_through_again() {
    let linked = Linked::new(MIB);
    linked.relay.fault(Fault::NoUdp { after: 0 });
    let home = Home::open(&linked.two.sandbox.path("home-b")).unwrap();
    let (vault, _) = Vault::open(&linked.two.sandbox.path("replica"), &home, Unlock::Device).unwrap();
    let device = vault.home().peers().unwrap()[0].device;
    let target = Target { name: "a".into(), device, addresses: vec![linked.relay.addr.parse().unwrap()] };
    let options = Options { stay: Stay::Live, ..Options::default() };
    let observer = Arc::new(UntilQuic::default());
    let follower = tokio::spawn({
        let observer = observer.clone();
        async move { replicate::sync(&vault, &target, &options, observer).await }
    });
    until(|| *observer.connected.lock().unwrap() == [TransportKind::Tcp]);
    until(|| keys(&linked.two.a) == keys(&linked.two.b));
    linked.relay.fault(Fault::None);
    let ended = tokio::time::timeout(SILENCE, follower).await.expect("it stays with TCP").unwrap();
    assert!(ended.is_ok() || matches!(ended, Err(ReplicateError::Cancelled)), "{ended:?}");
    assert_eq!(*observer.connected.lock().unwrap(), [TransportKind::Tcp, TransportKind::Quic]);
}

#[test]
fn a_push_goes_on_by_itself_when_udp_is_blocked() {
    let linked = Linked::new(MIB);
    finish(&linked.two.b, "pull", &linked.relay.addr, &linked.serving, &[]);
    let file = linked.two.sandbox.write("mine", Random::new(7).bytes(24 * MIB));
    linked.two.b.run(&["add", file.to_str().unwrap()]).ok();
    linked.relay.fault(Fault::NoUdp { after: 8 * MIB });
    let push = transfer(&linked.two.b, "push", &linked.relay.addr, &linked.serving, &["-v"]);
    let ran = Running::start(push).ends_within(SILENCE).ok();
    assert!(ran.stderr.contains("connection lost over quic") && ran.stderr.contains("going on over tcp"), "{}", ran.stderr);
    assert_eq!(keys(&linked.two.a), keys(&linked.two.b));
    assert_sound(&linked.two.a);
}

#[test]
fn a_tcp_lane_that_is_cut_is_replaced_unless_the_user_has_pinned_tcp() {
    let linked = Linked::new(24 * MIB);
    linked.relay.fault(Fault::Cut { way: Way::ToClient, after: 8 * MIB });
    linked.pull(&[], SILENCE).ok();
    assert_eq!(keys(&linked.two.a), keys(&linked.two.b));
    assert_sound(&linked.two.b);
}

#[test]
fn a_one_way_stall_ends_in_time_on_tcp() {
    let linked = Linked::new(16 * MIB);
    linked.relay.fault(Fault::Stall { way: Way::ToClient, after: 4 * MIB });
    linked.pull(&["--transport", "tcp"], SILENCE).ended_with(5);
    linked.heal_and_finish(&["--transport", "tcp"]);
}

#[test]
fn a_refused_link_is_unreachable_and_every_try_is_a_cause() {
    let linked = Linked::new(1);
    linked.relay.fault(Fault::Refuse);
    let error = linked.pull(&[], PATIENCE).ended_with(16).last("error");
    assert_eq!(error["causes"].as_array().unwrap().len(), 2, "{error}");
    linked.heal_and_finish(&[]);
}

#[test]
fn a_peer_that_freezes_in_the_middle_is_given_up_and_works_again_when_thawed() {
    let linked = Linked::new(48 * MIB);
    let replica = linked.two.sandbox.path("replica");
    let before = pack_bytes(&replica);
    let mut running = Running::start(transfer(
        &linked.two.b,
        "pull",
        &linked.serving.tcp,
        &linked.serving,
        &["--transport", "tcp", "--bwlimit", "20MiB"],
    ));
    wait_until("some of it has arrived", || running.has_ended() || pack_bytes(&replica) > before + 4 * MIB);
    linked.signal("-STOP");
    running.ends_within(SILENCE).ended_with(5);
    linked.signal("-CONT");
    linked.heal_and_finish(&[]);
}

#[test]
fn a_peer_that_is_frozen_from_the_start_does_not_keep_anybody() {
    let linked = Linked::new(1);
    linked.signal("-STOP");
    let begun = Instant::now();
    linked.pull(&[], SILENCE).ended_with(16);
    assert!(begun.elapsed() < SILENCE / 2, "{:?}", begun.elapsed());
    linked.signal("-CONT");
    linked.heal_and_finish(&[]);
    assert!(linked.relay.carried() > 0);
}
