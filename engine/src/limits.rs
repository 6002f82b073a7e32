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
/// Most chunk lists that one event names: a million chunks, about a terabyte. A peer may send all of them before the event itself, so
/// this bounds what has to be held of an event that never comes: 37 MiB.
pub const EVENT_LISTS_MAX: usize = 64;
/// Most operations in one event: amortises its signature and its fdatasync, keeps it a few MiB.
pub const EVENT_OPERATIONS_MAX: usize = 16_384;
/// Pieces that one event says to be resealed: their references take 1.3 MiB.
pub const RESEALED_PIECES_MAX: usize = LIST_ENTRIES_MAX;
/// Plaintext of the pieces after which such an event is made all the same: what an interruption leaves to be sealed again.
pub const RESEALED_BYTES_MAX: u64 = 256 * MIB as u64;
/// Largest sealed body of an event.
pub const EVENT_BODY_BYTES_MAX: usize = 8 * MIB;
/// Largest plaintext of an event's body: what a small compressed body may unfold to.
pub const EVENT_BODY_PLAINTEXT_BYTES_MAX: usize = 8 * EVENT_BODY_BYTES_MAX;
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
/// Versions of a key that an explanation tells of, the newest ones: who had seen what is compared for each pair of them.
pub const EXPLAINED_VERSIONS_MAX: usize = 1_024;
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
/// Events and chunks that a dialer sends before it has heard what the peer holds: what a stale memory of it may waste.
pub const EARLY_BYTES_MAX: u64 = INLINE_BYTES_MAX as u64;
/// Events that a receiver holds unapplied from one peer: so many short ones share the syncs of a commit. Long ones are bounded by
/// [`PENDING_EVENT_BYTES_MAX`].
pub const PENDING_EVENTS_MAX: usize = 1_024;
/// Events of one peer that a receiver keeps because their chunks cannot be had, in one session: a sender stops at a window full of
/// them, may have another one on its way by then, and one before from the session's start.
pub const PARKED_EVENTS_MAX: usize = 4 * PENDING_EVENTS_MAX;
/// Bytes of such events, by the same reckoning: a sender stops at [`PENDING_EVENT_BYTES_MAX`] of them, has as much on its way by then, and
/// an event more each time.
pub const PARKED_EVENT_BYTES_MAX: usize = 6 * PENDING_EVENT_BYTES_MAX;
/// Bytes of events that a receiver holds unapplied from one peer.
pub const PENDING_EVENT_BYTES_MAX: usize = 32 * MIB;
/// Chunk bytes that a receiver asks for before they have arrived.
pub const WANTED_BYTES_MAX: u64 = 256 * MIB as u64;
/// Chunks that a receiver expects before they have arrived: about 100 bytes of memory each.
pub const WANTED_CHUNKS_MAX: usize = 16 * LIST_ENTRIES_MAX;
/// Wants that a peer may have unanswered: a bitmap of 2 KiB each.
pub const WANTS_MAX: usize = 256;
/// Longest Hello: three frontiers and a little more. All that is read of a peer that has not proved its membership.
pub const HELLO_BYTES_MAX: usize = MIB;
/// Chunk lists with lost chunks that are asked for together: their bitmaps are 2 MiB at most.
pub const LOST_LISTS_MAX: usize = 1_024;
/// Bytes of damaged records that are kept aside, in all; of more only the place is noted, and the bytes stay in their pack.
pub const QUARANTINE_BYTES_MAX: u64 = 256 * MIB as u64;
/// Longest statement that a device signs about its root, and longest extension of a Hello: 32 + 64 bytes, a time, and room to grow.
pub const ATTESTATION_BYTES_MAX: usize = 256;
/// Longest stored certificate: two such statements and a time.
pub const CERTIFICATE_BYTES_MAX: usize = 2 * ATTESTATION_BYTES_MAX;
/// Chunk ids in one report of damage.
pub const DAMAGED_CHUNKS_MAX: usize = 1_024;
/// Most lanes of one connection.
pub const LANES_MAX: usize = 16;

