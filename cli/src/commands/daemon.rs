//! `daemon`: asking `mirord`, and telling it what to do. Opens no vault.

use super::Session;
use crate::{
    args::{Bandwidth, DaemonCommand, Rate},
    daemon::{
        control::{Client, Question},
        state::DaemonState,
    },
    failure::{Code, Failure},
    render,
};
use mirror_engine::clock;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How long `stop` waits for the end: longer than sessions get for their commit points.
const END: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

pub(super) fn daemon(session: &Session, command: DaemonCommand) -> Result<Code, Failure> {
    let home = &session.settings.home;
    let mut client = Client::connect(home)?;
    let question = question(command)?;
    let state = client.ask(&question)?;
    match question {
        Question::Status => session.output.show(|| state.clone(), || render::daemon_text(&state, clock::wall_ms()))?,
        Question::Stop => {
            wait_for_the_end(home)?;
            session.report(|| state.clone(), || format!("mirord has ended (pid {})", state.pid))?;
        }
        Question::Limits { .. } | Question::Timetable { .. } => {
            session.report(|| state.clone(), || format!("limit: {}", render::limit_text(&state.limits, state.timetable.as_ref())))?;
        }
        Question::Pause { .. } | Question::Resume { .. } => session.report(|| state.clone(), || state.line())?,
    }
    Ok(Code::Ok)
}

fn question(command: DaemonCommand) -> Result<Question, Failure> {
    Ok(match command {
        DaemonCommand::Status => Question::Status,
        DaemonCommand::Limit { limit: Bandwidth::Always(limit) } => {
            let bytes_per_s = |rate: Option<Rate>| rate.map(|rate| rate.bytes_per_s);
            Question::Limits { send: bytes_per_s(limit.send), receive: bytes_per_s(limit.receive) }
        }
        DaemonCommand::Limit { limit: Bandwidth::ByTime(timetable) } => Question::Timetable { entries: timetable.to_string() },
        DaemonCommand::Pause { dir } => Question::Pause { vault: canonical(dir)? },
        DaemonCommand::Resume { dir } => Question::Resume { vault: canonical(dir)? },
        DaemonCommand::Stop => Question::Stop,
    })
}

/// As the daemon knows it.
fn canonical(dir: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    dir.map(|dir| {
        std::path::absolute(&dir).map(|whole| whole.canonicalize().unwrap_or(whole)).map_err(|error| Failure::reading(&dir, &error))
    })
    .transpose()
}

fn wait_for_the_end(home: &Path) -> Result<(), Failure> {
    let begun = clock::now();
    while Client::connect(home).is_ok() {
        if begun.elapsed() > END {
            return Err(Failure::new(Code::Temporary, "mirord is still ending").hint("ask again: mirror daemon status"));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// What the daemon of this device says, if one runs. One that does not answer is as good as none here, and is mentioned.
pub(super) fn running(session: &Session) -> Option<DaemonState> {
    let mut client = Client::connect(&session.settings.home).ok()?;
    match client.ask(&Question::Status) {
        Ok(state) => Some(state),
        Err(failure) => {
            session.talk.warn(&failure.message);
            None
        }
    }
}
