//! What a membership event says, and its encoding.
//!
//! A change is an array of its number and its fields' encoding as a byte string, so that a program can keep, compare and pass over a
//! change that it does not know.

use super::Role;
use crate::{
    codec::{self, CodecError},
    event::Frontier,
    id::{AgreementKey, DeviceId, EpochId},
    keys::Newcomer,
    limits::{EPOCH_GRANTS_MAX, EPOCH_LINKS_MAX, MEMBERSHIP_CHANGES_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX},
};
use minicbor::{Decode, Encode};

/// Whether a removal may take the last owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LastOwner {
    /// It has no effect then.
    #[n(0)]
    Stays,
    /// It may: nobody can admit or remove anyone afterwards.
    #[n(1)]
    Goes,
}

/// One change of who is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The event's device founds the vault and is its first owner. Means something in the founder's first event only.
    Found {
        /// What it calls itself.
        name: String,
        /// What keys are sealed for it with.
        agreement: Option<AgreementKey>,
    },
    /// A device is in from now on, or has another role.
    Admit {
        /// The device.
        device: DeviceId,
        /// What it may do.
        role: Role,
        /// What it called itself when it was let in.
        name: String,
        /// What keys are sealed for it with.
        agreement: Option<AgreementKey>,
    },
    /// A device is out.
    Remove {
        /// The device.
        device: DeviceId,
        /// Why, for people.
        reason: Option<String>,
        /// The last events that count of each author that the device has been.
        upto: Frontier,
        /// Whether it may be the last owner.
        last_owner: LastOwner,
    },
    /// A key epoch begins, or is given to devices that have come since.
    Epoch(EpochGrants),
    /// From a newer version: kept, without effect here.
    Unknown {
        /// Its number.
        number: u16,
        /// Its fields.
        fields: Vec<u8>,
    },
}

const FOUND: u16 = 0;
const ADMIT: u16 = 1;
const REMOVE: u16 = 2;
const EPOCH: u16 = 3;

/// A key epoch and its secret, sealed for each of some devices; see [`keys`](crate::keys).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EpochGrants {
    /// One more than the newest that its author knew. Stands in the header of what is sealed under it.
    #[n(0)]
    pub number: u32,
    /// Which of those with this number.
    #[n(1)]
    pub epoch: EpochId,
    /// Public half of the key that sealed the grants.
    #[n(2)]
    pub giver: AgreementKey,
    /// One for each device, in the order of the devices.
    #[n(3)]
    pub grants: Vec<Grant>,
    /// The epochs before it that no other epoch leads to yet, but the first of all.
    #[n(4)]
    pub links: Vec<Link>,
}

/// The secret of an epoch, sealed for one device.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    /// Whom it is for.
    #[n(0)]
    pub device: DeviceId,
    /// What only it can open.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// The master key of an epoch, sealed under that of a later one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    /// The earlier epoch.
    #[n(0)]
    pub epoch: EpochId,
    /// What members of the later one can open.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// A grant: kind and secret, and the tag.
const GRANT_BYTES: usize = 49;
/// A link: a secret, and the tag.
const LINK_BYTES: usize = 48;

impl EpochGrants {
    fn validate(&self) -> Result<(), CodecError> {
        let error = |reason| Err(CodecError::new("key epoch", reason));
        match self {
            Self { number: 0..=1, .. } => error("the first epoch is nobody's to begin"),
            Self { grants, links, .. } if grants.len() > EPOCH_GRANTS_MAX || links.len() > EPOCH_LINKS_MAX => error("too much of it"),
            Self { grants, .. } if !grants.is_sorted_by(|a, b| a.device < b.device) => error("the grants are out of order"),
            Self { grants, .. } if grants.iter().any(|grant| grant.sealed.len() != GRANT_BYTES) => error("a grant has 49 bytes"),
            Self { links, .. } if links.iter().any(|link| link.sealed.len() != LINK_BYTES) => error("a link has 48 bytes"),
            _ => Ok(()),
        }
    }
}

#[derive(Encode, Decode)]
struct Found {
    #[n(0)]
    name: String,
    #[n(1)]
    agreement: Option<AgreementKey>,
}

#[derive(Encode, Decode)]
struct Admit {
    #[n(0)]
    device: DeviceId,
    #[n(1)]
    role: Role,
    #[n(2)]
    name: String,
    #[n(3)]
    agreement: Option<AgreementKey>,
}

