//! Reading the log: events in log order, by place, and what a peer lacks.

use super::{Inner, Store, StoreError, index::EventPlace, segment::SegmentKind};
use crate::{
    event::{ChunkList, Dot, Event, Frontier},
    frame::{Kind, Verified},
    id::{EventId, ListId},
};
use std::{fs::File, ops::ControlFlow, os::unix::fs::FileExt};

/// A place in the log: everything before it has been seen. Positions never change, so they can be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Number of the segment.
    pub segment: u32,
    /// Where in it.
    pub offset: u64,
}

impl LogPosition {
    /// Before the first event.
    pub const START: Self = Self { segment: 0, offset: 0 };
}

/// A page of events that a peer lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Events in log order, each with its lists.
    pub events: Vec<(Event, Vec<ChunkList>)>,
    /// Where to go on.
    pub next: LogPosition,
    /// Whether that was all there is now.
    pub done: bool,
}

impl Store {
    /// Events from `after` on in log order (what an event depends on comes before it), each with the position after it. Stops when their
    /// records exceed `max_bytes`, after one at least; empty at the end of the log.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when an event cannot be read.
    pub fn events_from(&self, after: LogPosition, max_bytes: usize) -> Result<Vec<(LogPosition, Event)>, StoreError> {
        let (places, _) = self.inner.page(after, max_bytes, usize::MAX, |_| true)?;
        let mut reader = Reader::new(&self.inner);
        places.into_iter().map(|place| Ok((place.next(), reader.event(&place)?))).collect()
    }

    /// Events from `after` on that `frontier` lacks, in log order, with their lists. Stops when the records exceed `max_bytes`, after
    /// one event at least. Costs what is lacking, not what is there.
    ///
    /// # Errors
    /// As [`Store::events_from`].
    pub fn events_beyond(&self, frontier: &Frontier, after: LogPosition, max_bytes: usize) -> Result<Batch, StoreError> {
        self.events_page(frontier, after, max_bytes, usize::MAX)
    }

    /// [`Store::events_beyond`] of at most `max_events`, of which there is one at least.
    ///
    /// # Errors
    /// As [`Store::events_from`].
    pub fn events_page(&self, frontier: &Frontier, after: LogPosition, max_bytes: usize, max_events: usize) -> Result<Batch, StoreError> {
        let held = self.frontier();
        let Some(first) = self.inner.index.first_beyond(frontier, &held)? else {
            return Ok(Batch { events: Vec::new(), next: self.inner.log_snapshot().end.max(after), done: true });
        };
        let from = after.max(first);
        let (places, mut done) = self.inner.page(from, max_bytes, max_events, |dot| !frontier.contains(&dot))?;
        let mut reader = Reader::new(&self.inner);
        let events = places.iter().map(|place| reader.event(place)).collect::<Result<Vec<_>, _>>()?;
        let lists = self.inner.index.lists(events.iter().flat_map(|event| &event.header().lists).map(|list| &list.id))?;
        let mut lists = lists.into_iter();
        let (mut page, mut next, mut bytes) = (Vec::with_capacity(events.len()), from, 0);
        for (event, place) in events.into_iter().zip(&places) {
            let named = event.header().lists.iter().zip(lists.by_ref());
            let named = named.map(|(list, place)| reader.list(&list.id, place)).collect::<Result<Vec<_>, _>>()?;
            bytes += event.record().len() + named.iter().map(|list| list.entries().len() * 36).sum::<usize>();
            page.push((event, named));
            next = place.next();
            if bytes >= max_bytes && page.len() < places.len() {
                done = false;
                break;
            }
        }
        Ok(Batch { events: page, next, done })
    }

    /// Where the log ends, as of the last refresh or append.
    pub fn log_end(&self) -> LogPosition {
        self.inner.log_snapshot().end
    }

    /// Where the first event begins that `frontier` lacks; none if it lacks nothing. Costs a look-up an author.
    ///
    /// # Errors
    /// When the index fails.
    pub fn first_beyond(&self, frontier: &Frontier) -> Result<Option<LogPosition>, StoreError> {
        self.inner.index.first_beyond(frontier, &self.frontier())
    }

    /// The event at `dot`, if it is held.
    ///
    /// # Errors
    /// As [`Store::events_from`].
    pub fn event(&self, dot: &Dot) -> Result<Option<Event>, StoreError> {
        let place = self.inner.index.event_at(dot)?;
        place.map(|place| Reader::new(&self.inner).event(&place)).transpose()
    }

