//! The one writer: appends chunks, gathers operations, commits events.

use super::{
    FileNumber, Gathered, Intake, Item, Known, Round, Whole, gate::Gate, read::KnownChunk, read::Piece, read::Source, stages::Stages,
    stages::Step,
};
use crate::{
    codec,
    event::{ChunkList, ChunkRef, Content, Entry, Operation, Value, ValueKind},
    frame::FrameBuf,
    id::{ChunkId, EventId},
    limits::{DIRECT_REFERENCES_MAX, EVENT_BODY_BYTES_MAX, EVENT_OPERATIONS_MAX, LIST_ENTRIES_MAX, NODE_REFERENCES_MAX},
    seal::{ChunkType, Compression},
    store::{Appended, PackWriter},
    vault::{AddReport, Vault, VaultError, Watch, walk::Found},
};
use crossbeam_channel::Receiver;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// A batch is committed at this many chunks without one of its files being complete.
const BATCH_ENTRIES_MAX: usize = 16 * LIST_ENTRIES_MAX;
/// Estimated bytes of an operation besides its key and references, and of a reference.
const OPERATION_BYTES: usize = 48;
const REFERENCE_BYTES: usize = 78;

/// What the writer has to say at its end.
pub(super) struct Written {
    pub(super) report: AddReport,
    /// Files to be read again, because they changed.
    pub(super) retry: Vec<Found>,
}

/// A large file that has been cut to its end; pieces may still be on their way.
struct Ended {
    found: Found,
    known: Known,
    pieces: usize,
    source: Option<Arc<Source>>,
}

/// What goes into the next event.
#[derive(Default)]
struct Batch {
    operations: Vec<Operation>,
    entries: Vec<Entry>,
    listed: HashSet<ChunkId>,
    body_bytes: usize,
    /// Files as they were read, with the event that already stands for their key, if it is not this batch's.
    states: Vec<(Found, Option<EventId>)>,
    known: Vec<ChunkRef>,
    /// For whoever decides what becomes of them.
    gathered: Vec<Gathered>,
}

