//! Frames on a control stream: `kind: u8, length: u32 LE, bytes`.
//!
//! ```text
//! 0 message     what the session says
//! 1 keep-alive  empty: "I am here"; also the first frame on QUIC, because a stream exists for the peer only once it carries bytes
//! 2 close       one byte: the reason (TCP only; QUIC has a frame of its own for it)
//! ```
//! [`Frames`] cuts them out of the byte stream. A length is refused before anything is allocated for it, and the buffer
//! grows with what arrives, so a peer that claims much and sends little costs little.

use super::{CloseReason, TransportError};
use crate::limits::{KIB, MESSAGE_BYTES_MAX};
use bytes::{Buf, Bytes, BytesMut};

const MESSAGE: u8 = 0;
const KEEP_ALIVE: u8 = 1;
const CLOSE: u8 = 2;

/// Kind and length.
pub(super) const HEADER_BYTES: usize = 5;
/// Room to make for the next read: many small messages in one, a long one in few.
const READ_BYTES: usize = 64 * KIB;

/// Longest message that is joined with others.
const JOINED_BYTES_MAX: usize = 16 * KIB;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Message(Bytes),
    KeepAlive,
    Close(CloseReason),
}

/// What goes before a message.
///
/// # Errors
/// [`TransportError::MessageTooLong`].
pub(super) fn message_header(message: &Bytes) -> Result<[u8; HEADER_BYTES], TransportError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(TransportError::MessageTooLong(message.len()));
    }
    Ok(header(MESSAGE, message.len() as u32))
}

/// The frames of `messages` in as few pieces as it takes: each piece is a write, and a write costs more than a short message. A long one
/// is a piece of its own, without a copy.
///
/// # Errors
/// [`TransportError::MessageTooLong`].
pub(super) fn pieces(messages: Vec<Bytes>) -> Result<Vec<Bytes>, TransportError> {
    let mut pieces = Vec::new();
    let mut joined = BytesMut::new();
    for message in messages {
        joined.extend_from_slice(&message_header(&message)?);
        if message.len() <= JOINED_BYTES_MAX {
            joined.extend_from_slice(&message);
        } else {
            pieces.extend([joined.split().freeze(), message]);
        }
    }
    pieces.extend((!joined.is_empty()).then(|| joined.freeze()));
    Ok(pieces)
}

/// A whole keep-alive frame.
pub(super) const fn keep_alive() -> [u8; HEADER_BYTES] {
    header(KEEP_ALIVE, 0)
}

/// A whole close frame.
pub(super) const fn close(reason: CloseReason) -> [u8; HEADER_BYTES + 1] {
    let [kind, a, b, c, d] = header(CLOSE, 1);
    [kind, a, b, c, d, reason.code()]
}

const fn header(kind: u8, length: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = length.to_le_bytes();
    [kind, a, b, c, d]
}

/// Cuts frames out of a byte stream.
#[derive(Default)]
pub(super) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Where to read the next bytes into: there is room for [`Frames::room`].
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// How many bytes to read at most in one go.
    pub(super) const fn room() -> usize {
        READ_BYTES
    }

    /// Whether the stream stands between two frames.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when the peer sent what no version sends.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, TransportError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [kind, a, b, c, d] = *header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > longest(kind)? {
            return Err(TransportError::Protocol(format!("a control frame of kind {kind} claims {length} bytes")));
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let body = self.buffer.split_to(length).freeze();
        Ok(Some(match kind {
            MESSAGE => Frame::Message(body),
            CLOSE => Frame::Close(CloseReason::from_code(body.first().copied().unwrap_or_default().into())),
            _ => Frame::KeepAlive,
        }))
    }
}

fn longest(kind: u8) -> Result<usize, TransportError> {
    match kind {
        MESSAGE => Ok(MESSAGE_BYTES_MAX),
        KEEP_ALIVE => Ok(0),
        CLOSE => Ok(1),
        _ => Err(TransportError::Protocol(format!("unknown control frame {kind}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(message: &Bytes) -> Vec<u8> {
        [&message_header(message).unwrap()[..], message].concat()
    }

    fn read_all(frames: &mut Frames) -> Result<Vec<Frame>, TransportError> {
        std::iter::from_fn(|| frames.next().transpose()).collect()
    }

    #[test]
    fn a_claim_of_four_gigabytes_is_refused_before_anything_is_allocated() {
        let mut frames = Frames::default();
        frames.buffer().extend_from_slice(&header(MESSAGE, u32::MAX));
        assert!(matches!(frames.next(), Err(TransportError::Protocol(_))));
        assert!(frames.buffer.capacity() <= 2 * READ_BYTES);
    }

    #[test]
    fn a_long_message_costs_no_more_than_what_has_arrived() {
        let mut frames = Frames::default();
        frames.buffer().extend_from_slice(&header(MESSAGE, MESSAGE_BYTES_MAX as u32));
        assert_eq!(frames.next().unwrap(), None);
        assert!(frames.buffer().capacity() <= 4 * READ_BYTES);
    }

    #[test]
    fn the_longest_message_passes_and_one_byte_more_is_the_senders_error() {
        let longest = Bytes::from(vec![1; MESSAGE_BYTES_MAX]);
        let mut frames = Frames::default();
        frames.buffer().extend_from_slice(&framed(&longest));
        assert_eq!(frames.next().unwrap(), Some(Frame::Message(longest)));
        assert!(frames.is_empty());
        let longer = Bytes::from(vec![1; MESSAGE_BYTES_MAX + 1]);
        assert!(matches!(message_header(&longer), Err(TransportError::MessageTooLong(_))));
    }

    #[test]
    fn short_messages_share_a_piece_and_long_ones_are_not_copied() {
        let messages = [3, 0, JOINED_BYTES_MAX + 1, 7].map(|bytes| Bytes::from(vec![bytes as u8; bytes]));
        let pieces = pieces(messages.to_vec()).unwrap();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), messages[2].as_ptr());
        let mut frames = Frames::default();
        pieces.iter().for_each(|piece| frames.buffer().extend_from_slice(piece));
        assert_eq!(read_all(&mut frames).unwrap(), messages.map(Frame::Message));
    }

    #[test]
    fn unknown_kinds_and_bodies_where_none_belongs_are_violations() {
        for bytes in [[3, 0, 0, 0, 0], [255, 1, 0, 0, 0], [KEEP_ALIVE, 1, 0, 0, 0], [CLOSE, 2, 0, 0, 0]] {
            let mut frames = Frames::default();
            frames.buffer().extend_from_slice(&bytes);
            assert!(matches!(frames.next(), Err(TransportError::Protocol(_))), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_how_the_stream_is_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..8),
            piece in 1usize..40,
        ) {
            let messages: Vec<Bytes> = messages.into_iter().map(Bytes::from).collect();
            let mut stream: Vec<u8> = keep_alive().to_vec();
            messages.iter().for_each(|message| stream.extend(framed(message)));
            stream.extend(close(CloseReason::Busy));

            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for part in stream.chunks(piece) {
                frames.buffer().extend_from_slice(part);
                seen.extend(read_all(&mut frames).unwrap());
            }
            let expected = std::iter::once(Frame::KeepAlive)
                .chain(messages.into_iter().map(Frame::Message))
                .chain([Frame::Close(CloseReason::Busy)]);
            prop_assert_eq!(seen, expected.collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.buffer().extend_from_slice(&bytes);
            let _ = read_all(&mut frames);
        }
    }
}
