//! `rekey --rewrite`: what stands is sealed anew under the current key epoch.
//!
//! ```text
//! view: standing values and those in conflict ─► pieces and nodes whose chunk is of an older epoch ─► open ─► seal ─► pack ─ fdatasync
//!                                                                                  (plaintext, new chunk) ─► event of kind resealed ─► log
//! ```
//! An event says of plaintexts where they lie as well ([`KIND_RESEALED`](crate::event::KIND_RESEALED)), and nothing of keys or versions.
//! Putting the same values again would be a change like any other: it would stand in conflict with every edit that did not know of it. So
//! versions, their events and their conflicts stay what they are, and only where bytes are read from changes.
//!
//! - What was resealed is known by it (the view's table), so running again goes on where a run ended, whoever began it. Records are
//!   a function of plaintext and keys: two replicas that do this at once make the same chunks.
//! - A window of values, a group of chunks and a batch of references are in memory, whatever the size of the vault; which plaintexts a plan
//!   has counted lies in a file ([`Counted`]).
//! - Nothing is removed: older records stay in every replica's packs and log, and open with the keys of their time.

mod counted;

use super::{Vault, VaultError, Watch, history::opened_as, ingest::in_flight_bytes, view::Resealed};
use crate::{
    event::{ChunkList, ChunkRef, Entry, Event, KIND_RESEALED, Key, Value, body_context, decode_resealed, encode_resealed},
    frame::HEADER_BYTES,
    id::{ChunkId, PlaintextId},
    io::durable,
    limits::{LIST_ENTRIES_MAX, RESEALED_BYTES_MAX, RESEALED_PIECES_MAX},
    seal::{ChunkType, Compression, KeyRing, SealedChunk},
    store::{Location, PackWriter},
};
use counted::Counted;
use rayon::prelude::*;
use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

/// Values looked at together.
const WINDOW_VALUES: usize = 512;
/// Bytes of such values: bounds their references. One larger value is looked at alone.
const WINDOW_BYTES: u64 = 1 << 30;

/// What is to be sealed anew, or was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The current key epoch.
    pub epoch: u32,
    /// Keys whose value needs a chunk of an older one.
    pub keys: u64,
    /// Versions that stand beside the winner of a conflict and need such a chunk.
    pub losers: u64,
    /// Chunks: those that several values share count once.
    pub chunks: u64,
    /// Bytes of their plaintexts.
    pub bytes: u64,
    /// Bytes that their records take in packs.
    pub stored_bytes: u64,
    /// Keys whose value cannot be read here, each with the reason; they stay as they are.
    pub unreadable: Vec<(Key, String)>,
}

/// A chunk of an older epoch, and whose value needs it.
struct Old {
    key: Arc<Key>,
    reference: ChunkRef,
    kind: ChunkType,
    stored_bytes: u64,
}

/// A version whose value is looked at.
struct Candidate {
    key: Key,
    value: Value,
    rank: Rank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    Standing,
    Loser,
}

impl Vault {
    /// What [`Vault::rewrite`] would do now, and how many bytes are free where the vault lies.
    ///
    /// # Errors
    /// [`VaultError::Keyless`], or when the log or the view cannot be read.
    pub fn plan_rewrite(&self, watch: &dyn Watch) -> Result<(Rewrite, u64), VaultError> {
        self.sealing()?;
        self.catch_up()?;
        let mut counted = Counted::new()?;
        let mut plan = Rewrite { epoch: self.keys().current, ..Rewrite::default() };
        let ring = self.seal_keys()?;
        survey(self, &ring, watch, &mut |window| {
            plan.take(&window);
            for (_, olds) in window.olds {
                let plaintexts: Vec<PlaintextId> = olds.iter().map(|old| old.reference.plaintext).collect();
                let news = counted.add(&plaintexts)?;
                olds.iter().zip(news).filter(|(_, new)| *new).for_each(|(old, _)| plan.count(&old.reference, old.stored_bytes));
            }
            Ok(())
        })?;
        let free_bytes = durable::free_bytes(self.dir()).map_err(|error| VaultError::at("looking at", self.dir(), error))?;
        Ok((plan, free_bytes))
    }

