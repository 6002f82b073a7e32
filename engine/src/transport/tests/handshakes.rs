//! Handshakes that are not ours: old TLS, other names of protocols, certificates, other keys, none. None of them surfaces.

use super::super::tls::Identity;
use super::*;
use rustls::{
    ClientConfig, ClientConnection, Error,
    client::AlwaysResolvesClientRawPublicKeys,
    crypto::ring::{default_provider, sign},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
    sign::CertifiedKey,
    version::TLS13,
};

/// What a client shows of itself.
enum Shows {
    Nothing,
    Key(CertifiedKey),
    /// As a certificate and not as a raw key (RFC 7250).
    Certificate(CertifiedKey),
}

/// Pins the listener as our own dialer does.
fn client(net: &Net, shows: Shows, alpn: &[&[u8]]) -> ClientConfig {
    let (_, pinned) = Identity::new(&net.client).unwrap().client(net.server.id(), b"").unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pinned);
    let mut config = match shows {
        Shows::Nothing => builder.with_no_client_auth(),
        Shows::Key(key) => builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(key)))),
        Shows::Certificate(key) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key))),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

fn device_key(device: &DeviceKey) -> CertifiedKey {
    let private = device.pkcs8_der();
    let signer = sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(private.as_slice())).unwrap();
    let public = signer.public_key().unwrap().to_vec();
    CertifiedKey::new(vec![CertificateDer::from(public)], signer)
}

fn ecdsa_key() -> CertifiedKey {
    use ring::{rand::SystemRandom, signature};
    let pkcs8 = signature::EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
    let signer = sign::any_ecdsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_ref()).into()).unwrap();
    let public = signer.public_key().unwrap().to_vec();
    CertifiedKey::new(vec![CertificateDer::from(public)], signer)
}

/// Shakes hands over TCP until either side ends it. What the listener answered as an alert, if it did.
async fn shake_hands(net: &Net, config: ClientConfig) -> Option<Error> {
    let mut stream = TcpStream::connect(net.addr()).await.unwrap();
    let name = ServerName::try_from("mirror").unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    loop {
        while tls.wants_write() {
            let mut bytes = Vec::new();
            tls.write_tls(&mut bytes).unwrap();
            if stream.write_all(&bytes).await.is_err() {
                return None;
            }
        }
        let mut bytes = vec![0; 16_384];
        let count = timeout(LIMIT, stream.read(&mut bytes)).await.expect("the listener answers or hangs up").unwrap_or(0);
        if count == 0 {
            return None;
        }
        tls.read_tls(&mut &bytes[..count]).unwrap();
        if let Err(error) = tls.process_new_packets() {
            return Some(error);
        }
    }
}

#[tokio::test]
async fn a_client_that_shows_no_device_key_as_it_should_does_not_get_in() {
    let net = Net::new();
    let session: &[&[u8]] = &[b"mirror/1"];
    let cases = [
        ("no key", client(&net, Shows::Nothing, session)),
        ("a known key as a certificate", client(&net, Shows::Certificate(device_key(&net.client)), session)),
        ("an ECDSA key", client(&net, Shows::Key(ecdsa_key()), session)),
        ("a known key for no protocol that we speak", client(&net, Shows::Key(device_key(&net.client)), &[b"h2", b"mirror/0"])),
        ("a known key and no protocol", client(&net, Shows::Key(device_key(&net.client)), &[])),
    ];
    for (what, config) in cases {
        let alert = shake_hands(&net, config).await;
        assert!(matches!(alert, None | Some(Error::AlertReceived(_) | Error::PeerIncompatible(_))), "{what}: {alert:?}");
        // The next that surfaces is the one that may.
        for kind in WIRES {
            let (_, accepted) = net.pair(kind).await;
            assert_eq!(accepted.peer(), net.client.id(), "{what}");
        }
    }
}

/// A ClientHello that offers TLS 1.2 and nothing newer.
fn old_hello() -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x2f, 0x00, 0x9c];
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, suites.len() as u8], &suites, &[1, 0], &[0, 0]].concat();
    let handshake = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[0x16, 3, 1, 0, handshake.len() as u8][..], &handshake].concat()
}

#[tokio::test]
async fn who_offers_tls_1_2_is_hung_up_on_and_told_nothing() {
    let net = Net::new();
    let mut stream = TcpStream::connect(net.addr()).await.unwrap();
    stream.write_all(&old_hello()).await.unwrap();
    let mut answer = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("the listener hangs up").unwrap();
    assert!(answer.is_empty(), "{answer:?}");
    let (_, accepted) = net.pair(TransportKind::Tcp).await;
    assert_eq!(accepted.peer(), net.client.id());
}

#[tokio::test]
async fn nothing_can_be_sent_before_the_handshake_and_no_session_can_be_resumed() {
    let net = Net::new();
    let identity = Identity::new(&net.server).unwrap();
    let server = identity.server(net.admission.clone(), &[b"mirror/1"]).unwrap();
    assert_eq!((server.max_early_data_size, server.send_tls13_tickets, server.session_storage.can_cache()), (0, 0, false));
    let (dialer, _) = identity.client(net.client.id(), b"mirror/1").unwrap();
    assert!(!dialer.enable_early_data);
}
