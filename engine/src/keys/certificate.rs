//! Certificates: two devices sign that their replicas are the same.
//!
//! Each side signs a statement of its own, addressed to the other: "I hold everything that this root stands for". Two statements for one
//! root are the certificate. Neither waits for the other to say what it signs, so certifying takes no round trip of its own.
//!
//! ```text
//! signature = Ed25519 of the signer over "mirror 2026-11 v1 identical" || vault 32 || root 32 || signer 32 || hearer 32 || wall time 8 (ms, LE)
//! ```
//! Every field but the wall time is one that the verifier knows by itself, so a statement about another vault, from another device or to
//! another one has no valid signature here. The wall time is shown and decides nothing.
//!
//! What it does not prove: that the other device still holds what it signed for, or that it told the truth.

use super::DeviceKey;
use crate::id::{DeviceId, Root, VaultId};
use minicbor::{Decode, Encode};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::sync::Arc;

/// What the signature begins with, so that it can't be taken for one over anything else.
const CONTEXT: &[u8] = b"mirror 2026-11 v1 identical";

/// One device's statement. Nothing is proved by having one: [`Witness::certify`] checks it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attestation {
    /// What the device holds.
    #[n(0)]
    pub root: Root,
    /// When it said so, by its own clock: milliseconds since 1970. Only for display.
    #[n(1)]
    pub wall_ms: u64,
    /// Its Ed25519 signature.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

/// Two devices, each with the other's word that it held the same: made by [`Witness::certify`] or checked by [`Certificate::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    /// What this device said.
    #[n(0)]
    pub ours: Attestation,
    /// What the other one said.
    #[n(1)]
    pub theirs: Attestation,
    /// Since when both have been known to hold this root, by this device's clock: milliseconds since 1970. Only for display.
    #[n(2)]
    pub since_ms: u64,
}

impl Certificate {
    /// What both hold.
    pub fn root(&self) -> Root {
        self.ours.root
    }

    /// Whether `own` and `peer` signed this about `vault`.
    pub fn verify(&self, vault: &VaultId, own: &DeviceId, peer: &DeviceId) -> bool {
        self.ours.root == self.theirs.root && is_signed(&self.ours, vault, own, peer) && is_signed(&self.theirs, vault, peer, own)
    }
}

/// A device that compares its replica of a vault with another device's.
#[derive(Debug, Clone)]
pub struct Witness {
    vault: VaultId,
    device: Arc<DeviceKey>,
    peer: DeviceId,
}

impl Witness {
    /// `device` on this side, `peer` on the other.
    pub fn new(vault: VaultId, device: &DeviceKey, peer: DeviceId) -> Self {
        Self { vault, device: Arc::new(DeviceKey::from_seed(device.seed())), peer }
    }

    /// Says that this device holds `root`.
    pub fn attest(&self, root: Root, wall_ms: u64) -> Attestation {
        let signature = self.device.sign(&statement(&self.vault, &root, &self.device.id(), &self.peer, wall_ms));
        Attestation { root, wall_ms, signature }
    }

    /// The certificate that `ours`, made by this witness, and `theirs` are together; none if they speak of different roots or if the peer
    /// did not sign `theirs`.
    pub fn certify(&self, ours: &Attestation, theirs: &Attestation) -> Option<Certificate> {
        let valid = ours.root == theirs.root && is_signed(theirs, &self.vault, &self.peer, &self.device.id());
        valid.then(|| Certificate { ours: ours.clone(), theirs: theirs.clone(), since_ms: ours.wall_ms })
    }
}

fn is_signed(said: &Attestation, vault: &VaultId, signer: &DeviceId, hearer: &DeviceId) -> bool {
    let statement = statement(vault, &said.root, signer, hearer, said.wall_ms);
    UnparsedPublicKey::new(&ED25519, signer.as_bytes()).verify(&statement, &said.signature).is_ok()
}

