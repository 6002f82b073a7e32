//! `status`, `verify`, `recover`: how the vault is, and mending it.

use super::Session;
use crate::{
    args::{RecoverArgs, VerifyArgs},
    failure::{Code, Failure, ROLLED_BACK_HINT},
    render::{self, Extent},
};
use mirror_engine::vault::{Vault, VerifyReport};

pub(super) fn status(session: &Session) -> Result<Code, Failure> {
    let vault = session.open()?;
    let (status, peers) = (vault.status()?, vault.peers()?);
    session.output.show(|| render::status_record(&status, &peers), || render::status_text(&status, &peers))?;
    Ok(Code::Ok)
}

pub(super) fn verify(session: &Session, args: &VerifyArgs) -> Result<Code, Failure> {
    let vault = session.open()?;
    let progress = session.progress("verify");
    let report = vault.verify(args.read_data, &*progress.meter())?;
    drop(progress);
    session.output.show(|| render::verify_record(&report), || render::verify_text(&report))?;
    if report.is_clean() {
        return Ok(Code::Ok);
    }
    if report.is_undamaged() {
        session.talk.note(&format!("hint: {ROLLED_BACK_HINT}"));
        return Ok(Code::Forked);
    }
    let peers = vault.home().peers()?;
    let peer = peers.iter().find(|peer| !peer.addresses.is_empty()).map_or("PEER", |peer| peer.name.as_str());
    session
        .talk
        .note(&format!("hint: mirror scrub --from {peer} puts aside what is damaged and fetches good copies; {}", without_peer(&report)));
    Ok(Code::Damaged)
}

/// What helps where no other replica does.
fn without_peer(report: &VerifyReport) -> &'static str {
    if report.files.is_empty() { "mirror add of the same files stores them again" } else { "mirror recover rebuilds what can be rebuilt" }
}

/// Does not open the vault first: it may not open.
pub(super) fn recover(session: &Session, args: &RecoverArgs) -> Result<Code, Failure> {
    if args.accept_loss {
        return accept_loss(session, args.dry_run);
    }
    if let Some(replica) = &args.leave_branch {
        return leave_branch(session, replica, Extent::of(args.dry_run));
    }
    let (dir, extent) = (session.vault_dir()?, Extent::of(args.dry_run));
    let progress = session.progress("recover");
    let repairs = Vault::recover(&dir, args.dry_run, &*progress.meter())?;
    drop(progress);
    for repair in &repairs {
        session.output.show(|| render::repair_record(repair), || render::repair_text(repair))?;
    }
    let done = if repairs.is_empty() { "nothing to mend".to_owned() } else { render::count_text(repairs.len() as u64, "repair") };
    session.report(|| render::recover_record(extent, &repairs), || done)?;
    Ok(if repairs.iter().any(|repair| repair.loss) { Code::Damaged } else { Code::Ok })
}

/// What is gone is gone: the vault goes on from what is here.
fn accept_loss(session: &Session, dry_run: bool) -> Result<Code, Failure> {
    let vault = session.open()?;
    let lost = vault.store().lost();
    if !dry_run {
        vault.accept_loss()?;
    }
    let extent = Extent::of(dry_run);
    session.report(|| render::recover_record(extent, &[]), || format!("{} given up", render::count_text(lost.len() as u64, "log end")))?;
    Ok(Code::Ok)
}

/// Replicas on two branches of a forked log come together again: this one gives way.
fn leave_branch(session: &Session, replica: &str, extent: Extent) -> Result<Code, Failure> {
    let vault = session.open()?;
    let author = vault.forked_log(replica)?;
    let left = match extent {
        Extent::DryRun => vault.plan_leaving(&author)?,
        Extent::Done => vault.leave_branch(&author)?,
    };
    session.report(|| render::left_record(extent, &left), || render::left_text(extent, &left))?;
    if extent == Extent::Done {
        session
            .talk
            .note("hint: mirror sync PEER, with a replica that holds the other branch, brings it here; restart mirror serve if it runs");
    }
    Ok(Code::Ok)
}
