//! Paths that do strange things to packets: lose the large ones, shuffle and repeat them, change an address, reset, crawl.

use crate::{
    fixture::{MIB, PATIENCE, assert_sound, keys},
    network::{Linked, SILENCE},
    relay::{Fault, Relay, Way},
};
use serde_json::Value;
use std::{
    thread,
    time::{Duration, Instant},
};

const QUIC: [&str; 2] = ["--transport", "quic"];
const TCP: [&str; 2] = ["--transport", "tcp"];

/// Both hold the same, and `b` every byte of it.
#[track_caller]
fn are_the_same(linked: &Linked) {
    assert_eq!(keys(&linked.two.a), keys(&linked.two.b));
    assert_sound(&linked.two.b);
}

/// It ends well, on the connection that it began with.
#[track_caller]
fn pulls_in_one_go(linked: &Linked, more: &[&str]) -> Value {
    let summary = linked.pull(more, PATIENCE).ok().last("summary");
    assert_eq!((&summary["reconnects"], &summary["identical"]), (&0.into(), &true.into()), "{summary}");
    are_the_same(linked);
    summary
}

#[test]
fn a_path_that_swallows_large_datagrams_is_found_out_from_the_start_and_in_the_middle() {
    let linked = Linked::new(8 * MIB);
    linked.relay.fault(Fault::BlackHole { over: 1_300, after: 0 });
    pulls_in_one_go(&linked, &QUIC);
    linked.grow("more", 16 * MIB);
    linked.relay.fault(Fault::BlackHole { over: 1_300, after: 6 * MIB });
    pulls_in_one_go(&linked, &QUIC);
}

#[test]
fn datagrams_that_come_twice_late_or_changed_cost_nothing_but_time() {
    let linked = Linked::new(8 * MIB);
    linked.relay.fault(Fault::Wild);
    pulls_in_one_go(&linked, &QUIC);
}

#[test]
fn a_client_whose_address_changes_keeps_its_session_over_quic() {
    let linked = Linked::new(16 * MIB);
    linked.relay.fault(Fault::Rebind { after: 4 * MIB });
    pulls_in_one_go(&linked, &QUIC);
    assert!(linked.relay.has_struck(), "the address has changed");
}

#[test]
fn a_connection_that_is_reset_is_temporary_and_the_next_pull_gets_the_rest() {
    let linked = Linked::new(16 * MIB);
    for way in [Way::ToClient, Way::ToServer] {
        let after = if way == Way::ToClient { 5 * MIB } else { 500 };
        linked.relay.fault(Fault::Reset { way, after });
        linked.pull(&TCP, PATIENCE).ended_with(5);
    }
    linked.heal_and_finish(&TCP);
}

#[test]
fn one_way_silence_ends_in_time_on_quic_and_the_next_pull_gets_the_rest() {
    thread::scope(|both| {
        for way in [Way::ToClient, Way::ToServer] {
            both.spawn(move || {
                let linked = Linked::new(16 * MIB);
                linked.relay.fault(Fault::Stall { way, after: if way == Way::ToClient { 4 * MIB } else { 10_000 } });
                linked.pull(&QUIC, SILENCE).ended_with(5);
                linked.heal_and_finish(&QUIC);
            });
        }
    });
}

/// One chunk takes longer than the silence after which a peer is given up.
#[test]
fn a_chunk_that_crawls_at_64_kbit_per_second_is_no_silence() {
    const BYTES: u64 = 100_000;
    const BYTES_PER_S: u64 = 8_000;
    thread::scope(|both| {
        for transport in [QUIC, TCP] {
            both.spawn(move || {
                let linked = Linked::behind(BYTES, |server| Relay::narrow(server, BYTES_PER_S));
                let begun = Instant::now();
                pulls_in_one_go(&linked, &transport);
                assert!(begun.elapsed() > Duration::from_secs(BYTES / BYTES_PER_S), "{:?}", begun.elapsed());
            });
        }
    });
}
