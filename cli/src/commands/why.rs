//! `why`: where something is, and what it waits for.

use super::{Session, key};
use crate::{
    args::WhyArgs,
    failure::{Code, Failure},
    render::{self, Live},
};
use mirror_engine::{
    id::EventId,
    vault::{Subject, Vault, Why},
};

pub(super) fn why(session: &Session, args: &WhyArgs) -> Result<Code, Failure> {
    let vault = session.open()?;
    let why = vault.why(subject(&vault, args)?)?;
    let running = super::daemon::running(session);
    let live = Live::of(running.as_ref(), &vault.info().id.to_string(), vault.dir());
    session.output.show(|| render::why_record(&why, live), || render::why_text(&why, live))?;
    if let Some(hint) = hint(&why) {
        session.talk.note(&format!("hint: {hint}"));
    }
    Ok(code(&why))
}

/// 64 hexadecimal digits are an id, unless a key is called so and nothing has that id.
fn subject(vault: &Vault, args: &WhyArgs) -> Result<Subject, Failure> {
    let typed = key(&args.subject)?;
    let id = args.subject.to_str().and_then(|text| text.parse::<EventId>().ok());
    let Some(id) = id else { return Ok(Subject::Key(typed)) };
    let by_id = vault.subject_of_id(*id.as_bytes())?;
    if vault.info().keyless || !vault.why(by_id.clone())?.is_unknown() {
        return Ok(by_id);
    }
    let by_key = Subject::Key(typed);
    Ok(if vault.why(by_key.clone())?.is_unknown() { by_id } else { by_key })
}

fn code(why: &Why) -> Code {
    match (why.is_here(), why.is_unknown()) {
        (true, _) => Code::Ok,
        (false, true) => Code::Failed,
        (false, false) => Code::Partial,
    }
}

/// What brings it here, or says more.
fn hint(why: &Why) -> Option<String> {
    if why.is_here() {
        let lacking = why.peers.iter().find(|peer| peer.has == Some(false) && !peer.status.peer.addresses.is_empty());
        return lacking.map(|peer| format!("mirror push {} brings it there", peer.status.peer.name));
    }
    let ahead = |has: Option<bool>, events: u64| has == Some(true) || events > 0;
    let source = why.peers.iter().find(|peer| ahead(peer.has, peer.ahead_events) && !peer.status.peer.addresses.is_empty());
    Some(match source {
        Some(peer) => format!("mirror pull {}", peer.status.peer.name),
        None => {
            "no peer that this device has an address of is known to have it: mirror status says when each was last talked with".to_owned()
        }
    })
}
