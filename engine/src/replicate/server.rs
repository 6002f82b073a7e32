//! The sending side of one session: a thread that reads events from the log and chunks from packs.
//!
//! Chunks leave as spans: runs of frames as they lie in a mapped pack, checked here, so that a damaged one is never sent and the
//! network thread never waits for a page. A bounded queue to the lanes holds the reading back.

use super::{Limits, ReplicateError, failure::Failures, outgoing::Gauge};
use crate::{
    bitmap::Bitmap,
    clock,
    event::{ChunkList, Event, Frontier, ListRef},
    id::ListId,
    io::piece::Piece,
    limits::{INLINE_BYTES_MAX, MIB, SLOWEST_BYTES_PER_S, STALL_MS},
    meter::{Meter, Work},
    session::{Cursor, Done, LoadedEvent, Via},
    store::{LogPosition, Span, Spans, Store, StoreError},
    transport::TransportError,
};
use bytes::{Bytes, BytesMut};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc::{self, UnboundedReceiver, error::SendTimeoutError};

/// Most bytes of one span: enough to amortise its way, few enough that lanes share the work.
const SPAN_BYTES_MAX: usize = MIB;

/// What the server does, in order.
#[derive(Debug)]
pub(super) enum Job {
    /// Read events.
    Load { beyond: Frontier, after: Option<Cursor>, bytes_max: usize, events_max: usize },
    /// Send chunks.
    Serve { request: Request, via: Via },
}

/// Chunks of a list.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) list: ListRef,
    pub(super) want: Bitmap,
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
pub(super) type OnSent = Box<dyn Fn(u64, u64) + Send + Sync>;

pub(super) struct Server {
    pub(super) store: Arc<Store>,
    pub(super) done: mpsc::UnboundedSender<Done>,
    pub(super) spans: mpsc::Sender<Piece>,
    pub(super) failures: Failures,
    pub(super) on_sent: OnSent,
    /// What waits on the control stream, where inline chunks go.
    pub(super) waiting: Gauge,
    /// How fast the user lets us send.
    pub(super) limits: Arc<Limits>,
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
    pub(super) async fn run(self, mut jobs: UnboundedReceiver<Job>) -> Served {
        let mut served = Served::default();
        let mut next = None;
        loop {
            let job = match next.take() {
                None => jobs.recv().await,
                waiting => waiting,
            };
            let Some(job) = job else { break };
            let result = match job {
                Job::Load { beyond, after, bytes_max, events_max } => self.load(&beyond, after, bytes_max, events_max).map(|done| {
                    served.offered += offered(&done);
                    self.say(done);
                }),
                Job::Serve { request, via: Via::Lanes } => self.serve(&request, &mut served).await.map(|done| self.say(done)),
                Job::Serve { request, via: Via::Inline } => {
                    let (requests, other) = gather(request, &mut jobs);
                    next = other;
                    self.inline(&requests, &mut served).await
                }
            };
            if let Err(error) = result {
                self.fail(error);
            }
            if self.done.is_closed() {
                break;
            }
        }
        served
    }

    /// Nobody listens any more once the session has ended; then there is nobody to tell.
    fn say(&self, done: Done) {
        let _ = self.done.send(done);
    }

    fn fail(&self, error: ServeError) {
        match error {
            ServeError::Store(error) => self.failures.here(error),
            ServeError::Stalled => self.failures.note(ReplicateError::Transport(TransportError::Timeout)),
        }
        self.say(Done::Failed { reason: self.failures.text() });
    }

    fn load(&self, beyond: &Frontier, after: Option<Cursor>, bytes_max: usize, events_max: usize) -> Result<Done, ServeError> {
        let start = after.map_or(LogPosition::START, |Cursor(segment, offset)| LogPosition { segment: segment as u32, offset });
        let batch = self.store.events_page(beyond, start, bytes_max, events_max)?;
        let next = (!batch.done).then_some(Cursor(u64::from(batch.next.segment), batch.next.offset));
        Ok(Done::Events { events: batch.events.into_iter().map(loaded).collect(), next })
    }

