//! What the daemon says of itself: over the control socket, to the status page, and from there into `mirror status` and `mirror why`.
//!
//! Plain data in both directions: the daemon writes it, `mirror` reads it. Times are milliseconds since 1970, spans are milliseconds,
//! rates are bytes a second. What is not known is null.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A daemon, now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DaemonState {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) home: PathBuf,
    pub(crate) since_ms: u64,
    /// Over all vaults and peers.
    pub(crate) limits: Rates,
    /// By which these change.
    #[serde(default)]
    pub(crate) timetable: Option<Timed>,
    /// Where the status page is.
    #[serde(default)]
    pub(crate) ui: Option<String>,
    /// Where metrics are.
    #[serde(default)]
    pub(crate) metrics: Option<String>,
    pub(crate) vaults: Vec<VaultState>,
}

/// Bytes a second, each way; none is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rates {
    pub(crate) send: Option<u64>,
    pub(crate) receive: Option<u64>,
}

/// A timetable of limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timed {
    /// As in `08:00,1MiB 19:00,off`.
    pub(crate) entries: String,
    /// When something else holds, as in `Fri 19:00`; none if that never happens.
    pub(crate) until: Option<String>,
}

/// One vault, now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct VaultState {
    pub(crate) dir: PathBuf,
    /// Why it is not kept, if so; it is tried again.
    pub(crate) trouble: Option<String>,
    /// None of it while it is in trouble.
    #[serde(flatten)]
    pub(crate) kept: Option<KeptState>,
}

/// A vault that is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptState {
    pub(crate) vault: String,
    pub(crate) name: String,
    pub(crate) device: String,
    pub(crate) replica: String,
    pub(crate) keyless: bool,
    pub(crate) root: String,
    pub(crate) since_ms: u64,
    pub(crate) quic: Vec<String>,
    pub(crate) tcp: Vec<String>,
    /// Why it takes nothing, or stands still.
    pub(crate) paused: Option<PauseState>,
    pub(crate) peers: Vec<PeerState>,
    #[serde(default)]
    pub(crate) folders: Vec<FollowedState>,
}

/// A folder that is followed, now. The numbers count since it was begun.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FollowedState {
    pub(crate) dir: PathBuf,
    /// `in`, `out` or `both`.
    pub(crate) flow: String,
    pub(crate) prefix: Option<String>,
    /// `starting`, `followed`, `paused` or `failing`.
    pub(crate) state: String,
    /// Why it is paused or fails.
    pub(crate) reason: Option<String>,
    /// What to do about a pause.
    #[serde(default)]
    pub(crate) hint: Option<String>,
    pub(crate) taken_in: u64,
    pub(crate) deletions_in: u64,
    pub(crate) written_out: u64,
    pub(crate) removed: u64,
    pub(crate) kept_beside: u64,
    /// What could not be done; some of it if there is much.
    pub(crate) problems: Vec<ProblemState>,
}

/// A file or a key of a folder that could not be brought to the other side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProblemState {
    pub(crate) what: String,
    pub(crate) reason: String,
}

/// A vault or a peer stands still although nobody refuses anything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PauseState {
    /// `user`, `no_space`, `fuse`, `gone` or `disk`.
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) since_ms: u64,
    /// Until it is tried again by itself.
    pub(crate) next_in_ms: Option<u64>,
}

/// One peer, now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerState {
    pub(crate) name: String,
    pub(crate) device: String,
    pub(crate) addresses: Vec<String>,
    /// `connecting`, `live`, `transferring`, `waiting`, `refused` or `paused`.
    pub(crate) state: String,
    pub(crate) connected: bool,
    /// Why no session is up.
    pub(crate) reason: Option<String>,
    /// In this state.
    pub(crate) since_ms: Option<u64>,
    /// Until the next dial; none when the peer has to dial.
    pub(crate) next_in_ms: Option<u64>,
    pub(crate) transport: Option<String>,
    pub(crate) address: Option<String>,
    /// `us` or `them`.
    pub(crate) dialled_by: Option<String>,
    /// Events that are here and not applied there.
    pub(crate) lag_events: Option<u64>,
    /// Events that are there and not applied here.
    pub(crate) lag_events_in: Option<u64>,
    pub(crate) lag_bytes: Option<u64>,
    pub(crate) lag_bytes_in: Option<u64>,
    /// Since both last held the same; zero while they do.
    pub(crate) lag_ms: Option<u64>,
    pub(crate) identical: Option<bool>,
    pub(crate) limiting_stage: Option<String>,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// Over the last seconds.
    pub(crate) sent_bytes_per_s: u64,
    pub(crate) received_bytes_per_s: u64,
    pub(crate) sessions: u64,
    pub(crate) last_error: Option<String>,
}

