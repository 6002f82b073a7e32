//! `sync --follow`: two replicas that stay the same by themselves, until the user stops it.

use super::{
    Session,
    folder::Folders,
    replicate::{block_on, lasting_fuse, report, sync_options},
    whereabouts::Whereabouts,
};
use crate::{
    args::{FolderArgs, MaxDelete, PeerOptions},
    bandwidth::Kept,
    failure::{Code, Failure},
    progress::Meter,
    render::{self, Extent, FollowState, Following, Format, Output, Talk},
};
use mirror_engine::{
    io::pages,
    limits::{FUSE_KEYS_MAX, FUSE_PERCENT},
    replicate::{self, Observer, Options, Progress, ReplicateError},
    session::Direction,
    vault::DeleteLimit,
};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) fn run(session: &Session, direction: Direction, options: &PeerOptions, folders: &FolderArgs) -> Result<Code, Failure> {
    if let Err(error) = pages::keep_small() {
        tracing::info!(%error, "memory comes in huge pages: more of it may be held than is used");
    }
    let vault = Arc::new(session.open()?);
    let whereabouts = Whereabouts::of(session, &vault, &options.peer, options.device)?;
    let limit = options.max_delete.unwrap_or(MaxDelete(Some(DeleteLimit::Share { percent: FUSE_PERCENT, keys: FUSE_KEYS_MAX })));
    let kept = Kept::to(options.bwlimit.as_ref(), &session.talk);
    let following = Options { fuse: lasting_fuse(&vault, limit)?, ..sync_options(direction, options, &kept) };
    let folders = Folders::open(&vault, folders, limit.0)?;
    let find = || whereabouts.target();
    let progress = session.transfer_progress("sync");
    let told = Arc::new(Teller::new(session, &options.peer, progress.meter()));
    let ended = folders.followed_while(session, || block_on(replicate::keep_following(&vault, &find, &following, told)))??;
    drop(progress);
    match ended {
        // The user's wish is the only good end that it has.
        Ok(summary) => report(session, "sync", &options.peer, Extent::Done, Ok(summary)).map(|_| Code::Interrupted),
        Err(ReplicateError::Cancelled) => Ok(Code::Interrupted),
        Err(error) => Err(error.into()),
    }
}

/// Says what becomes of the connection, once each time that it changes.
struct Teller {
    peer: String,
    meter: Arc<Meter>,
    output: Arc<Output>,
    talk: Talk,
    said: Mutex<Option<FollowState>>,
}

impl Teller {
    fn new(session: &Session, peer: &str, meter: Arc<Meter>) -> Self {
        Self { peer: peer.to_owned(), meter, output: Arc::clone(&session.output), talk: session.talk.clone(), said: Mutex::default() }
    }

    fn tell(&self, state: FollowState) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref().is_some_and(|said| said.says_the_same(&state)) {
            return;
        }
        let following = Following { peer: self.peer.clone(), state: state.clone() };
        *said = Some(state);
        match self.output.format() {
            // A reader of stdout that has gone does not end a follower.
            Format::Json => drop(self.output.line(&render::json_line(&following)).and_then(|()| self.output.flush())),
            Format::Text => self.talk.note(&following.to_text()),
        }
    }
}

impl Observer for Teller {
    fn progress(&self, progress: Progress) {
        match &progress {
            Progress::Identical { root } => self.tell(FollowState::Identical { root: root.to_string() }),
            Progress::Live => self.tell(FollowState::Live),
            Progress::Waiting { reason, pause } => {
                self.tell(FollowState::Waiting { reason: reason.clone(), pause_ms: pause.as_millis() as u64 });
            }
            _ => {}
        }
        self.meter.progress(progress);
    }

    fn cancelled(&self) -> bool {
        Observer::cancelled(&*self.meter)
    }
}
