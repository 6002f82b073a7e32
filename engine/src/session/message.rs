//! Messages of the control stream: one type byte, then a strict CBOR body or, for bulk, raw bytes.
//!
//! The transport frames and orders them. Types from 128 on are optional extensions: whoever does not know one skips it, so a newer
//! peer can add them without asking. Every other unknown type is refused.

use crate::{
    bitmap::Bitmap,
    codec::{self, CodecError},
    event::{Frontier, ListRef},
    id::{ChunkId, ID_BYTES, ListId, Root},
    keys::Attestation,
    limits::{
        ATTESTATION_BYTES_MAX, DAMAGED_CHUNKS_MAX, HELLO_BYTES_MAX, INLINE_BYTES_MAX, LIST_ENTRIES_MAX, MESSAGE_BYTES_MAX, REASON_BYTES_MAX,
    },
    meter::Load,
};
use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};

const HELLO: u8 = 1;
const EVENTS: u8 = 2;
const WANT: u8 = 3;
const SERVED: u8 = 4;
const CHUNKS: u8 = 5;
const APPLIED: u8 = 6;
const FINISHED: u8 = 7;
const DAMAGED: u8 = 8;
const BYE: u8 = 9;
const HEALED: u8 = 10;
const HELLO_OF_EPOCH: u8 = 11;
/// The first extension.
const LOAD: u8 = 0x80;
const ATTESTED: u8 = 0x81;
const FORK: u8 = 0x82;
/// Types from here on may be skipped by who does not know them.
const EXTENSIONS: u8 = 0x80;

const EARLY: u8 = 1;
const PROMISE: u8 = 2;

/// Whether a sender knew the peer's frontier when it sent events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// The peer's Hello had been read.
    Known,
    /// Sent ahead of it, from the frontier in our Hello.
    Early,
}

/// Whether the chunks of a message's events come without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The receiver asks for what it lacks.
    None,
    /// Each list of these events follows in a `Chunks` message of its own.
    Chunks,
}

/// Why chunks come on the control stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A want asked for them.
    Asked,
    /// Their event's message promised them.
    Promised,
}

/// Why a session was ended by a Bye.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ByeCode {
    /// Both have finished.
    #[n(0)]
    Done,
    /// The user stopped it.
    #[n(1)]
    Stopped,
    /// The other side broke the protocol.
    #[n(2)]
    Violation,
    /// The other side took too long.
    #[n(3)]
    TimedOut,
    /// The side that says Bye has trouble of its own (disk full, shutting down): try again later.
    #[n(4)]
    Trouble,
    /// The side that says Bye does not want this session: the same replica, another vault, a version too old.
    #[n(5)]
    Refused,
}

/// A message of the control stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A sealed [`Hello`](super::hello::Hello).
    Hello(Bytes),
    /// The same Hello twice: sealed under the newest key epoch that a dialer has, and under the first one, which every replica has.
    HelloOfEpoch {
        /// Under the newest.
        newest: Bytes,
        /// Under the first.
        first: Bytes,
    },
    /// A run of list and event frames in the sender's log order; each list before the event that names it.
    Events {
        /// Sent ahead of the peer's Hello or not.
        timing: Timing,
        /// Whether their chunks follow unasked.
        promise: Promise,
        /// The frames.
        frames: Bytes,
    },
    /// Asks for chunks of a list.
    Want {
        /// The list, as the event names it.
        list: ListRef,
        /// Positions in it.
        want: Bitmap,
    },
    /// Everything that there is for one want has been handed to the lanes or sent; lanes may still carry it.
    Served {
        /// The list.
        list: ListId,
        /// Positions asked for that the sender lacks; its capacity is the list's length.
        unavailable: Bitmap,
    },
    /// Chunk frames of one small list.
    Chunks {
        /// Asked for or promised.
        cause: Cause,
        /// The list.
        list: ListId,
        /// The frames.
        frames: Bytes,
    },
    /// Everything up to here is durable and visible. Said after every commit, and again by a side that works for long.
    Applied {
        /// What is applied.
        frontier: Frontier,
        /// Digest over the heads.
        root: Root,
        /// Events beyond `frontier` that are kept but won't be applied in this session, because chunks are unavailable.
        parked: Frontier,
    },
    /// Everything that the sender had has been sent and acknowledged.
    Finished,
    /// Chunks whose frames did not match their ids: the sender's copy is damaged.
    Damaged(Vec<ChunkId>),
    /// Nothing more will be asked for of what the sender has lost.
    Healed {
        /// Chunks that the receiver should have had and did not.
        lost: u64,
    },
    /// The last message.
    Bye {
        /// Why.
        code: ByeCode,
        /// For people.
        reason: String,
    },
    /// What the sender's stages have cost so far: for showing where the time goes.
    Load(Load),
    /// The sender's word, signed by its device, that it holds what a root stands for.
    Attested(Attestation),
    /// Two event frames that prove a fork, both signed by one device for one place in its log; then others that are kept beside the log.
    Fork(Bytes),
    /// An extension that this version does not know, or a known one of another form.
    Extension(u8),
}

