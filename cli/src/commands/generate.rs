//! `completions` and `man`: generated from the definition of the command line, so that they are never out of date.

use super::Session;
use crate::{
    args::Cli,
    daemon::MirordCli,
    failure::{Code, Failure},
    render,
};
use clap::CommandFactory;
use std::{fs, io::Write, path::Path};

pub(super) fn completions(session: &Session, shell: clap_complete::Shell) -> Result<Code, Failure> {
    // The generator panics when a write fails, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mirror", &mut script);
    session.output.lock().write_all(&script).map_err(|error| render::stdout_failure(&error))?;
    Ok(Code::Ok)
}

pub(super) fn manual(dir: &Path) -> Result<Code, Failure> {
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .and_then(|()| clap_mangen::generate_to(MirordCli::command(), dir))
        .map(|()| Code::Ok)
        .map_err(|error| Failure::writing(dir, &error))
}
