//! Following for good: a session that ends before the user says so is begun again.
//!
//! What may pass is waited for: a network that is gone, a peer that restarts or has trouble of its own, a full disk, a vault that somebody
//! else has locked. What would be the same the next time ends it: a refusal, a fork, a fuse that has blown.
//!
//! Pauses grow with the absence of the peer (see `absence`) to [`PAUSE_MAX`], and are spread by chance, so that many followers of one peer do
//! not come back at once. A session that was up begins the count anew.

use super::{Observer, Options, Progress, ReplicateError, Summary, Target, absence::Absence, failover::jittered, follow::follow};
use crate::{
    transport::{CloseReason, TransportError},
    vault::{Vault, VaultError},
};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, time::sleep};

/// Somebody waits for this one, and no system is asked whether the network is back.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a user's wish to stop is looked for.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Keeps this replica and a peer equal until `observer` says stop, whatever happens to the link or the peer. `find` says where the peer
/// is, each time anew: names may lead to another address by then.
///
/// Returns what the last session did.
///
/// # Errors
/// What would be the same the next time: see the module. [`ReplicateError::Cancelled`] when stopped while no session was up.
pub async fn keep_following(
    vault: &Vault,
    find: &(dyn Fn() -> Result<Target, ReplicateError> + Sync),
    options: &Options,
    observer: Arc<dyn Observer>,
) -> Result<Summary, ReplicateError> {
    let mut absence = Absence::default();
    loop {
        let noticing = Arc::new(Noticing { observer: observer.clone(), was_live: AtomicBool::new(false) });
        let options = Options { haste: absence.haste(), ..options.clone() };
        let ended = match find() {
            Ok(target) => follow(vault, &target, &options, noticing.clone()).await,
            Err(error) => Err(error),
        };
        let error = match ended {
            Err(_) if observer.cancelled() => return Err(ReplicateError::Cancelled),
            Err(error) if outlook(&error) != Outlook::Lasting => error,
            ended => return ended,
        };
        if noticing.was_live.load(Relaxed) {
            absence.over();
        }
        let wait = jittered(absence.pause().min(PAUSE_MAX));
        observer.progress(Progress::Waiting { reason: error.to_string(), pause: wait });
        wait_for(wait, &*observer).await?;
    }
}

/// Notices whether a session was live.
struct Noticing {
    observer: Arc<dyn Observer>,
    was_live: AtomicBool,
}

impl Observer for Noticing {
    fn progress(&self, progress: Progress) {
        if matches!(progress, Progress::Live) {
            self.was_live.store(true, Relaxed);
        }
        self.observer.progress(progress);
    }

    fn cancelled(&self) -> bool {
        self.observer.cancelled()
    }

    fn stopping(&self) -> Option<watch::Receiver<bool>> {
        self.observer.stopping()
    }
}

async fn wait_for(pause: Duration, observer: &dyn Observer) -> Result<(), ReplicateError> {
    let mut over = pin!(sleep(pause));
    loop {
        select! {
            () = &mut over => return Ok(()),
            () = sleep(CANCEL_POLL) => {
                if observer.cancelled() {
                    return Err(ReplicateError::Cancelled);
                }
            }
        }
    }
}

/// What is to be expected of the next session, after one that ended with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// The network or the peer may be back at any moment.
    Passing,
    /// This machine has no room, or somebody else is at work on the vault.
    Here,
    /// The same, until a person does something here or there.
    Lasting,
}

/// What `error` lets expect.
pub fn outlook(error: &ReplicateError) -> Outlook {
    use TransportError as T;
    match error {
        ReplicateError::Transport(T::Closed(reason)) if !matches!(reason, CloseReason::Refused | CloseReason::ProtocolError) => {
            Outlook::Passing
        }
        ReplicateError::Transport(T::Unreachable { .. } | T::Timeout | T::LaneReset | T::Io { .. }) => Outlook::Passing,
        ReplicateError::PeerStopped(_) | ReplicateError::NoAddress(_) | ReplicateError::Partial(_) | ReplicateError::BrokeDown(_) => {
            Outlook::Passing
        }
        ReplicateError::Vault(VaultError::NoSpace(_) | VaultError::Busy(_)) => Outlook::Here,
        _ => Outlook::Lasting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn what_may_pass_is_told_from_what_would_be_the_same_again() {
        use {ReplicateError as R, TransportError as T};
        let io = T::Io { what: "the connection was cut", source: Arc::new(std::io::ErrorKind::UnexpectedEof.into()) };
        let passing = [
            R::Transport(io),
            R::Transport(T::Unreachable { causes: Vec::new() }),
            R::Transport(T::Closed(CloseReason::Shutdown)),
            R::PeerStopped("it restarts".into()),
            R::NoAddress("laptop".into()),
            R::Vault(VaultError::NoSpace("packs".into())),
        ];
        let lasting = [
            R::Transport(T::Refused),
            R::Transport(T::Closed(CloseReason::Refused)),
            R::Transport(T::Version),
            R::Fork("two events".into()),
            R::Fuse { deletions: 2, allowed: 1 },
            R::NotAllowed("removed".into()),
            R::Vault(VaultError::Keyless),
        ];
        assert!(passing.iter().all(|error| outlook(error) != Outlook::Lasting));
        assert!(lasting.iter().all(|error| outlook(error) == Outlook::Lasting));
    }

    /// Stops after some pauses.
    #[derive(Default)]
    struct Counting(Mutex<Vec<Duration>>);

    impl Observer for Counting {
        fn progress(&self, progress: Progress) {
            if let Progress::Waiting { pause, .. } = progress {
                self.0.lock().unwrap().push(pause);
            }
        }

        fn cancelled(&self) -> bool {
            self.0.lock().unwrap().len() >= 8
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_half_a_second_at_first_and_end_when_the_user_stops() {
        let dir = tempfile::tempdir().unwrap();
        let home = crate::home::Home::open(&dir.path().join("home")).unwrap();
        let options = crate::vault::InitOptions::for_this_device("v", "first");
        let vault = Vault::init(&dir.path().join("vault"), &home, options).unwrap().vault;
        let observer = Arc::new(Counting::default());
        let nowhere = || Err(ReplicateError::NoAddress("laptop".into()));
        let ended = keep_following(&vault, &nowhere, &Options::default(), observer.clone()).await;
        assert!(matches!(ended, Err(ReplicateError::Cancelled)));
        let pauses = observer.0.lock().unwrap().clone();
        let within = |pause: Duration, ms: u64| pause <= Duration::from_millis(ms) && pause >= Duration::from_millis(ms / 2);
        assert!(within(pauses[0], 200) && within(pauses[1], 400), "{pauses:?}");
        assert!(pauses[2..].iter().all(|pause| within(*pause, 500)), "{pauses:?}");
    }
}
