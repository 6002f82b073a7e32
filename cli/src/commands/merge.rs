//! `conflicts`, `merge`: which keys replicas changed without knowing of each other, why what stands stands, and deciding otherwise.

use super::{Session, key};
use crate::{
    args::{ConflictsArgs, MergeArgs},
    failure::{Code, Failure},
    render::{self, Extent, Format},
};
use mirror_engine::vault::{Choice, Decided, Preference};
use std::{ffi::OsStr, ops::ControlFlow};

pub(super) fn conflicts(session: &Session, args: &ConflictsArgs) -> Result<Code, Failure> {
    let prefix = args.prefix.as_deref().map(OsStr::as_encoded_bytes).unwrap_or_default();
    let vault = session.open()?;
    let (mut count, mut printed) = (0, Ok(()));
    vault.conflicts(prefix, &mut |conflict| {
        count += 1;
        printed = session.output.show(|| render::conflict_record(&conflict), || render::conflict_text(&conflict));
        let stop = printed.is_err() || session.interrupt.is_set();
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    printed?;
    if session.interrupt.is_set() {
        return Err(Failure::interrupted());
    }
    if session.output.format() == Format::Text {
        session.talk.note(&render::conflicts_text(count));
    }
    Ok(if count > 0 && args.fail_on_conflict { Code::Conflicts } else { Code::Ok })
}

pub(super) fn merge(session: &Session, args: MergeArgs) -> Result<Code, Failure> {
    match (&args.explain, &args.resolve) {
        (Some(key), _) => explain(session, key),
        (None, Some(Some(key))) if args.prefer.is_empty() => select(session, key, args.select.as_deref()),
        (None, Some(prefix)) => prefer(session, prefix.as_deref(), &args),
        (None, None) => Err(Failure::usage("merge explains or resolves").hint("mirror merge --explain KEY")),
    }
}

fn explain(session: &Session, typed: &OsStr) -> Result<Code, Failure> {
    let explanation = session.open()?.explain(&key(typed)?)?;
    session.output.show(|| render::explanation_record(&explanation), || render::explanation_text(&explanation))?;
    Ok(Code::Ok)
}

fn select(session: &Session, typed: &OsStr, event: Option<&str>) -> Result<Code, Failure> {
    let key = key(typed)?;
    let Some(event) = event else {
        let shown = render::key_text(&key);
        return Err(Failure::usage("which version shall stand?")
            .hint(format!("mirror merge --explain {shown} lists them; then --resolve {shown} --select EVENT, or --prefer newest")));
    };
    let decided = session.open()?.resolve(&key, event)?;
    show(session, Extent::Done, &decided)
}

fn prefer(session: &Session, prefix: Option<&OsStr>, args: &MergeArgs) -> Result<Code, Failure> {
    let preference = preference(&args.prefer)?;
    let choice = if args.dry_run { Choice::Tried } else { Choice::Made };
    let prefix = prefix.map(OsStr::as_encoded_bytes).unwrap_or_default();
    let decided = session.open()?.resolve_all(prefix, &preference, choice)?;
    show(session, Extent::of(args.dry_run), &decided)
}

fn preference(typed: &[String]) -> Result<Preference, Failure> {
    let words: Vec<&str> = typed.iter().map(String::as_str).collect();
    match words[..] {
        ["newest"] => Ok(Preference::Newest),
        ["replica", name] => Ok(Preference::Replica(name.to_owned())),
        [] => Err(Failure::usage("--resolve without a key decides all conflicts by a rule")
            .hint("add --prefer newest or --prefer replica NAME, and -n to try it")),
        _ => Err(Failure::usage(format!("no rule is called {}", words.join(" "))).hint("--prefer newest, or --prefer replica NAME")),
    }
}

/// What the rule did not decide makes the result partial.
fn show(session: &Session, extent: Extent, decided: &Decided) -> Result<Code, Failure> {
    for key in &decided.undecided {
        session.talk.warn(&format!("not decided by the rule: {}", render::key_text(key)));
    }
    session.report(|| render::decided_record(extent, decided), || render::decided_text(extent, decided))?;
    Ok(if decided.undecided.is_empty() { Code::Ok } else { Code::Partial })
}
