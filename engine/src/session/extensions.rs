//! What a Hello says beyond what every peer has to say: numbered, so that it can grow. Who does not know a number skips it, and what makes
//! no sense is not said.

use super::forks::ForkHello;
use crate::{codec, keys::Attestation};
use minicbor::{Decode, Encode};

/// The content of a Hello's `extensions`.
#[derive(Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Extensions {
    /// The sender's word for the root that it holds.
    #[n(0)]
    pub(super) attestation: Option<Attestation>,
    /// What it knows of forked logs.
    #[n(1)]
    pub(super) forks: Option<ForkHello>,
}

impl Extensions {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Self {
        minicbor::decode(bytes).unwrap_or_default()
    }
}
