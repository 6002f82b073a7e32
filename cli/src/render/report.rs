//! What commands on this machine's vault did: one `summary` record each, or a sentence.

use super::{
    GoneRecord, HoleRecord, KeyField, LastScrub, Live, Record, StageShares, bytes_text,
    certificate::{CertificateState, certificate_states, identical_lines},
    connection_text, count_text, escape, fork_text, gone_text, hole_text, key_text, last_scrub_text, lost_text, path_text, records,
    rfc3339, standing_text,
};
use crate::daemon::state::{DaemonState, FollowedState, PauseState, PeerState as LiveState, Rates, VaultState};
use mirror_engine::{
    event::Key,
    home::Peer,
    members::Admittance,
    meter::Stage,
    vault::{
        Acquaintance, AddReport, EpochBegun, EpochStatus, Identical, Initialised, KeysReport, MembershipStatus, PeerStatus, Repair,
        RestoreReport, Status, VerifyReport,
    },
};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Something that was not done, and why.
#[derive(Serialize)]
pub(crate) struct NotDone {
    path: String,
    reason: String,
}

impl NotDone {
    fn path((path, reason): &(PathBuf, String)) -> Self {
        Self { path: path.to_string_lossy().into_owned(), reason: reason.clone() }
    }
}

/// As in `notes.txt: permission denied`.
pub(crate) fn not_done_line(what: &str, reason: &str) -> String {
    format!("{what}: {}", escape(reason.as_bytes()))
}

#[derive(Serialize)]
pub(crate) struct InitRecord {
    vault: String,
    name: String,
    dir: String,
    replica: String,
    device: String,
    recovery_phrase: Option<String>,
    recovery_file: Option<String>,
}

impl Record for InitRecord {
    const TYPE: &'static str = "initialised";
}

/// A new vault in JSON; the phrase only when it was not written to a file.
pub(crate) fn init_record(made: &Initialised, phrase: Option<&str>, file: Option<&Path>) -> InitRecord {
    let info = made.vault.info();
    InitRecord {
        vault: info.id.to_string(),
        name: info.name,
        dir: made.vault.dir().to_string_lossy().into_owned(),
        replica: info.replica.to_string(),
        device: info.device.to_string(),
        recovery_phrase: phrase.map(str::to_owned),
        recovery_file: file.map(|file| file.to_string_lossy().into_owned()),
    }
}

#[derive(Serialize)]
pub(crate) struct AddRecord {
    operation: &'static str,
    dry_run: bool,
    seen: u64,
    added: u64,
    changed: u64,
    unchanged: u64,
    bytes_read: u64,
    bytes_stored: u64,
    chunks_stored: u64,
    /// None where there was too little to do.
    limiting_stage: Option<&'static str>,
    stages: StageShares,
    skipped: Vec<NotDone>,
}

impl Record for AddRecord {
    const TYPE: &'static str = "summary";
}

/// Whether something was done or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Done,
    DryRun,
}

impl Extent {
    /// Of a command with `-n`.
    pub(crate) fn of(dry_run: bool) -> Self {
        if dry_run { Self::DryRun } else { Self::Done }
    }
}

pub(crate) fn add_record(operation: &'static str, extent: Extent, report: &AddReport) -> AddRecord {
    AddRecord {
        operation,
        dry_run: extent == Extent::DryRun,
        seen: report.seen,
        added: report.added,
        changed: report.changed,
        unchanged: report.unchanged,
        bytes_read: report.bytes_read,
        bytes_stored: report.bytes_stored,
        chunks_stored: report.chunks_stored,
        limiting_stage: Some(report.stages.limiting()).filter(|stage| *stage != Stage::RoundTrips).map(Stage::name),
        stages: StageShares(report.stages),
        skipped: report.skipped.iter().map(NotDone::path).collect(),
    }
}

