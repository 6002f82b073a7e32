//! How the body of a membership event is sealed: for every replica of the vault, also a keyless one, and for nobody else.
//!
//! ```text
//! key    = derive_key("mirror 2026-11 v1 membership", replication key)
//! siv    = keyed_hash(derive_key("mirror 2026-11 v1 membership siv", key), context || plaintext)             32 bytes
//! sealed = siv || AES-256-GCM(key = keyed_hash(derive_key("mirror 2026-11 v1 membership encryption", key), siv), nonce = 0, aad = siv)
//! ```
//! The context (author and sequence number, of fixed length) binds it to its event. The encryption key follows from the plaintext, so
//! that no two bodies share key and nonce.

use super::{Act, Change, change};
use crate::{
    codec::CodecError,
    event::{Event, body_context},
    id::{DeviceId, ReplicaId},
    keys::ReplicationKey,
    limits::MEMBERSHIP_BYTES_MAX,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

const SIV_BYTES: usize = 32;

/// Where a vault's membership begins, and what opens the events that say the rest. Cheap to clone.
#[derive(Clone)]
pub struct Charter {
    founder: DeviceId,
    keys: Arc<Keys>,
}

struct Keys {
    siv: Zeroizing<[u8; 32]>,
    encryption: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Charter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charter").field("founder", &self.founder).finish_non_exhaustive()
    }
}

impl Charter {
    /// The charter of the vault that `founder` has made.
    pub fn new(founder: DeviceId, replication: &ReplicationKey) -> Self {
        let key = Zeroizing::new(blake3::derive_key("mirror 2026-11 v1 membership", replication.as_bytes()));
        let derive = |context| Zeroizing::new(blake3::derive_key(context, &*key));
        let keys = Keys { siv: derive("mirror 2026-11 v1 membership siv"), encryption: derive("mirror 2026-11 v1 membership encryption") };
        Self { founder, keys: Arc::new(keys) }
    }

    /// The device whose `Found` counts.
    pub fn founder(&self) -> DeviceId {
        self.founder
    }

    /// Seals what the event at `sequence` of `author` says.
    ///
    /// # Errors
    /// [`CodecError`] when it is more than an event may say.
    pub fn seal(&self, changes: &[Change], author: &ReplicaId, sequence: u64) -> Result<Vec<u8>, CodecError> {
        let mut body = change::encode_changes(changes)?;
        if body.len() > MEMBERSHIP_BYTES_MAX {
            return Err(CodecError::new("membership", "too long"));
        }
        let siv = self.siv(&body_context(author, sequence), &body);
        if self.cipher(&siv).seal_in_place_append_tag(nonce(), Aad::from(&siv), &mut body).is_err() {
            unreachable!("a membership event is far shorter than what AES-GCM can seal");
        }
        Ok([siv.as_slice(), &body].concat())
    }

    /// What a membership event says.
    ///
    /// # Errors
    /// [`CodecError`] on a body that [`Charter::seal`] did not make for this event.
    pub fn open(&self, event: &Event) -> Result<Vec<Change>, CodecError> {
        let closed = || CodecError::new("membership", "it does not open");
        let (claimed, sealed) = event.body().split_first_chunk::<SIV_BYTES>().ok_or_else(closed)?;
        if sealed.len() > MEMBERSHIP_BYTES_MAX + AES_256_GCM.tag_len() {
            return Err(closed());
        }
        let mut body = sealed.to_vec();
        let plaintext = self.cipher(claimed).open_in_place(nonce(), Aad::from(claimed), &mut body).map_err(|_| closed())?;
        let siv = self.siv(&body_context(&event.author(), event.header().sequence), plaintext);
        if blake3::Hash::from_bytes(siv) != blake3::Hash::from_bytes(*claimed) {
            return Err(closed());
        }
        change::decode_changes(plaintext)
    }

    /// A membership event as the fold takes it.
    ///
    /// # Errors
    /// As [`Charter::open`].
    pub fn act(&self, event: &Event) -> Result<Act, CodecError> {
        let header = event.header();
        let changes = self.open(event)?;
        Ok(Act { dot: event.dot(), lamport: header.lamport, device: header.device, past: header.past(), changes })
    }

    fn siv(&self, context: &[u8], plaintext: &[u8]) -> [u8; SIV_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.keys.siv);
        *hasher.update(context).update(plaintext).finalize().as_bytes()
    }

    fn cipher(&self, siv: &[u8; SIV_BYTES]) -> LessSafeKey {
        let key = Zeroizing::new(*blake3::keyed_hash(&self.keys.encryption, siv).as_bytes());
        match UnboundKey::new(&AES_256_GCM, &*key) {
            Ok(key) => LessSafeKey::new(key),
            Err(_) => unreachable!("an AES-256 key is 32 bytes"),
        }
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
