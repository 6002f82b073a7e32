//! A limit on everything that a peer, a disk or a user can make us hold, in one place.
//!
//! The unit is in the name, the reason in the doc, and relations between limits are asserted at compile time.

/// Bytes in a kibibyte.
pub const KIB: usize = 1 << 10;
/// Bytes in a mebibyte.
pub const MIB: usize = 1 << 20;

/// Smallest chunk that content-defined cutting makes (but the last of a value).
pub const CHUNK_BYTES_MIN: usize = 256 * KIB;
/// Chunk size that cutting aims at.
pub const CHUNK_BYTES_MEAN: usize = MIB;
/// Largest plaintext of a chunk: bounds every buffer on the way.
pub const CHUNK_BYTES_MAX: usize = 4 * MIB;
/// Values up to this size are one chunk and are never cut: cutting costs more than it finds.
pub const WHOLE_VALUE_BYTES_MAX: usize = 64 * KIB;

/// Most entries of one chunk list: a want bitmap over it is at most 2 KiB.
pub const LIST_ENTRIES_MAX: usize = 16_384;
/// Most chunk lists that one event names: 16 million chunks, about 20 TB in one event.
pub const EVENT_LISTS_MAX: usize = 1_024;
/// Most operations in one event: amortises its signature and its fdatasync, keeps it a few MiB.
pub const EVENT_OPERATIONS_MAX: usize = 16_384;
/// Largest sealed body of an event.
pub const EVENT_BODY_BYTES_MAX: usize = 8 * MIB;
/// Most authors that an event or a peer may name in a frontier: replicas and their incarnations.
pub const FRONTIER_AUTHORS_MAX: usize = 4_096;

/// Largest record of any kind in a segment file or in a message: the largest event with its header.
pub const RECORD_BYTES_MAX: usize = 9 * MIB;
/// A pack or log segment is closed at this size and a new one begun.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Longest key, in bytes: Linux' longest path.
pub const KEY_BYTES_MAX: usize = 4_096;
/// Longest reason of a deletion, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Chunk references that an operation holds itself; a longer value holds references to nodes.
pub const DIRECT_REFERENCES_MAX: usize = 256;
/// Chunk references in one node chunk: a full node still fits a chunk.
pub const NODE_REFERENCES_MAX: usize = 16_384;
/// Most levels of nodes above the data: 256 * 16384^2 chunks are more than any disk.
pub const NODE_DEPTH_MAX: u8 = 2;

/// Largest message on the control stream: one event with its chunk list, or a batch of small ones.
pub const MESSAGE_BYTES_MAX: usize = 10 * MIB;
/// A batch of events is sent once it holds this much.
pub const EVENTS_MESSAGE_BYTES_TARGET: usize = MIB;
/// Chunks ride on the control stream while they are at most this much; more goes to lanes.
pub const INLINE_BYTES_MAX: usize = 256 * KIB;
/// Events that a receiver holds unapplied from one peer.
pub const PENDING_EVENTS_MAX: usize = 64;
/// Bytes of events that a receiver holds unapplied from one peer.
pub const PENDING_EVENT_BYTES_MAX: usize = 32 * MIB;
/// Chunk bytes that a receiver asks for before they have arrived.
pub const WANTED_BYTES_MAX: u64 = 256 * MIB as u64;
/// Most lanes of one connection.
pub const LANES_MAX: usize = 16;

/// Received chunk bytes between two checkpoints (sync of the pack, then the index): what a crash may cost in re-verification.
pub const CHECKPOINT_BYTES: u64 = 64 * MIB as u64;

/// Longest name of a peer or a vault, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Known peers of one vault.
pub const PEERS_MAX: usize = 1_024;
/// Addresses of one peer.
pub const ADDRESSES_MAX: usize = 16;

/// A peer that sends nothing for this long is gone.
pub const IDLE_MS: u64 = 30_000;
/// A dial, over all addresses and transports, has failed after this time.
pub const CONNECT_MS: u64 = 5_000;
/// TCP is dialled as well when QUIC has not connected after this time: UDP may be blocked.
pub const TCP_AFTER_MS: u64 = 1_000;
/// A peer must finish handshake and Hello within this time.
pub const HANDSHAKE_MS: u64 = 10_000;
/// Connections that have not finished their handshake, per listener.
pub const HANDSHAKES_MAX: usize = 64;

const _: () = assert!(CHUNK_BYTES_MIN < CHUNK_BYTES_MEAN && CHUNK_BYTES_MEAN < CHUNK_BYTES_MAX);
const _: () = assert!(WHOLE_VALUE_BYTES_MAX <= CHUNK_BYTES_MIN);
const _: () = assert!(CHUNK_BYTES_MEAN.is_power_of_two());
const _: () = assert!(EVENT_BODY_BYTES_MAX + EVENT_LISTS_MAX * 64 + FRONTIER_AUTHORS_MAX * 48 < RECORD_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX < SEGMENT_BYTES_MAX as usize);
