//! Pairing: a ticket lets one new replica in, once.
//!
//! ```text
//! bearer ─► Request{ticket id, sealed(name)}     sealed under derive_key(ticket key || TLS exporter): only the bearer can
//! issuer ─► Grant{sealed(vault.toml, secrets, slots)}    ticket redeemed, device let in and peer added, durably, before this leaves
//! ```
//! The TLS connection authenticates the issuer (its key is in the ticket) and binds both seals to this connection. A stranger
//! without a ticket gets nothing but a closed connection, whatever it says.

use super::{ReplicateError, Target};
use crate::{
    clock,
    codec::{self, CodecError},
    home::{Home, HomeError, Peer, Role, Ticket, TicketKey},
    id::{AgreementKey, TicketId},
    keys::{Newcomer, Secrets, slots},
    limits::{HANDSHAKE_MS, NAME_BYTES_MAX},
    transport::{CloseReason, Connection},
    vault::{Config, Origin, Vault, VaultError, create_replica},
};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::{path::Path, time::Duration};
use zeroize::Zeroizing;

const EXPORTER_LABEL: &[u8] = b"EXPORTER-mirror-pairing";
const TIMEOUT: Duration = Duration::from_millis(HANDSHAKE_MS);
/// How long a bearer gets to take its grant.
const GOODBYE: Duration = Duration::from_secs(2);

