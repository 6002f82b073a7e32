//! The backend for Linux: io_uring, with direct writes from aligned blocks, behind the caller.
//!
//! ```text
//! append ─► copy ─► block (1 MiB, aligned) ─► queue ─► one chain of linked requests at a time ─► file
//!                     ▲                                write ─ write ─ ... ─ (plain tail) ─ fdatasync
//!                     └──────────── pool of 8 ◄──────── completed
//! ```
//! A direct write takes no page of the system's cache: no copy by the kernel, no write-back later, no wait in fdatasync for what piled
//! up. It must be asynchronous to pay, since it takes as long as the disk does.
//!
//! # Order
//! All that waits is submitted as one chain (`IOSQE_IO_LINK`); the next chain starts when this one is through. So bytes reach the file in
//! order, the file only grows by what was written, and after a failed or short write nothing later has been written: the kernel
//! cancels the rest of the chain. A write that extends a file is done by one at a time in ext4 and XFS anyway (under the inode's lock), so
//! more at once would gain nothing but gaps after a crash. Space is not reserved ahead either: the file's length would say more than
//! what was written.
//!
//! # Direct and plain writes in one file
//! Direct writes must begin and end at multiples of [`PAGE_BYTES`]; a pack does not. What is appended is cut at these multiples:
//! ```text
//!        |....xxxx|xxxxxxxx| ... |xxxxxxxx|xx......|
//!         plain     direct                 plain        x: appended since the last settle or sync
//! ```
//! - Every byte is written once. A page is written either directly, whole, once; or plainly, in pieces, through the system's cache. No
//!   page is written both ways. So there is never a dirty cached page below a direct write, nor a stale one in a reader's map: a
//!   page that is written directly lay behind the file's end until then, where nothing can be mapped or cached.
//! - `fdatasync` on the plain handle is of the file, not of the handle: it writes the one or two dirty pages and the file's new length, and
//!   then makes the drive empty its cache, where the direct writes, which completed before, are.
//! - Power cut: what was synced before lies in pages that are whole, or in the one at the end. That one is written again, by the
//!   cache, with the same bytes and more: as with every append to any file.
//!
//! # Memory
//! The kernel reads a block until its request completes. Blocks belong to the queue until then, and dropping waits.
#![allow(unsafe_code)]

use super::{
    append::{AppendError, BLOCK_BYTES, Backing, Target},
    backend::Unavailable,
    durable::{Operation, Permit},
};
use io_uring::{IoUring, opcode, squeue, types};
use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::{Arc, OnceLock},
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

fn into_io(error: AppendError) -> io::Error {
    match error {
        AppendError::Write(error) | AppendError::Sync(error) => error,
    }
}

/// What direct writes are aligned to: the largest logical block that disks have. A file system that wants more is written plainly.
const PAGE_BYTES: usize = 4_096;
/// Blocks of one writer: what may be on its way to the disk, and be lost if it fails.
const BLOCKS_MAX: usize = 8;
/// Requests in one chain: each block is at most three, and a sync.
const CHAIN_MAX: usize = 32;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// Aligned memory of [`BLOCK_BYTES`].
type Block = Vec<Page>;

fn new_block() -> Block {
    let mut block = Block::with_capacity(BLOCK_BYTES / PAGE_BYTES);
    block.resize_with(BLOCK_BYTES / PAGE_BYTES, Page::new_zeroed);
    block
}

/// The block that is being filled: bytes `from..to` of it go to `base + from` and beyond in the file.
#[derive(Debug)]
struct Stage {
    block: Block,
    base: u64,
    from: usize,
    to: usize,
}

impl Stage {
    /// An empty one for what comes at `end`.
    fn at(end: u64, block: Block) -> Self {
        let from = (end % PAGE_BYTES as u64) as usize;
        Self { block, base: end - from as u64, from, to: from }
    }

    fn end(&self) -> u64 {
        self.base + self.to as u64
    }