/// Plain lanes that one connection opens in its life: the number of each is remembered.
pub const PLAIN_LANES_MAX: usize = 4_096;

/// Received chunk bytes between two checkpoints (sync of the pack, then the index): what a crash may cost in re-verification.
pub const CHECKPOINT_BYTES: u64 = 64 * MIB as u64;

/// Keys that others may always delete at once when a share of all is the limit: of few keys, a share is next to none.
pub const FUSE_KEYS_MIN: u64 = 100;
/// Share of the keys that a peer may delete at once where a replica follows by itself, of a hundred, and at most how many.
pub const FUSE_PERCENT: u8 = 10;
/// See [`FUSE_PERCENT`].
pub const FUSE_KEYS_MAX: u64 = 10_000;
/// Deletions further apart than this are not at once.
pub const FUSE_WINDOW_MS: u64 = 3_600_000;

/// Memory that a process may use unless the user says otherwise.
pub const MEMORY_BYTES_DEFAULT: u64 = 512 * MIB as u64;

/// Longest name of a peer or a vault, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Known peers of one vault.
pub const PEERS_MAX: usize = 1_024;
/// Addresses of one peer.
pub const ADDRESSES_MAX: usize = 16;
/// Services on the local network that are remembered at once: anyone there can announce any number.
pub const NEIGHBOURS_MAX: usize = 256;
/// Longest address as text, in bytes: a DNS name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 262;
/// Events that are kept although one that has to come first is missing. A log has no holes, so even one is the sign of a fault.
pub const HOLES_MAX: usize = 16;
/// Proofs of forks that are taken from a peer in one session.
pub const PROOFS_MAX: usize = 64;
/// Events of forked logs that are kept beside the log: enough for a branch that went on for long unnoticed.
pub const FORK_EVENTS_MAX: usize = 1_024;
/// Bytes of the records of those events; they are held in memory.
pub const FORK_BYTES_MAX: u64 = 32 * MIB as u64;
/// Replicas of one vault on one device whose claims are remembered: a second directory is rare, more are tests.
pub const CLAIMS_MAX: usize = 4;
/// Tickets of one vault that wait to be used.
pub const TICKETS_MAX: usize = 64;
/// Longest ticket in its binary form: all addresses and a name at their longest, and a kibibyte for the rest.
pub const TICKET_BYTES_MAX: usize = ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 8) + NAME_BYTES_MAX + KIB;
/// Largest `peers.toml` that is read: every peer at its longest.
pub const PEERS_FILE_BYTES_MAX: usize = PEERS_MAX * (ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 8) + 2 * NAME_BYTES_MAX + KIB);

/// Changes in one membership event.
pub const MEMBERSHIP_CHANGES_MAX: usize = 64;
/// Plaintext of a membership event's body: a few removals of devices that have been many authors.
pub const MEMBERSHIP_BYTES_MAX: usize = MIB;

/// Grants of one key epoch in one event, one for each device: about 110 bytes each, so that all fit beside the largest removal.
pub const EPOCH_GRANTS_MAX: usize = 4_096;
/// Epochs directly before one: two owners that begin one at the same time make two, and the next is after both.
pub const EPOCH_LINKS_MAX: usize = 16;
/// Replication keys that a listener tries on a Hello: those of the newest epochs, and the first one's, which everyone has.
pub const HELLO_EPOCHS_MAX: usize = 16;

