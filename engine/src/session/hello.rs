//! The Hello: who we are, what we hold, and the proof that we belong to the vault.
//!
//! There is no separate proof. A Hello is sealed under a key that only a member on *this* connection can have, so sealing it proves
//! membership and opening it checks the proof; whoever cannot open it learns nothing, not even that the vault exists.
//!
//! ```text
//! key    = derive_key("mirror 2026-11 v1 hello dialer" | "... hello listener", replication key || TLS exporter)
//! siv    = keyed_hash(derive_key("mirror 2026-11 v1 hello siv", key), plaintext)                       32 bytes
//! sealed = siv || AES-256-GCM(key = keyed_hash(derive_key("mirror 2026-11 v1 hello encryption", key), siv), nonce = 0, aad = siv)
//! ```
//! - The exporter (RFC 8446, 7.5) binds the proof to the connection: it can be neither replayed on another one nor relayed.
//! - One key a side: a Hello sent back to its sender does not open.
//! - The encryption key follows from the plaintext, as in the seal of chunks: two Hellos on one connection never share key and nonce.
//!
//! # Key epochs
//! Each epoch has a replication key. A dialer seals under that of the newest epoch that it has; if that is not the first one, its message
//! carries the same Hello under the first epoch's key as well, for a listener that has not heard of the newer one: every replica has that
//! key, and only the peer that TLS has let in gets the message. A listener tries what it has, newest first, and answers under what opened.
//! So replicas on both sides of a new epoch talk, and it spreads. An old key alone lets nobody in: who was removed is turned away before,
//! by the log, which says so in the same event that begins the epoch.

use super::{Direction, Side};
use crate::{
    codec::{self, CodecError},
    event::Frontier,
    id::{ReplicaId, Root, VaultId},
    limits::HELLO_BYTES_MAX,
};
use minicbor::{Decode, Encode};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::Zeroizing;

const SIV_BYTES: usize = 32;

/// The version of the protocol that this program speaks.
pub const VERSION: u16 = 1;
/// Feature: the side stays once both are equal, if the other one does too.
pub const LIVE: u64 = 1;
/// Feature: the side knows healing.
pub const HEALS: u64 = 1 << 1;
/// Feature: the side has lost chunks of events that it has applied, and will ask for them if it receives and the peer knows healing.
pub const LOST: u64 = 1 << 2;

/// What a side says of itself first. Numbered as in the encoding.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Newest version that the side speaks; both then speak the lower of the two.
    #[n(0)]
    pub version: u16,
    /// Optional abilities, a bit each; unknown bits are ignored.
    #[n(1)]
    pub features: u64,
    /// The vault.
    #[n(2)]
    pub vault: VaultId,
    /// The replica that speaks.
    #[n(3)]
    pub replica: ReplicaId,
    /// Which way it is willing to let events flow.
    #[n(4)]
    pub direction: Direction,
    /// Events that it has applied.
    #[n(5)]
    pub frontier: Frontier,
    /// Events in its journal, beyond `frontier`, that wait for chunks: they need not be sent again.
    #[n(6)]
    pub pending: Frontier,
    /// Digest over its heads.
    #[n(7)]
    pub root: Root,
    /// Lists up to this many bytes travel on the control stream; the lower of the two counts.
    #[n(8)]
    pub inline_bytes_max: u64,
    /// Events that follow this Hello without waiting for the peer's begin after this frontier.
    #[n(9)]
    pub early: Option<Frontier>,
    /// For later versions; ignored.
    #[n(10)]
    #[cbor(with = "minicbor::bytes")]
    pub extensions: Vec<u8>,
}

/// Why a Hello did not open. Deliberately the same for every cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer did not prove that it belongs to this vault")]
pub struct NotAMember;

/// The keys that seal the Hellos of one connection: two an epoch.
#[derive(Clone)]
pub struct HelloKeys {
    newest: Pair,
    /// Newest first; the last is the first epoch's.
    older: Vec<Pair>,
}

#[derive(Clone)]
struct Pair {
    dialer: Zeroizing<[u8; 32]>,
    listener: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for HelloKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HelloKeys(..)")
    }
}

impl HelloKeys {
    /// Keys for the connection whose TLS exporter value is `exporter`, in the vault with this replication key.
    pub fn derive(replication_key: &[u8; 32], exporter: &[u8; 32]) -> Self {
        Self { newest: Pair::derive(replication_key, exporter), older: Vec::new() }
    }

