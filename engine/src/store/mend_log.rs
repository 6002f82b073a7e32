//! Reading the log where the index does not know it.
//!
//! Every event is put through the rules again: it follows its author's last one, what it depends on is held, its lists are in the log.
//! One that does not fit stays where it is and does not count; when a peer gives back what is missing before it, it comes again too.

use super::{
    Inner, LogPosition, Standing, StoreError,
    check::{Chain, Pending},
    heads::{self, HeadsFile},
    index::{EventPlace, EventRow, KnownHead, ListRow, lock},
    log::LogState,
    mend::{Changes, Repair},
    segment::{FILE_HEADER_BYTES, FileHeader, Found, HeaderState, Scan, SegmentKind},
};
use crate::{
    event::{Dot, Event, Heads},
    frame::{HEADER_BYTES, Kind},
    id::ListId,
    io::map::Map,
};
use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    sync::Arc,
};

/// Events and lists that are indexed together.
const ROWS_MAX: usize = 4_096;

/// What was read and is not indexed yet.
#[derive(Default)]
struct Rows {
    events: Vec<EventRow>,
    lists: Vec<ListRow>,
    list_ids: HashSet<[u8; 32]>,
    pending: Pending,
    /// Events that did not fit.
    left_out: u64,
}

impl Inner {
    /// Brings state and index up to what log and heads say. The caller holds the log's lock.
    pub(super) fn mend_log(&self, state: &mut LogState, changes: Changes, repairs: &mut Vec<Repair>) -> Result<(), StoreError> {
        let (on_disk, is_whole) = match heads::read(&self.heads_path(), &self.vault)? {
            HeadsFile::Whole(heads) => (heads, true),
            HeadsFile::Missing => (Heads::default(), false),
            HeadsFile::Damaged => (Heads::default(), false),
        };
        state.accepted = on_disk.clone();
        if !self.log_is_as_indexed(repairs)? || self.index_knows_left()? {
            self.index.forget_log()?;
        }
        self.read_log_tail(state, changes, repairs)?;
        self.expect_no_left(state);
        if !is_whole {
            repairs.push(Repair::harmless(
                super::HEADS_FILE,
                "it was missing or damaged and was made anew from the log; events lost before that cannot be told",
            ));
        }
        if changes == Changes::Make && (!is_whole || state.accepted != on_disk) {
            self.write_heads_if_possible(&state.accepted, repairs);
        }
        Ok(())
    }

    /// A full or read-only disk does not keep a vault from being read: nothing was acknowledged that the old file does not cover.
    fn write_heads_if_possible(&self, accepted: &Heads, repairs: &mut Vec<Repair>) {
        if let Err(error) = heads::write(&self.disk, &self.heads_path(), &self.vault, accepted) {
            repairs.push(Repair::harmless(super::HEADS_FILE, error.to_string()));
        }
    }

    /// Whether every segment that the index knows is there and as long as it was.
    fn log_is_as_indexed(&self, repairs: &mut Vec<Repair>) -> Result<bool, StoreError> {
        let mut as_indexed = true;
        for known in self.index.segments()? {
            let length = fs::metadata(self.path(SegmentKind::Log, known.segment)).map_or(0, |metadata| metadata.len());
            if length < known.offset {
                as_indexed = false;
                let what = if length == 0 { "it is gone" } else { "it is shorter than it was" };
                repairs.push(Repair::loss(SegmentKind::Log.file(known.segment), format!("{what}; peers may have its events")));
            }
        }
        Ok(as_indexed)
    }

    /// Reads what lies behind the place up to which the index knows the log. The caller holds the log's lock.
    pub(super) fn read_log_tail(&self, state: &mut LogState, changes: Changes, repairs: &mut Vec<Repair>) -> Result<(), StoreError> {
        (state.heads, state.end) = self.index.heads()?;
        let numbers = SegmentKind::Log.list(&self.dir)?;
        let first = state.end.segment.max(1);
        let last = numbers.last().copied().unwrap_or(0);
        let mut rows = Rows::default();
        for number in first..=last {
            if numbers.binary_search(&number).is_ok() {
                self.read_segment(state, &mut rows, number, if number == last { Place::Last } else { Place::Inner }, changes, repairs)?;
            } else if !repairs.iter().any(|repair| repair.file == SegmentKind::Log.file(number)) {
                repairs.push(Repair::loss(SegmentKind::Log.file(number), "it is gone; peers may have its events"));
            }
        }
        if rows.left_out > 0 {
            let what = format!("{} events that follow lost ones do not count until those are back", rows.left_out);
            repairs.push(Repair::harmless(SegmentKind::Log.directory(), what));
        }
        let held = state.held();
        state.accepted.join(&held);
        Ok(())
    }

    fn read_segment(
        &self,
        state: &mut LogState,
        rows: &mut Rows,
        number: u32,
        place: Place,
        changes: Changes,
        repairs: &mut Vec<Repair>,
    ) -> Result<(), StoreError> {
        let name = SegmentKind::Log.file(number);
        let path = self.dir.join(&name);
        let file = open(&path).map_err(|error| StoreError::io("open", &path, error))?;
        let length = file.metadata().map_err(|error| StoreError::io("read", &path, error))?.len();
        let limit = self.limit_of(state, number, length, repairs)?;
        let map = Map::open(&file, limit as usize).map_err(|error| StoreError::io("map", &path, error))?;
        match FileHeader::read(map.bytes(), SegmentKind::Log, &self.vault, &name)? {
            HeaderState::Whole(_) => {}
            HeaderState::Damaged => repairs.push(Repair::harmless(&name, "its header is damaged; its events are read all the same")),
            HeaderState::Short => {
                repairs.push(Repair::harmless(&name, "it was made by a process that crashed before it wrote to it"));
                if place == Place::Last && changes == Changes::Make {
                    let _ = fs::remove_file(&path);
                }
                return Ok(());
            }
        }
        let from = if state.end.segment == number { state.end.offset } else { FILE_HEADER_BYTES };
        if limit > from {
            // What is taken over must be durable before anything builds on it. A segment that another follows was, when that was begun.
            let doubtful = if place == Place::Last && changes == Changes::Make { from..limit } else { limit..limit };
            self.make_certain(&file, &path, doubtful, changes)?;
        }
        let end = self.read_frames(state, rows, map.bytes(), LogPosition { segment: number, offset: from }, repairs)?;
        if end < limit && place == Place::Last && changes == Changes::Make && limit == length {
            let _ = self.disk.truncate(&file, &path, end);
        }
        Ok(())
    }

