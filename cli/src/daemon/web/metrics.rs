//! Metrics for Prometheus, in its OpenMetrics text, made anew from the daemon's state each time that they are asked for.
//!
//! What is not known is left out rather than 0: a peer that was never met has no lag.

use crate::daemon::state::{DaemonState, FollowedState, KeptState, PeerState, VaultState};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use std::{fmt, sync::atomic::AtomicU64};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfVault {
    vault: String,
    dir: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfPause {
    vault: String,
    reason: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfFolder {
    vault: String,
    dir: String,
    flow: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfFolderState {
    vault: String,
    dir: String,
    flow: String,
    state: String,
    reason: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfPeer {
    vault: String,
    peer: String,
    device: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfState {
    vault: String,
    peer: String,
    device: String,
    state: String,
    transport: String,
    limiting_stage: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfWay {
    direction: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfProgram {
    version: String,
}

/// All that is known of `state`.
///
/// # Errors
/// Never in practice: it is written to memory.
pub(super) fn text(state: &DaemonState) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("mirror");
    daemon(&mut registry, state);
    vaults(&mut registry, state);
    folders(&mut registry, state);
    peers(&mut registry, state);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn daemon(registry: &mut Registry, state: &DaemonState) {
    let (build, limit) = (Family::<OfProgram, Gauge>::default(), Family::<OfWay, Gauge>::default());
    build.get_or_create(&OfProgram { version: state.version.clone() }).set(1);
    for (direction, rate) in [("send", state.limits.send), ("receive", state.limits.receive)] {
        if let Some(rate) = rate {
            limit.get_or_create(&OfWay { direction }).set(signed(rate));
        }
    }
    let start = Gauge::<f64, AtomicU64>::default();
    start.set(seconds(state.since_ms));
    registry.register("build", "The program that runs", build);
    registry.register_with_unit("start_time", "When it was started, since 1970", Unit::Seconds, start);
    registry.register("limit_bytes_per_second", "The bandwidth limit, over all vaults and peers; absent without one", limit);
}

fn vaults(registry: &mut Registry, state: &DaemonState) {
    let (up, paused) = (Family::<OfVault, Gauge>::default(), Family::<OfPause, Gauge>::default());
    for vault in &state.vaults {
        let kept = vault.kept.as_ref();
        let name = kept.map(|kept| kept.name.clone()).unwrap_or_default();
        up.get_or_create(&OfVault { vault: name.clone(), dir: vault.dir.display().to_string() }).set(kept.is_some().into());
        if let Some(pause) = kept.and_then(|kept| kept.paused.as_ref()) {
            paused.get_or_create(&OfPause { vault: name, reason: pause.kind.clone() }).set(1);
        }
    }
    registry.register("vault_up", "Whether the vault is open and kept", up);
    registry.register("vault_paused", "1 with the reason why it takes nothing or stands still; absent otherwise", paused);
}

fn folders(registry: &mut Registry, state: &DaemonState) {
    let each = || {
        let kept = state.vaults.iter().filter_map(|vault| vault.kept.as_ref());
        kept.flat_map(|kept| kept.folders.iter().map(move |folder| (of_folder(kept, folder), folder)))
    };
    let (in_state, problems) = (Family::<OfFolderState, Gauge>::default(), Family::<OfFolder, Gauge>::default());
    for (OfFolder { vault, dir, flow }, folder) in each() {
        let (state, reason) = (folder.state.clone(), folder.reason.clone().unwrap_or_default());
        in_state.get_or_create(&OfFolderState { vault, dir, flow, state, reason }).set(1);
    }
    each().for_each(|(labels, folder)| _ = problems.get_or_create(&labels).set(signed(folder.problems.len() as u64)));
    registry.register("folder_state", "1 with what the folder does, and why it stands still if so", in_state);
    registry.register("folder_problems", "Files and keys that could not be brought to the other side; 100 at most are counted", problems);
    type Count = fn(&FollowedState) -> u64;
    let counters: [(&str, &str, Count); 3] = [
        ("folder_taken_in", "Files, directories, links and deletions taken into the vault", |folder| folder.taken_in + folder.deletions_in),
        ("folder_written_out", "Files, directories and links written out, and removed", |folder| folder.written_out + folder.removed),
        ("folder_kept_beside", "Versions kept beside each other", |folder| folder.kept_beside),
    ];
    for (name, help, of) in counters {
        let family = Family::<OfFolder, Counter>::default();
        each().for_each(|(labels, folder)| _ = family.get_or_create(&labels).inc_by(of(folder)));
        registry.register(name, help, family);
    }
}

fn of_folder(kept: &KeptState, folder: &FollowedState) -> OfFolder {
    OfFolder { vault: kept.name.clone(), dir: folder.dir.display().to_string(), flow: folder.flow.clone() }
}

/// One number a peer, where it is known.
type OfEachPeer = fn(&PeerState) -> Option<u64>;

fn peers(registry: &mut Registry, state: &DaemonState) {
    let each = || {
        state
            .vaults
            .iter()
            .filter_map(|vault: &VaultState| vault.kept.as_ref())
            .flat_map(|kept| kept.peers.iter().map(move |peer| (kept, peer)))
    };
    let labels =
        |kept: &KeptState, peer: &PeerState| OfPeer { vault: kept.name.clone(), peer: peer.name.clone(), device: peer.device.clone() };
    let gauges: [(&str, &str, OfEachPeer); 8] = [
        ("peer_connected", "Whether a session with it is up", |peer| Some(peer.connected.into())),
        ("peer_identical", "Whether both hold the same", |peer| peer.identical.map(u64::from)),
        ("peer_lag_events", "Events that are here and not applied there", |peer| peer.lag_events),
        ("peer_lag_events_in", "Events that are there and not applied here", |peer| peer.lag_events_in),
        ("peer_lag_bytes", "Bytes of the chunks that it lacks", |peer| peer.lag_bytes),
        ("peer_lag_bytes_in", "Bytes of chunks that are on the way here", |peer| peer.lag_bytes_in),
        ("peer_send_bytes_per_second", "Sent to it, over the last seconds", |peer| Some(peer.sent_bytes_per_s)),
        ("peer_receive_bytes_per_second", "Received from it, over the last seconds", |peer| Some(peer.received_bytes_per_s)),
    ];
    for (name, help, of) in gauges {
        let family = Family::<OfPeer, Gauge>::default();
        each()
            .filter_map(|(kept, peer)| Some((labels(kept, peer), of(peer)?)))
            .for_each(|(labels, value)| _ = family.get_or_create(&labels).set(signed(value)));
        registry.register(name, help, family);
    }
    let counters: [(&str, &str, OfEachPeer); 3] = [
        ("peer_sent_bytes", "Bytes of chunks sent to it", |peer| Some(peer.bytes_sent)),
        ("peer_received_bytes", "Bytes of chunks received from it and verified", |peer| Some(peer.bytes_received)),
        ("peer_sessions", "Sessions with it", |peer| Some(peer.sessions)),
    ];
    for (name, help, of) in counters {
        let family = Family::<OfPeer, Counter>::default();
        each().for_each(|(kept, peer)| _ = family.get_or_create(&labels(kept, peer)).inc_by(of(peer).unwrap_or_default()));
        registry.register(name, help, family);
    }
    let (age, in_state) = (Family::<OfPeer, Gauge<f64, AtomicU64>>::default(), Family::<OfState, Gauge>::default());
    for (kept, peer) in each() {
        if let Some(lag_ms) = peer.lag_ms {
            age.get_or_create(&labels(kept, peer)).set(seconds(lag_ms));
        }
        in_state.get_or_create(&of_state(labels(kept, peer), peer)).set(1);
    }
    registry.register_with_unit("peer_lag", "Time since both last held the same; 0 while they do", Unit::Seconds, age);
    registry.register("peer_state", "1 with what becomes of the connection", in_state);
}

fn of_state(labels: OfPeer, peer: &PeerState) -> OfState {
    let OfPeer { vault, peer: name, device } = labels;
    let (transport, limiting_stage) = (peer.transport.clone().unwrap_or_default(), peer.limiting_stage.clone().unwrap_or_default());
    OfState { vault, peer: name, device, state: peer.state.clone(), transport, limiting_stage }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::state::{PauseState, Rates};

    #[test]
    fn what_is_known_is_there_with_its_labels_and_what_is_not_is_absent() {
        let peer = PeerState {
            name: "nas \"1\"".into(),
            device: "d".into(),
            state: "live".into(),
            connected: true,
            transport: Some("quic".into()),
            lag_events: Some(3),
            lag_ms: Some(1500),
            bytes_sent: 7,
            ..PeerState::default()
        };
        let folder = FollowedState {
            dir: "/d".into(),
            flow: "both".into(),
            state: "paused".into(),
            reason: Some("it is gone".into()),
            written_out: 9,
            ..FollowedState::default()
        };
        let paused = Some(PauseState { kind: "no_space".into(), ..PauseState::default() });
        let kept = KeptState { name: "photos".into(), paused, peers: vec![peer], folders: vec![folder], ..KeptState::default() };
        let state = DaemonState {
            version: "1.2.3".into(),
            limits: Rates { send: Some(5), receive: None },
            vaults: vec![VaultState { dir: "/v".into(), trouble: None, kept: Some(kept) }],
            ..DaemonState::default()
        };
        let text = text(&state).unwrap();
        let labels = r#"{vault="photos",peer="nas \"1\"",device="d"}"#;
        for line in [
            r#"mirror_build{version="1.2.3"} 1"#.to_owned(),
            r#"mirror_limit_bytes_per_second{direction="send"} 5"#.to_owned(),
            r#"mirror_vault_up{vault="photos",dir="/v"} 1"#.to_owned(),
            r#"mirror_vault_paused{vault="photos",reason="no_space"} 1"#.to_owned(),
            r#"mirror_folder_state{vault="photos",dir="/d",flow="both",state="paused",reason="it is gone"} 1"#.to_owned(),
            r#"mirror_folder_problems{vault="photos",dir="/d",flow="both"} 0"#.to_owned(),
            r#"mirror_folder_written_out_total{vault="photos",dir="/d",flow="both"} 9"#.to_owned(),
            format!("mirror_peer_connected{labels} 1"),
            format!("mirror_peer_lag_events{labels} 3"),
            format!("mirror_peer_lag_seconds{labels} 1.5"),
            format!("mirror_peer_sent_bytes_total{labels} 7"),
            r#"mirror_peer_state{vault="photos",peer="nas \"1\"",device="d",state="live",transport="quic",limiting_stage=""} 1"#.to_owned(),
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\n{text}");
        }
        for absent in ["mirror_peer_lag_bytes{", "mirror_peer_identical{", "direction=\"receive\""] {
            assert!(!text.contains(absent), "{absent}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
