//! What a scrub found, what came back, and what is still missing.

use super::{KeyField, Record, bytes_text, count_text, key_text, not_done_line, path_text, rfc3339};
use mirror_engine::{event::Key, home::ScrubRecord, id::ChunkId, replicate::Asked, vault::Scrub};
use serde::Serialize;
use std::path::PathBuf;

/// A scrub at its end.
#[derive(Debug)]
pub(crate) struct Scrubbed {
    pub(crate) scrub: Scrub,
    /// Peers that were asked for what was missing.
    pub(crate) asked: Vec<Asked>,
    /// Chunks that are missing still, in order.
    pub(crate) lost: Vec<ChunkId>,
    /// Keys that need them.
    pub(crate) keys_affected: Vec<Key>,
}

impl Scrubbed {
    /// Nothing is missing or damaged any more.
    pub(crate) fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.scrub.files.is_empty()
    }
}

#[derive(Serialize)]
struct File {
    path: String,
    reason: String,
}

impl From<&(PathBuf, String)> for File {
    fn from((path, reason): &(PathBuf, String)) -> Self {
        Self { path: path.to_string_lossy().into_owned(), reason: reason.clone() }
    }
}

#[derive(Serialize)]
struct AskedField {
    peer: String,
    healed: u64,
    error: Option<String>,
}

impl From<&Asked> for AskedField {
    fn from(asked: &Asked) -> Self {
        let (healed, error) = match &asked.result {
            Ok(summary) => (summary.chunks_healed, None),
            Err(error) => (0, Some(error.to_string())),
        };
        Self { peer: asked.peer.clone(), healed, error }
    }
}

#[derive(Serialize)]
pub(crate) struct ScrubSummary {
    operation: &'static str,
    resumed: bool,
    chunks: u64,
    bytes: u64,
    found: u64,
    healed: u64,
    missing: Vec<String>,
    files: Vec<File>,
    keys_affected: Vec<KeyField>,
    asked: Vec<AskedField>,
    ok: bool,
}

impl Record for ScrubSummary {
    const TYPE: &'static str = "summary";
}

/// A scrub in JSON.
pub(crate) fn scrub_record(done: &Scrubbed) -> ScrubSummary {
    let ScrubRecord { chunks, bytes, found, healed, .. } = done.scrub.record;
    ScrubSummary {
        operation: "scrub",
        resumed: done.scrub.resumed,
        chunks,
        bytes,
        found,
        healed,
        missing: done.lost.iter().map(ToString::to_string).collect(),
        files: done.scrub.files.iter().map(File::from).collect(),
        keys_affected: done.keys_affected.iter().map(KeyField::from).collect(),
        asked: done.asked.iter().map(AskedField::from).collect(),
        ok: done.is_whole(),
    }
}

/// The same for people.
pub(crate) fn scrub_text(done: &Scrubbed) -> String {
    let mut lines: Vec<String> = Vec::new();
    lines.extend(done.scrub.files.iter().map(|(path, what)| format!("file {}", not_done_line(&path_text(path), what))));
    lines.extend(done.lost.iter().map(|chunk| format!("missing chunk {chunk}")));
    lines.extend(done.keys_affected.iter().map(|key| format!("affected key {}", key_text(key))));
    let record = &done.scrub.record;
    lines.push(format!("{} read again ({}): {}", count_text(record.chunks, "chunk"), bytes_text(record.bytes), found_text(record)));
    lines.join("\n")
}

fn found_text(record: &ScrubRecord) -> String {
    match (record.found, record.lost) {
        (0, _) => "no damage".to_owned(),
        (found, 0) => format!("{} damaged or missing, all healed", count_text(found, "chunk")),
        (found, lost) => {
            format!(
                "{} damaged or missing, {} healed, {} still missing",
                count_text(found, "chunk"),
                record.healed,
                count_text(lost, "chunk")
            )
        }
    }
}

/// The last scrub, as `status` shows it.
#[derive(Serialize)]
pub(crate) struct LastScrub {
    began_ms: u64,
    ended_ms: Option<u64>,
    chunks: u64,
    bytes: u64,
    found: u64,
    healed: u64,
    lost: u64,
}

impl From<&ScrubRecord> for LastScrub {
    fn from(record: &ScrubRecord) -> Self {
        let ScrubRecord { began_ms, ended_ms, chunks, bytes, found, healed, lost, .. } = *record;
        Self { began_ms, ended_ms, chunks, bytes, found, healed, lost }
    }
}

/// The same in a few words.
pub(crate) fn last_scrub_text(record: Option<&ScrubRecord>) -> String {
    match record {
        None => "never".to_owned(),
        Some(record) => match record.ended_ms {
            Some(at) => format!("{} at {}", found_text(record), rfc3339(at as i64)),
            None => format!("interrupted after {}; mirror scrub goes on", count_text(record.chunks, "chunk")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::json_line;

    fn scrubbed(found: u64, lost: u64) -> Scrubbed {
        let record = ScrubRecord { chunks: 9, bytes: 1024, found, healed: found - lost, lost, ..ScrubRecord::default() };
        let scrub = Scrub { resumed: false, record, files: Vec::new() };
        Scrubbed {
            scrub,
            asked: Vec::new(),
            lost: (0..lost as u8).map(|n| ChunkId::from_bytes([n; 32])).collect(),
            keys_affected: Vec::new(),
        }
    }

    #[test]
    fn a_scrub_says_what_it_found_healed_and_could_not() {
        assert!(scrub_text(&scrubbed(0, 0)).ends_with("9 chunks read again (1.0 KiB): no damage"));
        assert!(scrub_text(&scrubbed(3, 0)).ends_with("3 chunks damaged or missing, all healed"));
        let text = scrub_text(&scrubbed(3, 1));
        assert!(text.starts_with("missing chunk 0000") && text.ends_with("2 healed, 1 chunk still missing"), "{text}");
        let json = json_line(&scrub_record(&scrubbed(3, 1)));
        assert!(json.starts_with(r#"{"type":"summary","operation":"scrub","resumed":false,"chunks":9,"#), "{json}");
        assert!(json.ends_with(r#""ok":false}"#), "{json}");
    }

    #[test]
    fn status_says_how_the_last_scrub_ended_or_that_it_did_not() {
        assert_eq!(last_scrub_text(None), "never");
        let ended = ScrubRecord { ended_ms: Some(0), ..ScrubRecord::default() };
        assert_eq!(last_scrub_text(Some(&ended)), "no damage at 1970-01-01T00:00:00.000Z");
        assert!(last_scrub_text(Some(&ScrubRecord { chunks: 2, ..ended.clone() })).starts_with("no damage"));
        assert_eq!(
            last_scrub_text(Some(&ScrubRecord { chunks: 2, ended_ms: None, ..ended })),
            "interrupted after 2 chunks; mirror scrub goes on"
        );
    }
}
