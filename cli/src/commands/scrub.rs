//! `scrub`: everything is read again, and what is damaged or missing comes from peers.

use super::{Session, replicate};
use crate::{
    args::ScrubArgs,
    bandwidth::Kept,
    failure::{Code, Failure},
    render::{self, Scrubbed},
};
use mirror_engine::{
    id::ChunkId,
    replicate::{Asked, Options, Target, heal},
    vault::{Vault, VaultError},
};
use std::sync::Arc;

pub(super) fn scrub(session: &Session, args: &ScrubArgs) -> Result<Code, Failure> {
    let vault = session.open()?;
    // First of all: a name that is wrong must not cost an hour of reading.
    let targets = targets(session, &vault, args)?;
    let progress = session.transfer_progress("scrub");
    let mut scrub = vault.scrub(args.rate.bytes_per_s(), &*progress.meter())?;
    drop(progress);
    let asked = fetch(session, &vault, &targets, args)?;
    let mut lost: Vec<ChunkId> = vault.end_scrub(&mut scrub)?.into_iter().collect();
    lost.sort_unstable();
    let keys_affected = vault.keys_with(&lost.iter().copied().collect())?;
    let done = Scrubbed { scrub, asked, lost, keys_affected };
    session.output.show(|| render::scrub_record(&done), || render::scrub_text(&done))?;
    if done.is_whole() {
        return Ok(Code::Ok);
    }
    session.talk.note(&format!("hint: {}", next(&done)));
    Ok(Code::Damaged)
}

/// Asks peers for what is missing, if anything is.
fn fetch(session: &Session, vault: &Vault, targets: &[Target], args: &ScrubArgs) -> Result<Vec<Asked>, Failure> {
    if targets.is_empty() || vault.store().is_whole().map_err(VaultError::from)? {
        return Ok(Vec::new());
    }
    let kept = Kept::to(args.bwlimit.as_ref(), &session.talk);
    let options = Options { choice: replicate::choice(args.transport), limits: Arc::clone(&kept.limits), ..Options::default() };
    let progress = session.transfer_progress("scrub");
    let asked = replicate::block_on(heal(vault, targets, &options, progress.meter()))??;
    drop(progress);
    for Asked { peer, result } in &asked {
        if let Err(error) = result {
            session.talk.warn(&format!("{peer} could not be asked: {error}"));
        }
    }
    Ok(asked)
}

/// Who can be asked: the peer that was named, else all that are known and whose addresses can be found.
fn targets(session: &Session, vault: &Vault, args: &ScrubArgs) -> Result<Vec<Target>, Failure> {
    if let Some(peer) = &args.from {
        return Ok(vec![replicate::target(session, vault, peer, args.device)?]);
    }
    let known = vault.home().peers()?.into_iter().filter(|peer| !peer.addresses.is_empty());
    let found = known.filter_map(|peer| match replicate::target(session, vault, &peer.name, None) {
        Ok(target) => Some(target),
        Err(failure) => {
            session.talk.warn(&format!("{} cannot be asked: {}", peer.name, failure.message));
            None
        }
    });
    Ok(found.collect())
}

/// What to type next.
fn next(done: &Scrubbed) -> &'static str {
    match (done.lost.is_empty(), done.asked.is_empty()) {
        (true, _) => "mirror recover rebuilds what can be rebuilt; then mirror pull PEER",
        (false, true) => "mirror scrub --from PEER fetches what is missing; mirror add of the same files stores it again",
        (false, false) => "mirror pull PEER asks another replica, once it can be reached; mirror add of the same files stores it again",
    }
}
