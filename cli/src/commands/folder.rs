//! `--watch` and `--materialize`: folders that are followed while something else runs.

use super::Session;
use crate::{
    args::FolderArgs,
    failure::Failure,
    render::{self, Format, Output, Talk},
};
use mirror_engine::{
    folder::{Flow, Folder, FolderObserver, FolderOptions, FolderStatus},
    vault::{DeleteLimit, Vault},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// The folders of one vault that are to be followed.
pub(super) struct Folders(Vec<(Folder, FolderOptions)>);

impl Folders {
    /// Checks what was typed before anything is done.
    ///
    /// # Errors
    /// When a folder is not there, lies in the vault, or cannot be followed with what this replica has.
    pub(super) fn open(vault: &Arc<Vault>, typed: &FolderArgs, limit: Option<DeleteLimit>) -> Result<Self, Failure> {
        let open = |dir: &Path, flow| {
            let options = FolderOptions { prefix: typed.prefix.clone(), delete_limit: limit, ..FolderOptions::new(flow) };
            Ok::<_, Failure>((Folder::open(Arc::clone(vault), dir, options.clone())?, options))
        };
        let flows = flows(typed.watch.as_deref(), typed.materialize.as_deref());
        if flows.is_empty() && typed.prefix.is_some() {
            return Err(
                Failure::usage("--prefix says which keys a folder holds, and there is none").hint("add --watch DIR or --materialize DIR")
            );
        }
        flows.iter().map(|(dir, flow)| open(dir, *flow)).collect::<Result<_, _>>().map(Self)
    }

    /// Runs `work` with the folders followed beside it.
    ///
    /// # Errors
    /// When the system gives no thread or timer for them.
    pub(super) fn followed_while<T>(&self, session: &Session, work: impl FnOnce() -> T) -> Result<T, Failure> {
        thread::scope(|scope| {
            let mut running = Vec::new();
            for (folder, options) in &self.0 {
                let teller = Teller::new(session, options);
                let begun = thread::Builder::new().name("folder".into()).spawn_scoped(scope, move || folder.run(&teller));
                match begun {
                    Ok(thread) => running.push(thread),
                    Err(error) => {
                        self.stop();
                        return Err(Failure::io("cannot start to follow a folder", &error));
                    }
                }
            }
            let done = work();
            self.stop();
            for thread in running {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(done)
        })
    }

    fn stop(&self) {
        self.0.iter().for_each(|(folder, _)| folder.stop());
    }
}

/// Which way changes go in each folder: both ways where it is the same that is watched and written.
pub(crate) fn flows(watched: Option<&Path>, written: Option<&Path>) -> Vec<(PathBuf, Flow)> {
    match (watched, written) {
        (Some(watched), Some(written)) if is_same(watched, written) => vec![(watched.to_owned(), Flow::Both)],
        _ => {
            let (inward, outward) = (watched.map(|dir| (dir.to_owned(), Flow::In)), written.map(|dir| (dir.to_owned(), Flow::Out)));
            inward.into_iter().chain(outward).collect()
        }
    }
}

/// Also while neither is there.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// Says what becomes of a folder.
struct Teller<'a> {
    options: &'a FolderOptions,
    output: Arc<Output>,
    talk: Talk,
    before: Mutex<FolderStatus>,
}

impl<'a> Teller<'a> {
    fn new(session: &Session, options: &'a FolderOptions) -> Self {
        Self { options, output: Arc::clone(&session.output), talk: session.talk.clone(), before: Mutex::default() }
    }
}

impl FolderObserver for Teller<'_> {
    fn changed(&self, status: &FolderStatus) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        match self.output.format() {
            // A reader of stdout that has gone does not end a follower.
            Format::Json => {
                let line = render::json_line(&render::folder_state(status, self.options, render::WAY_OUT));
                drop(self.output.line(&line).and_then(|()| self.output.flush()));
            }
            Format::Text => {
                let (notes, warnings) = render::folder_text(&before, status);
                notes.iter().for_each(|note| self.talk.note(note));
                warnings.iter().for_each(|warning| self.talk.warn(warning));
            }
        }
        *before = status.clone();
    }
}