    /// Adds those of an epoch before.
    #[must_use]
    pub fn and_older(mut self, replication_key: &[u8; 32], exporter: &[u8; 32]) -> Self {
        self.older.push(Pair::derive(replication_key, exporter));
        self
    }

    /// Those of the first epoch, if there are others.
    pub fn first(&self) -> Option<Self> {
        self.older.last().map(|first| Self { newest: first.clone(), older: Vec::new() })
    }

    /// Each epoch's alone, newest first.
    fn each(&self) -> impl Iterator<Item = Self> {
        std::iter::once(&self.newest).chain(&self.older).map(|pair| Self { newest: pair.clone(), older: Vec::new() })
    }

    fn of(&self, side: Side) -> &[u8; 32] {
        match side {
            Side::Dialer => &self.newest.dialer,
            Side::Listener => &self.newest.listener,
        }
    }
}

impl Pair {
    fn derive(replication_key: &[u8; 32], exporter: &[u8; 32]) -> Self {
        let mut material = Zeroizing::new([0; 64]);
        material[..32].copy_from_slice(replication_key);
        material[32..].copy_from_slice(exporter);
        Self {
            dialer: Zeroizing::new(blake3::derive_key("mirror 2026-11 v1 hello dialer", &*material)),
            listener: Zeroizing::new(blake3::derive_key("mirror 2026-11 v1 hello listener", &*material)),
        }
    }
}

/// Seals what `side` says, under the newest epoch's key.
pub fn seal(keys: &HelloKeys, side: Side, hello: &Hello) -> Vec<u8> {
    let plaintext = codec::encode(hello);
    let siv = siv(keys.of(side), &plaintext);
    let mut sealed = Vec::with_capacity(SIV_BYTES + plaintext.len() + AES_256_GCM.tag_len());
    sealed.extend_from_slice(&siv);
    let mut body = plaintext;
    if cipher(keys.of(side), &siv).seal_in_place_append_tag(zero_nonce(), Aad::from(&siv), &mut body).is_err() {
        unreachable!("a Hello is far shorter than what AES-GCM can seal");
    }
    sealed.extend_from_slice(&body);
    sealed
}

/// Opens what `side` said, one of `sealed`, under one of the epochs of `keys`. Returns that epoch's keys as well, to answer under.
///
/// # Errors
/// As [`open`].
pub fn open_any<'s>(keys: &HelloKeys, side: Side, sealed: impl IntoIterator<Item = &'s [u8]>) -> Result<(Hello, HelloKeys), NotAMember> {
    let opened = |sealed| keys.each().find_map(|epoch| Some((open(&epoch, side, sealed).ok()?, epoch)));
    sealed.into_iter().find_map(opened).ok_or(NotAMember)
}

/// Opens what `side` said, under the newest epoch's key.
///
/// # Errors
/// [`NotAMember`] on anything that [`seal`] did not make with the same keys for the same side.
pub fn open(keys: &HelloKeys, side: Side, sealed: &[u8]) -> Result<Hello, NotAMember> {
    if sealed.len() > HELLO_BYTES_MAX {
        return Err(NotAMember);
    }
    let (claimed, body) = sealed.split_first_chunk::<SIV_BYTES>().ok_or(NotAMember)?;
    let mut body = body.to_vec();
    let plaintext = cipher(keys.of(side), claimed).open_in_place(zero_nonce(), Aad::from(claimed), &mut body).map_err(|_| NotAMember)?;
    if blake3::Hash::from_bytes(siv(keys.of(side), plaintext)) != blake3::Hash::from_bytes(*claimed) {
        return Err(NotAMember);
    }
    codec::decode("hello", plaintext).map_err(|_: CodecError| NotAMember)
}

fn siv(key: &[u8; 32], plaintext: &[u8]) -> [u8; SIV_BYTES] {
    let key = Zeroizing::new(blake3::derive_key("mirror 2026-11 v1 hello siv", key));
    *blake3::keyed_hash(&key, plaintext).as_bytes()
}

