//! Which chunks to ask for, when: the chunk lists that pending events wait for.
//!
//! A want names part of a list, so that a list of any size is fetched through one window; lists are asked for in the order of their
//! events. Counts only: which chunk is which is the business of [`Wants`](super::Wants), on the driver's side.

use super::{
    Action, SessionError, Windows,
    message::{Message, Promise},
    outbox::Outbox,
};
use crate::{bitmap::Bitmap, event::ListRef, id::ListId};
use std::collections::{HashMap, VecDeque};

/// Whether a list's chunks can come from this peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Peer,
    /// The peer does not have the event: another session has to bring them.
    Elsewhere,
}

/// Whether chunks come unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unasked {
    No,
    /// They are promised and on their way.
    Promised,
    /// They are being stored.
    Storing,
}

#[derive(Debug)]
struct OpenList {
    reference: ListRef,
    source: Source,
    unasked: Unasked,
    expected: bool,
    /// Positions that have not been asked for.
    rest: Bitmap,
    /// Chunks that are missing.
    missing: u32,
    /// Chunks asked for and not here yet.
    flying: u32,
    /// Chunks that the peer lacks, or has damaged.
    unavailable: u32,
}

impl OpenList {
    fn mean_bytes(&self) -> u64 {
        (self.reference.bytes / u64::from(self.reference.entries).max(1)).max(1)
    }
}

#[derive(Debug)]
pub(super) struct Asking {
    windows: Windows,
    lists: HashMap<ListId, OpenList>,
    /// Lists to ask for, first things first.
    queue: VecDeque<ListId>,
    /// Wants of each list that the peer has not answered. Outlives the list: its chunks may be faster than the answer.
    unserved: HashMap<ListId, u32>,
    wants: usize,
    flying_chunks: u64,
    flying_bytes: u64,
    promises: usize,
}

impl Asking {
    pub(super) fn new(windows: Windows) -> Self {
        let (lists, queue, unserved) = (HashMap::new(), VecDeque::new(), HashMap::new());
        Self { windows, lists, queue, unserved, wants: 0, flying_chunks: 0, flying_bytes: 0, promises: 0 }
    }

    pub(super) fn set_inline_bytes_max(&mut self, bytes: u64) {
        self.windows.inline_bytes_max = bytes;
    }

    /// A pending event waits for `missing` of `list`. Returns chunks and (estimated) bytes that this adds to what is missing.
    pub(super) fn track(&mut self, list: ListRef, missing: Bitmap, source: Source, promise: Promise) -> (u64, u64) {
        if let Some(open) = self.lists.get_mut(&list.id) {
            if source == Source::Peer && open.source == Source::Elsewhere {
                open.source = Source::Peer;
                self.queue.push_back(list.id);
            }
            return (0, 0);
        }
        let unasked = match promise {
            Promise::Chunks => Unasked::Promised,
            Promise::None => Unasked::No,
        };
        match (source, unasked) {
            (Source::Peer, Unasked::No) => self.queue.push_back(list.id),
            (Source::Peer, Unasked::Promised | Unasked::Storing) => self.promises += 1,
            (Source::Elsewhere, _) => {}
        }
        let count = missing.len() as u32;
        let open = OpenList { reference: list, source, unasked, expected: false, rest: missing, missing: count, flying: 0, unavailable: 0 };
        let bytes = if count == list.entries { list.bytes } else { u64::from(count) * open.mean_bytes() };
        self.lists.insert(list.id, open);
        (u64::from(count), bytes)
    }

    pub(super) fn is_open(&self, list: &ListId) -> bool {
        self.lists.contains_key(list)
    }

    /// Chunks of a list that are missing.
    pub(super) fn missing(&self, list: &ListId) -> u64 {
        self.lists.get(list).map_or(0, |open| u64::from(open.missing))
    }

    /// Nothing more of the list can come from this peer, and it is not complete. One of which nothing is missing is not stuck: the
    /// peer's answer may overtake the news that it is complete, and to call its event parked would acknowledge it too early.
    pub(super) fn is_stuck(&self, list: &ListId) -> bool {
        self.lists.get(list).is_some_and(|open| {
            let answered = open.unasked == Unasked::No && open.rest.is_empty() && !self.unserved.contains_key(list);
            // With nothing missing it is complete, and the driver is about to say so.
            open.source == Source::Elsewhere || (answered && open.missing > 0 && open.missing <= open.unavailable)
        })
    }

    /// The peer lacks chunks of the list.
    pub(super) fn has_gaps(&self, list: &ListId) -> bool {
        self.lists.get(list).is_some_and(|open| open.unavailable > 0)
    }

    /// Chunks are on their way.
    pub(super) fn awaits(&self) -> bool {
        self.flying_chunks > 0 || self.promises > 0 || self.wants > 0
    }

    /// Asks for as much as the windows allow.
    pub(super) fn pump(&mut self, out: &mut Outbox) {
        while self.wants < self.windows.wants_max {
            let Some(id) = self.queue.front().copied() else { return };
            match self.lists.get(&id).map(|open| (open.rest.len(), self.room(open))) {
                None | Some((0, _)) => {
                    self.queue.pop_front();
                }
                Some((_, 0)) => return,
                Some((_, room)) => self.want(id, room, out),
            }
        }
    }

    /// How many chunks of a list may be asked for now. Not a few at a time: a want costs up to 2 KiB and a turn.
    fn room(&self, open: &OpenList) -> usize {
        let rest = open.rest.len();
        let chunks = (self.windows.wanted_chunks_max as u64).saturating_sub(self.flying_chunks);
        let bytes = self.windows.wanted_bytes_max.saturating_sub(self.flying_bytes);
        let room = usize::try_from(chunks.min(bytes / open.mean_bytes())).unwrap_or(usize::MAX);
        let worthwhile = bytes >= self.windows.wanted_bytes_max / 4 && chunks >= self.windows.wanted_chunks_max as u64 / 4;
        match (room >= rest, self.flying_chunks) {
            (true, _) => rest,
            (false, 0) => room.max(1),
            (false, _) if worthwhile => room,
            (false, _) => 0,
        }
    }

