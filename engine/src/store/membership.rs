//! Who is in, as the log says: the roster, followed as the log grows.
//!
//! The index knows where the membership events lie, so the roster costs what they are, whatever the log's length. It is part of the
//! log's state: whoever checks or appends an event sees the membership that belongs to the log at that moment.

use super::{Inner, LogPosition, Store, StoreError, log::LogState, log_read::Reader};
use crate::{
    event::{Event, KIND_MEMBERSHIP},
    members::{Charter, Roster},
};
use std::sync::Arc;

impl Store {
    /// From now on events are kept only of devices that the vault's membership lets write. Reads the membership events of the log.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn govern(&self, charter: Charter) -> Result<(), StoreError> {
        let mut guard = self.inner.lock_log_only()?;
        guard.state.roster = Some(Arc::new(Roster::new(charter)));
        guard.state.roster_to = LogPosition::START;
        self.inner.follow_membership(&mut guard.state)
    }

    /// Who is in, as of the last refresh or append; none if the store was not told how to read it.
    pub fn roster(&self) -> Option<Arc<Roster>> {
        self.inner.log_snapshot().roster.clone()
    }
}

impl LogState {
    /// Takes over what an event that is in the log now says of who is in.
    pub(super) fn enrol(&mut self, event: &Event) {
        if event.header().kind == KIND_MEMBERSHIP
            && let Some(roster) = &mut self.roster
        {
            Arc::make_mut(roster).add(event);
        }
    }
}

impl Inner {
    /// Takes over the membership events that the index has learnt of since.
    pub(super) fn follow_membership(&self, state: &mut LogState) -> Result<(), StoreError> {
        if state.roster.is_none() || state.roster_to >= state.end {
            return Ok(());
        }
        let end = self.index.log_end()?.min(state.end);
        let mut reader = Reader::new(self);
        for place in self.index.membership_from(state.roster_to)? {
            match reader.event(&place) {
                Ok(event) => state.enrol(&event),
                // Named by `verify`; it must not keep a vault from being opened.
                Err(error) => tracing::warn!("a membership event cannot be read: {error}"),
            }
        }
        state.roster_to = end;
        Ok(())
    }
}
