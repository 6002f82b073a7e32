//! Where to look: what the system tells of changes, gathered until it is quiet.
//!
//! An event only ever says "look there". It may be missing, come twice or too late; what is true is on the disk. So nothing depends on its
//! kind, and when the system has lost some, all of the folder is looked at.

use super::look::Scope;
use crate::{
    limits::{FOLDER_BUSY_MS, FOLDER_PATHS_MAX, FOLDER_QUIET_MS},
    vault::writer_of,
};
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind};
use rustix::io::Errno;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// What the system tells of one folder.
pub(super) type Told = notify::Result<Event>;

/// Begins to listen. What happens from now on comes out of the receiver, which keeps the watcher.
///
/// # Errors
/// Why the system cannot tell of changes there.
pub(super) fn listen(root: &Path) -> Result<(RecommendedWatcher, mpsc::UnboundedReceiver<Told>), String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let tell = move |told: Told| {
        if told.as_ref().map_or(true, is_news) {
            // Nobody listens any more.
            let _ = sender.send(told);
        }
    };
    let mut watcher = RecommendedWatcher::new(tell, Config::default().with_follow_symlinks(false)).map_err(|error| explain(&error))?;
    watcher.watch(root, RecursiveMode::Recursive).map_err(|error| explain(&error))?;
    Ok((watcher, receiver))
}

/// What keeps the system from telling of everything.
pub(super) fn explain(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => "there are more directories than may be watched: raise fs.inotify.max_user_watches".into(),
        notify::ErrorKind::Io(error) if Errno::from_io_error(error) == Some(Errno::MFILE) => {
            "too many programs of this user watch something, or too many files are open: raise fs.inotify.max_user_instances".into()
        }
        _ => error.to_string(),
    }
}

/// Reading is no news, and neither is what is being written beside its place.
fn is_news(event: &Event) -> bool {
    let read = matches!(event.kind, EventKind::Access(access) if !matches!(access, AccessKind::Close(notify::event::AccessMode::Write)));
    let ours = !event.paths.is_empty() && event.paths.iter().all(|path| is_temporary(path));
    event.need_rescan() || !(read || ours)
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| writer_of(name).is_some())
}

/// What is to be looked at, and when.
#[derive(Debug, Default)]
pub(super) struct Dirt {
    whole: bool,
    paths: BTreeSet<PathBuf>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Dirt {
    /// Takes in what the system told.
    pub(super) fn hear(&mut self, told: Told, now: Instant) {
        match told {
            Ok(event) if event.need_rescan() => self.all(now),
            Ok(event) => self.add(event.paths.into_iter().filter(|path| !is_temporary(path)), now),
            Err(_) => self.all(now),
        }
    }

    /// Everything is to be looked at.
    pub(super) fn all(&mut self, now: Instant) {
        self.whole = true;
        self.paths.clear();
        self.stir(now);
    }

    /// `paths` are to be looked at.
    pub(super) fn add(&mut self, paths: impl IntoIterator<Item = PathBuf>, now: Instant) {
        for path in paths {
            self.stir(now);
            if !self.whole {
                self.paths.insert(path);
            }
        }
        if self.paths.len() > FOLDER_PATHS_MAX {
            self.all(now);
        }
    }

    /// What there is to look at is due now.
    pub(super) fn hurry(&mut self) {
        let quiet = Duration::from_millis(FOLDER_QUIET_MS);
        self.last = self.last.map(|last| last.checked_sub(quiet).unwrap_or(last));
    }

    fn stir(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// When to look; none if there is nothing to look at.
    pub(super) fn due(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        Some((first + Duration::from_millis(FOLDER_BUSY_MS)).min(last + Duration::from_millis(FOLDER_QUIET_MS)))
    }

    /// Where to look, which is nowhere then.
    pub(super) fn take(&mut self) -> Scope {
        let Self { whole, paths, .. } = std::mem::take(self);
        if whole { Scope::Whole } else { Scope::Paths(outermost(paths)) }
    }
}

/// Without those that lie in another.
fn outermost(paths: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::with_capacity(paths.len());
    for path in paths {
        // In order, what lies in a directory comes right after it.
        if !kept.last().is_some_and(|last| path.starts_with(last)) {
            kept.push(path);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, Flag};

    fn created(path: &str) -> Event {
        Event::new(EventKind::Create(CreateKind::File)).add_path(path.into())
    }

    #[test]
    fn it_is_looked_once_it_is_quiet_and_after_a_second_at_the_latest() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut dirt = Dirt::default();
        assert_eq!(dirt.due(), None);
        dirt.hear(Ok(created("/d/a")), at(0));
        assert_eq!(dirt.due(), Some(at(FOLDER_QUIET_MS)));
        dirt.hear(Ok(created("/d/b")), at(40));
        assert_eq!(dirt.due(), Some(at(40 + FOLDER_QUIET_MS)));
        dirt.hear(Ok(created("/d/c")), at(990));
        assert_eq!(dirt.due(), Some(at(FOLDER_BUSY_MS)));
        assert_eq!(dirt.take(), Scope::Paths(vec!["/d/a".into(), "/d/b".into(), "/d/c".into()]));
        assert_eq!(dirt.due(), None);
    }

    #[test]
    fn lost_events_and_too_many_paths_mean_everywhere() {
        let now = Instant::now();
        let mut dirt = Dirt::default();
        dirt.hear(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)), now);
        assert_eq!(dirt.take(), Scope::Whole);
        dirt.add((0..=FOLDER_PATHS_MAX).map(|n| PathBuf::from(format!("/d/{n}"))), now);
        assert_eq!(dirt.take(), Scope::Whole);
    }

    #[test]
    fn reading_and_half_files_of_ours_are_no_news_and_what_lies_in_a_directory_is_looked_at_with_it() {
        let opened = Event::new(EventKind::Access(AccessKind::Open(notify::event::AccessMode::Any))).add_path("/d/a".into());
        assert!(!is_news(&opened));
        assert!(!is_news(&created("/d/.mirror-1-2.part")));
        assert!(is_news(&created("/d/a")));
        let paths = ["/d/a", "/d/a/b", "/d/a/b/c", "/d/ab"].map(PathBuf::from);
        assert_eq!(outermost(paths.into_iter().collect()), ["/d/a", "/d/ab"].map(PathBuf::from));
    }
}