#[derive(Encode, Decode)]
struct WantBody {
    #[n(0)]
    list: ListRef,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    bitmap: Vec<u8>,
}

#[derive(Encode, Decode)]
struct ServedBody {
    #[n(0)]
    list: ListId,
    #[n(1)]
    entries: u32,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    bitmap: Vec<u8>,
}

#[derive(Encode, Decode)]
struct AppliedBody {
    #[n(0)]
    frontier: Frontier,
    #[n(1)]
    root: Root,
    #[n(2)]
    parked: Frontier,
}

#[derive(Encode, Decode)]
struct HealedBody {
    #[n(0)]
    lost: u64,
}

#[derive(Encode, Decode)]
struct ByeBody {
    #[n(0)]
    code: ByeCode,
    #[n(1)]
    reason: String,
}

impl Message {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Hello(sealed) => raw(HELLO, &[sealed]),
            Self::HelloOfEpoch { newest, first } => raw(HELLO_OF_EPOCH, &[&(newest.len() as u32).to_le_bytes(), newest, first]),
            Self::Events { timing, promise, frames } => raw(EVENTS, &[&[flags(*timing, *promise)], frames]),
            Self::Want { list, want } => body(WANT, &WantBody { list: *list, bitmap: want.encode() }),
            Self::Served { list, unavailable } => {
                body(SERVED, &ServedBody { list: *list, entries: unavailable.entries() as u32, bitmap: unavailable.encode() })
            }
            Self::Chunks { cause, list, frames } => raw(CHUNKS, &[&[*cause as u8], list.as_bytes(), frames]),
            Self::Applied { frontier, root, parked } => {
                body(APPLIED, &AppliedBody { frontier: frontier.clone(), root: *root, parked: parked.clone() })
            }
            Self::Finished => raw(FINISHED, &[]),
            Self::Damaged(chunks) => body(DAMAGED, chunks),
            Self::Healed { lost } => body(HEALED, &HealedBody { lost: *lost }),
            Self::Bye { code, reason } => body(BYE, &ByeBody { code: *code, reason: shorten(reason) }),
            Self::Load(load) => body(LOAD, load),
            Self::Attested(attestation) => body(ATTESTED, attestation),
            Self::Fork(frames) => raw(FORK, &[frames]),
            Self::Extension(kind) => raw(*kind | EXTENSIONS, &[]),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`CodecError`] on anything too long, malformed, not canonical, or of an unknown type below 128.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(error("it is too long"));
        }
        let kind = *bytes.first().ok_or_else(|| error("it is empty"))?;
        let rest = bytes.slice(1..);
        match kind {
            HELLO if rest.len() > HELLO_BYTES_MAX => Err(error("the Hello is too long")),
            HELLO => Ok(Self::Hello(rest)),
            HELLO_OF_EPOCH => decode_hello_of_epoch(&rest),
            EVENTS => decode_events(&rest),
            WANT => decode_want(&rest),
            SERVED => decode_served(&rest),
            CHUNKS => decode_chunks(&rest),
            APPLIED => {
                let AppliedBody { frontier, root, parked } = codec::decode("applied", &rest)?;
                Ok(Self::Applied { frontier, root, parked })
            }
            FINISHED if rest.is_empty() => Ok(Self::Finished),
            FINISHED => Err(error("Finished has a body")),
            DAMAGED => decode_damaged(&rest),
            BYE => {
                let ByeBody { code, reason } = codec::decode("bye", &rest)?;
                Ok(Self::Bye { code, reason: shorten(&reason) })
            }
            HEALED => codec::decode("healed", &rest).map(|HealedBody { lost }| Self::Healed { lost }),
            // A newer peer may say more of itself than we understand.
            EXTENSIONS.. if kind == LOAD => Ok(codec::decode("load", &rest).map_or(Self::Extension(kind), Self::Load)),
            EXTENSIONS.. if kind == ATTESTED && rest.len() <= ATTESTATION_BYTES_MAX => {
                Ok(codec::decode("attestation", &rest).map_or(Self::Extension(kind), Self::Attested))
            }
            EXTENSIONS.. if kind == FORK => Ok(Self::Fork(rest)),
            EXTENSIONS.. => Ok(Self::Extension(kind)),
            0 | 12..EXTENSIONS => Err(error("its type is unknown")),
        }
    }
}

