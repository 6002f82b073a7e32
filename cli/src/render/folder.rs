//! How a followed folder stands.

use super::{Record, escape_lines, path_text};
use mirror_engine::folder::{FolderState, FolderStatus};
use serde::Serialize;

/// A folder in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct FolderRecord {
    dir: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    taken_in: u64,
    deletions_in: u64,
    written_out: u64,
    removed: u64,
    kept_beside: u64,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    what: String,
    reason: String,
}

impl Record for FolderRecord {
    const TYPE: &'static str = "folder";
}

impl From<&FolderStatus> for FolderRecord {
    fn from(status: &FolderStatus) -> Self {
        let (state, reason) = match &status.state {
            FolderState::Starting => ("starting", None),
            FolderState::Followed => ("followed", None),
            FolderState::Paused(reason) => ("paused", Some(reason.clone())),
            FolderState::Failing(reason) => ("failing", Some(reason.clone())),
        };
        let problem = |(what, reason): (&String, &String)| Problem { what: what.clone(), reason: reason.clone() };
        Self {
            dir: status.dir.display().to_string(),
            state,
            reason,
            taken_in: status.taken_in,
            deletions_in: status.deletions_in,
            written_out: status.written_out,
            removed: status.removed,
            kept_beside: status.kept_beside,
            problems: status.problems.iter().map(problem).collect(),
        }
    }
}

/// What is new for people: what to note, and what to warn of.
pub(crate) fn folder_text(before: &FolderStatus, now: &FolderStatus) -> (Vec<String>, Vec<String>) {
    let dir = path_text(&now.dir);
    let (mut notes, mut warnings) = (Vec::new(), Vec::new());
    if before.state != now.state {
        match &now.state {
            FolderState::Starting => {}
            FolderState::Followed => notes.push(format!("following {dir}")),
            FolderState::Paused(reason) => {
                warnings.push(format!("{dir} is left alone: {}", escape_lines(reason)));
                notes.push(
                    "hint: it goes on by itself when they are back; if they are meant to be gone, start again with --max-delete none"
                        .into(),
                );
            }
            FolderState::Failing(reason) => warnings.push(format!("{dir}: {}; trying again", escape_lines(reason))),
        }
    }
    if before.kept_beside < now.kept_beside {
        notes.push(format!("{dir}: changed on two sides: both versions are kept, see *.conflict-*"));
    }
    for (what, reason) in now.problems.iter().filter(|(what, reason)| before.problems.get(*what) != Some(*reason)) {
        warnings.push(format!("{}: {}", escape_lines(what), escape_lines(reason)));
    }
    (notes, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_said_and_a_pause_comes_with_a_way_out() {
        let before = FolderStatus { dir: "/d".into(), state: FolderState::Followed, ..FolderStatus::default() };
        let mut now = before.clone();
        now.taken_in = 7;
        assert_eq!(folder_text(&before, &now), (Vec::new(), Vec::new()));
        now.problems.insert("/d/a\u{1b}".into(), "no".into());
        assert_eq!(folder_text(&before, &now).1, ["/d/a\\x1b: no"]);
        let paused = FolderStatus { state: FolderState::Paused("gone".into()), ..now.clone() };
        let (notes, warnings) = folder_text(&now, &paused);
        assert_eq!(warnings, ["/d is left alone: gone"]);
        assert!(notes[0].contains("--max-delete none"));
        let record = serde_json::to_value(FolderRecord::from(&paused)).unwrap();
        assert_eq!((&record["state"], &record["reason"]), (&"paused".into(), &"gone".into()));
    }
}
