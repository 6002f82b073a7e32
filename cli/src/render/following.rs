//! How a replica that follows stands with its peer.

use super::Record;
use serde::Serialize;

/// The connection of a follower, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum FollowState {
    /// Connected; what becomes durable goes over at once.
    Live,
    /// Both hold the same.
    Identical { root: String },
    /// Not connected, for this reason; tried again after a pause.
    Waiting { reason: String, pause_ms: u64 },
}

impl FollowState {
    /// Pauses differ each time, which is no news.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Waiting { reason, .. }, Self::Waiting { reason: other, .. }) => reason == other,
            _ => self == other,
        }
    }
}

/// The same with whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Following {
    pub(crate) peer: String,
    #[serde(flatten)]
    pub(crate) state: FollowState,
}

impl Record for Following {
    const TYPE: &'static str = "following";
}

impl Following {
    pub(crate) fn to_text(&self) -> String {
        let peer = &self.peer;
        match &self.state {
            FollowState::Live => format!("following {peer}"),
            FollowState::Identical { root } => format!("identical with {peer} at {}", root.get(..8).unwrap_or(root)),
            FollowState::Waiting { reason, .. } => format!("waiting for {peer}: {reason}; trying again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_reason_is_said_once_and_roots_are_short_for_people() {
        let waiting = |reason: &str, pause_ms| FollowState::Waiting { reason: reason.into(), pause_ms };
        assert!(waiting("gone", 1).says_the_same(&waiting("gone", 2)));
        assert!(!waiting("gone", 1).says_the_same(&waiting("busy", 1)));
        let identical = Following { peer: "nas".into(), state: FollowState::Identical { root: "0123456789abcdef".into() } };
        assert_eq!(identical.to_text(), "identical with nas at 01234567");
    }
}