    async fn serve(&self, request: &Request, served: &mut Served) -> Result<Done, ServeError> {
        let Request { list: reference, want } = request;
        let Some(list) = self.store.list(&reference.id)?.filter(|list| list.reference() == *reference) else {
            return Ok(Done::UnknownList { list: reference.id });
        };
        let mut total = 0;
        let mut spans = self.store.spans(&list, want, SPAN_BYTES_MAX)?;
        while let Some(span) = self.metered(&mut spans)? {
            let (chunks, bytes) = (span.entries.len() as u64, span.piece.bytes.len() as u64);
            total += bytes;
            match self.spans.send_timeout(span.piece, self.patience(bytes)).await {
                Ok(()) => self.count(served, chunks, bytes),
                // Lanes that are gone mean that the connection is: the session learns it there.
                Err(SendTimeoutError::Closed(_)) => break,
                Err(SendTimeoutError::Timeout(_)) => return Err(ServeError::Stalled),
            }
        }
        self.put_aside(&spans);
        Ok(Done::Served { list: reference.id, unavailable: spans.unavailable().clone(), bytes: total })
    }

    /// Lists whose chunks go back to the session, looked up together: they are short and many.
    async fn inline(&self, requests: &[Request], served: &mut Served) -> Result<(), ServeError> {
        self.waiting.room().await;
        let lists = self.store.lists(requests.iter().map(|request| &request.list.id))?;
        let fits = |list: Option<ChunkList>, request: &Request| list.filter(|list| list.reference() == request.list);
        let lists: Vec<Option<ChunkList>> = lists.into_iter().zip(requests).map(|(list, request)| fits(list, request)).collect();
        let known: Vec<_> = lists.iter().zip(requests).filter_map(|(list, request)| Some((list.as_ref()?, &request.want))).collect();
        let mut spans = self.store.spans_each(&known, SPAN_BYTES_MAX)?.into_iter();
        for (request, list) in requests.iter().zip(&lists) {
            let list_id = request.list.id;
            let done = match list.as_ref().and_then(|_| spans.next()) {
                Some(spans) => self.inline_one(list_id, spans, served)?,
                None => Done::UnknownList { list: list_id },
            };
            self.say(done);
        }
        Ok(())
    }

    fn inline_one(&self, list: ListId, mut spans: Spans, served: &mut Served) -> Result<Done, StoreError> {
        let mut frames = BytesMut::new();
        while let Some(span) = self.metered(&mut spans)? {
            frames.extend_from_slice(&span.piece.bytes);
            self.count(served, span.entries.len() as u64, span.piece.bytes.len() as u64);
        }
        self.put_aside(&spans);
        Ok(Done::Inline { list, frames: frames.freeze(), unavailable: spans.unavailable().clone() })
    }

    /// Damaged chunks are not sent, and not found again: the next session asks whoever holds them. What fails here is found again by the
    /// next who reads.
    fn put_aside(&self, spans: &Spans) {
        if let Err(error) = self.store.quarantine(spans.damaged()) {
            tracing::warn!(%error, "damaged chunks were not put aside");
        }
    }

    fn count(&self, served: &mut Served, chunks: u64, bytes: u64) {
        served.chunks += chunks;
        served.bytes += bytes;
        (self.on_sent)(chunks, bytes);
    }
}

impl Server {
    /// The next span, with what it took to read and to check it.
    fn metered(&self, spans: &mut Spans) -> Result<Option<Span>, StoreError> {
        let (began, before) = (clock::now(), spans.reading());
        let span = spans.next().transpose();
        let reading = spans.reading() - before;
        self.meter.add(Work::Read, reading);
        self.meter.add(Work::Hash, clock::since(began).saturating_sub(reading));
        span
    }

    /// How long `bytes` may take to leave, on the slowest link and within the user's limit.
    fn patience(&self, bytes: u64) -> Duration {
        let rate = self.limits.send.get().unwrap_or(u64::MAX).clamp(1, SLOWEST_BYTES_PER_S);
        Duration::from_millis(STALL_MS) + Duration::from_secs(2 * bytes / rate)
    }
}

/// Requests that wait behind `first` and go the same way, as long as what they ask for is no more than one of them may; and the job that
/// ended the look for them. Waits for nothing.
fn gather(first: Request, jobs: &mut UnboundedReceiver<Job>) -> (Vec<Request>, Option<Job>) {
    let mut bytes = first.list.bytes;
    let mut requests = vec![first];
    while bytes < INLINE_BYTES_MAX as u64 {
        match jobs.try_recv() {
            Ok(Job::Serve { request, via: Via::Inline }) => {
                bytes = bytes.saturating_add(request.list.bytes);
                requests.push(request);
            }
            Ok(other) => return (requests, Some(other)),
            Err(_) => break,
        }
    }
    (requests, None)
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