#[derive(Encode, Decode)]
struct Remove {
    #[n(0)]
    device: DeviceId,
    #[n(1)]
    reason: Option<String>,
    #[n(2)]
    upto: Frontier,
    #[n(3)]
    last_owner: LastOwner,
}

#[derive(Encode, Decode)]
struct Numbered {
    #[n(0)]
    number: u16,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    fields: Vec<u8>,
}

impl Change {
    /// The founder, as it says itself.
    pub fn found(founder: &Newcomer, name: &str) -> Self {
        Self::Found { name: name.to_owned(), agreement: founder.agreement }
    }

    /// Lets a device in.
    pub fn admit(newcomer: &Newcomer, role: Role, name: &str) -> Self {
        Self::Admit { device: newcomer.device, role, name: name.to_owned(), agreement: newcomer.agreement }
    }

    fn to_numbered(&self) -> Numbered {
        let (number, fields) = match self.clone() {
            Self::Found { name, agreement } => (FOUND, codec::encode(&Found { name, agreement })),
            Self::Admit { device, role, name, agreement } => (ADMIT, codec::encode(&Admit { device, role, name, agreement })),
            Self::Remove { device, reason, upto, last_owner } => (REMOVE, codec::encode(&Remove { device, reason, upto, last_owner })),
            Self::Epoch(epoch) => (EPOCH, codec::encode(&epoch)),
            Self::Unknown { number, fields } => (number, fields),
        };
        Numbered { number, fields }
    }

    fn from_numbered(numbered: Numbered) -> Result<Self, CodecError> {
        let Numbered { number, fields } = numbered;
        Ok(match number {
            FOUND => {
                let Found { name, agreement } = codec::decode("founding", &fields)?;
                Self::Found { name, agreement }
            }
            ADMIT => {
                let Admit { device, role, name, agreement } = codec::decode("admission", &fields)?;
                Self::Admit { device, role, name, agreement }
            }
            REMOVE => {
                let Remove { device, reason, upto, last_owner } = codec::decode("removal", &fields)?;
                Self::Remove { device, reason, upto, last_owner }
            }
            EPOCH => Self::Epoch(codec::decode("key epoch", &fields)?),
            _ => Self::Unknown { number, fields },
        })
    }

    fn validate(&self) -> Result<(), CodecError> {
        let error = |reason| Err(CodecError::new("membership change", reason));
        match self {
            Self::Found { name, .. } | Self::Admit { name, .. } if !is_name(name) => error("a name has 1 to 255 bytes, none of control"),
            Self::Remove { reason: Some(reason), .. } if reason.len() > REASON_BYTES_MAX => error("the reason is too long"),
            Self::Unknown { number, .. } if *number <= EPOCH => error("a known change as an unknown one"),
            Self::Epoch(epoch) => epoch.validate(),
            Self::Found { .. } | Self::Admit { .. } | Self::Remove { .. } | Self::Unknown { .. } => Ok(()),
        }
    }
}

/// Names are shown on terminals.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// The plaintext of a membership event's body.
///
/// # Errors
/// [`CodecError`] when a change is outside its limits, or there are more than [`MEMBERSHIP_CHANGES_MAX`].
pub fn encode_changes(changes: &[Change]) -> Result<Vec<u8>, CodecError> {
    check(changes)?;
    Ok(codec::encode(&changes.iter().map(Change::to_numbered).collect::<Vec<_>>()))
}

/// Reads the plaintext of a membership event's body.
///
/// # Errors
/// [`CodecError`] on anything that [`encode_changes`] does not make, here or in a newer version.
pub fn decode_changes(plaintext: &[u8]) -> Result<Vec<Change>, CodecError> {
    let numbered: Vec<Numbered> = codec::decode("membership", plaintext)?;
    let changes = numbered.into_iter().map(Change::from_numbered).collect::<Result<Vec<_>, _>>()?;
    check(&changes)?;
    Ok(changes)
}

fn check(changes: &[Change]) -> Result<(), CodecError> {
    if changes.len() > MEMBERSHIP_CHANGES_MAX {
        return Err(CodecError::new("membership", "too many changes"));
    }
    changes.iter().try_for_each(Change::validate)
}
