//! Keys and their history: `ls` and `log`.

use super::{Record, bytes_text, key_text, rfc3339};
use mirror_engine::{
    event::{Key, ValueKind},
    vault::{Entry, LogEntry},
};
use serde::Serialize;

/// A key in JSON. JSON holds text only, so that a key that is not UTF-8 is there twice: readable, and exact in hexadecimal.
#[derive(Serialize)]
pub(crate) struct KeyField {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
}

impl From<&Key> for KeyField {
    fn from(key: &Key) -> Self {
        let exact = std::str::from_utf8(key.as_bytes()).is_ok();
        Self { key: key.to_text().into_owned(), key_hex: (!exact).then(|| hex(key.as_bytes())) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Serialize)]
pub(crate) struct EntryRecord {
    #[serde(flatten)]
    key: KeyField,
    size: u64,
    modified: String,
    modified_ms: i64,
    event: String,
    replica: String,
    deleted: bool,
    kind: Option<&'static str>,
    mode: Option<String>,
    conflict: bool,
}

impl Record for EntryRecord {
    const TYPE: &'static str = "entry";
}

/// An entry in JSON.
pub(crate) fn entry_record(entry: &Entry) -> EntryRecord {
    EntryRecord {
        key: (&entry.key).into(),
        size: entry.size,
        modified: rfc3339(entry.modified_ms),
        modified_ms: entry.modified_ms,
        event: entry.event.to_string(),
        replica: entry.replica.to_string(),
        deleted: entry.deleted,
        kind: entry.kind.as_ref().map(kind_name),
        mode: entry.kind.as_ref().and_then(mode).map(|mode| format!("{mode:04o}")),
        conflict: entry.conflict,
    }
}

/// How much of an entry is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    KeyOnly,
    Long,
}

/// An entry in one line of text.
pub(crate) fn entry_line(entry: &Entry, detail: Detail) -> String {
    let key = key_text(&entry.key);
    let (deleted, conflict) = (if entry.deleted { " (deleted)" } else { "" }, if entry.conflict { " (conflict)" } else { "" });
    match detail {
        Detail::KeyOnly => format!("{key}{deleted}"),
        Detail::Long => {
            let target = entry.kind.as_ref().map(link_target).unwrap_or_default();
            let (shape, size, time) = (shape(entry.kind.as_ref()), bytes_text(entry.size), rfc3339(entry.modified_ms));
            format!("{shape} {size:>10}  {}  {}  {key}{target}{deleted}{conflict}", &time, entry.replica.short())
        }
    }
}

fn kind_name(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Blob => "blob",
        ValueKind::File(_) => "file",
        ValueKind::Directory(_) => "directory",
        ValueKind::Symlink(_) => "symlink",
    }
}

fn mode(kind: &ValueKind) -> Option<u32> {
    match kind {
        ValueKind::File(mode) | ValueKind::Directory(mode) => Some(*mode),
        ValueKind::Blob | ValueKind::Symlink(_) => None,
    }
}

fn link_target(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Symlink(target) => format!(" -> {}", super::escape(target)),
        _ => String::new(),
    }
}

/// As in `-rw-r--r--`; a value that was not a file has no permissions.
fn shape(kind: Option<&ValueKind>) -> String {
    let first = match kind {
        Some(ValueKind::File(_)) => '-',
        Some(ValueKind::Directory(_)) => 'd',
        Some(ValueKind::Symlink(_)) => 'l',
        Some(ValueKind::Blob) => 'b',
        None => ' ',
    };
    let bits = kind.and_then(mode).map_or_else(|| "---------".to_owned(), permissions);
    format!("{first}{bits}")
}

fn permissions(mode: u32) -> String {
    (0..9).map(|bit| if mode >> (8 - bit) & 1 == 1 { ['r', 'w', 'x'][bit % 3] } else { '-' }).collect()
}

#[derive(Serialize)]
pub(crate) struct LogRecord<'a> {
    event: String,
    replica: String,
    sequence: u64,
    wall: String,
    wall_ms: u64,
    action: &'a str,
    #[serde(flatten)]
    key: KeyField,
    size: u64,
    reason: Option<&'a str>,
}

