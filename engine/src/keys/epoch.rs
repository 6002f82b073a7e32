//! Key epochs: how the secret of a new one reaches every device that is in, and nobody else.
//!
//! ```text
//! secret    = 32 random bytes: the master key of the epoch; its replication key follows as the first one's does
//! epoch id  = derive_key("mirror 2026-11 v1 epoch id", replication key of the epoch)
//! giver     = a fresh X25519 key pair, for one change of one event; its secret half is forgotten at once
//! key       = derive_key("mirror 2026-11 v1 epoch grant", X25519(giver, device) || giver's public || device's public || device || vault || epoch id)
//! grant     = AES-256-GCM(key, nonce = 0, aad = none, kind of secret 1 || secret 32)          49 bytes: what a slot wraps
//! link      = AES-256-GCM(derive_key("mirror 2026-11 v1 epoch link", master || vault || earlier epoch id), nonce = 0, aad = none, earlier master)
//! ```
//! - The shared secret is bound to both public keys, the device, the vault and the epoch: a grant cannot be put in another's place. The
//!   giver's key is fresh and a device is given one grant under it, so each key seals once and a zero nonce is safe.
//! - The epoch's id commits to its replication key: whoever was given another secret than the rest notices it.
//! - A link leads from an epoch to those before it: who is let in later needs one grant, however many epochs there were. It never
//!   leads forward: the secret of an epoch says nothing of a later one's.
//!
//! X25519 is RFC 7748's; keys that make the shared secret a constant are refused (section 6.1).

use super::{DeviceKey, KeyError, MasterKey, ReplicationKey, Secrets};
use crate::id::{AgreementKey, DeviceId, EpochId, VaultId};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// The epoch whose replication key this is.
pub fn epoch_id(replication: &ReplicationKey) -> EpochId {
    EpochId::from_bytes(blake3::derive_key("mirror 2026-11 v1 epoch id", replication.as_bytes()))
}

/// What a grant is of: part of its key.
#[derive(Debug, Clone, Copy)]
pub struct Occasion {
    /// The vault.
    pub vault: VaultId,
    /// The epoch.
    pub epoch: EpochId,
    /// Whom it is for.
    pub device: DeviceId,
}

/// Seals the secret of one epoch for many devices: a key pair for one change.
pub struct Giver(DeviceKey);

impl Giver {
    /// A fresh one.
    ///
    /// # Errors
    /// [`KeyError::Randomness`].
    pub fn generate() -> Result<Self, KeyError> {
        DeviceKey::generate().map(Self)
    }

    /// The one whose secret follows from `seed`: for known answers.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(DeviceKey::from_seed(seed))
    }

    /// The public half, which stands beside the grants.
    pub fn public(&self) -> AgreementKey {
        self.0.agreement_key()
    }

    /// Seals `secrets` for the device that holds the secret half of `to`; `None` for a key that nothing can be sealed for.
    pub fn grant(&self, occasion: &Occasion, to: &AgreementKey, secrets: &Secrets) -> Option<Vec<u8>> {
        let shared = self.0.agree(to)?;
        let key = grant_key(&shared, &self.public(), to, occasion);
        let mut sealed = secrets.to_bytes();
        seal(&key, &mut sealed);
        Some(sealed.to_vec())
    }
}

impl DeviceKey {
    /// The secrets in a grant that `giver` sealed for this device; `None` for anything else, and for secrets of another epoch.
    pub fn open_grant(&self, occasion: &Occasion, giver: &AgreementKey, sealed: &[u8]) -> Option<Secrets> {
        let shared = self.agree(giver)?;
        let key = grant_key(&shared, giver, &self.agreement_key(), occasion);
        let secrets = Secrets::from_bytes(&open(&key, sealed)?)?;
        (epoch_id(&secrets.replication_key(&occasion.vault)) == occasion.epoch).then_some(secrets)
    }
}

/// Seals `earlier`, the master key of an epoch before, for whoever has `master`.
pub fn link(master: &MasterKey, vault: &VaultId, earlier: &MasterKey) -> Vec<u8> {
    let key = link_key(master, vault, &epoch_id(&earlier.replication_key(vault)));
    let mut sealed = Zeroizing::new(earlier.as_bytes().to_vec());
    seal(&key, &mut sealed);
    sealed.to_vec()
}

/// The master key of the epoch `earlier`, from a link that who had `master` made; `None` for anything else.
pub fn unlink(master: &MasterKey, vault: &VaultId, earlier: &EpochId, sealed: &[u8]) -> Option<MasterKey> {
    let opened = open(&link_key(master, vault, earlier), sealed)?;
    let found = MasterKey::from_bytes(opened.as_slice().try_into().ok()?);
    (epoch_id(&found.replication_key(vault)) == *earlier).then_some(found)
}

