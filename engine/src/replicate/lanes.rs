//! Chunks on lanes: whole frames out of whatever pieces the transport delivers, and spans of packs onto lanes.
//!
//! A lane carries frames back to back, as they lie in a pack. Receiving, a large frame gets a buffer that ends with the header of
//! the next one, so that nothing but 48 bytes is ever copied; small frames are gathered and handed on in runs.

use super::{carriers::Spans, pace::Pace};
use crate::{
    clock,
    frame::{FrameError, HEADER_BYTES, Header, Kind},
    limits::{CHUNK_BYTES_MAX, KIB},
    meter::{Flow, Meter, Work},
    transport::{LaneReceiver, LaneSender, TransportError},
};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Buffer for runs of small frames. Larger ones fall out of the cache before they are hashed.
const RUN_BYTES: usize = 256 * KIB;

/// Why a lane ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The peer's fault.
    #[error("the peer sent what is not a chunk: {0}")]
    Frame(#[from] FrameError),
    #[error("the peer sent a frame that is no chunk on a lane")]
    Kind,
    /// Whoever takes the frames has stopped.
    #[error("the receiver has stopped")]
    Stopped,
}

/// Cuts a stream of bytes into runs of whole frames.
#[derive(Debug, Default)]
struct Deframer {
    buffer: BytesMut,
    /// Bytes at the start of the buffer that are whole frames.
    complete: usize,
}

impl Deframer {
    /// A buffer with room for what comes next.
    fn room(&mut self) -> Result<&mut BytesMut, LaneError> {
        if self.buffer.len() == self.buffer.capacity() {
            let mut roomy = BytesMut::with_capacity(self.capacity_wanted()?);
            roomy.extend_from_slice(&self.buffer);
            self.buffer = roomy;
        }
        Ok(&mut self.buffer)
    }

    fn capacity_wanted(&self) -> Result<usize, LaneError> {
        Ok(match self.next_header()? {
            Some(header) if header.frame_bytes() > RUN_BYTES => header.frame_bytes() + HEADER_BYTES,
            _ => RUN_BYTES.max(self.buffer.len() + HEADER_BYTES),
        })
    }

    /// The header of the frame that is not whole yet.
    fn next_header(&self) -> Result<Option<Header>, LaneError> {
        let rest = &self.buffer[self.complete..];
        if rest.len() < HEADER_BYTES {
            return Ok(None);
        }
        let header = Header::parse(rest)?;
        if header.kind != Kind::Chunk {
            return Err(LaneError::Kind);
        }
        if header.length as usize > CHUNK_BYTES_MAX + KIB {
            return Err(FrameError::TooLong(header.length as usize).into());
        }
        Ok(Some(header))
    }

    /// The whole frames that have arrived, if any; what follows them stays.
    fn take(&mut self) -> Result<Option<Bytes>, LaneError> {
        while let Some(header) = self.next_header()? {
            let end = self.complete + header.frame_bytes();
            if end > self.buffer.len() {
                break;
            }
            self.complete = end;
        }
        if self.complete == 0 {
            return Ok(None);
        }
        let run = self.buffer.split_to(self.complete).freeze();
        self.complete = 0;
        // The rest begins a buffer of its own: it must not keep the run's memory, nor be short of room.
        let mut rest = BytesMut::with_capacity(self.capacity_wanted()?);
        rest.extend_from_slice(&self.buffer);
        self.buffer = rest;
        Ok(Some(run))
    }
}

/// Reads a lane to its end and hands runs of whole chunk frames to `deliver`; unchecked but for their headers. Counts what it
/// has heard.
pub(super) async fn receive<M>(
    mut lane: LaneReceiver,
    runs: mpsc::Sender<M>,
    deliver: fn(Bytes) -> M,
    pace: Arc<Pace>,
    meter: Arc<Meter>,
) -> Result<(), LaneError> {
    let mut deframer = Deframer::default();
    loop {
        let got = lane.read(deframer.room()?).await?;
        if got == 0 {
            let torn = !deframer.buffer.is_empty();
            return if torn { Err(FrameError::Truncated.into()) } else { Ok(()) };
        }
        meter.carry(Flow::In, got);
        pace.pass(got).await;
        if let Some(run) = deframer.take()? {
            runs.send(deliver(run)).await.map_err(|_| LaneError::Stopped)?;
        }
    }
}

/// Sends what `spans` gives over a lane until there is no more.
pub(super) async fn send(mut lane: LaneSender, spans: Spans, pace: Arc<Pace>, meter: Arc<Meter>) -> Result<(), LaneError> {
    while let Some(span) = spans.next().await {
        let bytes = span.bytes.len();
        pace.pass(bytes).await;
        let began = clock::now();
        lane.send(span).await?;
        meter.lap(Work::Blocked, began);
        meter.carry(Flow::Out, bytes);
    }
    Ok(lane.finish().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameBuf;
    use proptest::prelude::*;

    fn deframe(stream: &[u8], steps: &[usize]) -> Result<Vec<u8>, LaneError> {
        let mut deframer = Deframer::default();
        let mut out = Vec::new();
        let mut at = 0;
        let mut steps = steps.iter().cycle();
        while at < stream.len() {
            let buffer = deframer.room()?;
            let spare = buffer.capacity() - buffer.len();
            let step = (*steps.next().unwrap_or(&1)).clamp(1, spare).min(stream.len() - at);
            buffer.extend_from_slice(&stream[at..at + step]);
            at += step;
            if let Some(run) = deframer.take()? {
                assert!(crate::frame::split(&run).all(|frame| frame.is_ok()));
                out.extend_from_slice(&run);
            }
        }
        assert!(deframer.buffer.is_empty());
        Ok(out)
    }

    proptest! {
        #[test]
        fn frames_come_out_whole_however_the_bytes_arrive(
            sizes in proptest::collection::vec(prop_oneof![0usize..200, 250_000usize..300_000], 1..12),
            steps in proptest::collection::vec(1usize..400_000, 1..8),
        ) {
            let frames = sizes.iter().map(|size| FrameBuf::new(Kind::Chunk, &vec![*size as u8; *size]).into_bytes());
            let stream: Vec<u8> = frames.flatten().collect();
            prop_assert_eq!(deframe(&stream, &steps).unwrap(), stream);
        }
    }

    #[test]
    fn a_lane_carries_nothing_but_chunks_of_possible_size() {
        let event = FrameBuf::new(Kind::Event, b"event").into_bytes();
        assert!(matches!(deframe(&event, &[100]), Err(LaneError::Kind)));
        let huge = Header { kind: Kind::Chunk, length: (CHUNK_BYTES_MAX + 2 * KIB) as u32, id: [0; 32] }.to_bytes();
        assert!(matches!(deframe(&huge, &[100]), Err(LaneError::Frame(FrameError::TooLong(_)))));
    }
}
