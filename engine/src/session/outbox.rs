//! What the halves of a session say, want done and report, until the driver collects it.

use super::{Action, Message, SessionEvent};
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
    messages: VecDeque<Bytes>,
    actions: VecDeque<Action>,
    events: VecDeque<SessionEvent>,
    voice: Voice,
    outgoing: Lanes,
    incoming: Lanes,
    /// Messages said so far.
    said: u64,
}

impl Outbox {
    pub(super) fn new() -> Self {
        let (messages, actions, events) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self { messages, actions, events, voice: Voice::Heard, outgoing: Lanes::NotNeeded, incoming: Lanes::NotNeeded, said: 0 }
    }

    pub(super) fn say(&mut self, message: &Message) {
        if self.voice == Voice::Heard {
            self.said += 1;
            self.messages.push_back(message.encode());
        }
    }

    /// Like [`Outbox::say`], but no sign of life: who works for long must say so in words that the peer understands for certain.
    pub(super) fn mention(&mut self, message: &Message) {
        if self.voice == Voice::Heard {
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

    /// Lanes that carry chunks to the peer: asked for before the first chunk, so that a session without any never connects them.
    pub(super) fn need_outgoing_lanes(&mut self) {
        if std::mem::replace(&mut self.outgoing, Lanes::Asked) == Lanes::NotNeeded {
            self.ask(Action::OpenLanes);
        }
    }

    /// Lanes that carry chunks from the peer, likewise.
    pub(super) fn need_incoming_lanes(&mut self) {
        if std::mem::replace(&mut self.incoming, Lanes::Asked) == Lanes::NotNeeded {
            self.ask(Action::AcceptLanes);
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
