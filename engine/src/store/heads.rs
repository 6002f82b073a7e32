//! The `heads` file: the newest event ever accepted of each author, durable before anything is acknowledged.
//!
//! The log says what is held; `heads` says what was promised. Where `heads` is ahead, events that were acknowledged are gone (an old
//! backup was put back, a segment was deleted): that is reported until a peer has given them back, and never forgotten by lowering
//! the file. Replaced as a whole, so it is always the old one or the new one.
//!
//! ```text
//!  0 magic   8   "mirrorHD"
//!  8 format  2   1, then 2 zero bytes
//! 12 count   4
//! 16 vault  32
//! 48 count * (author 32 || sequence u64 LE || event 32), by author
//!    check  32   BLAKE3 of everything before
//! ```

use super::StoreError;
use crate::{
    event::{Head, Heads},
    id::{EventId, ReplicaId, VaultId},
    io::durable::Disk,
    limits::FRONTIER_AUTHORS_MAX,
};
use std::{fs, io, path::Path};

const MAGIC: &[u8; 8] = b"mirrorHD";
const FORMAT: u16 = 1;
const START_BYTES: usize = 48;
const ENTRY_BYTES: usize = 72;
const CHECK_BYTES: usize = 32;
const MODE: u32 = 0o600;

/// What reading the file found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadsFile {
    Whole(Heads),
    Missing,
    Damaged,
}

pub(super) fn write(disk: &Disk, path: &Path, vault: &VaultId, heads: &Heads) -> Result<(), StoreError> {
    disk.write_atomic(path, &encode(vault, heads), MODE).map_err(|error| StoreError::io("write", path, error))
}

pub(super) fn read(path: &Path, vault: &VaultId) -> Result<HeadsFile, StoreError> {
    match fs::metadata(path).and_then(|metadata| if metadata.len() > bytes_max() { Ok(Vec::new()) } else { fs::read(path) }) {
        Ok(bytes) => decode(&bytes, vault, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HeadsFile::Missing),
        Err(error) => Err(StoreError::io("read", path, error)),
    }
}

fn bytes_max() -> u64 {
    (START_BYTES + FRONTIER_AUTHORS_MAX * ENTRY_BYTES + CHECK_BYTES) as u64
}

fn encode(vault: &VaultId, heads: &Heads) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&(heads.0.len() as u32).to_le_bytes());
    bytes.extend_from_slice(vault.as_bytes());
    for (author, head) in &heads.0 {
        bytes.extend_from_slice(author.as_bytes());
        bytes.extend_from_slice(&head.sequence.to_le_bytes());
        bytes.extend_from_slice(head.event.as_bytes());
    }
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

fn decode(bytes: &[u8], vault: &VaultId, path: &Path) -> Result<HeadsFile, StoreError> {
    let Some((body, check)) = bytes.split_last_chunk::<CHECK_BYTES>() else { return Ok(HeadsFile::Damaged) };
    if body.len() < START_BYTES || !body.starts_with(MAGIC) || blake3::hash(body).as_bytes() != check {
        return Ok(HeadsFile::Damaged);
    }
    let what = path.display().to_string();
    let format = u16::from_le_bytes([body[8], body[9]]);
    if format > FORMAT {
        return Err(StoreError::TooNew { what, found: format.into(), known: FORMAT.into() });
    }
    if body[16..START_BYTES] != *vault.as_bytes() {
        return Err(StoreError::WrongVault(what));
    }
    Ok(decode_entries(&body[START_BYTES..]).map_or(HeadsFile::Damaged, HeadsFile::Whole))
}

fn decode_entries(bytes: &[u8]) -> Option<Heads> {
    let mut heads = Heads::default();
    for entry in bytes.chunks(ENTRY_BYTES) {
        let author = ReplicaId::from_slice(entry.get(..32)?)?;
        let sequence = u64::from_le_bytes(entry.get(32..40)?.try_into().ok()?);
        let event = EventId::from_slice(entry.get(40..)?)?;
        heads.0.insert(author, Head { sequence, event });
    }
    Some(heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_a_round_trip_and_every_cut_or_flip_is_found() {
        let vault = VaultId::from_bytes([1; 32]);
        let entry = |byte| (ReplicaId::from_bytes([byte; 32]), Head { sequence: byte.into(), event: EventId::from_bytes([byte + 1; 32]) });
        let heads = Heads([entry(1), entry(9)].into());
        let bytes = encode(&vault, &heads);
        let path = Path::new("heads");
        assert_eq!(decode(&bytes, &vault, path).unwrap(), HeadsFile::Whole(heads));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], &vault, path).unwrap(), HeadsFile::Damaged);
            let mut flipped = bytes.clone();
            flipped[cut] ^= 4;
            assert_eq!(decode(&flipped, &vault, path).unwrap(), HeadsFile::Damaged);
        }
        assert!(matches!(decode(&bytes, &VaultId::from_bytes([2; 32]), path), Err(StoreError::WrongVault(_))));
    }
}
