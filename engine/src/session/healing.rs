//! Healing: chunks of events that are applied here, but were lost since, are asked for like any others.
//!
//! ```text
//! Hello (lost something) ─► FindLost ─► a page of lists ─Want─► chunks ─► next page ... none ─► Healed
//! ```
//! Only lists that an event of the peer's frontier names are asked for: of those it must have had every chunk. A page is asked for when
//! the one before is whole, or all that is left of it can't come from this peer, so what is held is bounded whatever was lost. The peer
//! does not say Finished before it has heard Healed.

use super::{
    Action, SessionError, SessionEvent,
    asking::{Asking, Source},
    message::{Message, Promise},
    outbox::Outbox,
};
use crate::{
    bitmap::Bitmap,
    event::{Frontier, ListRef},
    id::ListId,
    limits::LOST_LISTS_MAX,
};

/// Whether a replica holds every chunk that its log names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Holding {
    /// It does.
    #[default]
    Whole,
    /// Some were lost.
    Gaps,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// Nothing is to be healed, or no more.
    Over,
    Finding,
    /// Where the next page begins, if there is one.
    Asking(Option<ListId>),
}

#[derive(Debug)]
pub(super) struct Healing {
    stage: Stage,
    /// What the peer must have had.
    within: Frontier,
    /// Lists of this page that are not done, each with the chunks that it lacked.
    open: Vec<(ListId, u64)>,
    healed: u64,
    lost: u64,
}

impl Healing {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Over, within: Frontier::new(), open: Vec::new(), healed: 0, lost: 0 }
    }

    /// The peer may have what was lost of the events in its frontier.
    pub(super) fn begin(&mut self, within: Frontier, out: &mut Outbox) {
        self.within = within;
        out.tell(SessionEvent::Healing);
        self.find(None, out);
    }

    fn find(&mut self, after: Option<ListId>, out: &mut Outbox) {
        self.stage = Stage::Finding;
        out.ask(Action::FindLost { within: self.within.clone(), after });
    }

    /// A page has been found. Empty bitmaps may be in it.
    pub(super) fn found(
        &mut self,
        lists: Vec<(ListRef, Bitmap)>,
        next: Option<ListId>,
        asking: &mut Asking,
        out: &mut Outbox,
    ) -> Result<(), SessionError> {
        if self.stage != Stage::Finding || lists.len() > LOST_LISTS_MAX {
            return Err(SessionError::Here { reason: "lost chunks were found that nobody looked for".to_owned() });
        }
        self.stage = Stage::Asking(next);
        let (mut chunks, mut bytes) = (0, 0);
        for (list, missing) in lists.into_iter().filter(|(_, missing)| !missing.is_empty()) {
            self.open.push((list.id, missing.len() as u64));
            let (more_chunks, more_bytes) = asking.track(list, missing, Source::Peer, Promise::None);
            chunks += more_chunks;
            bytes += more_bytes;
        }
        if chunks > 0 {
            out.tell(SessionEvent::Missing { chunks, bytes });
        }
        Ok(())
    }

    /// Goes on when nothing more can come of this page. `waited_for` says of a list whether an event waits for it, too.
    pub(super) fn go_on(&mut self, asking: &mut Asking, waited_for: impl Fn(&ListId) -> bool, out: &mut Outbox) {
        let Stage::Asking(next) = self.stage else { return };
        let (mut healed, mut lost) = (0, 0);
        self.open.retain(|(list, lacked)| {
            let missing = asking.missing(list).min(*lacked);
            let is_done = !asking.is_open(list) || asking.is_stuck(list);
            if is_done {
                healed += lacked - missing;
                lost += missing;
                if missing > 0 && !waited_for(list) {
                    asking.abandon(list);
                    out.ask(Action::Forget { list: *list });
                }
            }
            !is_done
        });
        self.healed += healed;
        self.lost += lost;
        match next {
            _ if !self.open.is_empty() => {}
            Some(_) => self.find(next, out),
            None => {
                self.stage = Stage::Over;
                out.say(&Message::Healed { lost: self.lost });
                out.tell(SessionEvent::Healed { chunks: self.healed, lost: self.lost });
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// The driver owes an answer.
    pub(super) fn is_working(&self) -> bool {
        self.stage == Stage::Finding
    }

    /// Chunks that the peer should have had and did not.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}