    /// The event with this identifier, if it is held.
    ///
    /// # Errors
    /// As [`Store::events_from`].
    pub fn event_by_id(&self, id: &EventId) -> Result<Option<Event>, StoreError> {
        let place = self.inner.index.event_with(id)?;
        place.map(|place| Reader::new(&self.inner).event(&place)).transpose()
    }

    /// A chunk list that some event names, if it is held.
    ///
    /// # Errors
    /// As [`Store::events_from`].
    pub fn list(&self, id: &ListId) -> Result<Option<ChunkList>, StoreError> {
        Ok(self.lists([id])?.pop().flatten())
    }

    /// [`Store::list`] of each of `ids`, in their order, looked up together.
    ///
    /// # Errors
    /// As [`Store::events_from`].
    pub fn lists<'i>(&self, ids: impl IntoIterator<Item = &'i ListId>) -> Result<Vec<Option<ChunkList>>, StoreError> {
        let mut reader = Reader::new(&self.inner);
        let places = self.inner.index.lists(ids)?;
        places.iter().map(|place| place.as_ref().map(|place| reader.list_at(place)).transpose()).collect()
    }
}

impl Inner {
    /// Places of the events from `from` on that are `wanted`, up to `max_bytes` and `max_events`, one at least; and whether there are no
    /// more.
    pub(super) fn page(
        &self,
        from: LogPosition,
        max_bytes: usize,
        max_events: usize,
        wanted: impl Fn(Dot) -> bool,
    ) -> Result<(Vec<EventPlace>, bool), StoreError> {
        let (mut places, mut bytes, mut done) = (Vec::new(), 0, true);
        self.index.walk(from, |dot, place| {
            if !wanted(dot) {
                return ControlFlow::Continue(());
            }
            if !places.is_empty() && (places.len() >= max_events || bytes + place.length as usize > max_bytes) {
                done = false;
                return ControlFlow::Break(());
            }
            bytes += place.length as usize;
            places.push(place);
            ControlFlow::Continue(())
        })?;
        Ok((places, done))
    }
}

/// Reads frames of the log; keeps the last segment open.
pub(super) struct Reader<'a> {
    inner: &'a Inner,
    open: Option<(u32, File)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        Self { inner, open: None }
    }

    pub(super) fn event(&mut self, place: &EventPlace) -> Result<Event, StoreError> {
        let record = self.record(place, Kind::Event)?;
        Event::from_stored(record).map_err(|error| damaged(place, &error.to_string()))
    }

    pub(super) fn list(&mut self, id: &ListId, place: Option<EventPlace>) -> Result<ChunkList, StoreError> {
        let place = place.ok_or_else(|| StoreError::Damaged(format!("the log does not hold chunk list {id}")))?;
        self.list_at(&place)
    }

    pub(super) fn list_at(&mut self, place: &EventPlace) -> Result<ChunkList, StoreError> {
        let record = self.record(place, Kind::List)?;
        ChunkList::from_record(&record).map_err(|error| damaged(place, &error.to_string()))
    }

    fn record(&mut self, place: &EventPlace, kind: Kind) -> Result<Vec<u8>, StoreError> {
        let path = self.inner.path(SegmentKind::Log, place.at.segment);
        if self.open.as_ref().is_none_or(|(number, _)| *number != place.at.segment) {
            let file = File::open(&path).map_err(|error| StoreError::io("open", &path, error))?;
            self.open = Some((place.at.segment, file));
        }
        let Some((_, file)) = &self.open else { return Err(damaged(place, "it cannot be opened")) };
        let mut frame = vec![0; place.length as usize];
        file.read_exact_at(&mut frame, place.at.offset).map_err(|error| damaged(place, &error.to_string()))?;
        match Verified::check(&frame) {
            Ok(verified) if verified.header().id == place.id && verified.header().kind == kind => Ok(verified.record().to_vec()),
            Ok(_) => Err(damaged(place, "another record lies there")),
            Err(error) => Err(damaged(place, &error.to_string())),
        }
    }
}

fn damaged(place: &EventPlace, reason: &str) -> StoreError {
    let file = SegmentKind::Log.file(place.at.segment);
    StoreError::Damaged(format!("{} is damaged at {}: {reason}", file.display(), place.at.offset))
}
