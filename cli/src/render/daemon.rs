//! What `mirord` says of itself, for people: a block a vault, a line or two a peer.

use super::{Record, bytes_text, count_text, escape, path_text, rate_text, rfc3339, span_text};
use crate::daemon::state::{DaemonState, FollowedState, KeptState, PauseState, PeerState, Rates, Timed, VaultState};
use mirror_engine::{clock, id::DeviceId, vault::PeerStatus};
use serde::Serialize;
use std::{path::Path, time::Duration};

impl Record for DaemonState {
    const TYPE: &'static str = "daemon";
}

/// What could not be done in a folder: so much is shown to people.
const PROBLEMS_SHOWN: usize = 3;

/// What a running daemon says of one vault, if one runs and keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live<'a> {
    daemon: Option<(&'a DaemonState, &'a VaultState)>,
    now_ms: u64,
}

impl<'a> Live<'a> {
    /// Of the vault `id` in `dir`.
    pub(crate) fn of(running: Option<&'a DaemonState>, id: &str, dir: &Path) -> Self {
        let daemon = running.and_then(|daemon| Some((daemon, daemon.vault(id, dir)?)));
        Self { daemon, now_ms: clock::wall_ms() }
    }

    pub(crate) fn now_ms(self) -> u64 {
        self.now_ms
    }

    /// The daemon, and what it says of the vault.
    pub(crate) fn daemon(self) -> Option<(&'a DaemonState, &'a VaultState)> {
        self.daemon
    }

    fn kept(self) -> Option<&'a KeptState> {
        self.daemon.and_then(|(_, vault)| vault.kept.as_ref())
    }

    pub(crate) fn peer(self, device: &DeviceId) -> Option<&'a PeerState> {
        let device = device.to_string();
        self.kept()?.peers.iter().find(|peer| peer.device == device)
    }

    /// Peers that `known` does not name: they have dialled, and no address of them is noted here.
    pub(crate) fn others<'k>(self, known: &'k [PeerStatus]) -> impl Iterator<Item = &'a PeerState> + use<'a, 'k> {
        let peers = self.kept().map(|kept| &kept.peers[..]).unwrap_or_default();
        peers.iter().filter(|peer| known.iter().all(|known| known.peer.device.to_string() != peer.device))
    }

    /// A line or two on the daemon.
    pub(crate) fn lines(self) -> Vec<String> {
        let Some((daemon, vault)) = self.daemon else { return Vec::new() };
        let mut lines = vec![format!("mirord     pid {}, since {}", daemon.pid, rfc3339(daemon.since_ms as i64))];
        lines.extend(vault.trouble.iter().map(|trouble| format!("trouble    {}; tried again", escape(trouble.as_bytes()))));
        lines.extend(self.kept().and_then(|kept| kept.paused.as_ref()).map(|pause| format!("paused     {}", pause_text(pause))));
        lines.extend(self.kept().iter().flat_map(|kept| &kept.folders).flat_map(followed_lines));
        lines
    }
}

/// A daemon that has started: everything it was asked for is open.
#[derive(Serialize)]
pub(crate) struct Ready {
    pub(crate) pid: u32,
    pub(crate) ui: Option<String>,
    pub(crate) metrics: Option<String>,
}

impl Record for Ready {
    const TYPE: &'static str = "ready";
}

/// All of it.
pub(crate) fn daemon_text(state: &DaemonState, now_ms: u64) -> String {
    let mut lines = vec![
        format!("mirord     {} (pid {}), since {}", escape(state.version.as_bytes()), state.pid, rfc3339(state.since_ms as i64)),
        format!("limit      {}", limit_text(&state.limits, state.timetable.as_ref())),
    ];
    lines.extend(state.ui.iter().map(|place| format!("page       {}", escape(place.as_bytes()))));
    lines.extend(state.metrics.iter().map(|place| format!("metrics    {}", escape(place.as_bytes()))));
    for vault in &state.vaults {
        lines.push(String::new());
        lines.push(format!("vault      {}", path_text(&vault.dir)));
        lines.extend(vault.trouble.iter().map(|trouble| format!("trouble    {}; tried again", escape(trouble.as_bytes()))));
        lines.extend(vault.kept.iter().flat_map(|kept| kept_lines(kept, now_ms)));
    }
    lines.join("\n")
}

fn kept_lines(kept: &KeptState, now_ms: u64) -> Vec<String> {
    let listening = if kept.tcp.is_empty() { "nowhere".to_owned() } else { kept.tcp.join(", ") };
    let mut lines = vec![format!("name       {}", escape(kept.name.as_bytes())), format!("listening  {listening}")];
    lines.extend(kept.paused.iter().map(|pause| format!("paused     {}", pause_text(pause))));
    for peer in &kept.peers {
        lines.push(format!("peer       {}: {}", escape(peer.name.as_bytes()), connection_text(peer, now_ms)));
        lines.push(format!("           {}", standing_text(peer)));
    }
    if kept.peers.is_empty() {
        lines.push("peer       none is known yet: mirror invite lets one in".to_owned());
    }
    lines.extend(kept.folders.iter().flat_map(followed_lines));
    lines
}

