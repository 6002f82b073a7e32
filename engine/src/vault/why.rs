//! Why something is not here yet, or not there: what this replica holds of a key, an event or a chunk, what waits here and for what, and
//! which peers had it when they were last talked with.
//!
//! ```text
//! key ─► the version that stands ─────────────┐
//!      └► waiting events that speak of it ────┤
//! event ─► in the log, or waiting ────────────┼─► whereabouts: here, lost, waits for chunks or for another event
//! chunk ─► values that need it ───────────────┘    + each peer: has it, lacks it, or has something that is not here
//! ```
//! Everything is looked up when it is asked; nothing is kept for it.

use super::{PeerStatus, Vault, VaultError};
use crate::{
    event::{ChunkList, Content, Dot, Event, Frontier, Key},
    id::{ChunkId, EventId},
    merge::Place,
    store::{Pending, StoreError},
};
use std::collections::HashSet;

/// Keys of one chunk that are followed up.
const KEYS_MAX: usize = 16;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A key.
    Key(Key),
    /// An event, by its id.
    Event(EventId),
    /// A chunk, by its id.
    Chunk(ChunkId),
}

/// Where an event is, on its way to this replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// Applied, with all its chunks.
    Here,
    /// Applied, but chunks that it needs are gone.
    Lost {
        /// How many.
        chunks: u64,
    },
    /// Received and not applied: it waits.
    Waits {
        /// For so many chunks.
        chunks: u64,
        /// Out of so many.
        of: u64,
        /// Bytes of the chunks that are missing.
        bytes: u64,
        /// For another event that has to come first.
        after: Option<Dot>,
    },
}

/// An event that says something of what was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The event.
    pub event: EventId,
    /// Its author and number.
    pub dot: Dot,
    /// Whether it deletes the key.
    pub deletes: bool,
    /// Where it is.
    pub whereabouts: Whereabouts,
}

/// What a peer had when it was last talked with.
#[derive(Debug, Clone)]
pub struct PeerWord {
    /// Who, and when that was.
    pub status: PeerStatus,
    /// Whether it had applied the newest of the events; none if it was never talked with, or there is no event.
    pub has: Option<bool>,
    /// Events that it had and this replica does not.
    pub ahead_events: u64,
}

/// The answer.
#[derive(Debug, Clone)]
pub struct Why {
    /// What was asked about, as it was understood.
    pub subject: Subject,
    /// Of a chunk: whether it lies here.
    pub chunk_here: Option<bool>,
    /// Of a chunk: the keys whose current values need it, not more than a handful.
    pub keys: Vec<Key>,
    /// The events that speak of it: what stands, then what waits.
    pub words: Vec<Word>,
    /// Every peer.
    pub peers: Vec<PeerWord>,
}

impl Why {
    /// Whether nothing here knows of it.
    pub fn is_unknown(&self) -> bool {
        self.words.is_empty() && self.chunk_here != Some(true) && self.keys.is_empty()
    }

    /// Whether all of it is here.
    pub fn is_here(&self) -> bool {
        !self.is_unknown() && self.chunk_here != Some(false) && self.words.iter().all(|word| word.whereabouts == Whereabouts::Here)
    }
}

impl Vault {
    /// Where `subject` is. An id that is neither an event nor a chunk that this replica knows of is an answer, too.
    ///
    /// # Errors
    /// When the log, the index or the view cannot be read; [`VaultError::Keyless`] for keys on a keyless replica.
    pub fn why(&self, subject: Subject) -> Result<Why, VaultError> {
        self.store().refresh()?;
        let waiting = self.waiting()?;
        let mut why = Why { subject, chunk_here: None, keys: Vec::new(), words: Vec::new(), peers: Vec::new() };
        match why.subject.clone() {
            Subject::Key(key) => why.words = self.words_of_key(&key, &waiting)?,
            Subject::Event(id) => why.words = self.words_of_event(&id, &waiting)?,
            Subject::Chunk(id) => self.follow_chunk(&id, &waiting, &mut why)?,
        }
        why.peers = self.words_of_peers(&why.words)?;
        Ok(why)
    }

    /// What an id in hexadecimal stands for: an event if one of this id is here or waits here, else a chunk.
    ///
    /// # Errors
    /// When the log or the index cannot be read.
    pub fn subject_of_id(&self, bytes: [u8; 32]) -> Result<Subject, VaultError> {
        let event = EventId::from_bytes(bytes);
        let waits = || Ok::<_, StoreError>(self.store().journal_pending()?.iter().any(|(pending, _)| pending.id() == event));
        let is_event = self.store().event_by_id(&event)?.is_some() || waits()?;
        Ok(if is_event { Subject::Event(event) } else { Subject::Chunk(ChunkId::from_bytes(bytes)) })
    }