impl Record for LogRecord<'_> {
    const TYPE: &'static str = "log";
}

/// A change in JSON.
pub(crate) fn log_record(entry: &LogEntry) -> LogRecord<'_> {
    LogRecord {
        event: entry.event.to_string(),
        replica: entry.replica.to_string(),
        sequence: entry.sequence,
        wall: rfc3339(wall(entry)),
        wall_ms: entry.wall_ms,
        action: entry.action,
        key: (&entry.key).into(),
        size: entry.size,
        reason: entry.reason.as_deref(),
    }
}

/// A change in one line of text: when, who, which of its events, what.
pub(crate) fn log_line(entry: &LogEntry) -> String {
    let size = if entry.action == "put" { format!(" ({})", bytes_text(entry.size)) } else { String::new() };
    let reason = entry.reason.as_ref().map(|reason| format!(": {}", super::escape(reason.as_bytes()))).unwrap_or_default();
    let (time, author, action) = (rfc3339(wall(entry)), entry.replica.short(), entry.action);
    format!("{time}  {author}#{:<5} {} {action:<7} {}{size}{reason}", entry.sequence, entry.event.short(), key_text(&entry.key))
}

/// A clock of another device may say anything.
fn wall(entry: &LogEntry) -> i64 {
    i64::try_from(entry.wall_ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::json_line;
    use mirror_engine::id::{EventId, ReplicaId};

    fn entry(key: &[u8], kind: Option<ValueKind>) -> Entry {
        Entry {
            key: Key::new(key).unwrap(),
            deleted: kind.is_none(),
            kind,
            size: 2048,
            modified_ms: 0,
            event: EventId::from_bytes([1; 32]),
            replica: ReplicaId::from_bytes([2; 32]),
            conflict: false,
        }
    }

    #[test]
    fn an_entry_in_json_has_the_fields_of_the_contract() {
        let json: serde_json::Value =
            serde_json::from_str(&json_line(&entry_record(&entry(b"a/b", Some(ValueKind::File(0o644)))))).unwrap();
        assert_eq!(json["type"], "entry");
        assert_eq!(json["key"], "a/b");
        assert_eq!(json["size"], 2048);
        assert_eq!(json["modified"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["event"], "01".repeat(32));
        assert_eq!(json["replica"], "02".repeat(32));
        assert_eq!(json["deleted"], false);
        assert_eq!(json["mode"], "0644");
        assert!(json.get("key_hex").is_none());
    }

    #[test]
    fn a_key_that_is_not_utf8_is_exact_in_hexadecimal() {
        let json: serde_json::Value = serde_json::from_str(&json_line(&entry_record(&entry(b"caf\xe9", None)))).unwrap();
        assert_eq!(json["key"], "caf\u{fffd}");
        assert_eq!(json["key_hex"], "636166e9");
        assert_eq!(json["deleted"], true);
    }

    #[test]
    fn a_line_of_text_is_safe_and_says_what_it_is() {
        assert_eq!(entry_line(&entry(b"a\x1b[m", None), Detail::KeyOnly), "a\\x1b[m (deleted)");
        let link = entry_line(&entry(b"l", Some(ValueKind::Symlink(b"../x\n".to_vec()))), Detail::Long);
        assert_eq!(link, "l---------    2.0 KiB  1970-01-01T00:00:00.000Z  02020202  l -> ../x\\n");
        assert!(entry_line(&entry(b"f", Some(ValueKind::File(0o750))), Detail::Long).starts_with("-rwxr-x---"));
    }

    #[test]
    fn a_change_says_when_who_and_what() {
        let change = LogEntry {
            event: EventId::from_bytes([1; 32]),
            replica: ReplicaId::from_bytes([2; 32]),
            sequence: 7,
            wall_ms: u64::MAX,
            key: Key::new(*b"k").unwrap(),
            action: "delete",
            size: 0,
            reason: Some("old\n".into()),
        };
        assert!(log_line(&change).ends_with("02020202#7     01010101 delete  k: old\\n"));
        assert!(json_line(&log_record(&change)).starts_with(r#"{"type":"log","event":"0101"#));
    }
}