fn statement(vault: &VaultId, root: &Root, signer: &DeviceId, hearer: &DeviceId, wall_ms: u64) -> Vec<u8> {
    let ids = [vault.as_bytes(), root.as_bytes(), signer.as_bytes(), hearer.as_bytes()];
    [CONTEXT, &ids.map(|id| *id).concat(), &wall_ms.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    const VAULT: VaultId = VaultId::from_bytes([1; 32]);
    const ROOT: Root = Root::from_bytes([2; 32]);

    fn devices() -> [DeviceKey; 2] {
        [3, 4].map(|seed| DeviceKey::from_seed(&[seed; 32]))
    }

    /// What each of two devices makes of the other.
    fn witnesses() -> [Witness; 2] {
        let [a, b] = devices();
        [Witness::new(VAULT, &a, b.id()), Witness::new(VAULT, &b, a.id())]
    }

    #[test]
    fn both_sides_hold_a_certificate_that_verifies_for_them_and_nobody_else() {
        let ([here, there], [a, b]) = (witnesses(), devices());
        let certificate = here.certify(&here.attest(ROOT, 5), &there.attest(ROOT, 9)).expect("both signed");
        assert_eq!((certificate.root(), certificate.since_ms), (ROOT, 5));
        assert!(certificate.verify(&VAULT, &a.id(), &b.id()));
        assert!(!certificate.verify(&VAULT, &b.id(), &a.id()), "whose is whose");
        assert!(!certificate.verify(&VaultId::from_bytes([9; 32]), &a.id(), &b.id()), "another vault");
        assert!(!certificate.verify(&VAULT, &a.id(), &a.id()), "another peer");
    }

    #[test]
    fn what_the_peer_did_not_sign_for_this_root_vault_and_hearer_certifies_nothing() {
        let ([here, there], [a, b]) = (witnesses(), devices());
        let (ours, stranger) = (here.attest(ROOT, 5), DeviceKey::from_seed(&[5; 32]));
        let refused = |theirs: &Attestation| here.certify(&ours, theirs).is_none();
        assert!(refused(&there.attest(Root::from_bytes([8; 32]), 9)), "another root");
        assert!(refused(&Witness::new(VaultId::from_bytes([9; 32]), &b, a.id()).attest(ROOT, 9)), "another vault");
        assert!(refused(&Witness::new(VAULT, &stranger, a.id()).attest(ROOT, 9)), "another device");
        assert!(refused(&Witness::new(VAULT, &b, stranger.id()).attest(ROOT, 9)), "said to somebody else");
        assert!(refused(&ours), "our own word, sent back");
        let later = Attestation { wall_ms: 10, ..there.attest(ROOT, 9) };
        assert!(refused(&later), "another time");
    }

    #[test]
    fn every_flipped_bit_of_a_stored_certificate_is_found() {
        let ([here, there], [a, b]) = (witnesses(), devices());
        let bytes = codec::encode(&here.certify(&here.attest(ROOT, 5), &there.attest(ROOT, 9)).expect("both signed"));
        // The last byte is `since_ms`, which nobody signed: it is shown and nothing else.
        for bit in 0..(bytes.len() - 1) * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = codec::decode::<Certificate>("certificate", &damaged);
            assert!(!read.is_ok_and(|read| read.verify(&VAULT, &a.id(), &b.id())), "bit {bit}");
        }
    }

    /// Made by another implementation of Ed25519 (pyca/cryptography) from the layout above.
    #[test]
    fn what_is_signed_never_changes() {
        let [here, _] = witnesses();
        let hex: String = here.attest(ROOT, 5).signature.iter().map(|byte| format!("{byte:02x}")).collect();
        let theirs = "a7acba5cb88442def6be735b6be985bcea275ff967255f93a1142eccf74148038a3838cf3c931a6bb492c0046df57fedfd0fd03d4a6e5555b3f807c90011a703";
        assert_eq!(hex, theirs);
    }
}