    /// Takes the beginning of `bytes`; returns how much.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        let room = &mut self.block.as_mut_bytes()[self.to..];
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.to += count;
        count
    }

    fn is_full(&self) -> bool {
        self.to == BLOCK_BYTES
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handle {
    Direct,
    Plain,
}

/// What is to be done, in order.
#[derive(Debug)]
enum Job {
    Write { block: Arc<Block>, base: u64, from: usize, to: usize, handle: Handle },
    Sync,
}

/// What became of a job.
enum Outcome {
    Done,
    /// It, or what is left of it, has to be submitted again.
    Again,
    Failed(AppendError),
}

/// Writes one file through a ring of its own.
pub(super) struct Uring {
    ring: IoUring,
    /// None where the file system takes no direct writes.
    direct: Option<File>,
    stage: Stage,
    queue: VecDeque<Job>,
    /// How the first jobs of the queue, which the kernel has, ended; none while they have not.
    chain: VecDeque<Option<i32>>,
    /// Number of the first of them.
    first: u64,
    idle: Vec<Block>,
    blocks: usize,
    written_to: u64,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("written_to", &self.written_to).field("queued", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Uring {
    /// Writes `target` from `end` on. When no ring can be made, [`Unavailable`] is behind the error.
    pub(super) fn start(target: &Target, end: u64) -> io::Result<Self> {
        let ring = target.disk.ask_for_ring().and_then(|()| IoUring::new(CHAIN_MAX as u32));
        Ok(Self {
            ring: ring.map_err(|error| Unavailable::now(&error))?,
            direct: open_direct(target)?,
            stage: Stage::at(end, new_block()),
            queue: VecDeque::new(),
            chain: VecDeque::new(),
            first: 0,
            idle: Vec::new(),
            blocks: 1,
            written_to: end,
        })
    }

    /// Queues what is staged, and begins another block.
    fn hand_over(&mut self, target: &Target) -> Result<(), AppendError> {
        let next = Stage::at(self.stage.end(), self.free_block(target)?);
        let stage = std::mem::replace(&mut self.stage, next);
        let (from, to, base) = (stage.from, stage.to, stage.base);
        let block = Arc::new(stage.block);
        let direct = whole_pages(from, to);
        let pieces = [(from, direct.start, Handle::Plain), (direct.start, direct.end, Handle::Direct), (direct.end, to, Handle::Plain)];
        for (from, to, handle) in pieces.into_iter().filter(|(from, to, _)| from < to) {
            self.queue.push_back(Job::Write { block: Arc::clone(&block), base, from, to, handle });
        }
        Ok(())
    }

    /// A block that the kernel does not read; waits for one if all are on their way.
    fn free_block(&mut self, target: &Target) -> Result<Block, AppendError> {
        loop {
            if let Some(block) = self.idle.pop() {
                return Ok(block);
            }
            if self.blocks < BLOCKS_MAX {
                self.blocks += 1;
                return Ok(new_block());
            }
            self.advance(target, Wait::ForOne)?;
        }
    }

    /// Waits until nothing is left to do.
    fn drain(&mut self, target: &Target) -> Result<(), AppendError> {
        while !self.queue.is_empty() {
            self.advance(target, Wait::ForOne)?;
        }
        Ok(())
    }

    /// Takes in what has completed and starts the next chain if the kernel has nothing to do.
    fn advance(&mut self, target: &Target, wait: Wait) -> Result<(), AppendError> {
        if self.chain.is_empty() {
            self.start_chain(target)?;
        }
        if wait == Wait::ForOne && !self.chain.is_empty() {
            self.wait()?;
        }
        self.collect();
        self.judge()?;
        if self.chain.is_empty() { self.start_chain(target) } else { Ok(()) }
    }

    fn wait(&mut self) -> Result<(), AppendError> {
        match self.ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(self.lost(error)),
            _ => Ok(()),
        }
    }

    /// The ring itself failed: what became of the queue is not known.
    fn lost(&self, error: io::Error) -> AppendError {
        let syncing = self.queue.iter().any(|job| matches!(job, Job::Sync));
        if syncing { AppendError::Sync(error) } else { AppendError::Write(error) }
    }

    /// Submits the queue, as far as the disk's observer lets it.
    fn start_chain(&mut self, target: &Target) -> Result<(), AppendError> {
        let mut entries = Vec::new();
        let mut refused = None;
        for job in self.queue.iter().take(CHAIN_MAX) {
            match ask(target, job) {
                Ok(asked) => {
                    entries.push(self.entry(target, job, asked));
                    if asked < job.bytes() {
                        break;
                    }
                }
                Err(error) => {
                    refused = Some(job.failed(error));
                    break;
                }
            }
        }
        self.submit(entries)?;
        match refused {
            // What comes before it is written all the same, as if the disk had refused.
            Some(error) => {
                self.queue.truncate(self.chain.len());
                self.finish_chain()?;
                Err(error)
            }
            None => Ok(()),
        }
    }

    fn entry(&self, target: &Target, job: &Job, bytes: usize) -> squeue::Entry {
        let plain = target.file.as_raw_fd();
        match job {
            Job::Sync => opcode::Fsync::new(types::Fd(plain)).flags(types::FsyncFlags::DATASYNC).build(),
            Job::Write { block, base, from, handle, .. } => {
                let direct = self.direct.as_ref().filter(|_| *handle == Handle::Direct);
                let handle: RawFd = direct.map_or(plain, AsRawFd::as_raw_fd);
                let bytes = &block.as_bytes()[*from..*from + bytes];
                opcode::Write::new(types::Fd(handle), bytes.as_ptr(), bytes.len() as u32).offset(base + *from as u64).build()
            }
        }
    }

    fn submit(&mut self, entries: Vec<squeue::Entry>) -> Result<(), AppendError> {
        let count = entries.len();
        if count == 0 {
            return Ok(());
        }
        for (at, entry) in entries.into_iter().enumerate() {
            // Each waits for the disk or for a lock: trying first without waiting would be in vain.
            let link = if at + 1 < count { squeue::Flags::IO_LINK } else { squeue::Flags::empty() };
            let entry = entry.flags(squeue::Flags::ASYNC | link).user_data(self.first + at as u64);
            // SAFETY: the entry's memory is in a block that its job in the queue holds until the request has completed (`judge`); its
            // handles are in `direct`, which lives as long as the ring, and in the target, which outlives us: `drop` waits for all.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            pushed.map_err(|_| AppendError::Write(io::Error::other("the ring is full")))?;
            self.chain.push_back(None);
        }
        match self.ring.submit() {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(self.lost(error)),
            _ => Ok(()),
        }
    }

    /// Notes what has completed.
    fn collect(&mut self) {
        for completed in self.ring.completion() {
            let at = completed.user_data().wrapping_sub(self.first) as usize;
            if let Some(place) = self.chain.get_mut(at) {
                *place = Some(completed.result());
            }
        }
    }

    /// Removes jobs that are done from the queue, in order.
    fn judge(&mut self) -> Result<(), AppendError> {
        while let Some(Some(result)) = self.chain.front().copied() {
            match self.outcome(result) {
                Outcome::Done => {
                    self.chain.pop_front();
                    self.first += 1;
                    self.finish_job();
                }
                Outcome::Again => {
                    // The rest of the chain was cancelled, and says so.
                    self.wait_for_chain()?;
                    self.forget_chain();
                }
                Outcome::Failed(error) => {
                    let _ = self.wait_for_chain();
                    self.forget_chain();
                    self.queue.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// What `result` means for the first job.
    fn outcome(&mut self, result: i32) -> Outcome {
        let again = [libc::EINTR, libc::EAGAIN, libc::ECANCELED].contains(&-result);
        match self.queue.front_mut() {
            _ if again => Outcome::Again,
            Some(Job::Write { handle: Handle::Direct, .. }) if result == -libc::EINVAL && self.direct.is_some() => {
                tracing::debug!("this file takes no direct writes");
                self.direct = None;
                Outcome::Again
            }
            Some(job) if result < 0 => Outcome::Failed(job.failed(io::Error::from_raw_os_error(-result))),
            Some(Job::Write { base, from, to, handle, .. }) => {
                let bytes = match handle {
                    Handle::Direct => result as usize & !(PAGE_BYTES - 1),
                    Handle::Plain => result as usize,
                };
                if bytes == 0 {
                    return Outcome::Failed(AppendError::Write(io::ErrorKind::WriteZero.into()));
                }
                *from += bytes;
                self.written_to = *base + *from as u64;
                if from < to { Outcome::Again } else { Outcome::Done }
            }
            Some(Job::Sync) | None => Outcome::Done,
        }
    }

    fn finish_job(&mut self) {
        if let Some(Job::Write { block, .. }) = self.queue.pop_front() {
            // The last piece of a block sets it free.
            self.idle.extend(Arc::try_unwrap(block));
        }
    }

    /// Waits until the kernel has let go of everything.
    fn wait_for_chain(&mut self) -> Result<(), AppendError> {
        self.collect();
        while self.chain.iter().any(Option::is_none) {
            self.wait()?;
            self.collect();
        }
        Ok(())
    }

    fn forget_chain(&mut self) {
        self.first += self.chain.len() as u64;
        self.chain.clear();
    }

    fn finish_chain(&mut self) -> Result<(), AppendError> {
        self.wait_for_chain()?;
        self.judge()
    }

    fn append_parts(&mut self, target: &Target, parts: &[&[u8]]) -> Result<(), AppendError> {
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let taken = self.stage.fill(rest);
                rest = &rest[taken..];
                if self.stage.is_full() {
                    self.hand_over(target)?;
                    self.advance(target, Wait::No)?;
                }
            }
        }
        Ok(())
    }

    fn hand_over_all(&mut self, target: &Target) -> Result<(), AppendError> {
        if self.stage.from < self.stage.to { self.hand_over(target) } else { Ok(()) }
    }

    fn settle_all(&mut self, target: &Target) -> Result<(), AppendError> {
        self.hand_over_all(target)?;
        self.drain(target)
    }
}

impl Backing for Uring {
    fn append(&mut self, target: &Target, parts: &[&[u8]]) -> io::Result<()> {
        self.append_parts(target, parts).map_err(into_io)
    }

    fn settle(&mut self, target: &Target) -> io::Result<()> {
        self.settle_all(target).map_err(into_io)
    }

    fn sync(&mut self, target: &Target) -> Result<(), AppendError> {
        self.hand_over_all(target)?;
        self.queue.push_back(Job::Sync);
        self.drain(target)
    }

    fn written_to(&self) -> u64 {
        self.written_to
    }

    fn end(&self) -> u64 {
        self.stage.end()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.wait_for_chain().is_err() {
            // The kernel may still read the blocks: they are never freed.
            std::mem::forget(std::mem::take(&mut self.queue));
        }
    }
}

impl Job {
    /// Bytes to write.
    fn bytes(&self) -> usize {
        match self {
            Self::Write { from, to, .. } => to - from,
            Self::Sync => 0,
        }
    }

    fn failed(&self, error: io::Error) -> AppendError {
        match self {
            Self::Write { .. } => AppendError::Write(error),
            Self::Sync => AppendError::Sync(error),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    /// For one request at least.
    ForOne,
}

/// The pages that lie in `from..to` whole.
fn whole_pages(from: usize, to: usize) -> std::ops::Range<usize> {
    let start = from.next_multiple_of(PAGE_BYTES).min(to);
    start..(to & !(PAGE_BYTES - 1)).max(start)
}

/// How many bytes of `job` the disk's observer lets be written now.
fn ask(target: &Target, job: &Job) -> io::Result<usize> {
    let (path, whole) = (target.path.as_path(), job.bytes());
    let permit = match job {
        Job::Sync => target.disk.ask(Operation::Sync(path))?,
        Job::Write { block, base, from, to, .. } => {
            let offset = base + *from as u64;
            target.disk.ask(Operation::Write { path, offset, parts: &[&block.as_bytes()[*from..*to]] })?
        }
    };
    Ok(match (permit, job) {
        (Permit::Whole, _) | (_, Job::Sync) => whole,
        (Permit::First(bytes), Job::Write { handle: Handle::Plain, .. }) => bytes.clamp(1, whole),
        (Permit::First(bytes), Job::Write { handle: Handle::Direct, .. }) => (bytes & !(PAGE_BYTES - 1)).clamp(PAGE_BYTES, whole),
    })
}

/// A second handle of the same file, for direct writes; none where they are not to be had.
fn open_direct(target: &Target) -> io::Result<Option<File>> {
    let Ok(direct) = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&target.path) else { return Ok(None) };
    let (ours, found) = (target.file.metadata()?, direct.metadata()?);
    if (ours.dev(), ours.ino()) != (found.dev(), found.ino()) {
        return Err(io::Error::other("another file lies in its place"));
    }
    Ok(Some(direct))
}

/// Whether this kernel lets this process use io_uring.
pub(super) fn usable() -> Result<(), Unavailable> {
    static FOUND: OnceLock<Result<(), Unavailable>> = OnceLock::new();
    FOUND.get_or_init(try_ring).clone()
}

fn try_ring() -> Result<(), Unavailable> {
    let ring = IoUring::new(2).map_err(|error| {
        Unavailable(match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => format!("forbidden by kernel.io_uring_disabled or a seccomp filter ({error})"),
            Some(libc::ENOSYS) => format!("this kernel has no io_uring, or a seccomp filter hides it ({error})"),
            _ => error.to_string(),
        })
    })?;
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| Unavailable(format!("this kernel's io_uring is too old ({error})")))?;
    let known = [opcode::Write::CODE, opcode::Fsync::CODE].into_iter().all(|code| probe.is_supported(code));
    if known { Ok(()) } else { Err(Unavailable("this kernel's io_uring cannot write files".into())) }
}

/// Writes one page directly to a file without a name in `directory`, to see whether that works.
pub(super) fn takes_direct_writes(directory: &Path) -> Result<(), Unavailable> {
    let refused = |why: &dyn std::fmt::Display| Unavailable(format!("the file system takes no direct writes ({why})"));
    // tmpfs accepts the flag and ignores it.
    if rustix::fs::statfs(directory).is_ok_and(|found| found.f_type == libc::TMPFS_MAGIC) {
        return Err(refused(&"tmpfs"));
    }
    let file = OpenOptions::new().write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_DIRECT).open(directory);
    let written = file.and_then(|file| file.write_all_at(new_block()[..1].as_bytes(), 0));
    written.map_err(|error| refused(&error))
}
