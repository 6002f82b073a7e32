//! A segment file: packs and log segments have one form and one way to be read after a crash.
//!
//! ```text
//!  0 magic    8   "mirrorPK" pack · "mirrorLG" log segment
//!  8 format   2   little endian, 1
//! 10 zero     2
//! 12 number   4   the file's number, also in its name
//! 16 follows  8   log: bytes of the segment before it that count; pack: 0
//! 24 vault   32
//! 56 check    8   first bytes of BLAKE3(header[0..56])
//! 64 frames ...
//! ```
//! Frames are self-describing ([`crate::frame`]), so [`Scan`] finds everything in a file from its bytes alone. What cannot be read is
//! either the end of the file, a torn tail that a crash left, or damage with good frames after it. Only the first is ever cut.
//!
//! `follows` makes giving up a log segment durable: after a failed write the writer goes on in a new segment that says how much of
//! the old one counts, and whatever the disk made of the rest is ignored for good.

use super::StoreError;
use crate::{
    frame::{Header, Verified},
    id::VaultId,
};
use std::path::{Path, PathBuf};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// Length of a segment file's header.
pub(super) const FILE_HEADER_BYTES: u64 = 64;
/// The format written, and the newest one read.
const FORMAT: u16 = 1;
const CHECKED_BYTES: usize = 56;

/// Which of the two kinds of segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentKind {
    Pack,
    Log,
}

impl SegmentKind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Pack => *b"mirrorPK",
            Self::Log => *b"mirrorLG",
        }
    }

    /// Directory inside the vault.
    pub(super) fn directory(self) -> &'static str {
        match self {
            Self::Pack => "packs",
            Self::Log => "log",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Log => "seg",
        }
    }

    /// Path of file `number`, relative to the vault.
    pub(super) fn file(self, number: u32) -> PathBuf {
        Path::new(self.directory()).join(format!("{number:08}.{}", self.extension()))
    }

    /// Numbers of the files in the vault at `dir`, ascending. Files with other names are not ours.
    pub(super) fn list(self, dir: &Path) -> Result<Vec<u32>, StoreError> {
        let directory = dir.join(self.directory());
        let error = |source| StoreError::io("list", &directory, source);
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(error)? {
            let name = entry.map_err(error)?.file_name();
            let number: Option<u32> = name.to_str().and_then(|name| name.strip_suffix(self.extension())?.strip_suffix('.')?.parse().ok());
            numbers.extend(number.filter(|number| *number > 0));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFileHeader {
    magic: [u8; 8],
    format: U16,
    zero: U16,
    number: U32,
    follows: U64,
    vault: [u8; 32],
    check: [u8; 8],
}

/// What a segment file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) kind: SegmentKind,
    pub(super) number: u32,
    pub(super) follows: u64,
    pub(super) vault: VaultId,
}

/// What reading a file's header found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderState {
    /// As it should be.
    Whole(FileHeader),
    /// The file is shorter than a header: a crash while it was made.
    Short,
    /// Flipped bits. The frames can be read all the same.
    Damaged,
}

