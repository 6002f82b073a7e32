//! Appending to the log: what makes events acknowledged.
//!
//! Under one lock, of this process and of all others: see what others appended, check, write lists and events in one go, sync, replace
//! `heads`, return. The index follows when it can; it is scanned up to date otherwise.
//!
//! A failed append leaves nothing behind: the segment is cut back to where it was, and given up. The next append begins a new segment
//! whose header says how much of the old one counts, so even if the cut failed, no event that was not acknowledged can come back and
//! stand beside the one that took its number.

use super::{
    FILE_MODE, Inner, LogPosition, Pending, Standing, Store, StoreError,
    check::Chain,
    dot_of, head_of, heads,
    index::{EventPlace, EventRow, KnownHead, ListRow, lock},
    mend::Changes,
    segment::{FILE_HEADER_BYTES, FileHeader, SegmentKind},
};
use crate::{
    event::{ChunkList, Dot, Event, Frontier, Heads},
    id::{ChunkId, EventId, ReplicaId},
    limits::SEGMENT_BYTES_MAX,
    members::Roster,
};
use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, OpenOptions},
    io,
    path::PathBuf,
    sync::{Arc, MutexGuard},
};

/// The place of an author's next event, and what it has to say of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub sequence: u64,
    /// The author's event before it.
    pub previous: Option<EventId>,
    /// One more than that of everything held.
    pub lamport: u64,
    /// Everything held, without the author itself.
    pub deps: Frontier,
}

/// What this process knows of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct LogState {
    pub(super) heads: BTreeMap<ReplicaId, KnownHead>,
    /// What the `heads` file says, and everything held.
    pub(super) accepted: Heads,
    /// Up to where the log holds what counts.
    pub(super) end: LogPosition,
    /// Who is in by the membership events of the log; none until the store was told how to read them.
    pub(super) roster: Option<Arc<Roster>>,
    /// Up to where the log was searched for them.
    pub(super) roster_to: LogPosition,
    /// Where the log ended when an append failed. No more is written to that segment, and what lies behind is not read.
    pub(super) given_up: Option<LogPosition>,
}

impl LogState {
    pub(super) fn held(&self) -> Heads {
        head_map(&self.heads)
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.is_some_and(|place| place.segment == self.end.segment)
    }

    pub(super) fn frontier(&self) -> Frontier {
        self.heads.iter().map(|(author, head)| dot_of(author, head)).collect()
    }
}

/// The log's state, for one thread; with the file's lock also among processes. Readers see the state when it is released.
pub(super) struct LogGuard<'a> {
    inner: &'a Inner,
    pub(super) state: MutexGuard<'a, LogState>,
    locked: Option<&'a File>,
}

impl LogGuard<'_> {
    /// Lets readers see who is in as of this moment: whoever makes an event now has to know it, and another process may have changed it
    /// just before.
    fn show_membership(&self) {
        let mut shown = lock(&self.inner.log_snapshot);
        if shown.roster.as_ref().map(Arc::as_ptr) != self.state.roster.as_ref().map(Arc::as_ptr) {
            *shown = Arc::new(self.state.clone());
        }
    }
}

impl Drop for LogGuard<'_> {
    fn drop(&mut self) {
        *lock(&self.inner.log_snapshot) = Arc::new(self.state.clone());
        if let Some(file) = self.locked {
            let _ = file.unlock();
        }
        let end = self.state.end;
        self.inner.grown.send_if_modified(|told| std::mem::replace(told, end) != end);
    }
}

/// Frames to be appended, and the rows that say where they will lie.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    events: Vec<EventRow>,
    lists: Vec<ListRow>,
    list_ids: HashSet<[u8; 32]>,
    /// The newest event of each author in it.
    heads: BTreeMap<ReplicaId, KnownHead>,
}

impl Group {
    fn place(&mut self, frame: &[u8], id: [u8; 32]) -> EventPlace {
        let at = LogPosition { segment: 0, offset: self.bytes.len() as u64 };
        self.bytes.extend_from_slice(frame);
        EventPlace { at, length: frame.len() as u32, id }
    }

    fn add_list(&mut self, list: &ChunkList) {
        let frame = list.to_frame();
        if self.list_ids.insert(frame.id()) {
            let place = self.place(frame.verified().bytes(), frame.id());
            self.lists.push(ListRow(place));
        }
    }

    fn add_event(&mut self, event: &Event) {
        let place = self.place(event.to_frame().verified().bytes(), *event.id().as_bytes());
        let (dot, lamport) = (event.dot(), event.header().lamport);
        self.events.push(EventRow::new(event, place));
        self.heads.insert(dot.author, KnownHead { sequence: dot.sequence, event: event.id(), lamport });
    }