pub(crate) fn add_text(extent: Extent, report: &AddReport) -> String {
    let would = if extent == Extent::DryRun { "would be " } else { "" };
    let (chunks, stored) = (count_text(report.chunks_stored, "new chunk"), bytes_text(report.bytes_stored));
    format!("{would}{} added, {} changed, {} unchanged; {chunks}, {stored}", report.added, report.changed, report.unchanged)
}

#[derive(Serialize)]
pub(crate) struct KeysRecord {
    operation: &'static str,
    done: u64,
    missing: Vec<KeyField>,
}

impl Record for KeysRecord {
    const TYPE: &'static str = "summary";
}

pub(crate) fn keys_record(operation: &'static str, report: &KeysReport) -> KeysRecord {
    KeysRecord { operation, done: report.done, missing: report.missing.iter().map(KeyField::from).collect() }
}

#[derive(Serialize)]
struct KeyNotDone {
    #[serde(flatten)]
    key: KeyField,
    reason: String,
}

#[derive(Serialize)]
pub(crate) struct RestoreRecord {
    operation: &'static str,
    restored: u64,
    unchanged: u64,
    bytes: u64,
    failed: Vec<KeyNotDone>,
}

impl Record for RestoreRecord {
    const TYPE: &'static str = "summary";
}

pub(crate) fn restore_record(report: &RestoreReport) -> RestoreRecord {
    let not_done = |(key, reason): &(Key, String)| KeyNotDone { key: key.into(), reason: reason.clone() };
    RestoreRecord {
        operation: "restore",
        restored: report.restored,
        unchanged: report.unchanged,
        bytes: report.bytes,
        failed: report.failed.iter().map(not_done).collect(),
    }
}

pub(crate) fn restore_text(report: &RestoreReport) -> String {
    format!("{} restored ({}), {} unchanged", report.restored, bytes_text(report.bytes), report.unchanged)
}

/// A peer as `status` shows it. What only a running session knows is null.
#[derive(Serialize)]
struct PeerState {
    name: String,
    device: String,
    addresses: Vec<String>,
    connected: bool,
    transport: Option<String>,
    lag_events: Option<u64>,
    lag_bytes: Option<u64>,
    identical: Option<bool>,
    last_contact_ms: Option<u64>,
    rolled_back: Vec<GoneRecord>,
    /// What the daemon says of it; null without one.
    now: Option<LiveState>,
}

/// A daemon that keeps the vault.
#[derive(Serialize)]
struct KeeperState {
    pid: u32,
    since_ms: u64,
    trouble: Option<String>,
    paused: Option<PauseState>,
    limits: Rates,
    folders: Vec<FollowedState>,
}

#[derive(Serialize)]
pub(crate) struct StatusRecord {
    vault: String,
    name: String,
    replica: String,
    device: String,
    keyless: bool,
    root: String,
    keys: u64,
    events: u64,
    chunks: u64,
    bytes: u64,
    conflicts: u64,
    /// Null in a vault without signed roles, and on a device that is not in.
    role: Option<String>,
    roles_signed: bool,
    devices: Option<u64>,
    events_without_effect: Option<u64>,
    rolled_back: Vec<GoneRecord>,
    forks: usize,
    holes: Vec<HoleRecord>,
    peers: Vec<PeerState>,
    /// Null in a vault without signed roles.
    epoch: Option<u32>,
    epochs_without_key: Vec<u32>,
    /// Whether a device that is out was given the newest epoch's key.
    epoch_stale: bool,
    chunks_lost: u64,
    scrub: Option<LastScrub>,
    identical_replicas: usize,
    identical_since_ms: Option<u64>,
    certificates: Vec<CertificateState>,
    /// The daemon that keeps this vault; null without one.
    daemon: Option<KeeperState>,
}

impl Record for StatusRecord {
    const TYPE: &'static str = "status";
}

