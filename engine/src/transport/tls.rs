//! TLS 1.3 between devices: mutual raw public keys (RFC 7250), Ed25519 only, pinned by the dialer, admitted by the listener.
//!
//! The "certificate" is a bare SubjectPublicKeyInfo. For Ed25519 that is a fixed prefix and the 32 bytes that are the
//! [`DeviceId`] (RFC 8410), so it is compared, not parsed. AES-128-GCM comes first because it is the fastest here (measured);
//! both ends keep the same order. What is left out on purpose: other signatures, TLS 1.2, tickets, resumption, 0-RTT.

use super::{Admission, Standing, TransportError};
use crate::{id::DeviceId, keys::DeviceKey};
use rustls::{
    AlertDescription, CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Best first: measured on machines with AES instructions, where ChaCha20 costs twice as much.
const SUITES: [CipherSuite; 3] =
    [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256];

/// This device, as TLS knows it.
#[derive(Clone)]
pub(super) struct Identity {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
}

impl Identity {
    pub(super) fn new(device: &DeviceKey) -> Result<Self, TransportError> {
        let private = device.pkcs8_der();
        let signer = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(private.as_slice())).map_err(failure)?;
        let public = [&SPKI_PREFIX[..], device.id().as_bytes()].concat();
        let key = CertifiedKey::new(vec![CertificateDer::from(public)], signer);
        Ok(Self { provider: Arc::new(provider()), key: Arc::new(key) })
    }

    /// How to dial `expected`, and where to look afterwards for who answered.
    pub(super) fn client(&self, expected: DeviceId, alpn: &[u8]) -> Result<(Arc<ClientConfig>, Arc<Pinned>), TransportError> {
        let pinned = Arc::new(Pinned { expected, found: OnceLock::new(), algorithms: self.provider.signature_verification_algorithms });
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(failure)?
            .dangerous()
            .with_custom_certificate_verifier(pinned.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok((Arc::new(config), pinned))
    }

    /// How to answer whoever `admission` lets in.
    pub(super) fn server(&self, admission: Arc<dyn Admission>, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TransportError> {
        let admitted = Arc::new(Admitted { admission, algorithms: self.provider.signature_verification_algorithms });
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(failure)?
            .with_client_cert_verifier(admitted)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let rank = |suite: CipherSuite| SUITES.iter().position(|known| *known == suite);
    provider.cipher_suites.retain(|suite| rank(suite.suite()).is_some());
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    provider
}

/// The device behind a raw public key, if it is an Ed25519 key and nothing else.
pub(super) fn device_of(certificate: &CertificateDer<'_>) -> Option<DeviceId> {
    DeviceId::from_slice(certificate.strip_prefix(&SPKI_PREFIX)?)
}

/// The device at the other end of a finished handshake.
pub(super) fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Result<DeviceId, TransportError> {
    certificates
        .and_then(|chain| chain.first())
        .and_then(device_of)
        .ok_or_else(|| TransportError::Protocol("the peer showed no device key".to_owned()))
}

/// The dialer's side: exactly one key will do.
pub(super) struct Pinned {
    expected: DeviceId,
    found: OnceLock<DeviceId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    /// The true cause of a failed handshake: a wrong key explains whatever alert came of it.
    pub(super) fn explain(&self, error: TransportError) -> TransportError {
        match self.found.get() {
            Some(found) if *found != self.expected => TransportError::WrongPeer { expected: self.expected, found: *found },
            _ => error,
        }
    }
}

/// The listener's side: known devices, and strangers while pairing is open.
struct Admitted {
    admission: Arc<dyn Admission>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What both sides ask of a signature: TLS 1.3, by the raw Ed25519 key that was shown. Their traits share these methods and not a name.
macro_rules! signatures_of_devices {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::Tls12NotOffered.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_signature(message, key, signature, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let device = device_of(end_entity).ok_or(CertificateError::BadEncoding)?;
        if *self.found.get_or_init(|| device) == self.expected && device == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    signatures_of_devices!();
}

impl ClientCertVerifier for Admitted {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let device = device_of(end_entity).ok_or(CertificateError::BadEncoding)?;
        if self.admission.standing(&device) != Standing::Stranger || self.admission.pairing_open() {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    signatures_of_devices!();
}

fn verify_signature(
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
    }
    verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key.as_ref()), signature, algorithms)
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({})", self.expected.short())
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admitted")
    }
}

/// What an error of the TLS library means for the caller.
pub(super) fn failure(error: Error) -> TransportError {
    match error {
        Error::AlertReceived(alert) => alert_received(alert),
        Error::NoApplicationProtocol => TransportError::Version,
        other => TransportError::Protocol(other.to_string()),
    }
}

/// What the peer meant by an alert. Those about our key mean that it does not let us in.
pub(super) fn alert_received(alert: AlertDescription) -> TransportError {
    match alert {
        AlertDescription::AccessDenied
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateRequired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::UnsupportedCertificate => TransportError::Refused,
        AlertDescription::NoApplicationProtocol | AlertDescription::ProtocolVersion => TransportError::Version,
        other => TransportError::Protocol(format!("the peer's TLS says {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ed25519_key_names_a_device() {
        let key = [7; 32];
        let spki = [&SPKI_PREFIX[..], &key].concat();
        assert_eq!(device_of(&CertificateDer::from(spki.clone())), Some(DeviceId::from_bytes(key)));
        let mut other_algorithm = spki.clone();
        other_algorithm[8] = 0x6e;
        for wrong in [vec![], spki[..43].to_vec(), [&spki[..], &[0]].concat(), other_algorithm, vec![0x30; 400]] {
            assert_eq!(device_of(&CertificateDer::from(wrong)), None);
        }
    }

    #[test]
    fn fast_ciphers_come_first_and_no_other_version_is_offered() {
        let provider = provider();
        let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(suites, SUITES);
    }
}
