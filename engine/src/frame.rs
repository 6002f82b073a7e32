//! A frame: a record with a header that lets a scan find, bound and check it. The same bytes lie in a segment file and travel
//! on a lane, so a run of chunks goes from a mapped pack to the wire and from the wire into a pack unchanged.
//!
//! ```text
//!  0  magic   4   "mRf1"
//!  4  kind    1   1 chunk · 2 event · 3 chunk list
//!  5  zero    3
//!  8  length  4   little endian, bytes of the record
//! 12  check   4   first bytes of BLAKE3(header[0..12] || id): a torn or flipped header is not mistaken for a frame
//! 16  id     32   BLAKE3(record)
//! 48  record      length bytes
//! ```

mod together;

use crate::{id::ID_BYTES, limits::RECORD_BYTES_MAX};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U32};

/// Length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"mRf1";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A sealed chunk.
    Chunk = 1,
    /// A signed event.
    Event = 2,
    /// A chunk list.
    List = 3,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Chunk),
            2 => Some(Self::Event),
            3 => Some(Self::List),
            _ => None,
        }
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than the header or the record needs: a torn tail, or more is still to come.
    #[error("the frame is cut off")]
    Truncated,
    /// Magic, kind, zeros or check are wrong.
    #[error("this is not the header of a frame")]
    BadHeader,
    /// The header claims more than [`RECORD_BYTES_MAX`].
    #[error("the frame claims {0} bytes, more than {RECORD_BYTES_MAX} allowed")]
    TooLong(usize),
    /// The record does not hash to the id in the header.
    #[error("the record does not match its id")]
    WrongId,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    kind: u8,
    zero: [u8; 3],
    length: U32,
    check: [u8; 4],
    id: [u8; ID_BYTES],
}

/// The checked header of a frame; the record itself is not checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record is.
    pub kind: Kind,
    /// Bytes of the record, at most [`RECORD_BYTES_MAX`].
    pub length: u32,
    /// What the record must hash to.
    pub id: [u8; ID_BYTES],
}

impl Header {
    /// The header of `record`. Hashes it.
    pub fn of(kind: Kind, record: &[u8]) -> Self {
        Self { kind, length: record.len() as u32, id: *blake3::hash(record).as_bytes() }
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] below 48 bytes, [`FrameError::BadHeader`] or [`FrameError::TooLong`] otherwise.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| FrameError::Truncated)?;
        let kind = Kind::from_byte(raw.kind).ok_or(FrameError::BadHeader)?;
        if raw.magic != MAGIC || raw.zero != [0; 3] || raw.check != check(&raw.as_bytes()[..12], &raw.id) {
            return Err(FrameError::BadHeader);
        }
        let length = raw.length.get();
        if length as usize > RECORD_BYTES_MAX {
            return Err(FrameError::TooLong(length as usize));
        }
        Ok(Self { kind, length, id: raw.id })
    }

    /// The 48 bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut raw =
            RawHeader { magic: MAGIC, kind: self.kind as u8, zero: [0; 3], length: U32::new(self.length), check: [0; 4], id: self.id };
        raw.check = check(&raw.as_bytes()[..12], &raw.id);
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.length as usize
    }
}

fn check(head: &[u8], id: &[u8; ID_BYTES]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(id);
    let mut check = [0; 4];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
    check
}

/// A frame whose record has been checked against its id. The only type that stores accept.
#[derive(Debug, Clone, Copy)]
pub struct Verified<'a> {
    header: Header,
    bytes: &'a [u8],
}

impl<'a> Verified<'a> {
    /// Checks the frame at the start of `bytes`; what follows it is not looked at.
    ///
    /// # Errors
    /// As [`Header::parse`], and [`FrameError::WrongId`].
    pub fn check(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let header = Header::parse(bytes)?;
        let frame = bytes.get(..header.frame_bytes()).ok_or(FrameError::Truncated)?;
        if blake3::hash(&frame[HEADER_BYTES..]).as_bytes() != &header.id {
            return Err(FrameError::WrongId);
        }
        Ok(Self { header, bytes: frame })
    }

