//! What a user must know of a replica's past: rolled back, forked, with a hole.

use super::{Extent, KeyField, Record, count_text, key_text};
use mirror_engine::{
    event::{Dot, Key},
    home::Gone,
    id::EventId,
    replicate::Findings,
    store::{Fork, Hole, Lost},
    vault::Left,
};
use serde::Serialize;

/// The end of an author's log that was there and is gone.
#[derive(Serialize)]
pub(crate) struct GoneRecord {
    author: String,
    had: u64,
    has: u64,
}

impl From<&Gone> for GoneRecord {
    fn from(gone: &Gone) -> Self {
        Self { author: gone.had.author.to_string(), had: gone.had.sequence, has: gone.has }
    }
}

impl From<&Lost> for GoneRecord {
    fn from(lost: &Lost) -> Self {
        Self { author: lost.author.to_string(), had: lost.accepted, has: lost.held }
    }
}

/// A place in an author's log.
#[derive(Serialize)]
pub(crate) struct DotRecord {
    author: String,
    sequence: u64,
}

impl From<&Dot> for DotRecord {
    fn from(dot: &Dot) -> Self {
        Self { author: dot.author.to_string(), sequence: dot.sequence }
    }
}

/// An event that waits for another.
#[derive(Serialize)]
pub(crate) struct HoleRecord {
    event: DotRecord,
    missing: DotRecord,
}

impl From<&Hole> for HoleRecord {
    fn from(hole: &Hole) -> Self {
        Self { event: (&hole.event).into(), missing: (&hole.missing).into() }
    }
}

/// Of a transfer, within its summary.
#[derive(Serialize)]
pub(crate) struct FindingsRecord {
    rolled_back: Vec<GoneRecord>,
    own_rolled_back: Option<GoneRecord>,
    lost: Vec<GoneRecord>,
    forks: Vec<DotRecord>,
    holes: Vec<HoleRecord>,
}

impl From<&Findings> for FindingsRecord {
    fn from(findings: &Findings) -> Self {
        Self {
            rolled_back: records(&findings.peer_rolled_back),
            own_rolled_back: findings.own_rolled_back.as_ref().map(GoneRecord::from),
            lost: records(&findings.lost),
            forks: records(&findings.forks),
            holes: records(&findings.holes),
        }
    }
}

pub(crate) fn records<'a, T: 'a, R: From<&'a T>>(found: &'a [T]) -> Vec<R> {
    found.iter().map(R::from).collect()
}

/// As in `3f9c1a2b#42`.
fn dot_text(dot: &Dot) -> String {
    format!("{}#{}", dot.author.short(), dot.sequence)
}

/// What a peer has lost.
pub(crate) fn gone_text(gone: &Gone) -> String {
    format!("it had {}, now {}", dot_text(&gone.had), dot_text(&Dot { sequence: gone.has, ..gone.had }))
}

/// What this vault directory has lost.
pub(crate) fn lost_text(lost: &Lost) -> String {
    let (author, accepted, held) = (lost.author.short(), lost.accepted, lost.held);
    format!("the vault directory is older than what this device has seen: replica {author} had event {accepted}, here is {held}")
}

/// Who signed what twice.
pub(crate) fn fork_text(dot: &Dot) -> String {
    format!("replica {} has signed two events with number {}: both are kept", dot.author.short(), dot.sequence)
}

/// What waits, what for, and who wrote that.
pub(crate) fn hole_text(hole: &Hole) -> String {
    let ask = hole.device.map_or_else(|| "ask whoever has it".to_owned(), |device| format!("ask device {}", device.short()));
    format!("missing event {}, {ask}: event {} waits for it", dot_text(&hole.missing), dot_text(&hole.event))
}

/// What a transfer with `peer` found, a line each.
pub(crate) fn findings_text(peer: &str, findings: &Findings) -> Vec<String> {
    let mut lines: Vec<String> =
        findings.peer_rolled_back.iter().map(|gone| format!("peer {peer} was rolled back: {}", gone_text(gone))).collect();
    lines.extend(findings.own_rolled_back.iter().map(|gone| {
        let (had, has) = (gone.had.sequence, gone.has);
        format!("this replica was rolled back: {peer} has event {had} of its log, here was {has}; the next change is by a new author")
    }));
    lines.extend(findings.lost.iter().map(lost_text));
    lines.extend(findings.forks.iter().map(fork_text));
    lines
}