    /// Turns places in the group into places in the log, now that it is known where the group begins.
    fn settle(&mut self, start: LogPosition) {
        let places = self.events.iter_mut().map(|row| &mut row.place).chain(self.lists.iter_mut().map(|row| &mut row.0));
        places.for_each(|place| place.at = LogPosition { segment: start.segment, offset: start.offset + place.at.offset });
    }
}

impl Store {
    /// Sees what other processes have appended to the log since. Chunks that they publish are seen without.
    ///
    /// # Errors
    /// When the log or the index cannot be read.
    pub fn refresh(&self) -> Result<(), StoreError> {
        let behind = {
            let mut guard = self.inner.lock_state();
            self.inner.index.follow_replacement(&self.inner.vault)?;
            self.inner.take_from_index(&mut guard.state)?;
            self.inner.follow_membership(&mut guard.state)?;
            self.inner.is_behind(&guard.state)?
        };
        if behind {
            self.inner.lock_log()?;
        }
        Ok(())
    }

    /// Appends the next event of `author`. `make` gets its place and builds, seals and signs it, under the log's lock. Every chunk of its
    /// lists must be published already. On return it is acknowledged.
    ///
    /// # Errors
    /// What `make` returns; [`StoreError::Rollback`] when acknowledged events of `author` were lost; otherwise as
    /// [`Store::append_foreign`].
    pub fn append_own<E: From<StoreError>>(
        &self,
        author: &ReplicaId,
        make: &mut dyn FnMut(Slot) -> Result<(Event, Vec<ChunkList>), E>,
    ) -> Result<Event, E> {
        let mut guard = self.inner.lock_log()?;
        guard.show_membership();
        let slot = next_slot(&guard.state, author)?;
        let (event, lists) = make(slot.clone())?;
        let header = event.header();
        if event.author() != *author || header.sequence != slot.sequence || header.deps != slot.deps {
            return Err(StoreError::InvalidEvent { dot: event.dot(), reason: "it was not made for its place" }.into());
        }
        self.inner.append(&mut guard.state, &[(&event, &lists)])?;
        Ok(event)
    }

    /// Appends events of other authors, in an order in which what they depend on comes first, with the lists that they name. Those held
    /// already are skipped. One sync for all; on return they are acknowledged. All or none.
    ///
    /// Returns the dots that are new.
    ///
    /// # Errors
    /// As [`Store::check_event`]; [`StoreError::MissingChunks`] unless every chunk of every list is published; a failed write or sync,
    /// after which nothing was appended.
    pub fn append_foreign(&self, events: &[(Event, Vec<ChunkList>)]) -> Result<Vec<Dot>, StoreError> {
        let mut guard = self.inner.lock_log()?;
        let events: Vec<(&Event, &[ChunkList])> = events.iter().map(|(event, lists)| (event, lists.as_slice())).collect();
        self.inner.append(&mut guard.state, &events)
    }
}

fn next_slot(state: &LogState, author: &ReplicaId) -> Result<Slot, StoreError> {
    let head = state.heads.get(author);
    let held = head.map_or(0, |head| head.sequence);
    let accepted = state.accepted.0.get(author).map_or(0, |head| head.sequence);
    if accepted > held {
        return Err(StoreError::Rollback { author: *author, held, accepted });
    }
    let highest = state.heads.values().map(|head| head.lamport).max().unwrap_or(0);
    let deps = state.frontier().without(author);
    Ok(Slot { sequence: held + 1, previous: head.map(|head| head.event), lamport: highest + 1, deps })
}

