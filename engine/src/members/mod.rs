//! Who is in a vault, and as what: a pure function of its membership events.
//!
//! ```text
//! membership events ──open──► acts ──fold──► Membership: device -> role and name, removals
//!                                              ▲
//! every other event: may its device write? ────┘ asked of the fold over the acts in the event's own past
//! ```
//! Roles are said by events ([`KIND_MEMBERSHIP`](crate::event::KIND_MEMBERSHIP)) that owners sign, kept and passed on like any other. Their bodies
//! are sealed under a key that every replica has, also one without the vault's key ([`Charter`]), so that each can tell by itself whose
//! events it may keep. Where it begins, the founder's device, is pinned outside the log.
//!
//! # The rule
//! - An act counts only if its device was an owner in the act's own past. The first is the founder's `Found`.
//! - A removal wins over an admission that had not seen it. One that had brings the device back.
//! - Of a removed device counts what the removal names as its last events, and nothing else that had not seen the removal: it is kept,
//!   so that logs agree, and has no effect. What has seen the removal is refused by everyone.
//! - Owners that remove each other without knowing: the removal by the one who has been owner for longer is taken first, and the other's
//!   is one of those events that have no effect.
//! - The last owner stays one, unless a removal says that it means it: it cannot be given a lesser role either.
//!
//! # Key epochs
//! Acts also begin key epochs and give their secrets to devices ([`Epoch`]). Every act of who was an owner is heard for that, also one that
//! a removal takes: what was sealed under its epoch must stay readable. Only an epoch whose act is in force is sealed under.
//!
//! Invariants: the result depends on the set of acts alone, not on the order in which they came; whether an event may be kept depends on
//! its own past alone, which is the same wherever the event is.
//!
//! Source: the strong removal of decentralised access control (Kleppmann and others: Keyhive; p2panda-auth), with seniority to break ties.

mod body;
mod change;
mod epoch;
mod fold;
mod roster;
#[cfg(test)]
mod tests;

pub use body::Charter;
pub use change::{Change, EpochGrants, Grant, LastOwner, Link, decode_changes, encode_changes};
pub use epoch::{Epoch, FIRST_EPOCH};
pub use fold::{Act, Admittance, Member, Membership, Removal, fold};
pub use roster::{Refusal, Roster};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a device may do in a vault; who may do most comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Role {
    /// Reads, writes, and decides who is in.
    #[n(0)]
    Owner,
    /// Reads and writes.
    #[n(1)]
    Member,
    /// Stores, verifies, serves and heals; has no key to read.
    #[n(2)]
    Keyless,
}

impl Role {
    /// Whether its events count.
    pub fn may_write(self) -> bool {
        matches!(self, Self::Owner | Self::Member)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Member => "member",
            Self::Keyless => "keyless",
        })
    }
}