    fn want(&mut self, id: ListId, chunks: usize, out: &mut Outbox) {
        self.expect(&id, out);
        let Some(open) = self.lists.get_mut(&id) else { return };
        if open.reference.bytes > self.windows.inline_bytes_max {
            out.need_incoming_lanes();
        }
        let mut want = Bitmap::empty(open.reference.entries as usize);
        let positions: Vec<u32> = open.rest.iter().take(chunks).collect();
        for position in positions {
            open.rest.remove(position);
            want.insert(position);
        }
        open.flying += want.len() as u32;
        self.flying_chunks += want.len() as u64;
        self.flying_bytes += want.len() as u64 * open.mean_bytes();
        *self.unserved.entry(id).or_default() += 1;
        self.wants += 1;
        out.say(&Message::Want { list: open.reference, want });
    }

    fn expect(&mut self, list: &ListId, out: &mut Outbox) {
        if let Some(open) = self.lists.get_mut(list)
            && !std::mem::replace(&mut open.expected, true)
        {
            out.ask(Action::Expect { list: open.reference, want: open.rest.clone() });
        }
    }

    /// Promised chunks of a list came. Whether they are to be stored.
    pub(super) fn promise_came(&mut self, list: &ListId, out: &mut Outbox) -> bool {
        let Some(open) = self.lists.get_mut(list).filter(|open| open.unasked == Unasked::Promised) else { return false };
        open.unasked = Unasked::Storing;
        self.expect(list, out);
        true
    }

    /// Inline chunks of a list were stored. If they had been promised, what they lack is asked for now.
    pub(super) fn stored(&mut self, list: &ListId) {
        if let Some(open) = self.lists.get_mut(list).filter(|open| open.unasked == Unasked::Storing) {
            open.unasked = Unasked::No;
            self.promises -= 1;
            self.queue.push_back(*list);
        }
    }

    /// Whether a want of this list is not answered yet.
    pub(super) fn is_asked(&self, list: &ListId) -> bool {
        self.unserved.contains_key(list)
    }

    pub(super) fn progress(&mut self, list: &ListId, chunks: u32) {
        if let Some(open) = self.lists.get_mut(list) {
            open.missing = open.missing.saturating_sub(chunks);
        }
        self.land(list, chunks);
    }

    fn land(&mut self, list: &ListId, chunks: u32) {
        if let Some(open) = self.lists.get_mut(list) {
            let landed = chunks.min(open.flying);
            open.flying -= landed;
            self.flying_chunks -= u64::from(landed);
            self.flying_bytes -= u64::from(landed) * open.mean_bytes();
        }
    }

    pub(super) fn complete(&mut self, list: &ListId) {
        self.land(list, u32::MAX);
        if let Some(open) = self.lists.remove(list)
            && open.source == Source::Peer
            && open.unasked != Unasked::No
        {
            self.promises -= 1;
        }
    }

    /// What is missing of a list can't come from this peer, and nothing waits for it any more.
    pub(super) fn abandon(&mut self, list: &ListId) {
        self.land(list, u32::MAX);
        self.lists.remove(list);
    }

    /// The peer has served one want.
    pub(super) fn served(&mut self, list: &ListId, unavailable: &Bitmap) -> Result<(), SessionError> {
        let Some(unserved) = self.unserved.get_mut(list) else {
            return Err(SessionError::protocol("a want was served that nobody asked"));
        };
        *unserved -= 1;
        if *unserved == 0 {
            self.unserved.remove(list);
        }
        self.wants -= 1;
        match self.lists.get(list) {
            Some(open) if open.reference.entries as usize != unavailable.entries() => {
                return Err(SessionError::protocol("a bitmap does not fit its list"));
            }
            Some(_) | None => self.lack(list, unavailable.len() as u32),
        }
        Ok(())
    }

    /// So many chunks of a list can't come from this peer.
    pub(super) fn lack(&mut self, list: &ListId, chunks: u32) {
        if let Some(open) = self.lists.get_mut(list) {
            open.unavailable = open.unavailable.saturating_add(chunks);
        }
        self.land(list, chunks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> ListRef {
        ListRef { id: ListId::from_bytes([1; 32]), entries: 4, bytes: 4_000 }
    }

    /// A list whose one want was answered.
    fn answered(unavailable: u32) -> Asking {
        let mut asking = Asking::new(Windows::default());
        asking.track(list(), Bitmap::full(4), Source::Peer, Promise::None);
        asking.pump(&mut Outbox::new());
        let mut lacking = Bitmap::empty(4);
        (0..unavailable).for_each(|position| {
            lacking.insert(position);
        });
        asking.served(&list().id, &lacking).unwrap();
        asking
    }

    #[test]
    fn a_list_is_not_stuck_between_its_last_chunk_and_the_word_that_it_is_complete() {
        let mut asking = answered(0);
        assert!(!asking.is_stuck(&list().id));
        asking.progress(&list().id, 4);
        assert!(asking.is_open(&list().id) && !asking.is_stuck(&list().id));
        asking.complete(&list().id);
        assert!(!asking.is_open(&list().id));
    }

    #[test]
    fn a_list_is_stuck_when_all_that_is_missing_is_unavailable() {
        let mut asking = answered(2);
        asking.progress(&list().id, 1);
        assert!(!asking.is_stuck(&list().id));
        asking.progress(&list().id, 1);
        assert!(asking.is_stuck(&list().id));
    }
}
