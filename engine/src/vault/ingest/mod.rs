//! From files to sealed chunks: a bounded pipeline.
//!
//! ```text
//! walk ─► unchanged? skip │ small files, in groups ─► rayon: read, hash, seal ─┐
//!  (caller's thread)      │ large files: map, cut ──► rayon: copy, hash, seal ─┴─► one writer: packs, then the event
//! ```
//! - A chunk is copied out of the map before it is hashed and sealed in place: the source may change under us.
//! - The gate bounds the bytes between the cutter and the writer, so memory does not depend on what is added.
//! - The writer commits an event whenever a batch is full; an interrupted `add` keeps the batches before it, and the next one
//!   reads only what they do not hold.
//! - A chunk list names every chunk that no earlier event is known to name, also one that already lies in a pack (left by an
//!   interrupted run): else peers would never learn of it.

mod gate;
mod read;
mod stages;
mod writer;

use super::{AddOptions, AddReport, Vault, VaultError, Watch, walk::Found, walk::Walk};
use crate::{
    event::{ChunkList, Key, Value, ValueKind},
    limits::{CHUNK_BYTES_MAX, MIB, WHOLE_VALUE_BYTES_MAX},
};
use crossbeam_channel::{Sender, bounded};
use gate::Gate;
pub(super) use read::KnownChunk;
use read::{Piece, Reader};
use stages::{Stages, Step};
use std::{io::Read, path::PathBuf, sync::Arc};
use writer::Writer;

/// Chunk bytes that may be between the cutter and the writer: enough to keep some cores busy; more only fills memory.
const IN_FLIGHT_BYTES_MAX: usize = 48 * MIB;
/// The pipeline's share of a memory budget; the rest is for caches, the index, the view, and the batch that is gathered.
const BUDGET_SHARE: u64 = 8;
/// Small files read and sealed by one task: amortises its scheduling and its look-up of known plaintexts.
const GROUP_FILES: usize = 64;
/// Bytes of small files in one task.
const GROUP_BYTES: u64 = MIB as u64;
/// Found entries checked against the view at once.
const SCAN_ENTRIES: usize = 512;
/// How often a file that changes while it is read is read again.
const ROUNDS: usize = 3;

/// At least one chunk must pass, whatever the budget.
pub(super) fn in_flight_bytes(memory_bytes: u64) -> usize {
    ((memory_bytes / BUDGET_SHARE) as usize).clamp(CHUNK_BYTES_MAX, IN_FLIGHT_BYTES_MAX)
}

/// A file on its way, numbered by the scan.
type FileNumber = u64;

/// What tasks send to the writer.
enum Item {
    /// Complete values of at most one piece.
    Whole(Vec<Whole>),
    /// One piece of a large file.
    Piece { file: FileNumber, index: usize, piece: Piece },
    /// A large file has been cut to its end.
    End { file: FileNumber, found: Found, known: Known, pieces: usize, source: Option<Arc<read::Source>> },
    /// A thing that could not be read.
    Skipped(PathBuf, String),
}

struct Whole {
    found: Found,
    known: Known,
    piece: Option<Piece>,
    /// The file's size, inode or times are not what they were before it was read.
    moved: bool,
}

/// Who decides what becomes of files once they are read, in place of [`Vault::add`], which puts each under its key.
pub(crate) trait Intake: Sync {
    /// Takes over values whose chunks are durable, with the lists of the new ones: appends what is to be said of them.
    fn commit(&self, gathered: Vec<Gathered>, lists: Vec<ChunkList>) -> Result<(), VaultError>;
}

/// A file that has been read.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) found: Found,
    pub(crate) value: Value,
    /// Whether the file's next change is sure to change its stamp.
    pub(crate) settled: bool,
}

/// What could not be taken in.
#[derive(Debug, Default)]
pub(crate) struct NotTaken {
    /// Files that changed while they were read.
    pub(crate) moving: Vec<Found>,
    /// What could not be read, with its reason.
    pub(crate) skipped: Vec<(PathBuf, String)>,
}

