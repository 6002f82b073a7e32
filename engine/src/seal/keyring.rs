//! The sealing keys of all epochs that this device has: what is new goes under the current one's, what is there opens under its own.
//!
//! Plaintext identity and gear are the first epoch's in all of them: content that the vault has under an older epoch is known again,
//! cut as before, and referenced instead of stored anew.

use super::{ChunkType, OpenError, SealKeys, record::epoch_of};
use crate::event::ChunkRef;

/// Sealing keys, at least those of the first epoch.
#[derive(Debug)]
pub struct KeyRing {
    /// Where the current keys are.
    current: usize,
    /// The first epoch's first.
    keys: Vec<SealKeys>,
}

impl KeyRing {
    /// A ring with the first epoch's keys, which are the current ones.
    pub fn new(first: SealKeys) -> Self {
        Self { current: 0, keys: vec![first] }
    }

    /// Adds the keys of a later epoch. Epochs that were begun at once have one number: each of them is tried then.
    pub fn add(&mut self, mut later: SealKeys) {
        let first = &self.keys[0];
        (later.plaintext, later.gear) = (first.plaintext, first.gear);
        self.keys.push(later);
    }

    /// Makes the keys that were added last the current ones.
    pub fn seal_under_newest(&mut self) {
        self.current = self.keys.len() - 1;
    }

    /// What new chunks and bodies are sealed under.
    pub fn current(&self) -> &SealKeys {
        &self.keys[self.current]
    }

    /// Whether `record` is sealed under the current keys. Its header says so, and where epochs that were begun at once share a number, opening it.
    pub fn is_current(&self, record: &[u8], kind: ChunkType, expected: &ChunkRef) -> bool {
        let current = self.current();
        let alone = self.keys.iter().filter(|keys| keys.epoch == current.epoch).count() == 1;
        epoch_of(record) == Some(current.epoch) && (alone || current.open(record, kind, expected, &mut Vec::new()).is_ok())
    }

    /// As [`SealKeys::open`], under the keys of the epoch that the record names.
    ///
    /// # Errors
    /// [`OpenError::NoKey`] when none of that epoch are here.
    pub fn open(&self, record: &[u8], kind: ChunkType, expected: &ChunkRef, out: &mut Vec<u8>) -> Result<(), OpenError> {
        self.try_each(record, |keys| keys.open(record, kind, expected, out))
    }

    /// As [`SealKeys::open_body`], under the keys of the epoch that the body names.
    ///
    /// # Errors
    /// [`OpenError::NoKey`] when none of that epoch are here.
    pub fn open_body(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.try_each(sealed, |keys| keys.open_body(sealed, context))
    }

    fn try_each<T>(&self, record: &[u8], mut open: impl FnMut(&SealKeys) -> Result<T, OpenError>) -> Result<T, OpenError> {
        let epoch = epoch_of(record).ok_or(OpenError::Refused)?;
        let mut failure = OpenError::NoKey(epoch);
        for keys in self.keys.iter().filter(|keys| keys.epoch == epoch) {
            match open(keys) {
                Err(error) => failure = error,
                opened => return opened,
            }
        }
        Err(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame::HEADER_BYTES, id::VaultId, keys::MasterKey, seal::Compression};

    fn keys(seed: u8, epoch: u32) -> SealKeys {
        SealKeys::derive(&MasterKey::from_bytes([seed; 32]), &VaultId::from_bytes([7; 32]), epoch)
    }

    fn ring(later: &[(u8, u32)]) -> KeyRing {
        let mut ring = KeyRing::new(keys(1, 1));
        for (seed, epoch) in later {
            ring.add(keys(*seed, *epoch));
            ring.seal_under_newest();
        }
        ring
    }

    #[test]
    fn what_is_there_opens_under_its_own_epoch_and_what_is_new_under_the_newest_only() {
        let (before, after) = (ring(&[]), ring(&[(2, 2)]));
        let seal = |ring: &KeyRing| {
            let draft = ring.current().draft(b"plaintext", Vec::new());
            ring.current().seal(draft, ChunkType::Data, Compression::Never)
        };
        let (old, new) = (seal(&before), seal(&after));
        assert_eq!(old.reference.plaintext, new.reference.plaintext, "content is known again");
        assert_ne!(old.reference.chunk, new.reference.chunk);
        assert_eq!(before.current().gear_key(), after.current().gear_key());
        let open = |ring: &KeyRing, chunk: &crate::seal::SealedChunk| {
            let mut out = Vec::new();
            ring.open(&chunk.frame.verified().bytes()[HEADER_BYTES..], ChunkType::Data, &chunk.reference, &mut out).map(|()| out)
        };
        assert_eq!(open(&after, &old).unwrap(), b"plaintext");
        assert_eq!(open(&after, &new).unwrap(), b"plaintext");
        assert_eq!(open(&before, &new), Err(OpenError::NoKey(2)));
        assert_eq!(open(&ring(&[(3, 2)]), &new), Err(OpenError::Refused), "another epoch of that number");
        assert_eq!(open(&ring(&[(3, 2), (2, 2)]), &new).unwrap(), b"plaintext", "one of two");
        let current = |ring: &KeyRing, chunk: &crate::seal::SealedChunk| {
            ring.is_current(&chunk.frame.verified().bytes()[HEADER_BYTES..], ChunkType::Data, &chunk.reference)
        };
        assert_eq!([&old, &new].map(|chunk| current(&after, chunk)), [false, true]);
        assert!(current(&ring(&[(3, 2), (2, 2)]), &new) && !current(&ring(&[(2, 2), (3, 2)]), &new), "the number alone does not tell");
    }

    #[test]
    fn bodies_open_under_their_own_epoch() {
        let (before, after) = (ring(&[]), ring(&[(2, 2)]));
        let (old, new) = (before.current().seal_body(b"body", b"context"), after.current().seal_body(b"body", b"context"));
        assert_eq!(after.open_body(&old, b"context").unwrap(), b"body");
        assert_eq!(after.open_body(&new, b"context").unwrap(), b"body");
        assert_eq!(before.open_body(&new, b"context"), Err(OpenError::NoKey(2)));
        assert_eq!(before.open_body(b"", b"context"), Err(OpenError::Refused));
    }
}
