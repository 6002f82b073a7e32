//! What several benches need: input that is the same in every run, and stores to put it in.

use mirror_engine::{
    event::{ChunkList, Entry},
    frame::{FrameBuf, Kind, Verified},
    id::{ChunkId, VaultId},
    store::Store,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: usize = 1 << 20;
pub(crate) const VAULT: VaultId = VaultId::from_bytes([42; 32]);

/// `full` to measure; `tiny` when each bench runs once to show that it works. Cargo passes `--bench` to measure only, and a user
/// `--test` to do so nevertheless, which is how criterion tells them apart, too.
pub(crate) fn sized<T>(tiny: T, full: T) -> T {
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    if given("--bench") && !given("--test") { full } else { tiny }
}

/// Bytes that nothing compresses.
pub(crate) fn random(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut random);
    random
}

/// Lines such as programs log them: zstd halves them at least.
pub(crate) fn text(seed: u64, bytes: usize) -> Vec<u8> {
    let line = |n: u64| format!("2026-11-22T10:{:02}:{:02}Z INFO request={n} bytes={} status=200\n", n / 60 % 60, n % 60, n * n % 9_973);
    (seed..).flat_map(|n| line(n).into_bytes()).take(bytes).collect()
}

/// `count` chunk frames with records of `bytes`. The store looks at ids, not at seals.
pub(crate) fn frames(count: usize, bytes: usize) -> Vec<FrameBuf> {
    (0..count as u64).map(|seed| FrameBuf::new(Kind::Chunk, &random(seed, bytes))).collect()
}

pub(crate) fn verified(frames: &[FrameBuf]) -> Vec<Verified<'_>> {
    frames.iter().map(FrameBuf::verified).collect()
}

pub(crate) fn list_of(frames: &[FrameBuf]) -> ChunkList {
    let entry = |frame: &FrameBuf| Entry { id: ChunkId::from_bytes(frame.id()), length: frame.verified().header().length };
    ChunkList::new(frames.iter().map(entry).collect()).expect("frames of one seed each differ")
}

/// A list of `count` chunks that exist nowhere.
pub(crate) fn made_up_list(seed: u64, count: usize) -> ChunkList {
    let ids = random(seed, 32 * count);
    let entry = |id: &[u8]| ChunkId::from_slice(id).map(|id| Entry { id, length: 1_000 });
    ChunkList::new(ids.chunks(32).filter_map(entry).collect()).expect("random ids differ")
}

/// A store of its own in a directory that goes away with it.
pub(crate) struct FreshStore {
    // Before the directory: closed, then removed.
    pub(crate) store: Store,
    _dir: TempDir,
}

impl FreshStore {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Store::create(dir.path(), &VAULT).expect("an empty directory takes a store");
        let (store, _) = Store::open(dir.path(), &VAULT).expect("a new store opens");
        Self { store, _dir: dir }
    }

    /// A store that holds `frames`, durably.
    pub(crate) fn holding(frames: &[FrameBuf]) -> Self {
        let fresh = Self::new();
        let mut writer = fresh.store.writer();
        for run in frames.chunks(1_024) {
            writer.append_run(&verified(run)).expect("the disk takes chunks");
        }
        writer.checkpoint().expect("the disk keeps chunks");
        fresh
    }
}

/// A runtime as the program has it.
pub(crate) fn runtime() -> Runtime {
    Runtime::new().expect("threads for a runtime")
}
