//! `ls`, `log`, `rm`, `undelete`: what there is, what was, and what shall be gone.

use super::{Session, key, keys};
use crate::{
    args::{ListArgs, LogArgs, RemoveArgs, UndeleteArgs},
    failure::{Code, Failure},
    render::{self, Detail},
};
use mirror_engine::vault::{KeysReport, Vault, VaultError};
use std::ops::ControlFlow;

pub(super) fn list(session: &Session, args: &ListArgs) -> Result<Code, Failure> {
    let detail = if args.long { Detail::Long } else { Detail::KeyOnly };
    let prefix = args.prefix.as_deref().map(|prefix| prefix.as_encoded_bytes()).unwrap_or_default();
    let vault = session.open()?;
    let mut printed = Ok(());
    vault.list(prefix, args.deleted, &mut |entry| {
        printed = unless_interrupted(session)
            .and_then(|()| session.output.show(|| render::entry_record(&entry), || render::entry_line(&entry, detail)));
        go_on(&printed)
    })?;
    printed.map(|()| Code::Ok)
}

pub(super) fn log(session: &Session, args: &LogArgs) -> Result<Code, Failure> {
    let key = args.key.as_deref().map(key).transpose()?;
    let vault = session.open()?;
    if args.forks {
        return forks(session, &vault);
    }
    let (mut printed, mut found) = (Ok(()), false);
    vault.log(key.as_ref(), &mut |entry| {
        found = true;
        printed =
            unless_interrupted(session).and_then(|()| session.output.show(|| render::log_record(&entry), || render::log_line(&entry)));
        go_on(&printed)
    })?;
    printed?;
    match key.filter(|_| !found) {
        Some(key) => Err(VaultError::NoSuchKey(key.to_text().into_owned()).into()),
        None => Ok(Code::Ok),
    }
}

/// A keyless replica can prove a fork and not read it.
fn forks(session: &Session, vault: &Vault) -> Result<Code, Failure> {
    for fork in vault.forks() {
        session.output.show(|| render::fork_record(&fork), || render::fork_line(&fork))?;
    }
    if vault.info().keyless {
        return Ok(Code::Ok);
    }
    let mut printed = Ok(());
    vault.other_branches(&mut |entry| {
        printed = session.output.show(|| render::log_record(&entry), || render::log_line(&entry));
        go_on(&printed)
    })?;
    printed.map(|()| Code::Ok)
}

fn unless_interrupted(session: &Session) -> Result<(), Failure> {
    if session.interrupt.is_set() { Err(Failure::interrupted()) } else { Ok(()) }
}

fn go_on(printed: &Result<(), Failure>) -> ControlFlow<()> {
    if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

pub(super) fn remove(session: &Session, args: &RemoveArgs) -> Result<Code, Failure> {
    let keys = keys(&args.keys)?;
    let report = session.open()?.remove(&keys, args.reason.as_deref())?;
    show(session, "rm", "deleted", &report)
}

pub(super) fn undelete(session: &Session, args: &UndeleteArgs) -> Result<Code, Failure> {
    let keys = keys(&args.keys)?;
    let report = session.open()?.undelete(&keys)?;
    show(session, "undelete", "brought back", &report)
}

/// With nothing done at all it is an error; with something done it is partial.
fn show(session: &Session, operation: &'static str, done: &str, report: &KeysReport) -> Result<Code, Failure> {
    if let (0, Some(first)) = (report.done, report.missing.first()) {
        let failure = Failure::from(VaultError::NoSuchKey(render::key_text(first)));
        return Err(report
            .missing
            .iter()
            .skip(1)
            .fold(failure, |failure, key| failure.cause(format!("no such key: {}", render::key_text(key)))));
    }
    for key in &report.missing {
        session.talk.warn(&format!("no such key: {}", render::key_text(key)));
    }
    session.report(|| render::keys_record(operation, report), || format!("{} {done}", render::count_text(report.done, "key")))?;
    Ok(if report.missing.is_empty() { Code::Ok } else { Code::Partial })
}