pub(crate) fn status_record(status: &Status, peers: &[PeerStatus], live: Live<'_>) -> StatusRecord {
    let identical = Identical::at(&status.root, peers);
    StatusRecord {
        vault: status.info.id.to_string(),
        name: status.info.name.clone(),
        replica: status.info.replica.to_string(),
        device: status.info.device.to_string(),
        keyless: status.info.keyless,
        root: status.root.to_string(),
        keys: status.keys,
        events: status.events,
        chunks: status.chunks,
        bytes: status.bytes,
        conflicts: status.conflicts,
        role: status.membership.and_then(|membership| membership.role).map(|role| role.to_string()),
        roles_signed: status.membership.is_some(),
        devices: status.membership.map(|membership| membership.devices),
        events_without_effect: status.membership.map(|membership| membership.without_effect),
        rolled_back: records(&status.behind),
        forks: status.forks.len(),
        holes: records(&status.holes),
        peers: peers.iter().map(|peer| peer_state(peer, live)).chain(live.others(peers).map(other_state)).collect(),
        epoch: status.epoch.as_ref().map(|epoch| epoch.number),
        epochs_without_key: status.epoch.as_ref().map(|epoch| epoch.without_key.clone()).unwrap_or_default(),
        epoch_stale: status.epoch.as_ref().is_some_and(|epoch| epoch.stale),
        chunks_lost: status.lost,
        scrub: status.scrub.as_ref().map(LastScrub::from),
        identical_replicas: identical.replicas,
        identical_since_ms: identical.since_ms,
        certificates: certificate_states(&status.root, peers),
        daemon: live.daemon().map(keeper_state),
    }
}

fn keeper_state((daemon, vault): (&DaemonState, &VaultState)) -> KeeperState {
    KeeperState {
        pid: daemon.pid,
        since_ms: daemon.since_ms,
        trouble: vault.trouble.clone(),
        paused: vault.kept.as_ref().and_then(|kept| kept.paused.clone()),
        limits: daemon.limits,
        folders: vault.kept.as_ref().map(|kept| kept.folders.clone()).unwrap_or_default(),
    }
}

/// As it is now if a daemon keeps the vault, else as it was when the peer was last talked with.
fn peer_state(status: &PeerStatus, live: Live<'_>) -> PeerState {
    let now = live.peer(&status.peer.device);
    PeerState {
        name: status.peer.name.clone(),
        device: status.peer.device.to_string(),
        addresses: status.peer.addresses.clone(),
        connected: now.is_some_and(|now| now.connected),
        transport: now.and_then(|now| now.transport.clone()).or_else(|| status.contact.as_ref().map(|contact| contact.transport.clone())),
        lag_events: now.and_then(|now| now.lag_events).or(status.lag_events),
        lag_bytes: now.and_then(|now| now.lag_bytes).or(status.lag_bytes),
        identical: now.and_then(|now| now.identical).or(status.identical),
        last_contact_ms: last_contact_ms(status, now, live.now_ms()),
        rolled_back: records(&status.rolled_back),
        now: now.cloned(),
    }
}

/// A peer that only the daemon knows of.
fn other_state(now: &LiveState) -> PeerState {
    PeerState {
        name: now.name.clone(),
        device: now.device.clone(),
        addresses: Vec::new(),
        connected: now.connected,
        transport: now.transport.clone(),
        lag_events: now.lag_events,
        lag_bytes: now.lag_bytes,
        identical: now.identical,
        last_contact_ms: None,
        rolled_back: Vec::new(),
        now: Some(now.clone()),
    }
}

/// Whoever is connected is talked with now.
fn last_contact_ms(status: &PeerStatus, now: Option<&LiveState>, now_ms: u64) -> Option<u64> {
    if now.is_some_and(|now| now.connected) { Some(now_ms) } else { status.contact.as_ref().map(|contact| contact.at_ms) }
}

