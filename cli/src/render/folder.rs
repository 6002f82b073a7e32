//! How a followed folder stands.

use super::{Record, escape_lines, path_text};
use crate::daemon::state::{FollowedState, ProblemState};
use mirror_engine::folder::{Flow, FolderOptions, FolderState, FolderStatus};

impl Record for FollowedState {
    const TYPE: &'static str = "folder";
}

/// A folder for programs: the same to whoever asks a daemon as to who reads the lines of a follower.
pub(crate) fn folder_state(status: &FolderStatus, options: &FolderOptions, way_out: &str) -> FollowedState {
    let flow = match options.flow {
        Flow::In => "in",
        Flow::Out => "out",
        Flow::Both => "both",
    };
    let (state, reason) = match &status.state {
        FolderState::Starting => ("starting", None),
        FolderState::Followed => ("followed", None),
        FolderState::Paused(reason) => ("paused", Some(reason)),
        FolderState::Failing(reason) => ("failing", Some(reason)),
    };
    let problem = |(what, reason): (&String, &String)| ProblemState { what: what.clone(), reason: reason.clone() };
    FollowedState {
        dir: status.dir.clone(),
        flow: flow.to_owned(),
        prefix: options.prefix.clone(),
        state: state.to_owned(),
        reason: reason.cloned(),
        hint: matches!(status.state, FolderState::Paused(_)).then(|| way_out.to_owned()),
        taken_in: status.taken_in,
        deletions_in: status.deletions_in,
        written_out: status.written_out,
        removed: status.removed,
        kept_beside: status.kept_beside,
        problems: status.problems.iter().map(problem).collect(),
    }
}

/// What ends a pause of a folder that this command follows.
pub(crate) const WAY_OUT: &str =
    "it goes on by itself when they are back; if they are meant to be gone, start again with --max-delete none";

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
                notes.push(format!("hint: {WAY_OUT}"));
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
        let options = FolderOptions { prefix: Some("p".into()), ..FolderOptions::new(Flow::Out) };
        let record = folder_state(&paused, &options, WAY_OUT);
        let begins =
            r#"{"type":"folder","dir":"/d","flow":"out","prefix":"p","state":"paused","reason":"gone","hint":"it goes on by itself"#;
        assert!(super::super::json_line(&record).starts_with(begins));
        assert_eq!(record.problems, [ProblemState { what: "/d/a\u{1b}".into(), reason: "no".into() }]);
    }
}
