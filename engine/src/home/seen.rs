//! The newest event of every author that a vault directory was ever seen to hold: what tells when it is put back to an older state.
//!
//! The directory has `heads` for that, and a backup takes `heads` along: restored, the directory looks whole. So this device remembers
//! outside of it, for the directory's path. What is remembered only ever rises, but when the user accepts a loss
//! ([`VaultHome::replace_seen`]) or makes a new replica at that path ([`VaultHome::forget_directory`]).
//!
//! ```text
//! replicas/<dir>.seen = strict CBOR (format, [(author, sequence, event)...] by author) || BLAKE3 of it
//! ```
//! It is written late: at opening, when a session ends, about once a second in one that stays. So it may lag behind by what came since,
//! never run ahead: everything in it was durable in the directory first. The directory's own author does not wait for it, see
//! [`OwnReplica`](super::OwnReplica). Without a sync: after a power cut the file may be an older one, and the next opening brings it up.

use super::{HomeError, VaultHome, directory_name, failed, lock};
use crate::{
    codec,
    event::{Head, Heads},
    id::{EventId, ReplicaId},
    keys::private_file,
    limits::FRONTIER_AUTHORS_MAX,
};
use minicbor::{Decode, Encode};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const FORMAT: u8 = 1;
/// Author, sequence number and event with what CBOR puts around them.
const ENTRY_BYTES_MAX: usize = 80;
const FILE_BYTES_MAX: usize = private_file::CHECK_BYTES + 16 + FRONTIER_AUTHORS_MAX * ENTRY_BYTES_MAX;

#[derive(Encode, Decode)]
struct SeenFile {
    #[n(0)]
    format: u8,
    #[n(1)]
    heads: Vec<SeenHead>,
}

#[derive(Encode, Decode)]
struct SeenHead {
    #[n(0)]
    author: ReplicaId,
    #[n(1)]
    sequence: u64,
    #[n(2)]
    event: EventId,
}

impl VaultHome {
    /// What `vault_dir` was seen to hold. Nothing if it is new here, or if the file means nothing any more.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub fn seen(&self, vault_dir: &Path) -> Result<Heads, HomeError> {
        read(&self.seen_path(vault_dir)?)
    }

    /// Notes that `vault_dir` holds `heads`, which are durable there. Costs a read when there is no news.
    ///
    /// # Errors
    /// [`HomeError::Io`]. A later rollback might go unnoticed, nothing else depends on it.
    pub fn record_seen(&self, vault_dir: &Path, heads: &Heads) -> Result<(), HomeError> {
        let path = self.seen_path(vault_dir)?;
        let _held = lock(&self.dir)?;
        let before = read(&path)?;
        let mut seen = before.clone();
        seen.join(heads);
        if seen == before { Ok(()) } else { write(&path, &seen) }
    }

    /// The user accepts that `vault_dir` holds `heads` and no more.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub fn replace_seen(&self, vault_dir: &Path, heads: &Heads) -> Result<(), HomeError> {
        let _held = lock(&self.dir)?;
        write(&self.seen_path(vault_dir)?, heads)
    }

    /// A new replica is made in `vault_dir`: what lay there before has nothing to do with it.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub fn forget_directory(&self, vault_dir: &Path) -> Result<(), HomeError> {
        let name = directory_name(vault_dir)?;
        let _held = lock(&self.dir)?;
        for kind in ["seen", "id", "head"] {
            let path = self.dir.join("replicas").join(format!("{name}.{kind}"));
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(failed("removing", &path))?,
            }
        }
        Ok(())
    }

    fn seen_path(&self, vault_dir: &Path) -> Result<PathBuf, HomeError> {
        Ok(self.dir.join("replicas").join(format!("{}.seen", directory_name(vault_dir)?)))
    }
}

fn read(path: &Path) -> Result<Heads, HomeError> {
    let bytes = match private_file::read(path, FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Heads::default()),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Vec::new(),
        other => other.map_err(failed("reading", path))?,
    };
    Ok(decode(&bytes).unwrap_or_else(|| {
        tracing::warn!(file = %path.display(), "what this device has seen of the vault cannot be read; it is begun anew");
        Heads::default()
    }))
}

fn decode(bytes: &[u8]) -> Option<Heads> {
    let file: SeenFile = codec::decode("seen heads", private_file::checked(bytes)?).ok().filter(|file: &SeenFile| file.format == FORMAT)?;
    Some(Heads(file.heads.into_iter().map(|seen| (seen.author, Head { sequence: seen.sequence, event: seen.event })).collect()))
}

fn write(path: &Path, heads: &Heads) -> Result<(), HomeError> {
    let entry = |(author, head): (&ReplicaId, &Head)| SeenHead { author: *author, sequence: head.sequence, event: head.event };
    let file = SeenFile { format: FORMAT, heads: heads.0.iter().map(entry).collect() };
    private_file::write_unsynced(path, &private_file::with_check(codec::encode(&file))).map_err(failed("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{home::Home, id::VaultId};

    fn heads(entries: &[(u8, u64)]) -> Heads {
        let head = |(author, sequence): &(u8, u64)| {
            (ReplicaId::from_bytes([*author; 32]), Head { sequence: *sequence, event: EventId::from_bytes([*sequence as u8; 32]) })
        };
        Heads(entries.iter().map(head).collect())
    }

    #[test]
    fn what_was_seen_only_rises_until_a_loss_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Home::open(&dir.path().join("home")).unwrap().vault(&VaultId::from_bytes([1; 32])).unwrap();
        assert_eq!(vault.seen(dir.path()).unwrap(), Heads::default());
        vault.record_seen(dir.path(), &heads(&[(1, 5), (2, 1)])).unwrap();
        vault.record_seen(dir.path(), &heads(&[(1, 3), (2, 4), (3, 1)])).unwrap();
        assert_eq!(vault.seen(dir.path()).unwrap(), heads(&[(1, 5), (2, 4), (3, 1)]));
        vault.replace_seen(dir.path(), &heads(&[(1, 3)])).unwrap();
        assert_eq!(vault.seen(dir.path()).unwrap(), heads(&[(1, 3)]));
        vault.forget_directory(dir.path()).unwrap();
        assert_eq!(vault.seen(dir.path()).unwrap(), Heads::default());
    }

    #[test]
    fn as_many_authors_as_there_may_be_fit_and_a_damaged_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let author = |n: usize| ReplicaId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let most = Heads(
            (0..FRONTIER_AUTHORS_MAX).map(|n| (author(n), Head { sequence: u64::MAX, event: EventId::from_bytes([255; 32]) })).collect(),
        );
        write(&path, &most).unwrap();
        assert_eq!(read(&path).unwrap(), most);
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap(), Heads::default());
        fs::write(&path, vec![0; FILE_BYTES_MAX + 1]).unwrap();
        assert_eq!(read(&path).unwrap(), Heads::default());
    }
}
