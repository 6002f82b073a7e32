//! How many replicas hold what was pushed.

use super::{Record, count_text};
use serde::Serialize;

/// What `push --ack` reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Acknowledged {
    /// That hold it, this one included.
    pub(crate) replicas: usize,
    pub(crate) wanted: usize,
    /// Peers that were asked in vain.
    pub(crate) unheld: Vec<Unheld>,
}

/// A peer that does not hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unheld {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Record for Acknowledged {
    const TYPE: &'static str = "acknowledged";
}

impl Acknowledged {
    pub(crate) fn to_text(&self) -> String {
        let held = format!("{} of {} hold it, this one included", self.replicas, count_text(self.wanted as u64, "replica"));
        self.unheld.iter().fold(held, |text, peer| format!("{text}\n  not {}: {}", peer.name, peer.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_do_not_hold_it_are_named_with_the_reason() {
        let unheld = vec![Unheld { name: "nas".into(), reason: "unreachable".into() }];
        let text = Acknowledged { replicas: 2, wanted: 3, unheld }.to_text();
        assert_eq!(text, "2 of 3 replicas hold it, this one included\n  not nas: unreachable");
    }
}
