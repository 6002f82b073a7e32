//! What the halves of a session say, want done and report, until the driver collects it.

use super::{Action, Message, SessionEvent, Side};
use bytes::Bytes;
use std::collections::VecDeque;

/// Whether anybody listens to what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    Heard,
    Muted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lanes {
    NotNeeded,
    Asked,
}

#[derive(Debug)]
pub(super) struct Outbox {
    side: Side,
    messages: VecDeque<Bytes>,
    actions: VecDeque<Action>,
    events: VecDeque<SessionEvent>,
    voice: Voice,
    lanes: Lanes,
    /// Messages said so far.
    said: u64,
}

impl Outbox {
    pub(super) fn new(side: Side) -> Self {
        let (messages, actions, events) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { side, messages, actions, events, voice: Voice::Heard, lanes: Lanes::NotNeeded, said: 0 }
    }

    pub(super) fn say(&mut self, message: &Message) {
        if self.voice == Voice::Heard {
            self.said += 1;
            self.messages.push_back(message.encode());
        }
    }

    /// Nothing said from now on goes out: the peer is gone, or must not learn that anybody is here.
    pub(super) fn mute(&mut self) {
        self.voice = Voice::Muted;
    }

    pub(super) fn ask(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Lanes are asked for the first time that bulk data is about to flow, so that a session without any never connects them.
    pub(super) fn need_lanes(&mut self) {
        if std::mem::replace(&mut self.lanes, Lanes::Asked) == Lanes::NotNeeded {
            self.ask(match self.side {
                Side::Dialer => Action::OpenLanes,
                Side::Listener => Action::AcceptLanes,
            });
        }
    }

    pub(super) fn tell(&mut self, event: SessionEvent) {
        self.events.push_back(event);
    }

    pub(super) fn said(&self) -> u64 {
        self.said
    }

    pub(super) fn next_message(&mut self) -> Option<Bytes> {
        self.messages.pop_front()
    }

    pub(super) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(super) fn next_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }
}