/// What becomes of a file that changes while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moving {
    /// It is named, and taken in another time.
    Left,
    /// It is taken in as it was read.
    Taken,
}

/// Reads and seals `found`, whatever is known of them, and hands them to `intake`.
pub(super) fn take_in(
    vault: &Vault,
    found: Vec<Found>,
    moving: Moving,
    intake: &dyn Intake,
    watch: &dyn Watch,
) -> Result<NotTaken, VaultError> {
    let round = if moving == Moving::Taken { Round::Last } else { Round::Again };
    let mut report = AddReport::default();
    let moving = pass(
        vault,
        found.into_iter().map(Ok),
        Purpose { dry_run: false, intake: Some(intake) },
        round,
        &mut report,
        &Stages::new(),
        watch,
    )?;
    Ok(NotTaken { moving, skipped: report.skipped })
}

/// What a pass is made for.
#[derive(Clone, Copy)]
struct Purpose<'a> {
    dry_run: bool,
    intake: Option<&'a dyn Intake>,
}

/// Adds files and trees.
pub(super) fn add(vault: &Vault, options: &AddOptions, watch: &dyn Watch) -> Result<AddReport, VaultError> {
    let walk = Walk::new(options, vault.dir())?;
    vault.catch_up()?;
    if !options.dry_run {
        vault.check_whole()?;
    }
    let stages = Stages::new();
    let mut report = AddReport::default();
    let purpose = Purpose { dry_run: options.dry_run, intake: None };
    let mut retry = pass(vault, walk.entries(), purpose, Round::First, &mut report, &stages, watch)?;
    for round in 1..ROUNDS {
        if retry.is_empty() || options.dry_run {
            break;
        }
        let again = retry.into_iter().map(refresh);
        let round = if round + 1 == ROUNDS { Round::Last } else { Round::Again };
        retry = pass(vault, again, purpose, round, &mut report, &stages, watch)?;
    }
    Ok(AddReport { stages: stages.shares(), ..report })
}

/// Which time a file is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    First,
    Again,
    /// What is read now is kept even if the file goes on changing.
    Last,
}

/// One walk through `entries`; returns those that changed while they were read.
fn pass(
    vault: &Vault,
    entries: impl Iterator<Item = Result<Found, (PathBuf, String)>>,
    purpose: Purpose<'_>,
    round: Round,
    report: &mut AddReport,
    stages: &Stages,
    watch: &dyn Watch,
) -> Result<Vec<Found>, VaultError> {
    if !purpose.dry_run {
        // Before anything is read, and sealed under an epoch that is not the newest or is to be followed by another.
        vault.require_writer()?;
    }
    let gate = Gate::new(in_flight_bytes(vault.memory_bytes));
    let reader = Reader::new(vault, &gate, stages)?;
    let (items, inbox) = bounded(256);
    let (scanned, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let writer = Writer::new(vault, round, &gate, stages, watch);
            let written = writer.and_then(|writer| writer.for_intake(purpose.intake).run(&inbox));
            // Unblocks the scan and the tasks when the writer gives up.
            gate.close();
            drop(inbox);
            written
        });
        let scanned = rayon::in_place_scope(|tasks| {
            let mut scan = Scan { vault, reader: &reader, items, tasks, purpose, round, group: Vec::new(), group_bytes: 0, next: 0, watch };
            scan.run(entries)
        });
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (scanned, written)
    });
    let written = written?;
    let mut scanned = scanned?;
    scanned.skipped.extend(written.report.skipped.iter().cloned());
    merge_reports(report, &scanned, &written.report, round);
    if watch.cancelled() {
        return Err(VaultError::Cancelled);
    }
    Ok(written.retry)
}

