//! Spans: wanted chunks as long runs of frames, for sending.
//!
//! ```text
//! want ─► locations, sorted by pack and offset ─► neighbours merged ─► one read into a buffer, every frame hashed there ─► Bytes
//! ```
//! Lists are in the order of their author's packs, so a whole list is usually a few long runs. A frame is checked at the moment it is
//! handed out, so nothing damaged is ever served.
//!
//! Read, not mapped: a page that is looked at once costs more to map and unmap than to copy, and the copy is still in the processor's
//! cache when it is hashed and sealed. (`docs/performance.md` has the figures.)

use super::{Inner, Location, Store, StoreError, packs::View};
use crate::{
    bitmap::Bitmap,
    clock,
    event::ChunkList,
    frame::{self, Header, Kind, Verified},
    id::ChunkId,
    io::piece::Piece,
};
use std::{io, sync::Arc, time::Duration};

/// Checked frames that lie side by side.
#[derive(Debug, Clone)]
pub struct Span {
    /// Whole frames, one after the other.
    pub piece: Piece,
    /// Their positions in the list, in the order of the frames.
    pub entries: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    entry: u32,
    id: ChunkId,
    place: Location,
}

/// Goes through the wanted entries of a list, see [`Store::spans`].
#[derive(Debug)]
pub struct Spans {
    inner: Arc<Inner>,
    wanted: Vec<Wanted>,
    /// How many of them have been dealt with.
    done: usize,
    max_bytes: u64,
    unavailable: Bitmap,
    damaged: Vec<(ChunkId, Location)>,
    reading: Duration,
}

impl Store {
    /// The entries of `list` in `want` as spans of at most `max_bytes` (a longer frame is a span of its own), in the order in which they
    /// lie in the packs. What is not here, or proves damaged, is left out and is in [`Spans::unavailable`] in the end.
    ///
    /// # Errors
    /// When the index fails.
    pub fn spans(&self, list: &ChunkList, want: &Bitmap, max_bytes: usize) -> Result<Spans, StoreError> {
        Ok(self.spans_each(&[(list, want)], max_bytes)?.remove(0))
    }

    /// [`Store::spans`] of each of `wants`, in their order, looked up together: for many short lists.
    ///
    /// # Errors
    /// When the index fails.
    pub fn spans_each(&self, wants: &[(&ChunkList, &Bitmap)], max_bytes: usize) -> Result<Vec<Spans>, StoreError> {
        let ids: Vec<ChunkId> = wants.iter().flat_map(|(list, want)| wanted_of(list, want)).map(|(_, id)| id).collect();
        let mut places = self.inner.locate(&ids)?.into_iter();
        let spans = wants.iter().map(|(list, want)| Spans::new(&self.inner, list, want, places.by_ref(), max_bytes));
        Ok(spans.collect())
    }
}

/// The entries of `list` that are in `want`, with their positions.
fn wanted_of<'l>(list: &'l ChunkList, want: &'l Bitmap) -> impl Iterator<Item = (u32, ChunkId)> + 'l {
    want.iter().filter_map(|position| list.entries().get(position as usize).map(|entry| (position, entry.id)))
}

impl Spans {
    fn new(inner: &Arc<Inner>, list: &ChunkList, want: &Bitmap, places: impl Iterator<Item = Option<Location>>, max_bytes: usize) -> Self {
        let mut unavailable = Bitmap::empty(list.entries().len());
        let mut wanted = Vec::new();
        for ((entry, id), place) in wanted_of(list, want).zip(places) {
            match place {
                Some(place) => wanted.push(Wanted { entry, id, place }),
                None => _ = unavailable.insert(entry),
            }
        }
        wanted.sort_unstable_by_key(|wanted| (wanted.place.pack, wanted.place.offset));
        let (inner, max_bytes) = (Arc::clone(inner), max_bytes as u64);
        Self { inner, wanted, done: 0, max_bytes, unavailable, damaged: Vec::new(), reading: Duration::ZERO }
    }

    /// Wanted entries that could not be handed out so far.
    pub fn unavailable(&self) -> &Bitmap {
        &self.unavailable
    }