    /// Seals anew what stands and is sealed under an older key epoch. What is done stays done: after an interruption, the next run goes on.
    ///
    /// # Errors
    /// [`VaultError::NotAllowed`] and [`VaultError::Keyless`] for who may not write, [`VaultError::NoSpace`] before anything is written if
    /// there clearly is not enough, [`VaultError::Cancelled`].
    pub fn rewrite(&self, watch: &dyn Watch) -> Result<Rewrite, VaultError> {
        self.catch_up()?;
        self.require_writer()?;
        self.check_whole()?;
        let (plan, free_bytes) = self.plan_rewrite(watch)?;
        plan.require_space(free_bytes)?;
        watch.expect(plan.chunks, plan.bytes);
        let mut resealer = Resealer::new(self, watch)?;
        let ring = resealer.ring.clone();
        let surveyed = survey(self, &ring, watch, &mut |window| resealer.take(window));
        // Also what was done before a failure counts.
        let committed = resealer.commit();
        surveyed.and(committed)?;
        if watch.cancelled() {
            return Err(VaultError::Cancelled);
        }
        Ok(Rewrite { keys: plan.keys, losers: plan.losers, ..resealer.done })
    }

    /// What an event says of resealed pieces; none if it is of another kind, has no effect, or cannot be read.
    pub(super) fn resealed_by(&self, event: &Event) -> Result<Option<Resealed>, VaultError> {
        let header = event.header();
        if header.kind != KIND_RESEALED || !self.is_in_force(event) {
            return Ok(None);
        }
        let pieces = opened_as(&*self.seal_keys()?, event, decode_resealed)
            .inspect_err(|error| tracing::debug!(event = %event.id(), error, "what an event says of resealed pieces cannot be read"));
        Ok(pieces.ok().map(|pieces| Resealed { epoch: header.epoch, lamport: header.lamport, author: event.author(), pieces }))
    }
}

impl Rewrite {
    /// Whether the disk may have room.
    ///
    /// # Errors
    /// [`VaultError::NoSpace`].
    pub fn require_space(&self, free_bytes: u64) -> Result<(), VaultError> {
        if self.stored_bytes <= free_bytes {
            return Ok(());
        }
        let needed = self.stored_bytes;
        Err(VaultError::NoSpace(format!(
            "sealing anew takes {needed} bytes beside what is there, and {free_bytes} are free: nothing was written"
        )))
    }

    fn take(&mut self, window: &Window) {
        for (rank, olds) in &window.olds {
            match rank {
                _ if olds.is_empty() => {}
                Rank::Standing => self.keys += 1,
                Rank::Loser => self.losers += 1,
            }
        }
        self.unreadable.extend(window.unreadable.iter().cloned());
    }

    fn count(&mut self, reference: &ChunkRef, stored_bytes: u64) {
        self.chunks += 1;
        self.bytes += u64::from(reference.length);
        self.stored_bytes += stored_bytes;
    }
}

/// What a look at some values has found.
#[derive(Default)]
struct Window {
    /// By value.
    olds: Vec<(Rank, Vec<Old>)>,
    unreadable: Vec<(Key, String)>,
}

