//! What a followed folder asks of a vault: what was said since it last looked, what counts for a key, and a way to add to that only if
//! nothing was said in between.
//!
//! An event says that its author had seen everything before it, so putting a file supersedes all that others have said of its key. Who
//! decides by what he has seen must therefore have seen all: [`Vault::append_decided`] asks again when the log has grown meanwhile.

use super::{
    Vault, VaultError, Watch,
    content::Placed,
    ingest::{self, Intake, Moving, NotTaken},
    scribe::{Failure, Scribe},
    view::Deleted,
    walk::Found,
};
use crate::{
    event::{ChunkList, Dot, Frontier, KIND_MEMBERSHIP, Key, Operation, Value, ValueKind},
    limits::{EVENT_BODY_BYTES_MAX, FOLDER_CHANGES_MAX},
    merge::Version,
    store::{LogPosition, Slot},
};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::{self, Write},
    ops::ControlFlow,
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// What the log says beyond a place in it.
pub(crate) enum Changes {
    /// Something of these keys.
    Keys(BTreeSet<Key>),
    /// So much that every key may as well be looked at; or of who is in, so that older events may mean something else now.
    Everything,
}

impl Vault {
    /// Reads and seals `found` and hands them to `intake`.
    ///
    /// # Errors
    /// As [`Vault::add`].
    pub(crate) fn take_in(
        &self,
        found: Vec<Found>,
        moving: Moving,
        intake: &dyn Intake,
        watch: &dyn Watch,
    ) -> Result<NotTaken, VaultError> {
        // What came from others need not be sealed again.
        self.catch_up()?;
        self.check_whole()?;
        ingest::take_in(self, found, moving, intake, watch)
    }

    /// Appends what `decide` says with the view at the end of the log, and asks again should the log have grown before that was written.
    /// Nothing is appended when it says nothing and there are no lists. On return the view holds it.
    ///
    /// # Errors
    /// As [`Vault::put`], and those of `decide`.
    pub(crate) fn append_decided(
        &self,
        lists: &[ChunkList],
        decide: &mut dyn FnMut() -> Result<Vec<Operation>, VaultError>,
    ) -> Result<(), VaultError> {
        loop {
            self.store().refresh()?;
            let mut seen = self.store().frontier();
            self.catch_up()?;
            let operations = decide()?;
            if operations.is_empty() && lists.is_empty() {
                return Ok(());
            }
            let mut overtaken = false;
            let appended = self.append_where(&operations, lists.to_vec(), &mut |slot| {
                overtaken = !self.is_next(&mut seen, slot);
                if overtaken { Err(VaultError::Busy("the log has grown".into())) } else { Ok(()) }
            });
            if !overtaken {
                appended?;
                return self.catch_up();
            }
        }
    }

    /// Whether `slot` comes right after `seen`, which then has seen it, too.
    fn is_next(&self, seen: &mut Frontier, slot: &Slot) -> bool {
        let own = self.own.id();
        let next = slot.sequence == seen.sequence_of(&own) + 1 && slot.deps == seen.clone().without(&own);
        seen.raise(Dot { author: own, sequence: slot.sequence });
        next
    }

    /// The versions of `key` that count, the one that stands first, as far as the view has followed the log.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub(crate) fn maximal(&self, key: &Key) -> Result<Vec<Version>, VaultError> {
        Ok(self.ask(|view| view.maximal(key))?.into_iter().map(|row| row.version).collect())
    }

    /// Whether a key below `key`, as in a directory, has a value, or one that lost a conflict.
    ///
    /// # Errors
    /// When the view cannot be read.
    pub(crate) fn has_below(&self, key: &Key) -> Result<bool, VaultError> {
        let prefix = [key.as_bytes(), b"/"].concat();
        let live = self.ask(|view| view.scan(&prefix, None, Deleted::Hidden, 1))?;
        Ok(!live.is_empty() || !self.ask(|view| view.conflicts(&prefix, None, 1))?.is_empty())
    }

    /// The sequence number that this replica's next event gets.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.store().frontier().sequence_of(&self.own.id()) + 1
    }

    /// Brings the view up to the end of the log and says what came after `since`, and where the log ends now.
    ///
    /// # Errors
    /// When the log or the view cannot be read.
    pub(crate) fn changes_since(&self, since: LogPosition) -> Result<(Changes, LogPosition), VaultError> {
        self.catch_up()?;
        let (mut keys, mut everything, mut position) = (BTreeSet::new(), false, since);
        loop {
            let events = self.store().events_from(position, EVENT_BODY_BYTES_MAX)?;
            let Some((next, _)) = events.last() else { break };
            position = *next;
            for (_, event) in &events {
                everything |= event.header().kind == KIND_MEMBERSHIP;
                keys.extend(self.readable_operations_of(event)?.into_iter().map(|operation| operation.key().clone()));
            }
            everything |= keys.len() > FOLDER_CHANGES_MAX;
            if everything {
                keys.clear();
            }
        }
        Ok((if everything { Changes::Everything } else { Changes::Keys(keys) }, position))
    }

    /// Brings the view up to the end of the log and hands every key below `prefix` that has a value, or had one, to `each`, in byte order.
    ///
    /// # Errors
    /// When the view cannot be read, or what `each` fails with.
    pub(crate) fn each_key(&self, prefix: &[u8], each: &mut dyn FnMut(Key) -> Result<(), VaultError>) -> Result<(), VaultError> {
        self.catch_up()?;
        self.scan(prefix, true, &mut |row| each(row.key).map(|()| ControlFlow::Continue(())))
    }

    /// Makes `path`, which is not there, with what `value` says: a file, a link or a directory.
    ///
    /// # Errors
    /// [`Failure`]; nothing or a part of it is there then.
    pub(crate) fn write_out(&self, scribe: &Scribe<'_>, path: &Path, value: &Value) -> Result<(), Failure> {
        match &value.kind {
            ValueKind::Directory(_) => Err(Failure::One("a directory is not written as a file".into())),
            ValueKind::Symlink(target) => Ok(scribe.write_link(path, value, Path::new(OsStr::from_bytes(target)))?),
            ValueKind::Blob | ValueKind::File(_) => scribe.write_file(path, value, &self.placed(value)?),
        }
    }

    fn placed(&self, value: &Value) -> Result<Vec<Placed>, VaultError> {
        let mut pieces = self.pieces(&value.content)?;
        self.locate(&mut pieces.iter_mut().collect::<Vec<_>>())?;
        Ok(pieces)
    }

    /// Whether `file` holds the bytes of `value`.
    ///
    /// # Errors
    /// When the value cannot be read.
    pub(crate) fn has_bytes_of(&self, file: std::fs::File, value: &Value) -> Result<bool, VaultError> {
        if file.metadata().is_ok_and(|metadata| metadata.len() != value.content.bytes) {
            return Ok(false);
        }
        let mut compared = Compared { file, equal: true };
        match self.stream(&value.content, &mut compared) {
            Err(VaultError::Io { .. }) if !compared.equal => Ok(false),
            streamed => streamed.map(|()| compared.equal),
        }
    }
}

/// A sink that holds what it is given against a file, and takes no more once they differ.
struct Compared {
    file: std::fs::File,
    equal: bool,
}

impl Write for Compared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut there = vec![0; bytes.len()];
        self.equal = io::Read::read_exact(&mut self.file, &mut there).is_ok() && there == bytes;
        if self.equal { Ok(bytes.len()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