/// How a peer stood when it was last talked with.
fn lag_text(status: &PeerStatus) -> String {
    let Some(contact) = &status.contact else { return "never talked with".to_owned() };
    let at = rfc3339(contact.at_ms as i64);
    match (status.identical, status.lag_events, status.lag_bytes) {
        (Some(true), ..) => format!("identical at {at} over {}", contact.transport),
        (_, Some(events), Some(bytes)) => format!("{} ({}) behind since {at}", count_text(events, "event"), bytes_text(bytes)),
        (_, Some(events), None) => format!("{} behind since {at}", count_text(events, "event")),
        _ => format!("last talked with at {at}"),
    }
}

pub(crate) fn status_text(status: &Status, peers: &[PeerStatus], live: Live<'_>) -> String {
    let keyless = if status.info.keyless { " (keyless: cannot read)" } else { "" };
    let mut lines = vec![
        format!("vault      {}  {}{keyless}", escape(status.info.name.as_bytes()), status.info.id.short()),
        format!("device     {}", status.info.device),
        format!("replica    {}", status.info.replica),
        format!("root       {}", status.root),
        format!("keys       {}", if status.info.keyless { "not known here".to_owned() } else { status.keys.to_string() }),
        format!("events     {}", status.events),
        format!("chunks     {} ({})", status.chunks, bytes_text(status.bytes)),
        format!("conflicts  {}", status.conflicts),
        format!("scrub      {}", last_scrub_text(status.scrub.as_ref())),
    ];
    lines.extend(membership_lines(status.membership.as_ref()));
    lines.extend(status.epoch.as_ref().map(epoch_line));
    if status.lost > 0 {
        lines.push(format!("missing    {}; mirror scrub fetches them from peers", count_text(status.lost, "chunk")));
    }
    lines.extend(status.behind.iter().map(|lost| format!("behind     {}", lost_text(lost))));
    lines.extend(status.forks.iter().map(|fork| format!("fork       {}", fork_text(&fork.dot))));
    lines.extend(status.holes.iter().map(|hole| format!("waiting    {}", hole_text(hole))));
    lines.extend(identical_lines(&status.root, peers));
    lines.extend(live.lines());
    for status in peers {
        let standing = live.peer(&status.peer.device).map_or_else(|| lag_text(status), standing_text);
        lines.push(format!("peer       {}, {standing}", place_text(&status.peer)));
        lines.extend(live.peer(&status.peer.device).map(|now| format!("           {}", connection_text(now, live.now_ms()))));
        lines.extend(status.rolled_back.iter().map(|gone| format!("           it was rolled back: {}", gone_text(gone))));
    }
    for now in live.others(peers) {
        lines.push(format!("peer       {}, {}", escape(now.name.as_bytes()), standing_text(now)));
        lines.push(format!("           {}", connection_text(now, live.now_ms())));
    }
    lines.join("\n")
}

fn membership_lines(membership: Option<&MembershipStatus>) -> Vec<String> {
    let Some(membership) = membership else { return vec!["role       roles are not signed in this vault".to_owned()] };
    let role = membership.role.map_or_else(|| "not in, as far as is known here".to_owned(), |role| role.to_string());
    let mut lines = vec![format!("role       {role}, of {}", count_text(membership.devices, "device"))];
    if membership.without_effect > 0 {
        lines.push(format!("removed    {} of removed devices, without effect", count_text(membership.without_effect, "event")));
    }
    lines
}

fn epoch_line(epoch: &EpochStatus) -> String {
    let unread: Vec<String> = epoch.without_key.iter().map(u32::to_string).collect();
    let unread = if unread.is_empty() { String::new() } else { format!("; no key of {} here", unread.join(", ")) };
    let stale = if epoch.stale { "; a removed device has its key, the next owner that writes begins another" } else { "" };
    format!("key epoch  {}{unread}{stale}", epoch.number)
}

#[derive(Serialize)]
pub(crate) struct PeerRecord {
    name: String,
    device: String,
    addresses: Vec<String>,
    role: String,
    signed: bool,
    /// It is no device: `passphrase` or `recovery phrase`.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch_begun: Option<EpochRecord>,
}

impl Record for PeerRecord {
    const TYPE: &'static str = "peer";
}