    fn words_of_key(&self, key: &Key, waiting: &[Waiting]) -> Result<Vec<Word>, VaultError> {
        self.catch_up()?;
        let mut words = Vec::new();
        if let Some(row) = self.ask(|view| view.current(key))? {
            let value = row.version.value();
            let whereabouts = value.map_or(Ok(Whereabouts::Here), |value| self.content_whereabouts(&value.content))?;
            words.push(word_at(&row.version.place, value.is_none(), whereabouts));
        }
        for waiting in waiting {
            let operations = self.operations_of(&waiting.event)?;
            if let Some(operation) = operations.iter().rev().find(|operation| operation.key() == key) {
                words.push(Word { deletes: matches!(operation, crate::event::Operation::Delete(..)), ..waiting.word() });
            }
        }
        Ok(words)
    }

    fn words_of_event(&self, id: &EventId, waiting: &[Waiting]) -> Result<Vec<Word>, VaultError> {
        if let Some(event) = self.store().event_by_id(id)? {
            let lists = self.store().lists(event.header().lists.iter().map(|list| &list.id))?;
            let chunks =
                self.store().missing_each(&lists.iter().flatten().collect::<Vec<_>>())?.iter().map(|missing| missing.len() as u64).sum();
            return Ok(vec![Word { event: *id, dot: event.dot(), deletes: false, whereabouts: lost_or_here(chunks) }]);
        }
        Ok(waiting.iter().filter(|waiting| waiting.event.id() == *id).map(Waiting::word).collect())
    }

    fn follow_chunk(&self, id: &ChunkId, waiting: &[Waiting], why: &mut Why) -> Result<(), VaultError> {
        why.chunk_here = self.store().contains(&[*id])?.first().copied();
        why.keys = self.keys_with(&HashSet::from([*id]))?;
        why.keys.truncate(KEYS_MAX);
        for key in &why.keys {
            why.words.extend(self.words_of_key(key, &[])?);
        }
        let names_it = |waiting: &&Waiting| waiting.lists.iter().any(|list| list.entries().iter().any(|entry| entry.id == *id));
        why.words.extend(waiting.iter().filter(names_it).map(Waiting::word));
        Ok(())
    }

    /// A value whose inner nodes are gone cannot be followed to its pieces: its own references count then.
    fn content_whereabouts(&self, content: &Content) -> Result<Whereabouts, VaultError> {
        let pieces = self.pieces(content).map(|pieces| pieces.into_iter().map(|placed| placed.reference.chunk).collect::<Vec<_>>());
        let chunks = pieces.unwrap_or_else(|_| content.references.iter().map(|reference| reference.chunk).collect());
        let gone = self.store().contains(&chunks)?.into_iter().filter(|here| !here).count() as u64;
        Ok(lost_or_here(gone))
    }

    fn waiting(&self) -> Result<Vec<Waiting>, VaultError> {
        let mut pending = Pending::new();
        let mut waiting = Vec::new();
        for (event, lists) in self.store().journal_pending()? {
            let after = match self.store().check_event(&event, &pending) {
                Err(StoreError::MissingDependency(missing)) => Some(missing),
                _ => None,
            };
            pending.add(&event);
            let missing = self.store().missing_each(&lists.iter().collect::<Vec<_>>())?;
            let bytes = lists.iter().zip(&missing).map(|(list, missing)| bytes_of(list, missing)).sum();
            let (chunks, of) =
                (missing.iter().map(|missing| missing.len() as u64).sum(), lists.iter().map(|list| list.entries().len() as u64).sum());
            waiting.push(Waiting { whereabouts: Whereabouts::Waits { chunks, of, bytes, after }, event, lists });
        }
        Ok(waiting)
    }

    fn words_of_peers(&self, words: &[Word]) -> Result<Vec<PeerWord>, VaultError> {
        let here = self.store().frontier();
        let newest = words.last().map(|word| word.dot);
        let word = |status: PeerStatus| {
            let frontier = status.contact.as_ref().map(|contact| &contact.frontier);
            let has = newest.and_then(|dot| frontier.map(|frontier| frontier.contains(&dot)));
            let ahead_events = frontier.map_or(0, |frontier: &Frontier| frontier.events_beyond(&here));
            PeerWord { has, ahead_events, status }
        };
        Ok(self.peers()?.into_iter().map(word).collect())
    }
}

/// An event of the journal, and what it waits for.
struct Waiting {
    event: Event,
    lists: Vec<ChunkList>,
    whereabouts: Whereabouts,
}

