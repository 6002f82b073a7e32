//! `restore`: back to files.

use super::{Session, keys};
use crate::{
    args::RestoreArgs,
    failure::{Code, Failure},
    render,
};

pub(super) fn restore(session: &Session, args: &RestoreArgs) -> Result<Code, Failure> {
    let prefixes = keys(&args.prefixes)?;
    let vault = session.open()?;
    let progress = session.progress("restore");
    let report = vault.restore(&args.dest, &prefixes, args.overwrite, &*progress.meter())?;
    drop(progress);
    for (key, reason) in &report.failed {
        session.talk.warn(&format!("not restored: {}", render::not_done_line(&render::key_text(key), reason)));
    }
    session.report(|| render::restore_record(&report), || render::restore_text(&report))?;
    Ok(if report.failed.is_empty() { Code::Ok } else { Code::Partial })
}
