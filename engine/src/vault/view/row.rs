//! A version as it lies in a row.

use super::ViewError;
use crate::{
    codec::{self, CodecError},
    event::{Dot, Key, Operation},
    id::{EventId, ReplicaId},
    merge::{Action, Agreement, Place, Version},
};
use rusqlite::Row;

/// How a version stands among those of its key. The numbers are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A newer version's author had seen it: history.
    Superseded = 0,
    /// It counts, and none that counts says anything else.
    Sole = 1,
    /// It counts, in conflict with losers.
    Winner = 2,
    /// It is maximal beside a winner, in conflict.
    Loser = 3,
    /// It is maximal and says what the sole one says.
    Agreeing = 4,
}

impl Standing {
    /// How the maximal version at `index` stands, winner first.
    pub(super) fn among(index: usize, agreement: Agreement) -> Self {
        match (index, agreement) {
            (0, Agreement::Whole) => Self::Sole,
            (0, Agreement::Broken) => Self::Winner,
            (_, Agreement::Whole) => Self::Agreeing,
            (_, Agreement::Broken) => Self::Loser,
        }
    }

    /// The standings of versions that are listed: the winner of each key.
    pub(super) const LISTED: std::ops::RangeInclusive<i64> = Self::Sole as i64..=Self::Winner as i64;

    /// Reads the column.
    pub(super) fn from_column(number: i64) -> Result<Self, ViewError> {
        [Self::Superseded, Self::Sole, Self::Winner, Self::Loser, Self::Agreeing]
            .into_iter()
            .find(|standing| *standing as i64 == number)
            .ok_or_else(|| ViewError::Damaged(format!("no version stands as {number}")))
    }
}

/// A version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// The key.
    pub key: Key,
    /// The version.
    pub version: Version,
    /// How it stands.
    pub standing: Standing,
}

/// What every query for [`VersionRow`] selects: `v` is the row of the version, `e` that of its event.
pub(super) const COLUMNS: &str = "v.key, e.lamport, e.author, e.sequence, v.idx, e.id, e.wall_ms, v.action, v.said, v.chosen, v.standing";

impl VersionRow {
    /// Reads [`COLUMNS`].
    pub(super) fn read(row: &Row<'_>) -> Result<Self, ViewError> {
        let chosen: Option<[u8; 32]> = row.get(9)?;
        let version = Version {
            place: place(row)?,
            wall_ms: row.get::<_, i64>(6)? as u64,
            action: Said::action(row.get(7)?, row.get_ref(8)?.as_blob().unwrap_or_default())?,
            chosen: chosen.map(EventId::from_bytes),
        };
        let key = Key::new(row.get::<_, Vec<u8>>(0)?).map_err(|error| ViewError::Damaged(error.to_string()))?;
        Ok(Self { key, version, standing: Standing::from_column(row.get(10)?)? })
    }
}

/// Reads columns 1 to 5 of [`COLUMNS`].
pub(super) fn place(row: &Row<'_>) -> Result<Place, ViewError> {
    Ok(Place {
        lamport: row.get::<_, i64>(1)? as u64,
        dot: Dot { author: ReplicaId::from_bytes(row.get(2)?), sequence: row.get::<_, i64>(3)? as u64 },
        index: row.get(4)?,
        event: EventId::from_bytes(row.get(5)?),
    })
}

/// What a version says, encoded: the columns `action`, `said` and `chosen`.
pub(super) struct Said {
    pub(super) action: i64,
    pub(super) said: Vec<u8>,
    pub(super) chosen: Option<EventId>,
}

impl Said {
    /// Column `action` of a put.
    pub(super) const PUT: i64 = 0;
    /// Column `action` of a deletion.
    pub(super) const DELETE: i64 = 1;

    /// What `operation` says by itself; none for a resolution, which says what another version says.
    pub(super) fn by(operation: &Operation) -> Option<Self> {
        match operation {
            Operation::Put(_, value) => Some(Self { action: Self::PUT, said: codec::encode(value), chosen: None }),
            Operation::Delete(_, reason) => Some(Self { action: Self::DELETE, said: codec::encode(reason), chosen: None }),
            Operation::Resolve(..) => None,
        }
    }

    pub(super) fn action(action: i64, said: &[u8]) -> Result<Action, ViewError> {
        let damaged = |error: CodecError| ViewError::Damaged(error.to_string());
        match action {
            Self::PUT => codec::decode("value of the view", said).map(Action::Put).map_err(damaged),
            Self::DELETE => codec::decode("reason of the view", said).map(Action::Delete).map_err(damaged),
            other => Err(ViewError::Damaged(format!("no version says {other}"))),
        }
    }
}