impl Inner {
    /// Takes the lock and sees what others have appended.
    pub(super) fn lock_log(&self) -> Result<LogGuard<'_>, StoreError> {
        let mut guard = self.lock_log_only()?;
        self.index.follow_replacement(&self.vault)?;
        self.take_from_index(&mut guard.state)?;
        if self.is_behind(&guard.state)? {
            let mut repairs = Vec::new();
            self.read_branches()?;
            self.read_log_tail(&mut guard.state, Changes::Make, &mut repairs)?;
            repairs.iter().for_each(|repair| tracing::warn!(file = %repair.file.display(), "{}", repair.what));
        }
        self.follow_membership(&mut guard.state)?;
        Ok(guard)
    }

    /// Takes the lock: first among threads, then among processes.
    pub(super) fn lock_log_only(&self) -> Result<LogGuard<'_>, StoreError> {
        let mut guard = self.lock_state();
        if let Some(file) = &self.log_lock {
            wait_for_lock(file).map_err(|error| StoreError::io("lock", &self.dir.join(super::LOCK_FILE), error))?;
            guard.locked = Some(file);
        }
        Ok(guard)
    }

    /// Takes the lock among threads alone: nothing may be appended.
    pub(super) fn lock_state(&self) -> LogGuard<'_> {
        LogGuard { inner: self, state: lock(&self.log), locked: None }
    }

    /// Takes over what the index knows, unless this process knows more: its last write to the index may have failed.
    pub(super) fn take_from_index(&self, state: &mut LogState) -> Result<(), StoreError> {
        if self.index.log_end()? > state.end {
            (state.heads, state.end) = self.index.heads()?;
            let held = state.held();
            state.accepted.join(&held);
            // The other process may have left a branch of a forked log.
            self.read_branches()?;
            self.expect_no_left(state);
        }
        Ok(())
    }

    /// Whether there is something in the log that the index does not know.
    fn is_behind(&self, state: &LogState) -> Result<bool, StoreError> {
        let length = |number| fs::metadata(self.path(SegmentKind::Log, number)).map(|metadata| metadata.len());
        let end = state.end;
        let longer = end.segment > 0 && !state.is_given_up() && length(end.segment).is_ok_and(|length| length > end.offset);
        Ok(longer || length(end.segment + 1).is_ok() || self.index.log_end()? < end)
    }

    /// Checks and appends `events`; all or none.
    fn append(&self, state: &mut LogState, events: &[(&Event, &[ChunkList])]) -> Result<Vec<Dot>, StoreError> {
        let mut group = self.compose(state, events)?;
        if group.events.is_empty() {
            return Ok(Vec::new());
        }
        let end = self.write_group(state, &mut group)?;
        let mut accepted = state.accepted.clone();
        accepted.join(&head_map(&group.heads));
        if let Err(error) = heads::write(&self.disk, &self.heads_path(), &self.vault, &accepted) {
            if self.heads_are_back(&state.accepted) {
                self.take_back(state, end.segment);
            }
            return Err(error);
        }
        state.heads.append(&mut group.heads);
        (state.accepted, state.end) = (accepted, end);
        events.iter().for_each(|(event, _)| state.enrol(event));
        // A cache: what it lacks is scanned by whoever looks next.
        if let Err(error) = self.index.add_log(&group.events, &group.lists, end) {
            tracing::warn!("the index is behind the log: {error}");
        }
        Ok(group.events.iter().map(|row| row.dot).collect())
    }

    /// What is asked of the index is asked for all events together: by itself each question costs more than what it is about.
    fn compose(&self, state: &LogState, events: &[(&Event, &[ChunkList])]) -> Result<Group, StoreError> {
        let (fitting, refused) = self.fitting(state, events);
        // An event whose chunks are missing comes before one that does not fit at all: the first reason is the one that is told.
        self.require_chunks(&fitting)?;
        refused.map_or(Ok(()), Err)?;
        let named = || fitting.iter().flat_map(|(event, _)| &event.header().lists);
        let known = self.index.lists(named().map(|list| &list.id))?;
        let mut known = known.iter();
        let mut group = Group::default();
        for (event, lists) in &fitting {
            lists.iter().zip(known.by_ref()).filter(|(_, known)| known.is_none()).for_each(|(list, _)| group.add_list(list));
            group.add_event(event);
        }
        Ok(group)
    }

    /// The new ones of `events` up to the first that may not be appended, and why not.
    fn fitting<'e>(
        &self,
        state: &LogState,
        events: &[(&'e Event, &'e [ChunkList])],
    ) -> (Vec<(&'e Event, &'e [ChunkList])>, Option<StoreError>) {
        let mut pending = Pending::new();
        let mut fitting = Vec::with_capacity(events.len());
        for (event, lists) in events {
            match self.admit(state, &pending, event, lists) {
                Ok(Standing::New) => {
                    pending.add(event);
                    fitting.push((*event, *lists));
                }
                Ok(Standing::Held) => {}
                Err(error) => return (fitting, Some(error)),
            }
        }
        (fitting, None)
    }

    /// Whether `event` fits the log, and its lists are those that it names.
    fn admit(&self, state: &LogState, pending: &Pending, event: &Event, lists: &[ChunkList]) -> Result<Standing, StoreError> {
        let dot = event.dot();
        if event.header().vault != self.vault {
            return Err(StoreError::WrongVault("the event".to_owned()));
        }
        let aside = Arc::clone(&lock(&self.branches));
        let chain = Chain { held: &state.heads, accepted: &state.accepted, aside: &aside, pending, known: &|dot| self.index.known(dot) };
        if chain.check(event)? == Standing::Held {
            return Ok(Standing::Held);
        }
        pending.allow(state.roster.as_ref(), event)?;
        if !event.header().lists.iter().copied().eq(lists.iter().map(ChunkList::reference)) {
            return Err(StoreError::InvalidEvent { dot, reason: "its chunk lists are not those that it names" });
        }
        Ok(Standing::New)
    }

    /// Every chunk of every list has to be published.
    fn require_chunks(&self, events: &[(&Event, &[ChunkList])]) -> Result<(), StoreError> {
        let lists: Vec<&ChunkList> = events.iter().flat_map(|(_, lists)| *lists).collect();
        let lacking = super::lacking(&lists, |ids| self.index.locate(ids))?;
        let mut lacking = lacking.iter();
        for (event, lists) in events {
            let absent =
                lists.iter().zip(lacking.by_ref()).flat_map(|(list, lacking)| lacking.iter().map(|at| list.entries()[at as usize].id));
            let absent: Vec<ChunkId> = absent.collect();
            if let Some(first) = absent.first() {
                return Err(StoreError::MissingChunks { event: event.dot(), missing: absent.len() as u64, first: *first });
            }
        }
        Ok(())
    }

    /// Writes and syncs; returns where the log ends then. After a failure nothing was appended.
    fn write_group(&self, state: &mut LogState, group: &mut Group) -> Result<LogPosition, StoreError> {
        let target = self.open_target(state, group.bytes.len() as u64)?;
        group.settle(target.start);
        if let Err(error) = self.write_to(&target, &group.bytes) {
            self.take_back(state, target.start.segment);
            return Err(error);
        }
        Ok(LogPosition { offset: target.start.offset + group.bytes.len() as u64, ..target.start })
    }

    fn open_target(&self, state: &LogState, bytes: u64) -> Result<Target, StoreError> {
        let LogPosition { segment, offset } = state.end;
        if segment > 0 && !state.is_given_up() && offset + bytes <= SEGMENT_BYTES_MAX {
            let path = self.path(SegmentKind::Log, segment);
            let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| StoreError::io("open", &path, error))?;
            return Ok(Target { file, path, start: state.end, header: None });
        }
        let number = segment + 1;
        let path = self.path(SegmentKind::Log, number);
        // What reading the tail did not take for a segment is a file without a header, left by a crash.
        let _ = fs::remove_file(&path);
        let file = self.disk.create_new(&path, FILE_MODE).map_err(|error| StoreError::io("create", &path, error))?;
        let header = FileHeader { kind: SegmentKind::Log, number, follows: offset, vault: self.vault }.to_bytes();
        Ok(Target { file, path, start: LogPosition { segment: number, offset: FILE_HEADER_BYTES }, header: Some(header) })
    }

    fn write_to(&self, target: &Target, bytes: &[u8]) -> Result<(), StoreError> {
        let Target { file, path, start, header } = target;
        let written = match header {
            Some(header) => self.disk.write_all_at(file, path, &[header, bytes], 0),
            None => self.disk.write_all_at(file, path, &[bytes], start.offset),
        };
        written.map_err(|error| StoreError::io("write", path, error))?;
        self.disk.sync_data(file, path).map_err(|error| StoreError::io("sync", path, error))?;
        if header.is_some() {
            let directory = self.dir.join(SegmentKind::Log.directory());
            self.disk.sync_dir(&directory).map_err(|error| StoreError::io("sync", &directory, error))?;
        }
        Ok(())
    }

    /// After a failed write `heads` is the old file, or the new one whose directory entry could not be synced. Makes it the old one, so
    /// that the log may be cut: cut behind heads that are ahead, it would look like a loss. Returns whether that is so; if not, the
    /// events stay in the log and are found there, whole, by whoever looks next.
    fn heads_are_back(&self, accepted: &Heads) -> bool {
        let ahead = || match heads::read(&self.heads_path(), &self.vault) {
            Ok(heads::HeadsFile::Whole(found)) => {
                found.0.iter().any(|(author, head)| accepted.0.get(author).is_none_or(|known| known.sequence < head.sequence))
            }
            Ok(heads::HeadsFile::Missing | heads::HeadsFile::Damaged) => false,
            Err(_) => true,
        };
        // What it fails with matters no more than what came of it.
        !ahead() || {
            let _ = heads::write(&self.disk, &self.heads_path(), &self.vault, accepted);
            !ahead()
        }
    }

    /// Undoes a failed append to segment `written`, as far as the disk lets us, and goes on in a new one.
    fn take_back(&self, state: &mut LogState, written: u32) {
        let path = self.path(SegmentKind::Log, written);
        if written > state.end.segment {
            let _ = fs::remove_file(&path);
            return;
        }
        state.given_up = Some(state.end);
        if let Ok(file) = OpenOptions::new().write(true).open(&path) {
            let _ = self.disk.truncate(&file, &path, state.end.offset);
        }
    }
}

fn wait_for_lock(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A segment that is open for an append.
struct Target {
    file: File,
    path: PathBuf,
    start: LogPosition,
    /// Of a new segment, still to be written.
    header: Option<[u8; FILE_HEADER_BYTES as usize]>,
}

fn head_map(heads: &BTreeMap<ReplicaId, KnownHead>) -> Heads {
    Heads(heads.iter().map(|(author, head)| (*author, head_of(head))).collect())
}
