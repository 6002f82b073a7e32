//! Where a transfer's time goes: the stage that limits, and what each took.

use mirror_engine::meter::{Shares, Stage};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// `{"read":0.12,...}`: every stage, with its share of the time to three digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StageShares(pub(crate) Shares);

impl Serialize for StageShares {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Stage::ALL.len()))?;
        for (stage, share) in self.0.iter() {
            map.serialize_entry(stage.name(), &((share * 1000.0).round() / 1000.0))?;
        }
        map.end()
    }
}

/// What people call a stage.
pub(crate) fn stage_text(stage: Stage) -> &'static str {
    match stage {
        Stage::Read => "reading at the sender (disk)",
        Stage::Hash => "hashing at the sender",
        Stage::SenderCpu => "the sender's processor",
        Stage::Limit => "the bandwidth limit",
        Stage::CongestionWindow => "losses on the link (congestion window)",
        Stage::ReceiveWindow => "the receive window",
        Stage::Link => "link",
        Stage::ReceiverCpu => "the receiver's processor",
        Stage::Check => "hashing at the receiver",
        Stage::Write => "writing at the receiver (disk)",
        Stage::Sync => "syncing at the receiver (disk)",
        Stage::Index => "the receiver's index",
        Stage::RoundTrips => "round trips",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_engine::meter::Load;

    #[test]
    fn shares_are_one_object_with_every_stage() {
        let sender = Load { elapsed_us: 3_000, read_us: 1_000, ..Load::default() };
        let json = serde_json::to_string(&StageShares(Shares::of(&sender, &Load::default()))).unwrap_or_default();
        assert!(json.starts_with(r#"{"read":0.333,"hash":0.0,"sender_cpu":0.0,"#), "{json}");
        assert_eq!(json.matches(':').count(), Stage::ALL.len());
    }
}
