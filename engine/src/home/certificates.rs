//! The newest certificate with each peer: both devices' word that they held the same, as `status` shows it.
//!
//! One small file a peer, beside what that peer held ([`Contact`](super::Contact)) and replaced the same way. It is checked each time that
//! it is read: one that is damaged, forged or of other devices is none. Losing one costs what the next session brings back.

use super::{HomeError, VaultHome, failed};
use crate::{codec, id::DeviceId, keys::Certificate, keys::private_file, limits::CERTIFICATE_BYTES_MAX};
use std::path::PathBuf;

impl VaultHome {
    /// Notes what `own`, this device, and `peer` have signed. Who was equal at this root before has been so since then.
    ///
    /// # Errors
    /// [`HomeError::Io`]. Nothing but the display depends on it.
    pub fn record_certificate(&self, own: &DeviceId, peer: &DeviceId, certificate: &Certificate) -> Result<(), HomeError> {
        let before = self.certificate(own, peer).filter(|before| before.root() == certificate.root());
        let since_ms = before.map_or(certificate.since_ms, |before| before.since_ms);
        let path = self.certificate_path(peer);
        let bytes = codec::encode(&Certificate { since_ms, ..certificate.clone() });
        private_file::write_unsynced(&path, &bytes).map_err(failed("writing", &path))
    }

    /// The newest certificate of `own`, this device, with `peer`; none if there is none that both have signed.
    pub fn certificate(&self, own: &DeviceId, peer: &DeviceId) -> Option<Certificate> {
        let bytes = private_file::read(&self.certificate_path(peer), CERTIFICATE_BYTES_MAX).ok()?;
        let certificate: Certificate = codec::decode("certificate", &bytes).ok()?;
        certificate.verify(&self.vault, own, peer).then_some(certificate)
    }

    fn certificate_path(&self, peer: &DeviceId) -> PathBuf {
        self.dir.join("contacts").join(format!("{peer}.certificate"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        home::Home,
        id::{Root, VaultId},
        keys::{DeviceKey, Witness},
    };

    const VAULT: VaultId = VaultId::from_bytes([1; 32]);

    struct Two {
        _dir: tempfile::TempDir,
        vault: VaultHome,
        own: DeviceKey,
        peer: DeviceKey,
    }

    impl Two {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let vault = Home::open(dir.path()).unwrap().vault(&VAULT).unwrap();
            let [own, peer] = [2, 3].map(|seed| DeviceKey::from_seed(&[seed; 32]));
            Self { _dir: dir, vault, own, peer }
        }

        fn certified(&self, root: u8, at_ms: u64) -> Certificate {
            let [here, there] = [(&self.own, &self.peer), (&self.peer, &self.own)].map(|(one, other)| Witness::new(VAULT, one, other.id()));
            let root = Root::from_bytes([root; 32]);
            here.certify(&here.attest(root, at_ms), &there.attest(root, at_ms)).unwrap()
        }

        fn record(&self, certificate: &Certificate) {
            self.vault.record_certificate(&self.own.id(), &self.peer.id(), certificate).unwrap();
        }

        fn kept(&self) -> Option<Certificate> {
            self.vault.certificate(&self.own.id(), &self.peer.id())
        }
    }

    #[test]
    fn the_newest_stands_and_says_since_when_its_root_has() {
        let two = Two::new();
        assert_eq!(two.kept(), None);
        two.record(&two.certified(7, 1_000));
        two.record(&two.certified(7, 2_000));
        let kept = two.kept().unwrap();
        assert_eq!((kept.since_ms, kept.theirs.wall_ms), (1_000, 2_000));
        two.record(&two.certified(8, 3_000));
        assert_eq!(two.kept(), Some(two.certified(8, 3_000)));
    }

    #[test]
    fn one_that_is_damaged_too_long_or_of_other_devices_is_none() {
        let two = Two::new();
        let path = two.vault.certificate_path(&two.peer.id());
        let good = codec::encode(&two.certified(7, 1_000));
        let stranger = Two { peer: DeviceKey::from_seed(&[9; 32]), ..Two::new() };
        let others = codec::encode(&stranger.certified(7, 1_000));
        for bytes in [b"garbage".to_vec(), vec![0; CERTIFICATE_BYTES_MAX + 1], good[1..].to_vec(), others] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(two.kept(), None);
        }
        std::fs::write(&path, good).unwrap();
        assert_eq!(two.kept(), Some(two.certified(7, 1_000)));
    }
}