#[derive(Encode, Decode)]
struct Request {
    #[n(0)]
    ticket: TicketId,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

#[derive(Encode, Decode)]
struct Bearer {
    /// What the new replica calls itself.
    #[n(0)]
    name: String,
    /// What keys are sealed for it with.
    #[n(1)]
    agreement: Option<AgreementKey>,
}

#[derive(Encode, Decode)]
struct Slot {
    #[n(0)]
    name: String,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    bytes: Vec<u8>,
}

#[derive(Encode, Decode)]
struct Grant {
    #[n(0)]
    config: String,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    secrets: Vec<u8>,
    #[n(2)]
    slots: Vec<Slot>,
    /// What the issuer calls itself.
    #[n(3)]
    name: String,
}

/// Seals one message in each direction, bound to the connection and to the ticket.
struct Channel {
    request: LessSafeKey,
    grant: LessSafeKey,
}

impl Channel {
    fn new(connection: &Connection, key: &TicketKey) -> Result<Self, ReplicateError> {
        let exporter = connection.exporter(EXPORTER_LABEL, b"")?;
        let material = Zeroizing::new([key.as_bytes().as_slice(), &exporter].concat());
        Ok(Self {
            request: cipher(&blake3::derive_key("mirror 2026-11 v1 pairing request", &material)),
            grant: cipher(&blake3::derive_key("mirror 2026-11 v1 pairing grant", &material)),
        })
    }
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    match UnboundKey::new(&AES_256_GCM, key) {
        Ok(key) => LessSafeKey::new(key),
        Err(_) => unreachable!("an AES-256 key is 32 bytes"),
    }
}

/// Each key seals one message ever, so its nonce may be zero.
fn seal<T: Encode<()>>(key: &LessSafeKey, message: &T) -> Vec<u8> {
    let mut bytes = codec::encode(message);
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    if key.seal_in_place_append_tag(nonce, Aad::empty(), &mut bytes).is_err() {
        unreachable!("a pairing message is far shorter than what AES-GCM can seal");
    }
    bytes
}

fn open<T: for<'b> Decode<'b, ()> + Encode<()>>(key: &LessSafeKey, what: &'static str, sealed: &[u8]) -> Result<T, CodecError> {
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let plain = key.open_in_place(nonce, Aad::empty(), &mut bytes).map_err(|_| CodecError::new(what, "it does not open"))?;
    codec::decode(what, plain)
}

/// The issuer's side, on a connection for pairing. Whatever fails, the peer learns only that it was refused.
pub(super) async fn answer(vault: &Vault, connection: &Connection, own_name: &str) -> Result<Peer, ReplicateError> {
    let answered = tokio::time::timeout(TIMEOUT, grant(vault, connection, own_name)).await;
    let answered = answered.unwrap_or_else(|_| Err(ReplicateError::Peer("pairing took too long".into())));
    if answered.is_err() {
        connection.close(CloseReason::Refused);
        connection.flushed().await;
    }
    answered
}

async fn grant(vault: &Vault, connection: &Connection, own_name: &str) -> Result<Peer, ReplicateError> {
    let (mut sender, mut receiver) = connection.take_control().ok_or_else(|| ReplicateError::Peer("no control stream".into()))?;
    let message = receiver.recv().await?.ok_or_else(|| ReplicateError::Peer("it left without asking".into()))?;
    let malformed = |error: CodecError| ReplicateError::Peer(error.to_string());
    let request: Request = codec::decode("pairing request", &message).map_err(malformed)?;
    let now_ms = clock::wall_ms();
    let invitation = vault.home().ticket(&request.ticket, now_ms).map_err(ticket_error)?;
    let channel = Channel::new(connection, &invitation.key)?;
    let bearer: Bearer = open(&channel.request, "pairing request", &request.sealed).map_err(malformed)?;
    let grant = make_grant(vault, invitation.role, own_name)?;
    let invitation = vault.home().redeem(&request.ticket, now_ms).map_err(ticket_error)?;
    let name = shown_name(&bearer.name, connection);
    let_in(vault, Newcomer { device: connection.peer(), agreement: bearer.agreement }, invitation.role, &name)?;
    let peer = add_peer(vault, connection, name, invitation.role)?;
    sender.send(Bytes::from(seal(&channel.grant, &grant))).await?;
    // The bearer closes once it has the grant; until then it must not be cut off. Paired it is anyway.
    let _ = tokio::time::timeout(GOODBYE, receiver.recv()).await;
    Ok(peer)
}

/// Says so in the log. A device that is in keeps its role, if that is more than the ticket's: it may have another replica. One that was let
/// in before it could be given keys of later epochs is given them now.
fn let_in(vault: &Vault, newcomer: Newcomer, role: Role, name: &str) -> Result<(), ReplicateError> {
    let Some(membership) = vault.membership()? else { return Ok(()) };
    let role = match membership.role_of(&newcomer.device) {
        Some(held) if held <= role && membership.agreement_of(&newcomer.device) == newcomer.agreement => return Ok(()),
        Some(held) => held.min(role),
        None => role,
    };
    Ok(vault.admit(newcomer, role, name).map(drop)?)
}

fn make_grant(vault: &Vault, role: Role, name: &str) -> Result<Grant, ReplicateError> {
    let (secrets, slots) = match role {
        Role::Keyless => (Secrets::Keyless(vault.replication_key().clone()), Vec::new()),
        Role::Owner | Role::Member => {
            let slots = slots::export_portable(&vault.dir().join("keys")).map_err(VaultError::from)?;
            (vault.secrets().ok_or(VaultError::Keyless)?.clone(), slots)
        }
    };
    Ok(Grant {
        config: vault.config().to_text()?,
        secrets: secrets.to_bytes().to_vec(),
        slots: slots.into_iter().map(|(name, bytes)| Slot { name, bytes }).collect(),
        name: name.to_owned(),
    })
}

/// What the bearer calls itself, as far as that is a name.
fn shown_name(name: &str, connection: &Connection) -> String {
    let shown: String = name.chars().filter(|letter| !letter.is_control()).take(NAME_BYTES_MAX / 8).collect();
    if shown.trim().is_empty() { connection.peer().short() } else { shown }
}

/// Names are for people: one that is taken gets the device's first digits.
fn add_peer(vault: &Vault, connection: &Connection, name: String, role: Role) -> Result<Peer, ReplicateError> {
    let device = connection.peer();
    let peer = Peer { name: name.clone(), device, addresses: Vec::new(), role, added_ms: clock::wall_ms() };
    match vault.home().add_peer(peer.clone()) {
        Err(HomeError::NameTaken { .. }) => {
            let peer = Peer { name: format!("{name}-{}", device.short()), ..peer };
            vault.home().add_peer(peer.clone()).map_err(VaultError::from)?;
            Ok(peer)
        }
        added => added.map(|()| peer).map_err(|error| VaultError::from(error).into()),
    }
}

/// The bearer's side: makes the replica in `dir`, knowing the issuer as a peer.
pub(super) async fn ask(
    connection: &Connection,
    ticket: &Ticket,
    dir: &Path,
    home: &Home,
    own_name: &str,
) -> Result<(Vault, Target), ReplicateError> {
    let own = Bearer { name: own_name.to_owned(), agreement: home.device().map_err(VaultError::from)?.newcomer().agreement };
    let asked = tokio::time::timeout(TIMEOUT, request(connection, ticket, own)).await;
    let asked = asked.unwrap_or_else(|_| Err(ReplicateError::Ticket("the issuer did not answer in time".into())));
    // In TLS 1.3 the bearer's handshake is over before the issuer refuses, so a refusal may come at any step.
    let grant = asked.map_err(|error| match error {
        ReplicateError::Transport(error) if super::is_refusal(&error) => refused(),
        other => other,
    })?;
    connection.close(CloseReason::Done);
    let malformed = |reason: String| ReplicateError::Peer(format!("its grant makes no sense: {reason}"));
    let config = Config::parse(&grant.config).map_err(|error| malformed(error.to_string()))?;
    if config.vault_id().map_err(|error| malformed(error.to_string()))? != ticket.vault {
        return Err(malformed("it is for another vault".into()));
    }
    let secrets = Secrets::from_bytes(&grant.secrets).ok_or_else(|| malformed("its keys are malformed".into()))?;
    let slots = grant.slots.into_iter().map(|slot| (slot.name, slot.bytes)).collect();
    let vault = create_replica(dir, home, Origin { config, secrets, slots })?;
    let peer = remember_issuer(&vault, ticket, &grant.name)?;
    Ok((vault, peer))
}

async fn request(connection: &Connection, ticket: &Ticket, own: Bearer) -> Result<Grant, ReplicateError> {
    let (mut sender, mut receiver) = connection.take_control().ok_or_else(|| ReplicateError::Peer("no control stream".into()))?;
    let channel = Channel::new(connection, &ticket.secret.key())?;
    let sealed = seal(&channel.request, &own);
    sender.send(Bytes::from(codec::encode(&Request { ticket: ticket.secret.id(), sealed }))).await?;
    match receiver.recv().await? {
        Some(answer) => open(&channel.grant, "grant", &answer).map_err(|_| refused()),
        None => Err(refused()),
    }
}

fn refused() -> ReplicateError {
    ReplicateError::Ticket("it was used already, has expired, or was never issued there".into())
}

fn remember_issuer(vault: &Vault, ticket: &Ticket, name: &str) -> Result<Target, ReplicateError> {
    let name = if name.is_empty() { "origin".to_owned() } else { name.to_owned() };
    let peer = Peer {
        name: name.clone(),
        device: ticket.device,
        addresses: ticket.addresses.clone(),
        role: Role::Owner,
        added_ms: clock::wall_ms(),
    };
    vault.home().add_peer(peer).map_err(VaultError::from)?;
    Ok(Target { name, device: ticket.device, addresses: super::resolve(&ticket.addresses)? })
}

fn ticket_error(error: HomeError) -> ReplicateError {
    ReplicateError::Ticket(error.to_string())
}

/// A ticket for one new replica.
///
/// # Errors
/// [`VaultError::NotOwner`]; in a vault without signed roles [`VaultError::Keyless`] when this replica could not hand out the key; or what
/// the device's directory refuses.
pub fn invite(vault: &Vault, role: Role, addresses: Vec<String>, expires: Duration) -> Result<Ticket, ReplicateError> {
    match vault.store().roster() {
        Some(_) => drop(vault.require_owner("invite")?),
        None if role == Role::Owner => return Err(VaultError::Unsigned.into()),
        None if role != Role::Keyless && vault.secrets().is_none() => return Err(VaultError::Keyless.into()),
        None => {}
    }
    let expires_ms = clock::wall_ms().saturating_add(expires.as_millis() as u64);
    let info = vault.info();
    Ok(vault.home().issue_ticket(&info.device, addresses, role, &info.name, expires_ms).map_err(VaultError::from)?)
}