/// Hands what is of older epochs to `each`, of a window of values at a time.
fn survey(
    vault: &Vault,
    ring: &KeyRing,
    watch: &dyn Watch,
    each: &mut dyn FnMut(Window) -> Result<(), VaultError>,
) -> Result<(), VaultError> {
    let mut gathered: Vec<Candidate> = Vec::new();
    let mut gather = |candidate: Option<Candidate>| {
        let end = candidate.is_none();
        gathered.extend(candidate);
        let bytes: u64 = gathered.iter().map(|candidate| candidate.value.content.bytes).sum();
        if end || gathered.len() >= WINDOW_VALUES || bytes >= WINDOW_BYTES {
            each(look(vault, ring, std::mem::take(&mut gathered))?)?;
        }
        Ok(if watch.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    vault.scan(b"", false, &mut |row| match row.version.value() {
        Some(value) => gather(Some(Candidate { value: value.clone(), key: row.key, rank: Rank::Standing })),
        None => Ok(ControlFlow::Continue(())),
    })?;
    vault.each_conflict(b"", &mut |key, resolved| {
        for value in resolved.losers.iter().filter_map(|version| version.value()) {
            if gather(Some(Candidate { key: key.clone(), value: value.clone(), rank: Rank::Loser }))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    gather(None).map(drop)
}

fn look(vault: &Vault, ring: &KeyRing, candidates: Vec<Candidate>) -> Result<Window, VaultError> {
    let mut window = Window::default();
    for Candidate { key, value, rank } in candidates {
        let key = Arc::new(key);
        let mut olds = Vec::new();
        if let Err(reason) = look_at(vault, ring, &key, value, &mut olds)? {
            window.unreadable.push((Key::clone(&key), reason));
        }
        window.olds.push((rank, olds));
    }
    Ok(window)
}

/// Appends what of `value` lies in chunks of an older epoch; says why not all of it could be looked at.
fn look_at(vault: &Vault, ring: &KeyRing, key: &Arc<Key>, value: Value, olds: &mut Vec<Old>) -> Result<Result<(), String>, VaultError> {
    let mut level = value.content.references;
    let mut found = Ok(());
    for depth in (0..=value.content.depth).rev() {
        let kind = if depth > 0 { ChunkType::Node } else { ChunkType::Data };
        for (reference, place) in older(vault, ring, &level, kind)? {
            match place {
                Some(place) => olds.push(Old { key: key.clone(), reference, kind, stored_bytes: u64::from(place.length) }),
                None => found = Err(format!("chunk {} is missing", reference.chunk)),
            }
        }
        if depth > 0 {
            level = match vault.below(&level) {
                Ok(below) => below,
                Err(VaultError::Damaged(reason)) => return Ok(Err(reason)),
                Err(error) => return Err(error),
            };
        }
    }
    Ok(found)
}

/// Those of `level` that are not read from a chunk of the current epoch, and where the chunk lies that they are read from.
fn older(vault: &Vault, ring: &KeyRing, level: &[ChunkRef], kind: ChunkType) -> Result<Vec<(ChunkRef, Option<Location>)>, VaultError> {
    let newest = vault.newest_chunks(level)?;
    let named: Vec<ChunkId> = level.iter().map(|reference| reference.chunk).collect();
    let (places, before) = (vault.store().locate(&newest)?, vault.store().locate(&named)?);
    let mut older = Vec::new();
    for (at, reference) in level.iter().enumerate() {
        let frame = places[at].and_then(|place| vault.store().frame_at(&place).ok());
        let read_from = ChunkRef { chunk: newest[at], ..*reference };
        if !frame.is_some_and(|frame| ring.is_current(&frame[HEADER_BYTES..], kind, &read_from)) {
            older.push((*reference, places[at].or(before[at])));
        }
    }
    Ok(older)
}

/// Seals anew what surveys find.
struct Resealer<'a> {
    vault: &'a Vault,
    watch: &'a dyn Watch,
    ring: Arc<KeyRing>,
    pack: PackWriter,
    /// References of the next event, and their chunks as lists name them.
    batch: Vec<(ChunkRef, Entry)>,
    batch_bytes: u64,
    /// What is in the batch, or was dealt with since the window was looked at.
    dealt: HashSet<PlaintextId>,
    done: Rewrite,
}

impl<'a> Resealer<'a> {
    fn new(vault: &'a Vault, watch: &'a dyn Watch) -> Result<Self, VaultError> {
        let ring = vault.seal_keys()?;
        let done = Rewrite { epoch: ring.current().epoch(), ..Rewrite::default() };
        let pack = vault.store().writer();
        Ok(Self { vault, watch, ring, pack, batch: Vec::new(), batch_bytes: 0, dealt: HashSet::new(), done })
    }

    fn take(&mut self, window: Window) -> Result<(), VaultError> {
        self.done.unreadable.extend(window.unreadable);
        let olds: Vec<Old> = window.olds.into_iter().flat_map(|(_, olds)| olds).collect();
        let mut group: Vec<Old> = Vec::new();
        let mut group_bytes = 0;
        for old in olds {
            if self.watch.cancelled() {
                return Ok(());
            }
            if !self.dealt.insert(old.reference.plaintext) {
                continue;
            }
            group_bytes += old.reference.length as usize;
            group.push(old);
            if group_bytes >= in_flight_bytes(self.vault.memory_bytes) / 2 {
                self.reseal(&std::mem::take(&mut group))?;
                group_bytes = 0;
            }
        }
        self.reseal(&group)?;
        // The next window is looked at with all of this known, but for what waits in the batch.
        self.dealt = self.batch.iter().map(|(reference, _)| reference.plaintext).collect();
        Ok(())
    }

    fn reseal(&mut self, group: &[Old]) -> Result<(), VaultError> {
        let (vault, ring) = (self.vault, &self.ring);
        let sealed: Vec<Result<SealedChunk, VaultError>> = group.par_iter().map(|old| seal_anew(vault, ring, old)).collect();
        let mut frames = Vec::with_capacity(sealed.len());
        for (old, sealed) in group.iter().zip(sealed) {
            self.watch.advance(1, u64::from(old.reference.length));
            match sealed {
                Ok(sealed) => frames.push(sealed),
                Err(VaultError::Damaged(reason)) => self.done.unreadable.push((Key::clone(&old.key), reason)),
                Err(error) => return Err(error),
            }
        }
        self.pack.append_run(&frames.iter().map(|sealed| sealed.frame.verified()).collect::<Vec<_>>())?;
        for SealedChunk { frame, reference } in &frames {
            let length = frame.verified().header().length;
            self.batch.push((*reference, Entry { id: reference.chunk, length }));
            self.batch_bytes += u64::from(reference.length);
            self.done.count(reference, frame.verified().bytes().len() as u64);
            if self.batch.len() >= RESEALED_PIECES_MAX || self.batch_bytes >= RESEALED_BYTES_MAX {
                self.commit()?;
            }
        }
        Ok(())
    }

    /// Chunks durable, then the event that says where they are.
    fn commit(&mut self) -> Result<(), VaultError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.pack.checkpoint()?;
        let (pieces, entries): (Vec<ChunkRef>, Vec<Entry>) = std::mem::take(&mut self.batch).into_iter().unzip();
        self.batch_bytes = 0;
        let lists = entries.chunks(LIST_ENTRIES_MAX).map(|entries| ChunkList::new(entries.to_vec()));
        let lists: Vec<ChunkList> = lists.collect::<Result<_, _>>().map_err(VaultError::internal)?;
        let body = encode_resealed(&pieces).map_err(VaultError::internal)?;
        let vault = self.vault;
        vault.require_writer()?;
        vault.commit(KIND_RESEALED, &lists, &mut |slot| {
            Ok(vault.seal_keys()?.current().seal_body(&body, &body_context(&vault.own.id(), slot.sequence)))
        })?;
        vault.catch_up()
    }
}

/// As `add` would seal it, had it not known the plaintext.
fn seal_anew(vault: &Vault, ring: &KeyRing, old: &Old) -> Result<SealedChunk, VaultError> {
    let mut plaintext = Vec::new();
    vault.open_chunk(&old.reference, old.kind, &mut plaintext)?;
    let compression = match old.kind {
        ChunkType::Data => Compression::Auto,
        ChunkType::Node => Compression::Never,
    };
    let draft = ring.current().draft(&plaintext, Vec::new());
    Ok(ring.current().seal(draft, old.kind, compression))
}

#[cfg(test)]
mod tests;