impl Waiting {
    fn word(&self) -> Word {
        Word { event: self.event.id(), dot: self.event.dot(), deletes: false, whereabouts: self.whereabouts }
    }
}

fn word_at(place: &Place, deletes: bool, whereabouts: Whereabouts) -> Word {
    Word { event: place.event, dot: place.dot, deletes, whereabouts }
}

fn lost_or_here(chunks: u64) -> Whereabouts {
    if chunks == 0 { Whereabouts::Here } else { Whereabouts::Lost { chunks } }
}

fn bytes_of(list: &ChunkList, missing: &crate::bitmap::Bitmap) -> u64 {
    missing.iter().filter_map(|at| list.entries().get(at as usize)).map(|entry| u64::from(entry.length)).sum()
}

#[cfg(test)]
mod tests {
    use super::{
        super::replicas::{Devices, pull, put},
        *,
    };
    use crate::members::Role;

    fn key(name: &str) -> Subject {
        Subject::Key(Key::new(name).unwrap())
    }

    /// Some bytes that need chunks of their own.
    fn put_large(vault: &Vault, name: &str) {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        vault.put(&Key::new(name).unwrap(), &mut &bytes[..], &crate::vault::Unwatched).unwrap();
    }

    /// The events that `to` lacks, in its journal, without their chunks.
    fn journal(to: &Vault, from: &Vault) {
        let batch = from.store().events_beyond(&to.store().frontier(), crate::store::LogPosition::START, usize::MAX).unwrap();
        to.store().journal_put_each(batch.events.iter().map(|(event, lists)| (event, &lists[..]))).unwrap();
    }

    #[test]
    fn what_is_here_is_here_and_what_nobody_wrote_is_unknown() {
        let (_devices, vault) = Devices::new();
        put(&vault, "plan").unwrap();
        assert!(vault.why(key("plan")).unwrap().is_here());
        assert!(vault.why(key("other")).unwrap().is_unknown());
        vault.remove(&[Key::new("plan").unwrap()], None).unwrap();
        assert!(vault.why(key("plan")).unwrap().words[0].deletes);
    }

    #[test]
    fn a_key_whose_event_waits_says_for_how_many_chunks() {
        let (devices, first) = Devices::new();
        let second = devices.join(&first, "second", Role::Member);
        pull(&second, &first).unwrap();
        put_large(&first, "video");
        journal(&second, &first);
        let why = second.why(key("video")).unwrap();
        assert!(
            matches!(why.words[..], [Word { whereabouts: Whereabouts::Waits { chunks, of, bytes, after: None }, .. }]
                if chunks > 0 && chunks == of && bytes > 300_000),
            "{why:?}"
        );
        assert!(!why.is_here() && !why.is_unknown());
    }

    #[test]
    fn an_event_that_waits_for_another_names_it() {
        let (devices, first) = Devices::new();
        let second = devices.join(&first, "second", Role::Member);
        pull(&second, &first).unwrap();
        put(&first, "a").unwrap();
        let missing = first.store().frontier();
        put(&first, "b").unwrap();
        let batch = first.store().events_beyond(&missing, crate::store::LogPosition::START, usize::MAX).unwrap();
        second.store().journal_put(&batch.events[0].0, &batch.events[0].1).unwrap();
        let why = second.why(key("b")).unwrap();
        let before = Dot { sequence: why.words[0].dot.sequence - 1, ..why.words[0].dot };
        assert!(matches!(why.words[0].whereabouts, Whereabouts::Waits { after: Some(after), .. } if after == before), "{why:?}");
    }

    #[test]
    fn a_chunk_that_is_gone_leads_to_the_keys_that_need_it() {
        let (_devices, vault) = Devices::new();
        put_large(&vault, "video");
        let row = vault.ask(|view| view.current(&Key::new("video").unwrap())).unwrap().unwrap();
        let chunk = vault.pieces(&row.version.value().unwrap().content).unwrap()[0].reference.chunk;
        let here = vault.why(Subject::Chunk(chunk)).unwrap();
        assert_eq!((here.chunk_here, here.keys.len()), (Some(true), 1));
        assert!(here.is_here());
        assert_eq!(vault.subject_of_id(*row.version.place.event.as_bytes()).unwrap(), Subject::Event(row.version.place.event));
        assert_eq!(vault.subject_of_id(*chunk.as_bytes()).unwrap(), Subject::Chunk(chunk));
        let event = vault.why(Subject::Event(row.version.place.event)).unwrap();
        assert!(event.is_here());
    }
}