/// `role` is what the vault's membership says; in a vault without signed roles, what this device noted.
pub(crate) fn peer_record(known: &Acquaintance) -> PeerRecord {
    let peer = &known.peer;
    PeerRecord {
        name: peer.name.clone(),
        device: peer.device.to_string(),
        addresses: peer.addresses.clone(),
        role: role_text(known),
        signed: known.admittance.is_some(),
        secret: known.secret().map(str::to_owned),
        epoch_begun: None,
    }
}

/// A peer that was removed, and the key epoch that its removal began.
pub(crate) fn removed_record(known: &Acquaintance, begun: Option<&EpochBegun>) -> PeerRecord {
    PeerRecord { epoch_begun: begun.map(epoch_record), ..peer_record(known) }
}

#[derive(Serialize)]
pub(crate) struct EpochRecord {
    epoch: u32,
    given: Vec<String>,
    without: Vec<String>,
}

impl Record for EpochRecord {
    const TYPE: &'static str = "rekey";
}

pub(crate) fn epoch_record(begun: &EpochBegun) -> EpochRecord {
    EpochRecord { epoch: begun.number, given: begun.given.clone(), without: begun.without.clone() }
}

pub(crate) fn epoch_text(begun: &EpochBegun, extent: Extent) -> String {
    let names = |names: &[String]| names.iter().map(|name| escape(name.as_bytes())).collect::<Vec<_>>().join(", ");
    let verb = if extent == Extent::DryRun { "would begin" } else { "began" };
    let mut text = format!("key epoch {} {verb}, for {}", begun.number, names(&begun.given));
    if !begun.without.is_empty() {
        let without = names(&begun.without);
        text.push_str(&format!(
            "\nwithout its key: {without}; let in by an older version: a new ticket gives it one (mirror invite, mirror clone there)"
        ));
    }
    text
}

pub(crate) fn peer_text(known: &Acquaintance) -> String {
    match known.secret() {
        Some(secret) => format!("{secret}  {}  no device: whoever opens the vault with it  owner", known.peer.device),
        None => format!("{}  {}", place_text(&known.peer), role_text(known)),
    }
}

fn role_text(known: &Acquaintance) -> String {
    match known.admittance {
        Some(Admittance::In(role)) => role.to_string(),
        Some(Admittance::Removed) => "removed".to_owned(),
        Some(Admittance::Unknown) => "not in".to_owned(),
        None => known.peer.role.to_string(),
    }
}

/// Name, device and addresses; these come from another device.
fn place_text(peer: &Peer) -> String {
    let addresses = if peer.addresses.is_empty() { "no address".to_owned() } else { escape(peer.addresses.join(", ").as_bytes()) };
    format!("{}  {}  {addresses}", escape(peer.name.as_bytes()), peer.device)
}

#[derive(Serialize)]
struct DamagedChunk {
    chunk: String,
    place: String,
}

#[derive(Serialize)]
pub(crate) struct VerifyRecord {
    operation: &'static str,
    chunks: u64,
    bytes: u64,
    damaged: Vec<DamagedChunk>,
    missing: Vec<String>,
    files: Vec<NotDone>,
    keys_affected: Vec<KeyField>,
    rolled_back: Vec<GoneRecord>,
    ok: bool,
}

impl Record for VerifyRecord {
    const TYPE: &'static str = "summary";
}

pub(crate) fn verify_record(report: &VerifyReport) -> VerifyRecord {
    VerifyRecord {
        operation: "verify",
        chunks: report.chunks,
        bytes: report.bytes,
        damaged: report.damaged.iter().map(|(chunk, place)| DamagedChunk { chunk: chunk.to_string(), place: place.clone() }).collect(),
        missing: report.missing.iter().map(ToString::to_string).collect(),
        files: report.files.iter().map(NotDone::path).collect(),
        keys_affected: report.keys_affected.iter().map(KeyField::from).collect(),
        rolled_back: records(&report.lost),
        ok: report.is_clean(),
    }
}