/// A key that a person decides, and what `get --event` takes.
#[derive(Serialize)]
struct Undecided {
    #[serde(flatten)]
    key: KeyField,
    event: String,
}

/// A branch that was left.
#[derive(Serialize)]
pub(crate) struct LeftRecord {
    operation: &'static str,
    dry_run: bool,
    replica: String,
    from: u64,
    events: u64,
    keys: u64,
    written: u64,
    undecided: Vec<Undecided>,
}

impl Record for LeftRecord {
    const TYPE: &'static str = "summary";
}

pub(crate) fn left_record(extent: Extent, left: &Left) -> LeftRecord {
    let undecided = |(key, event): &(Key, EventId)| Undecided { key: KeyField::from(key), event: event.to_string() };
    LeftRecord {
        operation: "leave-branch",
        dry_run: extent == Extent::DryRun,
        replica: left.author.to_string(),
        from: left.from,
        events: left.events,
        keys: left.keys,
        written: left.written,
        undecided: left.undecided.iter().map(undecided).collect(),
    }
}

pub(crate) fn left_text(extent: Extent, left: &Left) -> String {
    let (events, keys) = (count_text(left.events, "event"), count_text(left.keys, "key"));
    let place = dot_text(&Dot { author: left.author, sequence: left.from });
    if extent == Extent::DryRun {
        return format!("would leave {events} from {place} on, which speak of {keys}; they are kept, and what they say is written again");
    }
    let mut lines: Vec<String> = left.undecided.iter().map(undecided_text).collect();
    lines.push(format!("left {events} from {place} on and kept them beside the log; {} of {keys} written again", left.written));
    lines.join("\n")
}

fn undecided_text((key, event): &(Key, EventId)) -> String {
    format!("not written again, because somebody else changed it: {0}  (mirror get {0} --event {1})", key_text(key), event.short())
}

/// A forked log, as `log --forks` shows it.
#[derive(Serialize)]
pub(crate) struct ForkRecord {
    replica: String,
    device: String,
    sequence: u64,
    /// The event in the log here first, if one of them is.
    events: [String; 2],
}

impl Record for ForkRecord {
    const TYPE: &'static str = "fork";
}

pub(crate) fn fork_record(fork: &Fork) -> ForkRecord {
    ForkRecord {
        replica: fork.dot.author.to_string(),
        device: fork.device.to_string(),
        sequence: fork.dot.sequence,
        events: fork.events.map(|event| event.to_string()),
    }
}

pub(crate) fn fork_line(fork: &Fork) -> String {
    let [first, second] = fork.events;
    format!("{}: {first} and {second}, by device {}", fork_text(&fork.dot), fork.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_engine::id::{DeviceId, ReplicaId};

    #[test]
    fn a_finding_names_who_had_what_and_what_is_there_now() {
        let author = ReplicaId::from_bytes([7; 32]);
        let had = Dot { author, sequence: 42 };
        let findings = Findings {
            peer_rolled_back: vec![Gone { had, has: 40 }],
            own_rolled_back: Some(Gone { had, has: 41 }),
            forks: vec![had],
            ..Findings::default()
        };
        let lines = findings_text("nas", &findings);
        assert_eq!(lines[0], "peer nas was rolled back: it had 07070707#42, now 07070707#40");
        assert!(lines[1].starts_with("this replica was rolled back: nas has event 42 of its log, here was 41"), "{lines:?}");
        assert_eq!(lines[2], "replica 07070707 has signed two events with number 42: both are kept");
        let hole = Hole { event: Dot { author, sequence: 43 }, missing: had, device: Some(DeviceId::from_bytes([1; 32])) };
        assert_eq!(hole_text(&hole), "missing event 07070707#42, ask device 01010101: event 07070707#43 waits for it");
    }
}
