//! What a session asks of its driver, and what the driver answers.
//!
//! Contract
//! - Actions are started in the order in which they are polled. `Admit`, `StoreInline` and `Commit` each finish in their own order;
//!   between kinds there is none.
//! - Every action but `Expect`, `Forget`, `TakeProof`, `OpenLanes` and `AcceptLanes` is answered by exactly one [`Done`]. [`Done::Failed`] answers any of them and ends the
//!   session.
//! - `Expect` and `Forget` take effect before anything polled after them. Chunks of it that are present already (they came for another list, or from
//!   another peer) are reported at once, as if they had just arrived.
//! - [`Done::ForkFound`] and [`Done::KeptAside`] come before the `Admitted` that they leave events out of.
//! - [`Done::Progress`], [`Done::ListComplete`] and [`Done::Damaged`] answer nothing: the driver reports them while chunks arrive, in order for each
//!   list, and all that come from one `StoreInline` before its `Stored`.

use crate::{
    bitmap::Bitmap,
    event::{Dot, Frontier, ListRef},
    id::{ChunkId, ListId, Root},
};
use bytes::Bytes;

/// Where reading the log goes on. Opaque to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub u64, pub u64);

/// How chunks travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// On the lanes: the driver sends them itself.
    Lanes,
    /// On the control stream: the driver hands them back.
    Inline,
}

/// Something that the driver shall do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Read events from the log, oldest first. Answer: [`Done::Events`].
    LoadEvents {
        /// Skip events that are in it.
        beyond: Frontier,
        /// Go on there; from the log's start if none.
        after: Option<Cursor>,
        /// Stop once the frames hold this much. The first event is returned whatever its size.
        bytes_max: usize,
        /// Stop after this many events.
        events_max: usize,
    },
    /// Check event and list frames (ids, signatures, chain, known deps), put what is new into the journal, find out which chunks are
    /// missing. Answer: [`Done::Admitted`], or [`Done::Refused`] if the peer is at fault.
    Admit {
        /// A run of whole frames. A list may come in an earlier run than its event.
        frames: Bytes,
    },
    /// From now on these chunks of a list are expected, inline or on lanes. No answer.
    Expect {
        /// The list.
        list: ListRef,
        /// All that is missing of it, although not all may be asked for at once.
        want: Bitmap,
    },
    /// The rest of an expected list is expected no more. No answer.
    Forget {
        /// The list.
        list: ListId,
    },
    /// Find chunk lists of events in the log whose chunks were lost. Answer: [`Done::Lost`].
    FindLost {
        /// Only lists that an event in it names.
        within: Frontier,
        /// Only lists that come after this one by id; from the first if none.
        after: Option<ListId>,
    },
    /// Send chunks. Answer: [`Done::Served`] via lanes, [`Done::Inline`] inline, [`Done::UnknownList`] if no event here names the list.
    Serve {
        /// The list.
        list: ListRef,
        /// Positions in it.
        want: Bitmap,
        /// How.
        via: Via,
    },
    /// Take chunk frames in as if they had come on a lane: check each, store what is expected, drop the rest.
    /// Answer: [`Done::Stored`], after the progress that they made.
    StoreInline {
        /// The list that they were sent for.
        list: ListId,
        /// Chunk frames, unchecked.
        frames: Bytes,
    },
    /// Make events visible: all their chunks are here. One durable step for all of them. Answer: [`Done::Committed`].
    Commit {
        /// In causal order.
        events: Vec<Dot>,
    },
    /// Check what the peer sent as proof of a fork, and keep it. No answer, but [`Done::Refused`] if it proves nothing.
    TakeProof {
        /// Two event frames, unchecked.
        frames: Bytes,
    },
    /// Chunks are about to leave on lanes. At most once a session. No answer.
    OpenLanes,
    /// Chunks are about to come on lanes. At most once a session. No answer.
    AcceptLanes,
}

/// An event read from the log, as it travels.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedEvent {
    /// Its place.
    pub dot: Dot,
    /// Whole frames: its lists in order, then the event.
    pub frames: Vec<Bytes>,
    /// Its lists.
    pub lists: Vec<ListRef>,
}

impl LoadedEvent {
    /// Bytes of its frames.
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }
}

/// An event in the journal that waits to be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// Its place.
    pub dot: Dot,
    /// What its author had seen of others. That it follows its author's event before goes without saying.
    pub deps: Frontier,
    /// Bytes of its frames, with those of its lists.
    pub bytes: usize,
    /// Its lists, each with the positions whose chunks are not here; complete ones may be left out.
    pub lists: Vec<(ListRef, Bitmap)>,
}

/// What the driver has done, or has seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// Answers `LoadEvents`.
    Events {
        /// Events of the log, each after those it depends on.
        events: Vec<LoadedEvent>,
        /// Where the next page starts; none at the log's end.
        next: Option<Cursor>,
    },
    /// Answers `Admit`.
    Admitted {
        /// Those that were new, in order.
        events: Vec<Admitted>,
    },
    /// Answers `Admit`: what the peer sent can't be kept.
    Refused {
        /// Which rule it breaks.
        reason: String,
    },
    /// Answers `Admit` or `Commit`: an event whose author was not allowed to write it, or that does more than the user lets in.
    NotAllowed {
        /// Why.
        reason: String,
    },
    /// Answers `Serve` via lanes: every frame that there is has been handed to a lane.
    Served {
        /// The list.
        list: ListId,
        /// Positions asked for that are not here, or are damaged.
        unavailable: Bitmap,
        /// Bytes of the frames.
        bytes: u64,
    },
    /// Answers `Serve` inline.
    Inline {
        /// The list.
        list: ListId,
        /// The frames, in one run.
        frames: Bytes,
        /// Positions asked for that are not here, or are damaged.
        unavailable: Bitmap,
    },
    /// Answers `Serve`: no event here names this list.
    UnknownList {
        /// The list.
        list: ListId,
    },
    /// Answers `StoreInline`.
    Stored {
        /// Its list.
        list: ListId,
    },
    /// Answers `FindLost`.
    Lost {
        /// At most [`LOST_LISTS_MAX`](crate::limits::LOST_LISTS_MAX) lists, each with the positions whose chunks are gone.
        lists: Vec<(ListRef, Bitmap)>,
        /// Where the next page begins; none if that was all.
        next: Option<ListId>,
    },
    /// Answers `Commit`: the events are durable and visible.
    Committed {
        /// What is applied now.
        frontier: Frontier,
        /// Digest over the heads now.
        root: Root,
    },
    /// Answers nothing: what is being admitted contradicts what is held. Comes at most once an author.
    ForkFound {
        /// Two event frames that prove it, and what else is kept beside the log; empty if the one that is held is gone.
        proof: Bytes,
    },
    /// Answers nothing: an event that is being admitted is kept, as part of a fork or until what it builds on is here, and will not be
    /// applied in this session.
    KeptAside {
        /// Its place.
        event: Dot,
    },
    /// Answers any action: this side could not do it.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// Chunks of an expected list arrived and were checked. With no whole chunk it only says that bytes still come.
    Progress {
        /// The list.
        list: ListId,
        /// Chunks.
        chunks: u32,
        /// Bytes of their frames.
        bytes: u64,
    },
    /// Everything expected of a list is here.
    ListComplete {
        /// The list.
        list: ListId,
    },
    /// Frames came whose records do not match their ids.
    Damaged {
        /// The list.
        list: ListId,
        /// The chunks.
        chunks: Vec<ChunkId>,
    },
}