impl DaemonState {
    /// The vault in this directory, if the daemon has it.
    pub(crate) fn vault(&self, id: &str, dir: &std::path::Path) -> Option<&VaultState> {
        let same = |vault: &&VaultState| vault.dir == dir || dir.canonicalize().is_ok_and(|dir| dir == vault.dir);
        self.vaults.iter().find(|vault| same(vault) && vault.kept.as_ref().is_none_or(|kept| kept.vault == id))
    }

    /// For people who look at a list of services: one line.
    pub(crate) fn line(&self) -> String {
        let kept: Vec<&KeptState> = self.vaults.iter().filter_map(|vault| vault.kept.as_ref()).collect();
        let peers: Vec<&PeerState> = kept.iter().flat_map(|kept| &kept.peers).collect();
        let count = |is: fn(&&&PeerState) -> bool| peers.iter().filter(is).count();
        let paused = kept.iter().filter_map(|kept| kept.paused.as_ref()).map(|pause| format!("; paused: {}", pause.reason));
        let trouble = self.vaults.iter().filter_map(|vault| vault.trouble.as_ref()).map(|trouble| format!("; {trouble}"));
        let folders = kept.iter().flat_map(|kept| &kept.folders);
        let stuck = folders.filter_map(|folder| Some(format!("; {}: {}", folder.dir.display(), folder.reason.as_ref()?)));
        let vaults = crate::render::count_text(self.vaults.len() as u64, "vault");
        let (all, connected, identical) = (peers.len(), count(|peer| peer.connected), count(|peer| peer.identical == Some(true)));
        format!(
            "{vaults}, {connected} of {all} peers connected, {identical} identical{}",
            paused.chain(trouble).chain(stuck).collect::<String>()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_many_and_what_is_wrong() {
        let peer = |connected, identical| PeerState { connected, identical: Some(identical), ..PeerState::default() };
        let kept = KeptState { peers: vec![peer(true, true), peer(false, false)], ..KeptState::default() };
        let full = KeptState { paused: Some(PauseState { reason: "no space".into(), ..PauseState::default() }), ..KeptState::default() };
        let vault = |kept| VaultState { kept: Some(kept), ..VaultState::default() };
        let mut state = DaemonState { vaults: vec![vault(kept)], ..DaemonState::default() };
        assert_eq!(state.line(), "1 vault, 1 of 2 peers connected, 1 identical");
        state.vaults.push(vault(full));
        let gone = FollowedState { dir: "/d".into(), reason: Some("it is gone".into()), ..FollowedState::default() };
        state.vaults[0].kept.as_mut().unwrap().folders = vec![FollowedState::default(), gone];
        state.vaults.push(VaultState { trouble: Some("no vault in /v".into()), ..VaultState::default() });
        assert_eq!(state.line(), "3 vaults, 1 of 2 peers connected, 1 identical; paused: no space; no vault in /v; /d: it is gone");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let kept =
            KeptState { name: "photos".into(), peers: vec![PeerState { lag_ms: Some(3), ..PeerState::default() }], ..KeptState::default() };
        let state = DaemonState {
            vaults: vec![
                VaultState { dir: "/a".into(), trouble: None, kept: Some(kept) },
                VaultState { dir: "/b".into(), trouble: Some("locked".into()), kept: None },
            ],
            ..DaemonState::default()
        };
        assert_eq!(serde_json::from_str::<DaemonState>(&serde_json::to_string(&state).unwrap()).unwrap(), state);
    }
}