/// A folder, and what could not be done in it.
fn followed_lines(folder: &FollowedState) -> Vec<String> {
    let below = folder.prefix.as_ref().map(|prefix| format!(" as {}/...", escape(prefix.as_bytes()))).unwrap_or_default();
    let way = match folder.flow.as_str() {
        "in" => format!("into the vault{below}"),
        "out" => format!("out of the vault{below}"),
        _ => format!("both ways{below}"),
    };
    let reason = folder.reason.as_ref().map(|reason| format!(": {}", escape(reason.as_bytes()))).unwrap_or_default();
    let mut lines = vec![format!("folder     {} ({way}): {}{reason}", path_text(&folder.dir), escape(folder.state.as_bytes()))];
    lines.extend(folder.hint.iter().map(|hint| format!("           {}", escape(hint.as_bytes()))));
    let shown = folder.problems.iter().take(PROBLEMS_SHOWN);
    lines.extend(shown.map(|problem| format!("           {}: {}", escape(problem.what.as_bytes()), escape(problem.reason.as_bytes()))));
    match folder.problems.len().saturating_sub(PROBLEMS_SHOWN) {
        0 => {}
        more => lines.push(format!("           and {more} more: mirror --json daemon status")),
    }
    lines
}

/// What holds now, and by which timetable.
pub(crate) fn limit_text(rates: &Rates, timetable: Option<&Timed>) -> String {
    let by = timetable.map(|timed| {
        let until = timed.until.as_ref().map(|until| format!(" until {}", escape(until.as_bytes()))).unwrap_or_default();
        format!("{until}, by the timetable {}", escape(timed.entries.as_bytes()))
    });
    format!("{}{}", rates_text(rates), by.unwrap_or_default())
}

/// As in `10.0 Mbit/s (1.2 MB/s) to send, none to receive`.
pub(crate) fn rates_text(rates: &Rates) -> String {
    let side = |rate: Option<u64>| rate.map_or_else(|| "none".to_owned(), |rate| rate_text(rate as f64 * 8.0));
    match (rates.send, rates.receive) {
        (None, None) => "none".to_owned(),
        (send, receive) => format!("{} to send, {} to receive", side(send), side(receive)),
    }
}

/// As in `no space left on the disk; tried again in 12 s`.
pub(crate) fn pause_text(pause: &PauseState) -> String {
    let next = pause.next_in_ms.map(|ms| format!("; tried again in {}", span_text(Duration::from_millis(ms))));
    let resume = if pause.kind == "user" { "; go on: mirror daemon resume" } else { "" };
    format!("{}{}{resume}", escape(pause.reason.as_bytes()), next.unwrap_or_default())
}

/// Whether a session is up, over what, or why not.
pub(crate) fn connection_text(peer: &PeerState, now_ms: u64) -> String {
    let since = peer.since_ms.map(|since| span_text(Duration::from_millis(now_ms.saturating_sub(since))));
    let since = since.map(|span| format!(" for {span}")).unwrap_or_default();
    if peer.connected {
        let (transport, address) = (peer.transport.as_deref().unwrap_or("?"), peer.address.as_deref().unwrap_or("an unknown address"));
        let by = if peer.dialled_by.as_deref() == Some("them") { ", dialled by it" } else { "" };
        return format!(
            "{} over {} with {}{by}{since}",
            escape(peer.state.as_bytes()),
            escape(transport.as_bytes()),
            escape(address.as_bytes())
        );
    }
    let reason = peer.reason.as_ref().map(|reason| format!(": {}", escape(reason.as_bytes()))).unwrap_or_default();
    let next = match (peer.next_in_ms, peer.state.as_str()) {
        (Some(ms), _) => format!("; dialled again in {}", span_text(Duration::from_millis(ms))),
        (None, "waiting") if peer.addresses.is_empty() => "; no address is known here: it has to dial".to_owned(),
        _ => String::new(),
    };
    format!("{}{since}{reason}{next}", escape(peer.state.as_bytes()))
}