fn merge_reports(report: &mut AddReport, scanned: &AddReport, written: &AddReport, round: Round) {
    if round == Round::First {
        report.seen += scanned.seen;
    }
    report.added += scanned.added + written.added;
    report.changed += scanned.changed + written.changed;
    report.unchanged += scanned.unchanged + written.unchanged;
    report.bytes_read += written.bytes_read;
    report.bytes_stored += written.bytes_stored;
    report.chunks_stored += written.chunks_stored;
    report.skipped.extend(scanned.skipped.iter().cloned());
}

fn refresh(mut found: Found) -> Result<Found, (PathBuf, String)> {
    let metadata = std::fs::symlink_metadata(&found.path).map_err(|error| (found.path.clone(), error.to_string()))?;
    if !metadata.is_file() {
        return Err((found.path, "it is no longer a file".into()));
    }
    super::walk::restamp(&mut found, &metadata);
    Ok(found)
}

/// The scanning side: decides what must be read and hands it to tasks.
struct Scan<'a, 'scope> {
    vault: &'a Vault,
    reader: &'scope Reader<'scope>,
    items: Sender<Item>,
    tasks: &'a rayon::Scope<'scope>,
    purpose: Purpose<'a>,
    round: Round,
    group: Vec<(Found, Known)>,
    group_bytes: u64,
    next: FileNumber,
    watch: &'a dyn Watch,
}

impl Scan<'_, '_> {
    fn run(&mut self, entries: impl Iterator<Item = Result<Found, (PathBuf, String)>>) -> Result<AddReport, VaultError> {
        let mut report = AddReport::default();
        let mut window = Vec::with_capacity(SCAN_ENTRIES);
        for entry in entries {
            if self.watch.cancelled() || self.reader.gate().is_closed() {
                break;
            }
            report.seen += 1;
            match entry {
                Ok(found) => window.push(found),
                Err(skipped) => report.skipped.push(skipped),
            }
            if window.len() == SCAN_ENTRIES {
                self.dispatch(&mut window, &mut report)?;
            }
        }
        self.dispatch(&mut window, &mut report)?;
        self.send_group();
        Ok(report)
    }

    fn dispatch(&mut self, window: &mut Vec<Found>, report: &mut AddReport) -> Result<(), VaultError> {
        let (items, bytes) = window.iter().fold((0, 0), |(items, bytes), found| (items + 1, bytes + found.value_bytes()));
        self.watch.expect(items, bytes);
        let known = match self.purpose.intake {
            Some(_) => vec![Known::Changed; window.len()],
            None => self.vault.known_files(window)?,
        };
        for (found, known) in window.drain(..).zip(known) {
            if known == Known::Unchanged && self.round == Round::First {
                report.unchanged += 1;
                self.watch.advance(1, found.value_bytes());
            } else if self.purpose.dry_run {
                if known == Known::New { report.added += 1 } else { report.changed += 1 }
            } else if found.is_file() && found.stamp.size > WHOLE_VALUE_BYTES_MAX as u64 {
                self.send_large(found, known);
            } else {
                self.group_bytes += found.value_bytes();
                self.group.push((found, known));
                if self.group.len() >= GROUP_FILES || self.group_bytes >= GROUP_BYTES {
                    self.send_group();
                }
            }
        }
        Ok(())
    }

    fn send_group(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let group = std::mem::take(&mut self.group);
        let bytes = std::mem::take(&mut self.group_bytes) as usize;
        let Some(permit) = self.reader.gate().enter(bytes.max(1)) else { return };
        let (reader, items) = (self.reader, self.items.clone());
        self.tasks.spawn(move |_| {
            for item in reader.read_group(group, permit) {
                // A closed channel means that the writer has failed and says why itself.
                let _ = items.send(item);
            }
        });
    }