    /// Those among them whose bytes are not what they should be, with where they lie: for [`Store::quarantine`].
    pub fn damaged(&self) -> &[(ChunkId, Location)] {
        &self.damaged
    }

    /// Time spent so far on reading packs, as opposed to checking them.
    pub fn reading(&self) -> Duration {
        self.reading
    }

    /// Wanted entries that have not been looked at yet.
    pub fn remaining(&self) -> usize {
        self.wanted.len() - self.done
    }

    /// Takes the next frames that lie side by side.
    fn next_run(&mut self) -> Vec<Wanted> {
        let mut run: Vec<Wanted> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.wanted.get(self.done) {
            let joins = run.last().is_none_or(|last| last.place.pack == next.place.pack && last.place.end() == next.place.offset);
            bytes += u64::from(next.place.length);
            if !joins || (!run.is_empty() && bytes > self.max_bytes) {
                break;
            }
            run.push(*next);
            self.done += 1;
        }
        run
    }

    /// The longest good beginning of `run`; what follows it goes back.
    fn check(&mut self, run: &[Wanted]) -> Result<Option<Span>, StoreError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(None) };
        // A pack that is shorter than it was still has the frames before its end.
        let view = match self.view(first.place.pack, last.place.end())? {
            Some(view) => view,
            None if run.len() > 1 => {
                self.put_back(run.len() - 1);
                return self.check(&run[..1]);
            }
            None => return Ok(self.refuse(first)),
        };
        let began = clock::now();
        let read = view.read(&self.inner.buffers, first.place.offset, last.place.end());
        self.reading += clock::since(began);
        let good = read.as_ref().map_or(0, |piece| count_good(&piece.bytes, run));
        let Some(mut piece) = read.ok().filter(|_| good > 0) else {
            self.put_back(run.len() - 1);
            return self.read_alone(first);
        };
        self.put_back(run.len() - good);
        piece.bytes.truncate((run[good - 1].place.end() - first.place.offset) as usize);
        Ok(Some(Span { piece, entries: run[..good].iter().map(|wanted| wanted.entry).collect() }))
    }

    /// A pack that may not be read is like one that is gone: the others are served.
    fn view(&self, pack: u32, end: u64) -> Result<Option<View>, StoreError> {
        match self.inner.view(pack, end) {
            Err(StoreError::Io { what, source }) if source.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!("{what}: {source}");
                Ok(None)
            }
            result => result,
        }
    }

    /// What is wrong with a run, be it one bad frame or a pack that has become shorter, is the matter of its first frame alone.
    fn read_alone(&mut self, wanted: &Wanted) -> Result<Option<Span>, StoreError> {
        match self.inner.read_frame(&wanted.id, &wanted.place) {
            Ok(bytes) => Ok(Some(Span { piece: bytes.into(), entries: vec![wanted.entry] })),
            Err(StoreError::DamagedChunk { .. }) => {
                self.damaged.push((wanted.id, wanted.place));
                Ok(self.refuse(wanted))
            }
            Err(error) => Err(error),
        }
    }

    fn refuse(&mut self, wanted: &Wanted) -> Option<Span> {
        self.unavailable.insert(wanted.entry);
        None
    }

    fn put_back(&mut self, count: usize) {
        self.done -= count;
    }
}

impl Iterator for Spans {
    type Item = Result<Span, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.remaining() > 0 {
            let run = self.next_run();
            if let Some(span) = self.check(&run).transpose() {
                return Some(span);
            }
        }
        None
    }
}

/// How many frames at the beginning of `run`, whose bytes these are, are the chunks that they should be.
fn count_good(bytes: &[u8], run: &[Wanted]) -> usize {
    let expected = |(header, frame): &(Header, &[u8]), wanted: &Wanted| {
        header.kind == Kind::Chunk && header.id == *wanted.id.as_bytes() && frame.len() == wanted.place.length as usize
    };
    let frames = frame::split(bytes).map_while(Result::ok).zip(run);
    let frames: Vec<(Header, &[u8])> = frames.take_while(|(frame, wanted)| expected(frame, wanted)).map(|(frame, _)| frame).collect();
    Verified::check_each(&frames).iter().take_while(|checked| checked.is_ok()).count()
}