/// How far the two are from each other, and what moves.
pub(crate) fn standing_text(peer: &PeerState) -> String {
    let mut parts = Vec::new();
    match (peer.identical, peer.lag_ms) {
        (Some(true), _) => parts.push("identical".to_owned()),
        (_, Some(lag_ms)) => parts.push(format!("not the same for {}", span_text(Duration::from_millis(lag_ms)))),
        (..) => parts.push("never known to be the same".to_owned()),
    }
    let lag = |events: Option<u64>, bytes: Option<u64>, what: &str| {
        let events = events.filter(|events| *events > 0)?;
        Some(format!(
            "{} {what}{}",
            count_text(events, "event"),
            bytes.map(|bytes| format!(" ({})", bytes_text(bytes))).unwrap_or_default()
        ))
    };
    parts.extend(lag(peer.lag_events, peer.lag_bytes, "to send"));
    parts.extend(lag(peer.lag_events_in, peer.lag_bytes_in, "to receive"));
    for (rate, what) in [(peer.sent_bytes_per_s, "sending"), (peer.received_bytes_per_s, "receiving")] {
        if rate > 0 {
            parts.push(format!("{what} {}", rate_text(rate as f64 * 8.0)));
        }
    }
    if let (true, Some(stage)) = (peer.state == "transferring", &peer.limiting_stage) {
        parts.push(format!("limited by {}", escape(stage.as_bytes())));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerState {
        PeerState {
            name: "nas".into(),
            state: "live".into(),
            connected: true,
            identical: Some(true),
            lag_ms: Some(0),
            ..PeerState::default()
        }
    }

    #[test]
    fn a_connected_peer_says_over_what_and_one_that_is_away_says_why() {
        let there = PeerState { transport: Some("quic".into()), address: Some("10.0.0.7:7740".into()), since_ms: Some(1000), ..peer() };
        assert_eq!(connection_text(&there, 61_000), "live over quic with 10.0.0.7:7740 for 1 min 0 s");
        let away = PeerState {
            state: "waiting".into(),
            connected: false,
            reason: Some("no route\x1b".into()),
            next_in_ms: Some(12_000),
            ..peer()
        };
        assert_eq!(connection_text(&away, 0), "waiting: no route\\x1b; dialled again in 12 s");
        assert!(connection_text(&PeerState { next_in_ms: None, ..away }, 0).ends_with("it has to dial"));
    }

    #[test]
    fn a_lag_has_its_size_and_its_age() {
        assert_eq!(standing_text(&peer()), "identical");
        let behind = PeerState {
            identical: Some(false),
            lag_ms: Some(12_000),
            lag_events: Some(2),
            lag_bytes: Some(4096),
            state: "transferring".into(),
            sent_bytes_per_s: 1_250_000,
            limiting_stage: Some("link".into()),
            ..peer()
        };
        let text = "not the same for 12 s, 2 events to send (4.0 KiB), sending 10.0 Mbit/s (1.2 MB/s), limited by link";
        assert_eq!(standing_text(&behind), text);
    }

    #[test]
    fn a_folder_says_which_way_it_goes_why_it_stands_still_and_what_could_not_be_done() {
        let problem = |n: usize| crate::daemon::state::ProblemState { what: format!("/d/{n}\x1b"), reason: "no".into() };
        let folder = FollowedState {
            dir: "/d".into(),
            flow: "in".into(),
            prefix: Some("docs".into()),
            state: "paused".into(),
            reason: Some("it is gone".into()),
            hint: Some("put it back".into()),
            problems: (0..5).map(problem).collect(),
            ..FollowedState::default()
        };
        let lines = followed_lines(&folder);
        let begin =
            ["folder     /d (into the vault as docs/...): paused: it is gone", "           put it back", "           /d/0\\x1b: no"];
        assert_eq!(lines[..3], begin);
        assert_eq!((lines.len(), lines[5].trim()), (6, "and 2 more: mirror --json daemon status"));
    }

    #[test]
    fn a_timetable_is_named_with_what_holds_by_it() {
        let timed = Timed { entries: "08:00,1MB 19:00,off".into(), until: Some("Fri 19:00".into()) };
        let rates = Rates { send: Some(1_000_000), receive: Some(1_000_000) };
        let text = limit_text(&rates, Some(&timed));
        assert!(text.ends_with("to receive until Fri 19:00, by the timetable 08:00,1MB 19:00,off"), "{text}");
        assert_eq!(limit_text(&Rates::default(), None), "none");
    }

    #[test]
    fn a_vault_in_trouble_and_a_paused_one_say_so() {
        let pause = PauseState { kind: "no_space".into(), reason: "the disk is full".into(), since_ms: 1, next_in_ms: Some(30_000) };
        let state = DaemonState {
            vaults: vec![
                VaultState { dir: "/a".into(), trouble: Some("no vault in /a".into()), kept: None },
                VaultState { dir: "/b".into(), kept: Some(KeptState { paused: Some(pause), ..KeptState::default() }), trouble: None },
            ],
            ..DaemonState::default()
        };
        let text = daemon_text(&state, 0);
        for line in ["trouble    no vault in /a; tried again", "paused     the disk is full; tried again in 30 s", "limit      none"] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("mirror invite"));
    }
}