pub(crate) fn verify_text(report: &VerifyReport) -> String {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(report.files.iter().map(|(path, what)| format!("file {}", not_done_line(&path_text(path), what))));
    lines.extend(report.damaged.iter().map(|(chunk, place)| format!("damaged chunk {chunk} in {}", escape(place.as_bytes()))));
    lines.extend(report.missing.iter().map(|chunk| format!("missing chunk {chunk}")));
    lines.extend(report.keys_affected.iter().map(|key| format!("affected key {}", key_text(key))));
    lines.extend(report.lost.iter().map(lost_text));
    let result = if report.is_undamaged() { "no damage" } else { "damage found" };
    lines.push(format!("{} checked ({}): {result}", count_text(report.chunks, "chunk"), bytes_text(report.bytes)));
    lines.join("\n")
}

#[derive(Serialize)]
pub(crate) struct RepairRecord {
    file: String,
    what: String,
    loss: bool,
}

impl Record for RepairRecord {
    const TYPE: &'static str = "repair";
}

pub(crate) fn repair_record(repair: &Repair) -> RepairRecord {
    RepairRecord { file: repair.file.to_string_lossy().into_owned(), what: repair.what.clone(), loss: repair.loss }
}

pub(crate) fn repair_text(repair: &Repair) -> String {
    let loss = if repair.loss { " (acknowledged data may be missing)" } else { "" };
    format!("{}{loss}", not_done_line(&path_text(&repair.file), &repair.what))
}

#[derive(Serialize)]
pub(crate) struct RecoverRecord {
    operation: &'static str,
    dry_run: bool,
    repairs: usize,
    ok: bool,
}

impl Record for RecoverRecord {
    const TYPE: &'static str = "summary";
}

pub(crate) fn recover_record(extent: Extent, repairs: &[Repair]) -> RecoverRecord {
    RecoverRecord {
        operation: "recover",
        dry_run: extent == Extent::DryRun,
        repairs: repairs.len(),
        ok: !repairs.iter().any(|repair| repair.loss),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::json_line;
    use mirror_engine::id::ChunkId;

    #[test]
    fn verify_ends_with_the_record_of_the_contract() {
        let clean = VerifyReport { chunks: 3, bytes: 9, ..VerifyReport::default() };
        let json = json_line(&verify_record(&clean));
        assert!(json.starts_with(r#"{"type":"summary","operation":"verify","chunks":3,"bytes":9,"damaged":[],"missing":[]"#), "{json}");
        assert!(json.ends_with(r#""ok":true}"#));
    }

    #[test]
    fn verify_names_what_is_damaged_and_which_keys_that_means() {
        let report = VerifyReport {
            damaged: vec![(ChunkId::from_bytes([7; 32]), "packs/1.pack at 48".into())],
            keys_affected: vec![Key::new(*b"a\nb").unwrap()],
            ..VerifyReport::default()
        };
        let text = verify_text(&report);
        assert!(text.contains("in packs/1.pack at 48"));
        assert!(text.contains("affected key a\\nb"));
        assert!(text.ends_with("damage found"));
    }

    #[test]
    fn add_says_what_it_did_or_would_do() {
        let report = AddReport { added: 2, chunks_stored: 1, bytes_stored: 1024, ..AddReport::default() };
        assert_eq!(add_text(Extent::Done, &report), "2 added, 0 changed, 0 unchanged; 1 new chunk, 1.0 KiB");
        assert!(add_text(Extent::DryRun, &report).starts_with("would be 2 added"));
    }

    #[test]
    fn a_key_that_was_not_restored_is_named_with_its_reason() {
        let report = RestoreReport { failed: vec![(Key::new(*b"k").unwrap(), "exists".into())], ..RestoreReport::default() };
        assert!(json_line(&restore_record(&report)).contains(r#""failed":[{"key":"k","reason":"exists"}]"#));
    }
}