/// Longest passphrase: no person's is longer, and a file given by mistake is noticed.
pub const PASSPHRASE_BYTES_MAX: usize = MIB;
/// Key slots of one vault directory. A passphrase is tried on each passphrase slot, so this bounds the work, too.
pub const KEY_SLOTS_MAX: usize = 64;
/// Largest file of a key slot.
pub const KEY_SLOT_BYTES_MAX: usize = KIB;
/// Memory of a passphrase derivation, in KiB: a hostile slot must neither ask for 64 GiB nor make guessing cheap.
pub const KDF_MEMORY_KIB: std::ops::RangeInclusive<u32> = 8 * 1024..=1024 * 1024;
/// Passes of a passphrase derivation.
pub const KDF_PASSES: std::ops::RangeInclusive<u32> = 1..=16;
/// Lanes of a passphrase derivation.
pub const KDF_LANES: std::ops::RangeInclusive<u32> = 1..=4;

/// A peer that sends nothing for this long is gone.
pub const IDLE_MS: u64 = 30_000;
/// Over QUIC sooner: nothing but its idle time tells a peer that was killed from one that is quiet, and its keep-alives do not queue
/// behind data as TCP's do.
pub const QUIC_IDLE_MS: u64 = 10_000;
/// So often QUIC says that it is alive when it has nothing else to say: often enough for silence to be noticed within seconds.
pub const QUIC_KEEP_ALIVE_MS: u64 = 1_000;
/// A TCP connection on which nothing comes for this long, neither on its control stream nor on a lane, is dead. A keep-alive leaves every
/// quarter of it, and even behind 64 KiB that wait for a link of 64 kbit/s (8 s) one comes in time.
pub const TCP_IDLE_MS: u64 = 10_000;
/// Bytes that a QUIC connection may have on the way, each way: 10 Gbit/s at 50 ms.
pub const QUIC_WINDOW_BYTES_MAX: u64 = 64 * MIB as u64;
/// A peer that takes nothing of what it asked for, for this long, is gone, even if it says otherwise.
pub const STALL_MS: u64 = 2 * IDLE_MS;
/// The slowest link that is not taken for a stalled one, in bytes a second: half of 64 kbit/s.
pub const SLOWEST_BYTES_PER_S: u64 = 4 * KIB as u64;
/// A peer must finish handshake and Hello within this time.
pub const HANDSHAKE_MS: u64 = 10_000;
/// A dial, over all addresses and transports, has failed after this time.
pub const CONNECT_MS: u64 = 5_000;
/// TCP is dialled as well when QUIC has not connected after this time: UDP may be blocked.
pub const TCP_AFTER_MS: u64 = 1_000;
/// A peer that has been away for long is dialled at least this often.
pub const REDIAL_MS_MAX: u64 = 60_000;
/// Sessions of one listener at once: each has its threads and its buffers.
pub const SESSIONS_MAX: usize = 64;
/// Sessions of one device at once: one that hangs on to all it gets leaves room for the others.
pub const SESSIONS_PER_DEVICE_MAX: usize = 8;
/// Sessions that one device may begin one right after the other, and after which time it may begin one more: a script that pushes file by
/// file is let through, a program that comes back as fast as it can is not.
pub const SESSIONS_AT_ONCE_MAX: u32 = 60;
/// See [`SESSIONS_AT_ONCE_MAX`].
pub const SESSION_PER_DEVICE_MS: u64 = 500;
/// Strangers that try to pair at once.
pub const PAIRINGS_MAX: usize = 8;
/// Examinations of one listener at once: two would measure each other.
pub const EXAMINATIONS_MAX: usize = 1;
/// One stage of an examination takes no longer, however long is asked for.
pub const DOCTOR_STAGE_MS_MAX: u64 = 10_000;
/// A whole examination takes no longer.
pub const DOCTOR_MS: u64 = 300_000;
/// Requests in one examination: three times what one takes.
pub const DOCTOR_REQUESTS_MAX: usize = 64;
/// Longest message of an examination.
pub const DOCTOR_MESSAGE_BYTES_MAX: usize = KIB;
/// Bytes that one stage of an examination writes to a disk, or reads twice.
pub const DOCTOR_DISK_BYTES_MAX: u64 = 512 * MIB as u64;
/// Connections that have not finished their handshake, per listener.
pub const HANDSHAKES_MAX: usize = 64;
/// Of these, such over QUIC whose address may be a false one: more than devices of one household begin at the same moment.
pub const HANDSHAKES_UNPROVED_MAX: usize = HANDSHAKES_MAX / 4;
/// A change of a followed folder is taken in once nothing more has happened there for this long: a save is several changes.
pub const FOLDER_QUIET_MS: u64 = 50;
/// It is taken in after this time even if the folder is never quiet.
pub const FOLDER_BUSY_MS: u64 = 1_000;
/// Paths of a followed folder that are remembered to be looked at; with more, all of it is looked at.
pub const FOLDER_PATHS_MAX: usize = 4_096;
/// Values read into the vault, or written out of it, between two commits of a followed folder.
pub const FOLDER_PAGE: usize = 1_024;
/// Changed keys that a followed folder gathers from the log; with more, every key of the vault is looked at.
pub const FOLDER_CHANGES_MAX: usize = 65_536;
/// Bytes of the files that take their places in a followed folder together, unless one alone has more.
pub const FOLDER_PAGE_BYTES: u64 = 64 * MIB as u64;
/// How often a followed folder is looked for that is gone, and one that is there is checked to be the same.
pub const FOLDER_ROOT_MS: u64 = 2_000;
/// All of a folder is looked at so often where the system cannot tell of its changes.
pub const FOLDER_LOOK_MS: u64 = 60_000;
/// Before what failed in a followed folder is tried again, doubled each time up to [`FOLDER_RETRY_MS_MAX`].
pub const FOLDER_RETRY_MS: u64 = 200;
/// See [`FOLDER_RETRY_MS`].
pub const FOLDER_RETRY_MS_MAX: u64 = 30_000;
/// How often a file that goes on changing is left for later, before it is taken in as it is.
pub const FOLDER_MOVING_TRIES: u32 = 20;
/// A folder in which more than this was, and nothing is, was not emptied on purpose.
pub const FOLDER_EMPTIED_KEYS: u64 = 10;
/// Deletions in a followed folder that are less apart than this are at once.
pub const FOLDER_FUSE_MS: u64 = 60_000;
/// Things of a followed folder that are named because they could not be done; the others are counted.
pub const FOLDER_PROBLEMS_MAX: usize = 100;

