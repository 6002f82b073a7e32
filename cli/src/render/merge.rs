//! Conflicts and explanations. Authors and events go by their ids, so that every replica says the same, byte for byte.

use super::{Extent, KeyField, Record, bytes_text, count_text, escape, key_text, rfc3339};
use mirror_engine::{
    event::ValueKind,
    vault::{Conflict, Decided, Explanation, Standing, VersionInfo},
};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct VersionRecord {
    event: String,
    replica: String,
    sequence: u64,
    lamport: u64,
    wall: String,
    wall_ms: u64,
    action: &'static str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<String>,
    standing: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    follows: Vec<String>,
}

fn version_record(version: &VersionInfo) -> VersionRecord {
    VersionRecord {
        event: version.place.event.to_string(),
        replica: version.place.dot.author.to_string(),
        sequence: version.place.dot.sequence,
        lamport: version.place.lamport,
        wall: rfc3339(wall(version)),
        wall_ms: version.wall_ms,
        action: action(version),
        size: size(version),
        reason: version.reason.clone(),
        chosen: version.chosen.map(|event| event.to_string()),
        standing: standing(version.standing),
        follows: version.follows.iter().map(ToString::to_string).collect(),
    }
}

fn action(version: &VersionInfo) -> &'static str {
    match (&version.chosen, &version.value) {
        (Some(_), _) => "resolve",
        (None, Some(_)) => "put",
        (None, None) => "delete",
    }
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Superseded => "superseded",
        Standing::Sole | Standing::Winner => "stands",
        Standing::Loser => "conflict",
        Standing::Agreeing => "agrees",
    }
}

fn size(version: &VersionInfo) -> u64 {
    version.value.as_ref().map_or(0, |value| value.content.bytes)
}

/// A clock of another device may say anything.
fn wall(version: &VersionInfo) -> i64 {
    i64::try_from(version.wall_ms).unwrap_or(i64::MAX)
}

#[derive(Serialize)]
pub(crate) struct ConflictRecord {
    #[serde(flatten)]
    key: KeyField,
    winner: VersionRecord,
    losers: Vec<VersionRecord>,
}

impl Record for ConflictRecord {
    const TYPE: &'static str = "conflict";
}

/// A conflict in JSON.
pub(crate) fn conflict_record(conflict: &Conflict) -> ConflictRecord {
    ConflictRecord {
        key: (&conflict.key).into(),
        winner: version_record(&conflict.winner),
        losers: conflict.losers.iter().map(version_record).collect(),
    }
}

/// A conflict for people: the key, then a line a version.
pub(crate) fn conflict_text(conflict: &Conflict) -> String {
    let mut text = format!("{}\n  stands  {}", key_text(&conflict.key), version_text(&conflict.winner));
    for loser in &conflict.losers {
        text.push_str(&format!("\n  or      {}", version_text(loser)));
    }
    text
}

pub(crate) fn conflicts_text(count: u64) -> String {
    match count {
        0 => "no conflicts".to_owned(),
        count => {
            format!("{} in conflict; mirror merge --explain KEY tells why, --resolve KEY --select EVENT decides", count_text(count, "key"))
        }
    }
}

/// One version: event, what it says, who, when.
fn version_text(version: &VersionInfo) -> String {
    let author = version.place.dot.author.short();
    format!("{}  {}  by {author}#{}, {}", version.place.event.short(), says(version), version.place.dot.sequence, rfc3339(wall(version)))
}

pub(crate) fn says(version: &VersionInfo) -> String {
    let said = match &version.value {
        None => format!("deleted{}", version.reason.as_ref().map(|reason| format!(" ({})", escape(reason.as_bytes()))).unwrap_or_default()),
        Some(value) => match &value.kind {
            ValueKind::Directory(mode) => format!("directory, mode {mode:04o}"),
            ValueKind::Symlink(target) => format!("link to {}", escape(target)),
            ValueKind::File(mode) => format!("{}, mode {mode:04o}", bytes_text(value.content.bytes)),
            ValueKind::Blob => bytes_text(value.content.bytes),
        },
    };
    match &version.chosen {
        Some(event) => format!("chose {}: {said}", event.short()),
        None => said,
    }
}

#[derive(Serialize)]
pub(crate) struct ExplanationRecord {
    #[serde(flatten)]
    key: KeyField,
    rule: String,
    versions: Vec<VersionRecord>,
    older: u64,
}

impl Record for ExplanationRecord {
    const TYPE: &'static str = "explanation";
}

/// An explanation in JSON.
pub(crate) fn explanation_record(explanation: &Explanation) -> ExplanationRecord {
    ExplanationRecord {
        key: (&explanation.key).into(),
        rule: explanation.rule.to_string(),
        versions: explanation.versions.iter().map(version_record).collect(),
        older: explanation.older,
    }
}

/// An explanation for people: the rule, then the versions as a chain, oldest first.
pub(crate) fn explanation_text(explanation: &Explanation) -> String {
    let mut text = format!("{}: {}", key_text(&explanation.key), explanation.rule);
    if explanation.older > 0 {
        text.push_str(&format!("\n  ({} before these)", count_text(explanation.older, "version")));
    }
    for version in &explanation.versions {
        let follows: Vec<String> = version.follows.iter().map(|event| event.short().to_string()).collect();
        let follows = if follows.is_empty() { "first".to_owned() } else { format!("after {}", follows.join(" and ")) };
        let (standing, lamport) = (standing(version.standing), version.place.lamport);
        text.push_str(&format!("\n  {standing:<10}  {}  at {lamport}, {follows}", version_text(version)));
    }
    text
}

#[derive(Serialize)]
pub(crate) struct DecidedRecord {
    operation: &'static str,
    dry_run: bool,
    resolved: u64,
    standing: u64,
    undecided: Vec<KeyField>,
}

impl Record for DecidedRecord {
    const TYPE: &'static str = "summary";
}

pub(crate) fn decided_record(extent: Extent, decided: &Decided) -> DecidedRecord {
    DecidedRecord {
        operation: "merge",
        dry_run: extent == Extent::DryRun,
        resolved: decided.resolved,
        standing: decided.standing,
        undecided: decided.undecided.iter().map(KeyField::from).collect(),
    }
}

pub(crate) fn decided_text(extent: Extent, decided: &Decided) -> String {
    if decided.standing > 0 {
        return "it stands already, and nothing is in conflict with it".to_owned();
    }
    let would = if extent == Extent::DryRun { "would be " } else { "" };
    format!("{would}{} decided", count_text(decided.resolved, "conflict"))
}