    fn send_large(&mut self, found: Found, known: Known) {
        let file = self.next;
        self.next += 1;
        let source = match self.reader.open(&found) {
            Ok(source) => Arc::new(source),
            Err(error) => {
                let _ = self.items.send(Item::Skipped(found.path, error));
                return;
            }
        };
        let mut pieces = 0;
        let mut at = 0;
        while at < source.len() && !self.watch.cancelled() {
            let length = self.reader.next_cut(&source, at);
            let Some(permit) = self.reader.gate().enter(length) else { return };
            let (reader, items, source, index) = (self.reader, self.items.clone(), source.clone(), pieces);
            let range = at..at + length;
            self.tasks.spawn(move |_| {
                let piece = reader.seal(&source.bytes()[range], permit);
                source.touched(length);
                let _ = items.send(match piece {
                    Ok(piece) => Item::Piece { file, index, piece },
                    Err(error) => Item::Skipped(source.path().to_owned(), error.to_string()),
                });
            });
            at += length;
            pieces += 1;
        }
        if at >= source.len() {
            let _ = self.items.send(Item::End { file, found, known, pieces, source: Some(source) });
        }
    }
}

/// What the view says of a file that was found, and of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nobody has said anything about its key.
    New,
    Changed,
    Unchanged,
}

/// Puts one value, streamed from `source`, under `key`.
pub(super) fn put(vault: &Vault, key: &Key, source: &mut dyn Read, watch: &dyn Watch) -> Result<AddReport, VaultError> {
    let stages = Stages::new();
    vault.catch_up()?;
    vault.require_writer()?;
    vault.check_whole()?;
    let gate = Gate::new(in_flight_bytes(vault.memory_bytes));
    let reader = Reader::new(vault, &gate, &stages)?;
    let (items, inbox) = bounded(256);
    let (sent, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let written = Writer::new(vault, Round::Last, &gate, &stages, watch).and_then(|writer| writer.run(&inbox));
            gate.close();
            drop(inbox);
            written
        });
        let sent = rayon::in_place_scope(|tasks| stream(&reader, tasks, items, key, source, watch));
        (sent, writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let written = written?;
    sent?;
    if watch.cancelled() { Err(VaultError::Cancelled) } else { Ok(AddReport { seen: 1, stages: stages.shares(), ..written.report }) }
}

fn stream<'scope>(
    reader: &'scope Reader<'scope>,
    tasks: &rayon::Scope<'scope>,
    items: Sender<Item>,
    key: &Key,
    source: &mut dyn Read,
    watch: &dyn Watch,
) -> Result<(), VaultError> {
    let now_ms = crate::clock::wall_ms();
    let value = Value {
        kind: ValueKind::Blob,
        modified_s: (now_ms / 1000) as i64,
        modified_ns: (now_ms % 1000) as u32 * 1_000_000,
        content: Default::default(),
    };
    let mut buffer = Vec::with_capacity(2 * CHUNK_BYTES_MAX);
    let mut pieces = 0;
    loop {
        let wanted = (2 * CHUNK_BYTES_MAX - buffer.len()) as u64;
        let got = reader.stages.timed(Step::Populate, || source.take(wanted).read_to_end(&mut buffer));
        let got = got.map_err(|error| VaultError::io("reading the value", error))?;
        let ended = (got as u64) < wanted;
        while !buffer.is_empty() && (ended || buffer.len() >= CHUNK_BYTES_MAX) {
            let length = reader.cut(&buffer);
            let data: Vec<u8> = buffer.drain(..length).collect();
            let Some(permit) = reader.gate().enter(length) else { return Ok(()) };
            let (items, index) = (items.clone(), pieces);
            tasks.spawn(move |_| {
                let item = reader.seal(&data, permit).map(|piece| Item::Piece { file: 0, index, piece });
                let _ = items.send(item.unwrap_or_else(|error| Item::Skipped(PathBuf::new(), error.to_string())));
            });
            pieces += 1;
        }
        if ended || watch.cancelled() {
            break;
        }
    }
    if !watch.cancelled() {
        let found = Found::value(key.clone(), value);
        let _ = items.send(Item::End { file: 0, found, known: Known::Changed, pieces, source: None });
    }
    Ok(())
}