const _: () = assert!(FOLDER_QUIET_MS < FOLDER_BUSY_MS && FOLDER_RETRY_MS < FOLDER_RETRY_MS_MAX);
const _: () = assert!(CHUNK_BYTES_MIN < CHUNK_BYTES_MEAN && CHUNK_BYTES_MEAN < CHUNK_BYTES_MAX);
const _: () = assert!(WHOLE_VALUE_BYTES_MAX <= CHUNK_BYTES_MIN);
const _: () = assert!(CHUNK_BYTES_MEAN.is_power_of_two());
const _: () = assert!(EVENT_BODY_BYTES_MAX + EVENT_LISTS_MAX * 64 + FRONTIER_AUTHORS_MAX * 48 < RECORD_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(3 * FRONTIER_AUTHORS_MAX * 48 + 4 * KIB < HELLO_BYTES_MAX && HELLO_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(INLINE_BYTES_MAX + KIB < MESSAGE_BYTES_MAX && EVENTS_MESSAGE_BYTES_TARGET < PENDING_EVENT_BYTES_MAX);
const _: () = assert!(FRONTIER_AUTHORS_MAX * 48 + EPOCH_GRANTS_MAX * 110 + EPOCH_LINKS_MAX * 128 + 2 * KIB < MEMBERSHIP_BYTES_MAX);
const _: () = assert!(FRONTIER_AUTHORS_MAX * 48 + KIB < MEMBERSHIP_BYTES_MAX && MEMBERSHIP_BYTES_MAX < EVENT_BODY_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX < SEGMENT_BYTES_MAX as usize);