    /// Checks whole frames whose headers were parsed, each as [`split`] yields it: whether its record matches its id. Together they cost
    /// far less than one after the other where they are short.
    pub fn check_each(frames: &[(Header, &'a [u8])]) -> Vec<Result<Self, FrameError>> {
        let records: Vec<&[u8]> = frames.iter().map(|(header, bytes)| record_of(header, bytes)).collect();
        let check = |((header, bytes), id): (&(Header, &'a [u8]), [u8; ID_BYTES])| {
            let matches = id == header.id && bytes.len() == header.frame_bytes();
            if matches { Ok(Self { header: *header, bytes }) } else { Err(FrameError::WrongId) }
        };
        frames.iter().zip(together::hash_each(&records)).map(check).collect()
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Header and record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The record.
    pub fn record(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }
}

/// The record of a frame that is as long as its header says; else nothing.
fn record_of<'a>(header: &Header, bytes: &'a [u8]) -> &'a [u8] {
    if bytes.len() == header.frame_bytes() { &bytes[HEADER_BYTES..] } else { &[] }
}

/// A frame built in memory: header and record in one buffer, correct by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameBuf(Vec<u8>);

impl FrameBuf {
    /// Frames `record`.
    pub fn new(kind: Kind, record: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + record.len());
        bytes.extend_from_slice(&Header::of(kind, record).to_bytes());
        bytes.extend_from_slice(record);
        Self(bytes)
    }

    /// Turns a buffer whose first 48 bytes are free and whose rest is the record into a frame, without a copy.
    ///
    /// # Panics
    /// If the buffer is shorter than a header.
    pub fn seal_header(kind: Kind, mut buffer: Vec<u8>) -> Self {
        let header = Header::of(kind, &buffer[HEADER_BYTES..]);
        buffer[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        Self(buffer)
    }

    /// Header and record, known to match.
    pub fn verified(&self) -> Verified<'_> {
        match Header::parse(&self.0) {
            Ok(header) => Verified { header, bytes: &self.0 },
            Err(error) => unreachable!("a frame buffer starts with its header: {error}"),
        }
    }

    /// The identifier of the record.
    pub fn id(&self) -> [u8; ID_BYTES] {
        self.verified().header.id
    }

    /// The buffer, for reuse or for sending.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Splits `bytes` into whole frames without checking the records; ends with the first error, if any.
pub fn split(bytes: &[u8]) -> impl Iterator<Item = Result<(Header, &[u8]), FrameError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = Header::parse(rest).and_then(|header| {
            let frame = rest.get(..header.frame_bytes()).ok_or(FrameError::Truncated)?;
            Ok((header, frame))
        });
        rest = next.as_ref().map_or(&[], |(_, frame)| &rest[frame.len()..]);
        Some(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_flipped_bit_of_a_frame_is_found() {
        let frame = FrameBuf::new(Kind::Chunk, b"some record").into_bytes();
        assert!(Verified::check(&frame).is_ok());
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Verified::check(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn frames_checked_together_are_good_or_bad_each_for_itself() {
        let mut run: Vec<u8> = (0..40_u8).flat_map(|n| FrameBuf::new(Kind::Chunk, &vec![n; 700 * usize::from(n)]).into_bytes()).collect();
        let spoiled = |n: usize| n % 3 == 1;
        let mut at = 0;
        for n in 0..40 {
            at += HEADER_BYTES + 700 * n;
            run[at - 1] ^= if spoiled(n) { 1 } else { 0 };
        }
        let frames: Vec<_> = split(&run).map(Result::unwrap).collect();
        for (n, checked) in Verified::check_each(&frames).into_iter().enumerate() {
            assert_eq!(checked.map(|frame| frame.bytes()).ok(), Verified::check(frames[n].1).map(|frame| frame.bytes()).ok(), "frame {n}");
            assert_eq!(checked.is_err(), spoiled(n));
        }
    }

    #[test]
    fn a_frame_of_another_length_than_its_header_is_bad_among_others() {
        let frame = FrameBuf::new(Kind::Chunk, b"record").into_bytes();
        let header = Header::parse(&frame).unwrap();
        let longer = [frame.as_slice(), b"more"].concat();
        let frames = [(header, &frame[..frame.len() - 1]), (header, longer.as_slice()), (header, frame.as_slice())];
        let good: Vec<bool> = Verified::check_each(&frames).iter().map(Result::is_ok).collect();
        assert_eq!(good, [false, false, true]);
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_by_its_header() {
        let header = Header { kind: Kind::Chunk, length: u32::MAX, id: [7; ID_BYTES] };
        assert_eq!(Header::parse(&header.to_bytes()), Err(FrameError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn sealing_in_place_equals_framing_a_copy() {
        let mut buffer = vec![0; HEADER_BYTES];
        buffer.extend_from_slice(b"record");
        assert_eq!(FrameBuf::seal_header(Kind::Event, buffer), FrameBuf::new(Kind::Event, b"record"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Verified::check(&bytes);
            prop_assert!(split(&bytes).count() <= bytes.len());
        }

        #[test]
        fn a_run_of_frames_splits_into_what_was_joined(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8)) {
            let joined: Vec<u8> = records.iter().flat_map(|record| FrameBuf::new(Kind::List, record).into_bytes()).collect();
            let split: Vec<_> = split(&joined).map(|frame| frame.unwrap().1[HEADER_BYTES..].to_vec()).collect();
            prop_assert_eq!(split, records);
        }
    }
}