impl FileHeader {
    /// The 64 bytes.
    pub(super) fn to_bytes(self) -> [u8; FILE_HEADER_BYTES as usize] {
        let mut raw = RawFileHeader {
            magic: self.kind.magic(),
            format: U16::new(FORMAT),
            zero: U16::new(0),
            number: U32::new(self.number),
            follows: U64::new(self.follows),
            vault: *self.vault.as_bytes(),
            check: [0; 8],
        };
        raw.check = check(raw.as_bytes());
        let mut bytes = [0; FILE_HEADER_BYTES as usize];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`; `what` names the file in errors.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] and [`StoreError::WrongVault`], only if the header is undamaged.
    pub(super) fn read(bytes: &[u8], kind: SegmentKind, vault: &VaultId, what: &Path) -> Result<HeaderState, StoreError> {
        let Ok((raw, _)) = RawFileHeader::ref_from_prefix(bytes) else { return Ok(HeaderState::Short) };
        if raw.magic != kind.magic() || raw.check != check(raw.as_bytes()) {
            return Ok(HeaderState::Damaged);
        }
        let what = || what.display().to_string();
        if raw.format.get() > FORMAT {
            return Err(StoreError::TooNew { what: what(), found: raw.format.get().into(), known: FORMAT.into() });
        }
        if raw.vault != *vault.as_bytes() {
            return Err(StoreError::WrongVault(what()));
        }
        Ok(HeaderState::Whole(Self { kind, number: raw.number.get(), follows: raw.follows.get(), vault: *vault }))
    }
}

fn check(header: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&blake3::hash(&header[..CHECKED_BYTES]).as_bytes()[..8]);
    check
}

/// What lies at a place of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A frame; its record was hashed if the scan was told to.
    Frame { header: Header, offset: u64 },
    /// Bytes that are no good frame, with good ones after them; the header if that much could be read.
    Damage { offset: u64, length: u64, header: Option<Header> },
    /// No good frame from here to the end.
    Torn { offset: u64 },
}

/// Walks through the frames of a segment file.
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    hash_from: u64,
}

impl<'a> Scan<'a> {
    /// The frames of the file `bytes` from offset `from` on (past the file's header at least); records at `hash_from` and beyond
    /// are hashed, before it only headers are looked at.
    pub(super) fn new(bytes: &'a [u8], from: u64, hash_from: u64) -> Self {
        Self { bytes, at: from.max(FILE_HEADER_BYTES) as usize, hash_from }
    }

    /// Where it stands: everything before has been reported.
    pub(super) fn position(&self) -> u64 {
        self.at as u64
    }

    /// The frame's header at `at` if the whole frame fits the file.
    fn header_at(&self, at: usize) -> Option<Header> {
        let header = Header::parse(self.bytes.get(at..)?).ok()?;
        (at + header.frame_bytes() <= self.bytes.len()).then_some(header)
    }

    fn is_good(&self, at: usize) -> bool {
        if at as u64 >= self.hash_from {
            return Verified::check(&self.bytes[at..]).is_ok();
        }
        self.header_at(at).is_some()
    }

    /// The next good frame after the bad one at the current place.
    fn resynchronise(&mut self) -> Found {
        let (offset, header) = (self.at, self.header_at(self.at));
        let past = header.map(|header| offset + header.frame_bytes());
        let next = past.filter(|past| self.header_at(*past).is_some()).or_else(|| self.search(offset + 1));
        self.at = next.unwrap_or(self.bytes.len());
        match next {
            Some(next) => Found::Damage { offset: offset as u64, length: (next - offset) as u64, header },
            None => Found::Torn { offset: offset as u64 },
        }
    }

    /// Place of the first frame at or after `from` whose record matches its id.
    fn search(&self, from: usize) -> Option<usize> {
        let rest = self.bytes.get(from..)?;
        let magic = |window: &[u8]| window == b"mRf1";
        rest.windows(4).enumerate().filter(|(_, window)| magic(window)).map(|(at, _)| from + at).find(|at| self.is_verified(*at))
    }

    fn is_verified(&self, at: usize) -> bool {
        Verified::check(&self.bytes[at..]).is_ok()
    }
}

impl Iterator for Scan<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if self.at >= self.bytes.len() {
            return None;
        }
        match self.header_at(self.at) {
            Some(header) if self.is_good(self.at) => {
                let offset = self.at as u64;
                self.at += header.frame_bytes();
                Some(Found::Frame { header, offset })
            }
            _ => Some(self.resynchronise()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameBuf, Kind};
    use proptest::prelude::*;

    const VAULT: VaultId = VaultId::from_bytes([3; 32]);

    fn header() -> FileHeader {
        FileHeader { kind: SegmentKind::Log, number: 7, follows: 99, vault: VAULT }
    }

    fn file(records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = header().to_bytes().to_vec();
        records.iter().for_each(|record| bytes.extend_from_slice(&FrameBuf::new(Kind::Chunk, record).into_bytes()));
        bytes
    }

    fn read(bytes: &[u8]) -> Result<HeaderState, StoreError> {
        FileHeader::read(bytes, SegmentKind::Log, &VAULT, Path::new("log/7"))
    }

    #[test]
    fn a_file_header_says_what_was_written_and_every_flipped_bit_is_found() {
        let bytes = header().to_bytes();
        assert_eq!(read(&bytes).unwrap(), HeaderState::Whole(header()));
        assert_eq!(read(&bytes[..63]).unwrap(), HeaderState::Short);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&damaged).unwrap(), HeaderState::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn another_vault_and_a_newer_format_are_told_apart_from_damage() {
        let other = VaultId::from_bytes([4; 32]);
        let foreign = FileHeader { vault: other, ..header() }.to_bytes();
        assert!(matches!(read(&foreign), Err(StoreError::WrongVault(_))));
        let mut newer = header().to_bytes();
        newer[8] = 2;
        let sum = check(&newer);
        newer[CHECKED_BYTES..].copy_from_slice(&sum);
        assert!(matches!(read(&newer), Err(StoreError::TooNew { found: 2, known: 1, .. })));
    }

    #[test]
    fn damage_in_the_middle_is_stepped_over_and_named() {
        let mut bytes = file(&[b"one", b"two", b"three"]);
        let second = FILE_HEADER_BYTES as usize + 51;
        bytes[second + 49] ^= 1;
        let found: Vec<_> = Scan::new(&bytes, 0, 0).collect();
        assert!(matches!(found[1], Found::Damage { offset, length: 51, header: Some(_) } if offset == second as u64), "{found:?}");
        bytes[second + 2] ^= 1;
        let found: Vec<_> = Scan::new(&bytes, 0, 0).collect();
        assert!(matches!(found[..], [Found::Frame { .. }, Found::Damage { length: 51, header: None, .. }, Found::Frame { .. }]));
    }

    proptest! {
        #[test]
        fn every_prefix_gives_the_whole_frames_in_it_and_at_most_a_torn_tail(cut in 0usize..400) {
            let records: [&[u8]; 4] = [b"one", b"", b"three", &[9; 100]];
            let whole = file(&records);
            let bytes = &whole[..cut.min(whole.len())];
            let mut end = FILE_HEADER_BYTES as usize;
            let fitting = records.iter().take_while(|record| { end += 48 + record.len(); end <= bytes.len() }).count();
            let found: Vec<_> = Scan::new(bytes, 0, 0).collect();
            prop_assert_eq!(found.iter().filter(|found| matches!(found, Found::Frame { .. })).count(), fitting);
            let damage = found.iter().any(|found| matches!(found, Found::Damage { .. }));
            prop_assert!(!damage);
        }

        #[test]
        fn scanning_any_bytes_ends(bytes in proptest::collection::vec(any::<u8>(), 0..500), from in 0u64..600) {
            prop_assert!(Scan::new(&bytes, from, 0).count() <= bytes.len());
        }
    }
}