fn grant_key(shared: &[u8; 32], giver: &AgreementKey, to: &AgreementKey, occasion: &Occasion) -> Zeroizing<[u8; 32]> {
    let Occasion { vault, epoch, device } = occasion;
    let parts = [shared.as_slice(), giver.as_bytes(), to.as_bytes(), device.as_bytes(), vault.as_bytes(), epoch.as_bytes()];
    let material = Zeroizing::new(parts.concat());
    Zeroizing::new(blake3::derive_key("mirror 2026-11 v1 epoch grant", &material))
}

fn link_key(master: &MasterKey, vault: &VaultId, earlier: &EpochId) -> Zeroizing<[u8; 32]> {
    let material = Zeroizing::new([master.as_bytes().as_slice(), vault.as_bytes(), earlier.as_bytes()].concat());
    Zeroizing::new(blake3::derive_key("mirror 2026-11 v1 epoch link", &material))
}

fn seal(key: &[u8; 32], bytes: &mut Vec<u8>) {
    if cipher(key).seal_in_place_append_tag(nonce(), Aad::empty(), bytes).is_err() {
        unreachable!("a secret is a few bytes");
    }
}

fn open(key: &[u8; 32], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let length = cipher(key).open_in_place(nonce(), Aad::empty(), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    match UnboundKey::new(&AES_256_GCM, key) {
        Ok(key) => LessSafeKey::new(key),
        Err(_) => unreachable!("a key of AES-256 has 32 bytes"),
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAULT: VaultId = VaultId::from_bytes([7; 32]);

    fn device(seed: u8) -> DeviceKey {
        DeviceKey::from_seed(&[seed; 32])
    }

    fn occasion(master: &MasterKey, device: &DeviceKey) -> Occasion {
        Occasion { vault: VAULT, epoch: epoch_id(&master.replication_key(&VAULT)), device: device.id() }
    }

    #[test]
    fn a_grant_opens_for_its_device_epoch_and_vault_only() {
        let (giver, to, other, master) = (Giver::from_seed(&[1; 32]), device(2), device(3), MasterKey::from_bytes([4; 32]));
        for secrets in [Secrets::Member(master.clone()), Secrets::Keyless(master.replication_key(&VAULT))] {
            let occasion = occasion(&master, &to);
            let sealed = giver.grant(&occasion, &to.agreement_key(), &secrets).unwrap();
            assert_eq!(*to.open_grant(&occasion, &giver.public(), &sealed).unwrap().to_bytes(), *secrets.to_bytes());
            assert!(other.open_grant(&occasion, &giver.public(), &sealed).is_none(), "another device");
            let elsewhere = Occasion { vault: VaultId::from_bytes([8; 32]), ..occasion };
            assert!(to.open_grant(&elsewhere, &giver.public(), &sealed).is_none(), "another vault");
            let later = Occasion { epoch: EpochId::from_bytes([9; 32]), ..occasion };
            assert!(to.open_grant(&later, &giver.public(), &sealed).is_none(), "another epoch");
            for bit in 0..sealed.len() * 8 {
                let mut damaged = sealed.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(to.open_grant(&occasion, &giver.public(), &damaged).is_none(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_secret_that_is_not_the_epochs_is_not_taken() {
        let (giver, to, master) = (Giver::from_seed(&[1; 32]), device(2), MasterKey::from_bytes([4; 32]));
        let occasion = occasion(&master, &to);
        let wrong = Secrets::Member(MasterKey::from_bytes([5; 32]));
        let sealed = giver.grant(&occasion, &to.agreement_key(), &wrong).unwrap();
        assert!(to.open_grant(&occasion, &giver.public(), &sealed).is_none());
    }

    #[test]
    fn nothing_is_sealed_for_a_key_that_makes_the_secret_a_constant() {
        let master = MasterKey::from_bytes([4; 32]);
        let zero = AgreementKey::from_bytes([0; 32]);
        assert!(Giver::from_seed(&[1; 32]).grant(&occasion(&master, &device(2)), &zero, &Secrets::Member(master.clone())).is_none());
    }

    #[test]
    fn a_link_leads_back_and_not_forward() {
        let (first, second) = (MasterKey::from_bytes([1; 32]), MasterKey::from_bytes([2; 32]));
        let sealed = link(&second, &VAULT, &first);
        let (first_id, second_id) = (epoch_id(&first.replication_key(&VAULT)), epoch_id(&second.replication_key(&VAULT)));
        assert_eq!(unlink(&second, &VAULT, &first_id, &sealed).unwrap().as_bytes(), first.as_bytes());
        assert!(unlink(&first, &VAULT, &second_id, &sealed).is_none());
        assert!(unlink(&second, &VAULT, &second_id, &sealed).is_none());
    }
}
