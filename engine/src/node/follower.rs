//! One peer, followed: dial, stay, dial again.
//!
//! ```text
//!            ┌───────────── wake ──────────────┐
//! permitted ─► alone ─► look up ─► session ─► pause
//! (not paused) (no live session     │ yields to one that the peer dialled, by `rule`
//!               that it dialled)
//! ```
//! Nothing ends it but the end of the node: what a person has to mend is tried again seldom, and shown meanwhile.

use super::{
    Dialled, PauseReason, Told,
    leash::Leash,
    link::{Link, Plan, Up},
    rule::{self, Verdict},
    run::Run,
};
use crate::{
    clock,
    replicate::{self, Absence, Haste, Options, Outlook, ReplicateError, SELDOM, Summary, Target, outlook},
    session::Stay,
    vault::VaultError,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a session gets to reach its commit point before it is cut.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// How a session that this side dialled came to its end.
#[derive(Debug)]
enum Ended {
    Session(Box<Result<Summary, ReplicateError>>),
    /// Its task broke down: a fault of this program, which may not come again.
    Broken(String),
    /// There is something better to do: the network changed before it was up, or the peer's own session stays.
    Dropped,
}

pub(super) async fn follow(run: Arc<Run>, link: Arc<Link>) {
    let mut absence = Absence::default();
    loop {
        run.permitted(&link).await;
        alone(&link).await;
        if run.was_live(&link) {
            absence.over();
        }
        if !link.has_address() {
            let plan = Plan::Wait { reason: "no address is known".into(), until: None };
            rest(&run, &link, plan, None, &mut absence).await;
            continue;
        }
        link.plan(Plan::Dial);
        run.shared.tell_news(&link);
        match session(&run, &link, absence.haste()).await {
            Ended::Dropped => absence.over(),
            Ended::Broken(reason) => {
                tracing::error!(reason, "a session broke down");
                let pause = replicate::jittered(absence.pause());
                link.failed(Some(reason.clone()));
                let plan = Plan::Wait { reason, until: Some(clock::now() + pause) };
                rest(&run, &link, plan, Some(pause), &mut absence).await;
            }
            Ended::Session(result) => {
                let result = *result;
                let met = matches!(&result, Ok(summary) if summary.peer_root.is_some()) || run.was_live(&link);
                if met {
                    absence.over();
                }
                let (plan, pause) = after(&result, &mut absence);
                link.failed(result.as_ref().err().map(ToString::to_string));
                run.judge(result.as_ref().err());
                (run.shared.report)(Told::Followed { peer: link.device, result: result.map(Box::new) });
                rest(&run, &link, plan, Some(pause), &mut absence).await;
            }
        }
    }
}

/// Waits while a session is live that the peer has dialled, and in which it is heard; and for one that has begun to become so.
async fn alone(link: &Link) {
    // The sender lives as long as the link.
    let mut up = link.up();
    loop {
        let _ = up.wait_for(|up| up.theirs == 0).await;
        let decided = timeout(rule::GRACE, up.wait_for(|up| up.theirs > 0 || up.theirs_newest.is_none()));
        if !decided.await.is_ok_and(|up| up.is_ok_and(|up| up.theirs > 0)) {
            return;
        }
    }
}

/// Waits until the peer's own dial, begun after ours, has come through while ours has not. Of two ends that dial at once only one ever sees
/// that: for the other to see it, this one's dial would have to come through.
async fn overtaken(link: &Link, number: u64) {
    let first = |up: &Up| up.ours_connected == 0 && up.theirs_newest.is_some_and(|theirs| theirs > number);
    let _ = link.up().wait_for(first).await;
}

/// Waits for a pause to be over, or for a reason to dial now, which is one to expect the peer.
async fn rest(run: &Run, link: &Link, plan: Plan, pause: Option<Duration>, absence: &mut Absence) {
    link.plan(plan);
    run.shared.tell_news(link);
    let woken = match pause {
        Some(pause) => timeout(pause, link.wake.notified()).await.is_ok(),
        None => {
            link.wake.notified().await;
            true
        }
    };
    if woken {
        absence.over();
    }
}

/// What follows from the end of a session.
fn after(result: &Result<Summary, ReplicateError>, absence: &mut Absence) -> (Plan, Duration) {
    let error = match result {
        Ok(_) => {
            let pause = replicate::jittered(absence.pause());
            return (Plan::Wait { reason: "the peer ended the session".into(), until: Some(clock::now() + pause) }, pause);
        }
        Err(error) => error,
    };
    let pause = match outlook(error) {
        Outlook::Passing => absence.pause(),
        Outlook::Here | Outlook::Lasting => SELDOM,
    };
    let pause = replicate::jittered(pause);
    let until = clock::now() + pause;
    let text = error.to_string();
    let plan = match error {
        ReplicateError::Fuse { .. } => Plan::Pause { reason: PauseReason::Fuse, text, until: Some(until) },
        ReplicateError::Vault(VaultError::NoSpace(_)) => Plan::Pause { reason: PauseReason::NoSpace, text, until: Some(until) },
        ReplicateError::Vault(_) => Plan::Pause { reason: PauseReason::Disk, text, until: Some(until) },
        _ if outlook(error) == Outlook::Lasting => Plan::Refused { reason: text, until },
        _ => Plan::Wait { reason: text, until: Some(until) },
    };
    (plan, pause)
}

/// One session, in a task of its own: what panics there ends there.
async fn session(run: &Arc<Run>, link: &Arc<Link>, haste: Haste) -> Ended {
    let (presence, stop) = link.begin(run.shared.number(), Dialled::ByUs);
    let number = presence.number;
    let leash = Leash::new(&run.shared, &run.vault, link, number, stop);
    let mut task = JoinSet::new();
    let (following, followed) = (run.clone(), link.clone());
    task.spawn(async move {
        let _presence = presence;
        dial_and_stay(&following, &followed, haste, leash).await
    });
    select! {
        ended = task.join_next() => finished(ended),
        () = outranked(run, link) => {
            link.stop(|other| other == number);
            let _ = timeout(DRAIN, task.join_next()).await;
            Ended::Dropped
        }
        () = overtaken(link, number) => Ended::Dropped,
        () = woken_before_up(link) => Ended::Dropped,
    }
}

type Joined = Option<Result<Result<Summary, ReplicateError>, tokio::task::JoinError>>;

fn finished(ended: Joined) -> Ended {
    match ended {
        Some(Ok(result)) => Ended::Session(Box::new(result)),
        Some(Err(error)) => Ended::Broken(format!("internal: {error}")),
        None => Ended::Dropped,
    }
}

async fn dial_and_stay(run: &Run, link: &Link, haste: Haste, leash: Arc<Leash>) -> Result<Summary, ReplicateError> {
    // Names may lead elsewhere by now.
    let looked_up = replicate::look_up(link.typed()).await;
    let nothing = looked_up.as_ref().err().map(ToString::to_string);
    link.set_looked_up(looked_up.unwrap_or_default());
    let addresses = link.addresses();
    if addresses.is_empty() {
        return Err(ReplicateError::NoAddress(nothing.unwrap_or_default()));
    }
    let target = Target { name: link.name(), device: link.device, addresses };
    let options = Options { stay: Stay::Live, haste, dry_run: false, ..run.session_options()? };
    replicate::sync(&run.vault, &target, &options, leash).await
}

/// Waits until the session that we dialled is to make room for one that the peer dialled.
async fn outranked(run: &Run, link: &Link) {
    let mut up = link.up();
    let both = |up: &Up| up.ours + up.ours_silent > 0 && up.theirs > 0;
    loop {
        let is_silent = up.wait_for(both).await.is_ok_and(|up| up.ours == 0);
        if is_silent {
            return;
        }
        match rule::verdict(&run.vault.device().id(), &link.device) {
            Verdict::Yield => return,
            Verdict::Outlast => {
                if timeout(rule::GRACE, up.wait_for(|up| !both(up))).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Waits for a reason to dial anew while nothing is up. One that comes while a session is up is the session's business.
async fn woken_before_up(link: &Link) {
    loop {
        link.wake.notified().await;
        if link.up().borrow().ours == 0 {
            // Several reasons come together.
            sleep(Duration::from_millis(20)).await;
            return;
        }
    }
}
