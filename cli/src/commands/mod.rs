//! One file per group of commands; each command is one call of the engine between arguments and rendering.

mod acknowledge;
mod daemon;
mod demo;
mod discover;
mod doctor;
pub(crate) mod folder;
mod follow;
mod generate;
mod health;
mod history;
mod init;
mod merge;
pub(crate) mod pairing;
mod peer;
pub(crate) mod replicate;
mod restore;
mod scrub;
mod session;
mod telling;
mod values;
mod whereabouts;
mod why;

pub(crate) use session::Session;

use crate::{
    args::Command,
    failure::{Code, Failure},
};
use mirror_engine::event::Key;
use std::ffi::OsStr;

/// Runs one command and says with which code to exit: a [`Code`] that is not `Ok` comes with a report that says why.
///
/// # Errors
/// What made the command end early.
pub(crate) fn run(session: &Session, command: Command) -> Result<Code, Failure> {
    match command {
        Command::Init(args) => init::init(session, args),
        Command::Add(args) => values::add(session, args),
        Command::Put(args) => values::put(session, &args),
        Command::Get(args) => values::get(session, &args),
        Command::Ls(args) => history::list(session, &args),
        Command::Log(args) => history::log(session, &args),
        Command::Rm(args) => history::remove(session, &args),
        Command::Undelete(args) => history::undelete(session, &args),
        Command::Conflicts(args) => merge::conflicts(session, &args),
        Command::Merge(args) => merge::merge(session, args),
        Command::Restore(args) => restore::restore(session, &args),
        Command::Verify(args) => health::verify(session, &args),
        Command::Scrub(args) => scrub::scrub(session, &args),
        Command::Recover(args) => health::recover(session, &args),
        Command::Status => health::status(session),
        Command::Serve(args) => pairing::serve(session, &args),
        Command::Invite(args) => pairing::invite(session, &args),
        Command::Clone(args) => pairing::clone(session, &args),
        Command::Peer(args) => peer::peer(session, args.command),
        Command::Rekey(args) => peer::rekey(session, &args),
        Command::Push(args) => replicate::push(session, &args),
        Command::Pull(args) => replicate::pull(session, &args.options),
        Command::Sync(args) => replicate::sync(session, &args),
        Command::Why(args) => why::why(session, &args),
        Command::Daemon(args) => daemon::daemon(session, args.command),
        Command::Doctor(args) => doctor::doctor(session, &args),
        Command::Demo(args) => demo::demo(session, &args),
        Command::Completions(args) => generate::completions(session, args.shell),
        Command::Man(args) => generate::manual(&args.dir),
    }
}

/// A key as it was typed: its bytes, whatever they are.
fn key(typed: &OsStr) -> Result<Key, Failure> {
    Key::new(typed.as_encoded_bytes()).map_err(|error| Failure::usage(error.to_string()).hint("mirror ls lists the keys there are"))
}

fn keys(typed: &[impl AsRef<OsStr>]) -> Result<Vec<Key>, Failure> {
    typed.iter().map(|typed| key(typed.as_ref())).collect()
}