    /// How much of segment `number` counts: all of it, unless the next one or a failed append of ours says less.
    fn limit_of(&self, state: &LogState, number: u32, length: u64, repairs: &mut Vec<Repair>) -> Result<u64, StoreError> {
        let name = SegmentKind::Log.file(number);
        if let Some(place) = state.given_up.filter(|place| place.segment == number) {
            return Ok(place.offset.min(length));
        }
        let mut next = [0; FILE_HEADER_BYTES as usize];
        let next_name = SegmentKind::Log.file(number + 1);
        let read = File::open(self.dir.join(&next_name)).and_then(|file| file.read_exact_at(&mut next, 0));
        if read.is_err() {
            return Ok(length);
        }
        let HeaderState::Whole(header) = FileHeader::read(&next, SegmentKind::Log, &self.vault, &next_name)? else { return Ok(length) };
        if header.follows > length && !repairs.iter().any(|repair| repair.file == name) {
            repairs.push(Repair::loss(&name, "it is shorter than it was; peers may have its events"));
        }
        Ok(header.follows.min(length))
    }

    /// Takes in the frames from `from` on; returns where the last good one ends.
    fn read_frames(
        &self,
        state: &mut LogState,
        rows: &mut Rows,
        bytes: &[u8],
        from: LogPosition,
        repairs: &mut Vec<Repair>,
    ) -> Result<u64, StoreError> {
        let name = SegmentKind::Log.file(from.segment);
        let mut end = from;
        for found in Scan::new(bytes, from.offset, 0) {
            match found {
                Found::Frame { header, offset } => {
                    let at = LogPosition { offset, ..from };
                    let place = EventPlace { at, length: header.frame_bytes() as u32, id: header.id };
                    end = place.next();
                    let record = &bytes[offset as usize + HEADER_BYTES..end.offset as usize];
                    self.read_record(state, rows, header.kind, place, record)?;
                }
                Found::Damage { offset, length, .. } => {
                    end.offset = offset + length;
                    repairs.push(Repair::harmless(&name, format!("{length} bytes at {offset} are damaged and were left out")));
                }
                Found::Torn { offset } => {
                    repairs.push(Repair::harmless(&name, format!("its end, from {offset} on, was torn by a crash and is cut off")));
                }
            }
            if rows.events.len() + rows.lists.len() >= ROWS_MAX {
                self.index_rows(rows, end)?;
            }
        }
        if end != state.end {
            self.index_rows(rows, end)?;
        }
        state.end = end;
        Ok(end.offset)
    }

    fn index_rows(&self, rows: &mut Rows, end: LogPosition) -> Result<(), StoreError> {
        self.index.add_log(&rows.events, &rows.lists, end)?;
        *rows = Rows { left_out: rows.left_out, ..Rows::default() };
        Ok(())
    }

    fn read_record(&self, state: &mut LogState, rows: &mut Rows, kind: Kind, place: EventPlace, record: &[u8]) -> Result<(), StoreError> {
        match kind {
            Kind::List => {
                rows.lists.push(ListRow(place));
                rows.list_ids.insert(place.id);
            }
            Kind::Event => match Event::from_stored(record.to_vec()) {
                Ok(event) => self.read_event(state, rows, place, &event)?,
                Err(_) => rows.left_out += 1,
            },
            // Not ours to judge: it has no place in a log and does no harm there.
            Kind::Chunk => {}
        }
        Ok(())
    }

    fn read_event(&self, state: &mut LogState, rows: &mut Rows, place: EventPlace, event: &Event) -> Result<(), StoreError> {
        let standing = {
            let aside = Arc::clone(&lock(&self.branches));
            if aside.was_left(&event.id()) {
                return Ok(());
            }
            let known = &|dot: &Dot| self.index.known(dot);
            Chain { held: &state.heads, accepted: &state.accepted, aside: &aside, pending: &rows.pending, known }.check(event)
        };
        match standing {
            Ok(Standing::New) if self.has_lists(rows, event)? => {
                rows.events.push(EventRow::new(event, place));
                rows.pending.add(event);
                let (sequence, lamport) = (event.header().sequence, event.header().lamport);
                state.heads.insert(event.author(), KnownHead { sequence, event: event.id(), lamport });
            }
            // Appended again after it had been left out.
            Ok(Standing::Held) => {}
            Err(error @ (StoreError::Index(_) | StoreError::Io { .. } | StoreError::Locked { .. })) => return Err(error),
            Ok(Standing::New) | Err(_) => rows.left_out += 1,
        }
        Ok(())
    }

    fn has_lists(&self, rows: &Rows, event: &Event) -> Result<bool, StoreError> {
        for list in &event.header().lists {
            let id: &ListId = &list.id;
            if !rows.list_ids.contains(id.as_bytes()) && self.index.list(id)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The segment that is written to: its end may be torn.
    Last,
    Inner,
}

fn open(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path).or_else(|_| File::open(path))
}