pub(super) struct Writer<'a> {
    vault: &'a Vault,
    round: Round,
    gate: &'a Gate,
    stages: &'a Stages,
    watch: &'a dyn Watch,
    intake: Option<&'a dyn Intake>,
    pack: PackWriter,
    batch: Batch,
    open: HashMap<FileNumber, Vec<Option<ChunkRef>>>,
    ended: HashMap<FileNumber, Ended>,
    written: Written,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        vault: &'a Vault,
        round: Round,
        gate: &'a Gate,
        stages: &'a Stages,
        watch: &'a dyn Watch,
    ) -> Result<Self, VaultError> {
        Ok(Self {
            vault,
            round,
            gate,
            stages,
            watch,
            intake: None,
            pack: vault.store().writer(),
            batch: Batch::default(),
            open: HashMap::new(),
            ended: HashMap::new(),
            written: Written { report: AddReport::default(), retry: Vec::new() },
        })
    }

    /// The same, for an intake that decides.
    pub(super) fn for_intake(self, intake: Option<&'a dyn Intake>) -> Self {
        Self { intake, ..self }
    }

    /// Takes everything in, commits, and says what was done.
    pub(super) fn run(mut self, inbox: &Receiver<Item>) -> Result<Written, VaultError> {
        for item in inbox {
            match item {
                Item::Whole(wholes) => self.take_wholes(wholes)?,
                Item::Piece { file, index, piece } => self.take_piece(file, index, piece)?,
                Item::End { file, found, known, pieces, source } => {
                    self.ended.insert(file, Ended { found, known, pieces, source });
                    self.finish_if_complete(file)?;
                }
                Item::Skipped(path, reason) => self.written.report.skipped.push((path, reason)),
            }
        }
        self.commit()?;
        Ok(self.written)
    }

    /// A group of small values: their chunks go into the pack in one run.
    fn take_wholes(&mut self, wholes: Vec<Whole>) -> Result<(), VaultError> {
        let pieces: Vec<&Piece> = wholes.iter().filter_map(|whole| whole.piece.as_ref()).collect();
        self.append(&pieces)?;
        for Whole { found, known, piece, moved } in wholes {
            let references: Vec<ChunkRef> = piece.map(|piece| self.list(piece)).into_iter().collect();
            if moved && self.round != Round::Last {
                self.written.retry.push(found);
            } else {
                self.put(found, known, references, moved)?;
            }
        }
        self.commit_if_full()
    }

    fn take_piece(&mut self, file: FileNumber, index: usize, piece: Piece) -> Result<(), VaultError> {
        let length = u64::from(piece.reference.length);
        self.append(&[&piece])?;
        let reference = self.list(piece);
        self.commit_if_full()?;
        self.watch.advance(0, length);
        let pieces = self.open.entry(file).or_default();
        if pieces.len() <= index {
            pieces.resize(index + 1, None);
        }
        pieces[index] = Some(reference);
        self.finish_if_complete(file)
    }

    fn finish_if_complete(&mut self, file: FileNumber) -> Result<(), VaultError> {
        let Some(Ended { pieces: expected, .. }) = self.ended.get(&file) else { return Ok(()) };
        let here = self.open.get(&file).map_or(0, |pieces| pieces.iter().flatten().count());
        if here != *expected {
            return Ok(());
        }
        let references: Vec<ChunkRef> = self.open.remove(&file).unwrap_or_default().into_iter().flatten().collect();
        let Some(Ended { found, known, source, .. }) = self.ended.remove(&file) else { return Ok(()) };
        let damaged = source.is_some_and(|source| source.is_damaged());
        let moved = !found.path.as_os_str().is_empty() && found.has_moved();
        if (moved || damaged) && self.round != Round::Last {
            self.written.retry.push(found);
            return Ok(());
        }
        if damaged {
            self.written.report.skipped.push((found.path, "it was cut off while it was read".into()));
            return Ok(());
        }
        self.put(found, known, references, moved)
    }

    /// Appends what is sealed and not there.
    fn append(&mut self, pieces: &[&Piece]) -> Result<(), VaultError> {
        let frames: Vec<_> = pieces.iter().filter_map(|piece| piece.frame.as_ref()).map(FrameBuf::verified).collect();
        for (frame, appended) in frames.iter().zip(self.stages.timed(Step::Write, || self.pack.append_run(&frames))?) {
            if appended == Appended::New {
                self.written.report.chunks_stored += 1;
                self.written.report.bytes_stored += frame.bytes().len() as u64;
            }
        }
        Ok(())
    }

    /// Names an appended chunk in the batch's list, unless some event already does, and gives its buffer and room back.
    fn list(&mut self, piece: Piece) -> ChunkRef {
        let Piece { reference, frame, listed, permit } = piece;
        self.written.report.bytes_read += u64::from(reference.length);
        if let Some(frame) = frame {
            let length = frame.verified().header().length;
            if !listed && self.batch.listed.insert(reference.chunk) {
                self.batch.entries.push(Entry { id: reference.chunk, length });
            }
            self.gate.recycle(frame.into_bytes());
        }
        self.gate.leave(permit);
        reference
    }

    fn commit_if_full(&mut self) -> Result<(), VaultError> {
        if self.batch.entries.len() >= BATCH_ENTRIES_MAX { self.commit() } else { Ok(()) }
    }

    fn put(&mut self, found: Found, known: Known, references: Vec<ChunkRef>, moved: bool) -> Result<(), VaultError> {
        let bytes = references.iter().map(|reference| u64::from(reference.length)).sum();
        self.watch.advance(1, if found.value_bytes() > crate::limits::WHOLE_VALUE_BYTES_MAX as u64 { 0 } else { bytes });
        let before = if known == Known::New { None } else { self.vault.current_value(&found.key)? };
        let content = match &before {
            Some((_, current)) if self.holds(current, &references) => current.content.clone(),
            _ => self.content(references, bytes)?,
        };
        let value = Value { content, ..found.value.clone() };
        if self.intake.is_some() {
            return self.gather(found, value, moved);
        }
        let stands = before.as_ref().filter(|(_, current)| same(current, &value)).map(|(event, _)| *event);
        match (&before, stands) {
            (_, Some(_)) => self.written.report.unchanged += 1,
            (Some(_), None) => self.written.report.changed += 1,
            (None, None) => self.written.report.added += 1,
        }
        if !moved && found.is_settled() {
            self.batch.states.push((found.clone(), stands));
        }
        if stands.is_some() {
            return Ok(());
        }
        self.batch.body_bytes += put_bytes(&found, &value);
        self.batch.operations.push(Operation::Put(found.key, value));
        self.commit_if_enough()
    }

    fn gather(&mut self, found: Found, value: Value, moved: bool) -> Result<(), VaultError> {
        self.batch.body_bytes += put_bytes(&found, &value);
        let settled = !moved && found.is_settled();
        self.batch.gathered.push(Gathered { found, value, settled });
        self.commit_if_enough()
    }

    /// Commits what makes an event's worth of operations.
    fn commit_if_enough(&mut self) -> Result<(), VaultError> {
        let operations = self.batch.operations.len() + self.batch.gathered.len();
        let enough = operations >= EVENT_OPERATIONS_MAX || self.batch.body_bytes > EVENT_BODY_BYTES_MAX / 4 * 3;
        if enough { self.commit() } else { Ok(()) }
    }

    /// Whether a value is made of the same pieces below its nodes. What nodes hold also depends on how the pieces were sealed, so nodes that
    /// were made of pieces under a later key epoch would differ.
    fn holds(&mut self, current: &Value, pieces: &[ChunkRef]) -> bool {
        if current.content.depth == 0 {
            return false;
        }
        let Ok(held) = self.vault.pieces(&current.content) else { return false };
        let same = held.len() == pieces.len() && held.iter().zip(pieces).all(|(held, piece)| held.reference.plaintext == piece.plaintext);
        if same {
            self.batch.known.extend_from_slice(pieces);
        }
        same
    }

    /// References that fit the operation, or nodes above them.
    fn content(&mut self, mut references: Vec<ChunkRef>, bytes: u64) -> Result<Content, VaultError> {
        let mut depth = 0;
        while references.len() > DIRECT_REFERENCES_MAX {
            self.batch.known.extend_from_slice(&references);
            references = references.chunks(NODE_REFERENCES_MAX).map(|below| self.node(below)).collect::<Result<_, _>>()?;
            depth += 1;
        }
        Ok(Content { bytes, depth, references })
    }

    fn node(&mut self, below: &[ChunkRef]) -> Result<ChunkRef, VaultError> {
        let keys = self.vault.seal_keys()?;
        let plaintext = codec::encode(&below.to_vec());
        let draft = keys.current().draft(&plaintext, self.gate.buffer());
        let known = self.vault.known_chunks(&[draft.plaintext_id()])?.into_iter().flatten().next();
        if let Some(KnownChunk { chunk, present: true }) = known {
            return Ok(ChunkRef { chunk, plaintext: draft.plaintext_id(), length: draft.length() });
        }
        let sealed = keys.current().seal(draft, ChunkType::Node, Compression::Never);
        let (chunk, frame) = (sealed.reference.chunk, sealed.frame.verified());
        self.pack.append_run(&[frame])?;
        // As with data: an event that is applied already names the nodes of a value that is put again.
        let listed = known.is_some_and(|known| known.chunk == chunk);
        if !listed && self.batch.listed.insert(chunk) {
            self.batch.entries.push(Entry { id: chunk, length: frame.header().length });
        }
        Ok(sealed.reference)
    }

    /// Chunks durable, then the event, then what is only a cache.
    fn commit(&mut self) -> Result<(), VaultError> {
        let batch = std::mem::take(&mut self.batch);
        // Also without an event: a chunk whose pack was lost may have come back for a value that stands as it is.
        self.stages.timed(Step::Sync, || self.pack.checkpoint())?;
        let stages = self.stages;
        stages.timed(Step::Index, || self.record(batch))
    }

    /// The event of a batch whose chunks are durable, and what is known by it.
    fn record(&mut self, batch: Batch) -> Result<(), VaultError> {
        let mut put_by = None;
        let lists = batch.entries.chunks(LIST_ENTRIES_MAX).map(|entries| ChunkList::new(entries.to_vec()));
        let lists: Vec<ChunkList> = lists.collect::<Result<_, _>>().map_err(VaultError::internal)?;
        if let Some(intake) = self.intake {
            intake.commit(batch.gathered, lists)?;
        } else if !batch.operations.is_empty() || !lists.is_empty() {
            let event = self.vault.append(&batch.operations, lists)?;
            self.vault.catch_up()?;
            put_by = Some(event);
        }
        let states: Vec<_> = batch.states.into_iter().filter_map(|(found, stands)| Some(found.into_state(stands.or(put_by)?))).collect();
        self.vault.remember(&batch.known, &states)
    }
}

/// Estimated bytes of putting `value`.
fn put_bytes(found: &Found, value: &Value) -> usize {
    let target = if let ValueKind::Symlink(target) = &value.kind { target.len() } else { 0 };
    OPERATION_BYTES + found.key.as_bytes().len() + value.content.references.len() * REFERENCE_BYTES + target
}

/// Equal but for how the pieces were sealed.
fn same(a: &Value, b: &Value) -> bool {
    let time = |value: &Value| (value.modified_s, value.modified_ns);
    let plaintexts = |value: &Value| value.content.references.iter().map(|piece| piece.plaintext).collect::<Vec<_>>();
    let blobs = a.kind == ValueKind::Blob && b.kind == ValueKind::Blob;
    a.kind == b.kind && (blobs || time(a) == time(b)) && a.content.bytes == b.content.bytes && plaintexts(a) == plaintexts(b)
}
