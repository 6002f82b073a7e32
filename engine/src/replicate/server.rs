//! The sending side of one session: a thread that reads events from the log and chunks from packs.
//!
//! Chunks leave as spans: runs of frames as they lie in a mapped pack, checked here, so that a damaged one is never sent and the
//! network thread never waits for a page. A bounded queue to the lanes holds the reading back.

use super::{ReplicateError, failure::Failures, outgoing::Gauge};
use crate::{
    bitmap::Bitmap,
    clock,
    event::{ChunkList, Event, Frontier, ListRef},
    io::piece::Piece,
    limits::{MIB, SLOWEST_BYTES_PER_S, STALL_MS},
    meter::{Meter, Work},
    session::{Cursor, Done, LoadedEvent, Via},
    store::{LogPosition, Span, Spans, Store, StoreError},
    transport::TransportError,
};
use bytes::{Bytes, BytesMut};
use std::{
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::SendTimeoutError},
};

/// Most bytes of one span: enough to amortise its way, few enough that lanes share the work.
const SPAN_BYTES_MAX: usize = MIB;

/// What the server does, in order.
#[derive(Debug)]
pub(super) enum Job {
    /// Read events.
    Load { beyond: Frontier, after: Option<Cursor>, bytes_max: usize, events_max: usize },
    /// Send chunks.
    Serve { list: ListRef, want: Bitmap, via: Via },
}

/// What the server's thread has to say at its end.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Served {
    /// Chunks that the events named which were sent.
    pub(super) offered: u64,
    /// Chunks handed out.
    pub(super) chunks: u64,
    /// Bytes of their frames.
    pub(super) bytes: u64,
}

/// Called with chunks and bytes as they are handed out.
pub(super) type OnSent = Box<dyn Fn(u64, u64) + Send>;

pub(super) struct Server {
    pub(super) store: Arc<Store>,
    pub(super) done: mpsc::UnboundedSender<Done>,
    pub(super) spans: mpsc::Sender<Piece>,
    pub(super) failures: Failures,
    pub(super) on_sent: OnSent,
    /// What waits on the control stream, where inline chunks go.
    pub(super) waiting: Gauge,
    /// Bytes a second that the user lets us send.
    pub(super) rate: Option<u64>,
    /// The runtime whose tasks send the spans.
    pub(super) runtime: Handle,
    pub(super) meter: Arc<Meter>,
}

/// Why the server could not do its job.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The peer asked for chunks and does not take them.
    #[error("the peer does not take what it asked for")]
    Stalled,
}

impl Server {
    /// Works until nobody can ask any more.
    pub(super) fn run(self, jobs: Receiver<Job>) -> Served {
        let mut served = Served::default();
        for job in jobs {
            let result = match job {
                Job::Load { beyond, after, bytes_max, events_max } => {
                    self.load(&beyond, after, bytes_max, events_max).inspect(|done| served.offered += offered(done))
                }
                Job::Serve { list, want, via } => self.serve(&list, &want, via, &mut served),
            };
            let done = result.unwrap_or_else(|error| {
                match error {
                    ServeError::Store(error) => self.failures.here(error),
                    ServeError::Stalled => self.failures.note(ReplicateError::Transport(TransportError::Timeout)),
                }
                Done::Failed { reason: self.failures.text() }
            });
            if self.done.send(done).is_err() {
                break;
            }
        }
        served
    }

    fn load(&self, beyond: &Frontier, after: Option<Cursor>, bytes_max: usize, events_max: usize) -> Result<Done, ServeError> {
        let start = after.map_or(LogPosition::START, |Cursor(segment, offset)| LogPosition { segment: segment as u32, offset });
        let (mut events, mut bytes, mut position) = (Vec::new(), 0, start);
        loop {
            // One event at a time, so that both bounds hold and the position after the last is known.
            let batch = self.store.events_beyond(beyond, position, 1)?;
            position = batch.next;
            let page: Vec<LoadedEvent> = batch.events.into_iter().map(loaded).collect();
            bytes += page.iter().map(LoadedEvent::bytes).sum::<usize>();
            events.extend(page);
            if batch.done {
                return Ok(Done::Events { events, next: None });
            }
            if bytes >= bytes_max || events.len() >= events_max {
                return Ok(Done::Events { events, next: Some(Cursor(u64::from(position.segment), position.offset)) });
            }
        }
    }

    fn serve(&self, reference: &ListRef, want: &Bitmap, via: Via, served: &mut Served) -> Result<Done, ServeError> {
        let Some(list) = self.store.list(&reference.id)?.filter(|list| list.reference() == *reference) else {
            return Ok(Done::UnknownList { list: reference.id });
        };
        if via == Via::Inline {
            self.waiting.wait_for_room();
        }
        let mut inline = BytesMut::new();
        let mut total = 0;
        let mut spans = self.store.spans(&list, want, SPAN_BYTES_MAX)?;
        while let Some(span) = self.metered(&mut spans)? {
            let (chunks, bytes) = (span.entries.len() as u64, span.piece.bytes.len() as u64);
            total += bytes;
            match via {
                Via::Inline => inline.extend_from_slice(&span.piece.bytes),
                Via::Lanes => {
                    match self.runtime.block_on(self.spans.send_timeout(span.piece, self.patience(bytes))) {
                        Ok(()) => {}
                        // Lanes that are gone mean that the connection is: the session learns it there.
                        Err(SendTimeoutError::Closed(_)) => break,
                        Err(SendTimeoutError::Timeout(_)) => return Err(ServeError::Stalled),
                    }
                }
            }
            served.chunks += chunks;
            served.bytes += bytes;
            (self.on_sent)(chunks, bytes);
        }
        // Not sent, and not found again: the next session asks whoever holds it. What fails here is found again by the next who reads.
        if let Err(error) = self.store.quarantine(spans.damaged()) {
            tracing::warn!(%error, "damaged chunks were not put aside");
        }
        let unavailable = spans.unavailable().clone();
        Ok(match via {
            Via::Lanes => Done::Served { list: reference.id, unavailable, bytes: total },
            Via::Inline => Done::Inline { list: reference.id, frames: inline.freeze(), unavailable },
        })
    }
}

impl Server {
    /// The next span, with what it took to read and to check it.
    fn metered(&self, spans: &mut Spans) -> Result<Option<Span>, StoreError> {
        let (began, before) = (clock::now(), spans.reading());
        let span = spans.next().transpose();
        let reading = spans.reading() - before;
        self.meter.add(Work::Read, reading);
        self.meter.add(Work::Hash, began.elapsed().saturating_sub(reading));
        span
    }

    /// How long `bytes` may take to leave, on the slowest link and within the user's limit.
    fn patience(&self, bytes: u64) -> Duration {
        let rate = self.rate.unwrap_or(u64::MAX).clamp(1, SLOWEST_BYTES_PER_S);
        Duration::from_millis(STALL_MS) + Duration::from_secs(2 * bytes / rate)
    }
}

/// Chunks that the loaded events name.
fn offered(done: &Done) -> u64 {
    match done {
        Done::Events { events, .. } => events.iter().flat_map(|event| &event.lists).map(|list| u64::from(list.entries)).sum(),
        _ => 0,
    }
}

fn loaded((event, lists): (Event, Vec<ChunkList>)) -> LoadedEvent {
    let mut frames: Vec<Bytes> = lists.iter().map(|list| list.to_frame().into_bytes().into()).collect();
    frames.push(event.to_frame().into_bytes().into());
    LoadedEvent { dot: event.dot(), frames, lists: event.header().lists.clone() }
}