fn error(reason: &'static str) -> CodecError {
    CodecError::new("message", reason)
}

fn raw(kind: u8, parts: &[&[u8]]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    bytes.put_u8(kind);
    parts.iter().for_each(|part| bytes.put_slice(part));
    bytes.freeze()
}

fn body<T: Encode<()>>(kind: u8, value: &T) -> Bytes {
    raw(kind, &[&codec::encode(value)])
}

fn flags(timing: Timing, promise: Promise) -> u8 {
    let early = if timing == Timing::Early { EARLY } else { 0 };
    let promised = if promise == Promise::Chunks { PROMISE } else { 0 };
    early | promised
}

fn decode_hello_of_epoch(rest: &Bytes) -> Result<Message, CodecError> {
    let cut_off = || error("HelloOfEpoch is cut off");
    let length = u32::from_le_bytes(*rest.first_chunk().ok_or_else(cut_off)?) as usize;
    let both = rest.slice(4..);
    if length > both.len() {
        return Err(cut_off());
    }
    let (newest, first) = (both.slice(..length), both.slice(length..));
    if newest.len() > HELLO_BYTES_MAX || first.len() > HELLO_BYTES_MAX {
        return Err(error("the Hello is too long"));
    }
    Ok(Message::HelloOfEpoch { newest, first })
}

fn decode_events(rest: &Bytes) -> Result<Message, CodecError> {
    let flags = *rest.first().ok_or_else(|| error("Events is cut off"))?;
    if flags & !(EARLY | PROMISE) != 0 {
        return Err(error("Events has unknown flags"));
    }
    let timing = if flags & EARLY == 0 { Timing::Known } else { Timing::Early };
    let promise = if flags & PROMISE == 0 { Promise::None } else { Promise::Chunks };
    Ok(Message::Events { timing, promise, frames: rest.slice(1..) })
}

fn decode_want(rest: &[u8]) -> Result<Message, CodecError> {
    let WantBody { list, bitmap } = codec::decode("want", rest)?;
    let want = decode_bitmap(&bitmap, list.entries)?;
    if want.is_empty() {
        return Err(error("a want asks for nothing"));
    }
    Ok(Message::Want { list, want })
}

fn decode_served(rest: &[u8]) -> Result<Message, CodecError> {
    let ServedBody { list, entries, bitmap } = codec::decode("served", rest)?;
    Ok(Message::Served { list, unavailable: decode_bitmap(&bitmap, entries)? })
}

fn decode_bitmap(bitmap: &[u8], entries: u32) -> Result<Bitmap, CodecError> {
    if entries == 0 || entries as usize > LIST_ENTRIES_MAX {
        return Err(error("a list's length is impossible"));
    }
    Bitmap::decode(bitmap, entries as usize)
}

fn decode_chunks(rest: &Bytes) -> Result<Message, CodecError> {
    let cause = match rest.first() {
        Some(0) => Cause::Asked,
        Some(1) => Cause::Promised,
        _ => return Err(error("Chunks is cut off or has an unknown cause")),
    };
    let list = rest.get(1..1 + ID_BYTES).and_then(ListId::from_slice).ok_or_else(|| error("Chunks is cut off"))?;
    let frames = rest.slice(1 + ID_BYTES..);
    if frames.len() > INLINE_BYTES_MAX {
        return Err(error("Chunks is longer than what may ride on the control stream"));
    }
    Ok(Message::Chunks { cause, list, frames })
}

fn decode_damaged(rest: &[u8]) -> Result<Message, CodecError> {
    if rest.len() > (DAMAGED_CHUNKS_MAX + 1) * (ID_BYTES + 2) {
        return Err(error("Damaged is too long"));
    }
    codec::decode::<Vec<ChunkId>>("damaged", rest).map(Message::Damaged)
}

fn shorten(reason: &str) -> String {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}