fn cipher(key: &[u8; 32], siv: &[u8; SIV_BYTES]) -> LessSafeKey {
    let key = Zeroizing::new(blake3::derive_key("mirror 2026-11 v1 hello encryption", key));
    let key = Zeroizing::new(*blake3::keyed_hash(&key, siv).as_bytes());
    match UnboundKey::new(&AES_256_GCM, &*key) {
        Ok(key) => LessSafeKey::new(key),
        Err(_) => unreachable!("an AES-256 key is 32 bytes"),
    }
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version: VERSION,
            features: 1 << 63,
            vault: VaultId::from_bytes([1; 32]),
            replica: ReplicaId::from_bytes([2; 32]),
            direction: Direction::Both,
            frontier: Frontier::new(),
            pending: Frontier::new(),
            root: Root::from_bytes([3; 32]),
            inline_bytes_max: 7,
            early: None,
            extensions: vec![1, 2, 3],
        }
    }

    #[test]
    fn only_the_same_vault_connection_and_side_open_a_hello() {
        let keys = HelloKeys::derive(&[1; 32], &[2; 32]);
        let sealed = seal(&keys, Side::Dialer, &hello());
        assert_eq!(open(&keys, Side::Dialer, &sealed), Ok(hello()));
        assert_eq!(open(&keys, Side::Listener, &sealed), Err(NotAMember), "reflected");
        assert_eq!(open(&HelloKeys::derive(&[9; 32], &[2; 32]), Side::Dialer, &sealed), Err(NotAMember), "another vault");
        assert_eq!(open(&HelloKeys::derive(&[1; 32], &[9; 32]), Side::Dialer, &sealed), Err(NotAMember), "another connection");
    }

    #[test]
    fn replicas_on_both_sides_of_a_new_epoch_open_each_others_hellos() {
        let (first, ahead) = (HelloKeys::derive(&[1; 32], &[2; 32]), HelloKeys::derive(&[5; 32], &[2; 32]).and_older(&[1; 32], &[2; 32]));
        let offered = [seal(&ahead, Side::Dialer, &hello()), seal(&ahead.first().unwrap(), Side::Dialer, &hello())];
        let offered = || offered.iter().map(Vec::as_slice);
        let (opened, answer) = open_any(&first, Side::Dialer, offered()).unwrap();
        assert_eq!(opened, hello(), "a listener that is behind");
        let answered = seal(&answer, Side::Listener, &hello());
        assert_eq!(open_any(&ahead, Side::Listener, [answered.as_slice()]).unwrap().0, hello());
        let (_, answer) = open_any(&ahead, Side::Dialer, offered()).unwrap();
        let answered = seal(&answer, Side::Listener, &hello());
        assert_eq!(open(&first, Side::Listener, &answered), Err(NotAMember), "answered under the newest that both have");
        let behind = seal(&first, Side::Dialer, &hello());
        assert_eq!(open_any(&ahead, Side::Dialer, [behind.as_slice()]).unwrap().0, hello(), "a dialer that is behind");
        let stranger = HelloKeys::derive(&[9; 32], &[2; 32]);
        assert_eq!(open_any(&stranger, Side::Dialer, offered()).map(drop), Err(NotAMember));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let keys = HelloKeys::derive(&[1; 32], &[2; 32]);
        let sealed = seal(&keys, Side::Dialer, &hello());
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&keys, Side::Dialer, &damaged), Err(NotAMember), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(open(&keys, Side::Dialer, &sealed[..length]), Err(NotAMember), "cut to {length}");
        }
    }

    #[test]
    fn two_hellos_on_one_connection_share_no_key_stream() {
        let keys = HelloKeys::derive(&[1; 32], &[2; 32]);
        let (first, second) = (hello(), Hello { features: 5, ..hello() });
        let (a, b) = (seal(&keys, Side::Dialer, &first), seal(&keys, Side::Dialer, &second));
        assert_ne!(a[..SIV_BYTES], b[..SIV_BYTES]);
        assert_ne!(a[a.len() - 40..a.len() - 16], b[b.len() - 40..b.len() - 16], "equal plaintext at the end, other ciphertext");
    }

    #[test]
    fn a_hello_is_what_an_independent_implementation_computes() {
        use crate::vectors::{self, array, bytes};
        let answers = vectors::parse(vectors::HELLO);
        let keys = HelloKeys::derive(&array(&answers, "replication"), &array(&answers, "exporter"));
        let said = Hello {
            version: 1,
            features: 0,
            vault: VaultId::from_bytes(array(&answers, "vault")),
            replica: ReplicaId::from_bytes(array(&answers, "replica")),
            root: Root::from_bytes(array(&answers, "root")),
            inline_bytes_max: answers["inline_bytes_max"].as_u64().unwrap(),
            extensions: Vec::new(),
            ..hello()
        };
        for (side, field) in [(Side::Dialer, "dialer"), (Side::Listener, "listener")] {
            assert_eq!(seal(&keys, side, &said), bytes(&answers, field));
            assert_eq!(open(&keys, side, &bytes(&answers, field)).unwrap(), said);
        }
    }
}
