//! Tickets that this device has issued and that wait to be used.
//!
//! Each is a file named by its id. Whoever removes the file has redeemed the ticket: the file system lets one process do that, once.
//! The secret itself is not kept, only the key that its bearer proves to have.

use super::{HomeError, Role, Ticket, TicketSecret, VaultHome, failed, lock};
use crate::{
    clock, codec,
    id::{DeviceId, TicketId},
    io::durable,
    keys::{private_file, random_bytes},
    limits::TICKETS_MAX,
};
use minicbor::{Decode, Encode};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};
use zeroize::{Zeroize, ZeroizeOnDrop};

const FORMAT: u8 = 1;
const FILE_BYTES_MAX: usize = 256;
const EXTENSION: &str = "ticket";

/// Proves that someone has a ticket. Erased on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Encode, Decode)]
#[cbor(transparent)]
pub struct TicketKey(#[cbor(with = "minicbor::bytes")] [u8; 32]);

impl TicketKey {
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes. They must not be shown or sent: what is sent is a proof made with them.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

/// An open ticket, as its issuer keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// What the bearer names it by.
    pub id: TicketId,
    /// What the bearer must prove to have.
    pub key: TicketKey,
    /// What the bearer becomes.
    pub role: Role,
    /// When it ends: milliseconds since 1970.
    pub expires_ms: u64,
}

#[derive(Debug, Encode, Decode)]
struct TicketFile {
    #[n(0)]
    format: u8,
    #[n(1)]
    key: TicketKey,
    #[n(2)]
    role: Role,
    #[n(3)]
    expires_ms: u64,
}

impl VaultHome {
    /// Issues a ticket for one new replica. It opens pairing until it is redeemed or `expires_ms` has passed.
    ///
    /// # Errors
    /// [`HomeError::Invalid`] for a role, a name or addresses that no ticket may have; [`HomeError::TooMany`]; [`HomeError::Io`].
    pub fn issue_ticket(
        &self,
        device: &DeviceId,
        addresses: Vec<String>,
        role: Role,
        vault_name: &str,
        expires_ms: u64,
    ) -> Result<Ticket, HomeError> {
        let secret = TicketSecret(random_bytes()?);
        let vault_name = vault_name.to_owned();
        let ticket = Ticket { vault: self.vault, device: *device, addresses, secret, expires_ms, role, vault_name };
        ticket.check().map_err(HomeError::Invalid)?;
        let _held = lock(&self.dir)?;
        // Those that are over are in nobody's way but here, so this is where the clock is asked.
        if self.ticket_ids()?.len() >= TICKETS_MAX && self.open_tickets(clock::wall_ms())?.len() >= TICKETS_MAX {
            return Err(HomeError::TooMany("open tickets"));
        }
        let path = self.ticket_path(&ticket.secret.id());
        let file = TicketFile { format: FORMAT, key: ticket.secret.key(), role, expires_ms };
        private_file::write(&path, &codec::encode(&file)).map_err(failed("writing", &path))?;
        Ok(ticket)
    }

    /// Withdraws every open ticket.
    ///
    /// # Errors
    /// [`HomeError::Io`] about a ticket's file.
    pub fn withdraw_tickets(&self) -> Result<(), HomeError> {
        let _held = lock(&self.dir)?;
        self.ticket_ids()?.iter().try_for_each(|id| self.remove_ticket(id).map(drop))
    }

    /// Tickets that may be used at `now_ms`. Removes those that are over.
    ///
    /// # Errors
    /// [`HomeError::Damaged`] or [`HomeError::Io`] about a ticket's file.
    pub fn open_tickets(&self, now_ms: u64) -> Result<Vec<Invitation>, HomeError> {
        let mut open = Vec::new();
        for id in self.ticket_ids()? {
            match self.invitation(&id)? {
                Some(invitation) if invitation.expires_ms <= now_ms => self.remove_ticket(&id).map(drop)?,
                other => open.extend(other),
            }
        }
        Ok(open)
    }

    /// Whether a stranger may try to pair at `now_ms`.
    ///
    /// # Errors
    /// As [`VaultHome::open_tickets`].
    pub fn pairing_open(&self, now_ms: u64) -> Result<bool, HomeError> {
        Ok(!self.open_tickets(now_ms)?.is_empty())
    }

    /// The open ticket of this name, for checking its bearer's proof before it is redeemed.
    ///
    /// # Errors
    /// [`HomeError::TicketNotOpen`], [`HomeError::TicketExpired`], or what is wrong with the file.
    pub fn ticket(&self, id: &TicketId, now_ms: u64) -> Result<Invitation, HomeError> {
        let invitation = self.invitation(id)?.ok_or(HomeError::TicketNotOpen)?;
        match now_ms.checked_sub(invitation.expires_ms) {
            None => Ok(invitation),
            Some(over_ms) => {
                self.remove_ticket(id)?;
                Err(HomeError::TicketExpired(over_ms / 1_000))
            }
        }
    }

    /// Uses the ticket up: succeeds once, whoever asks, and is durable before it does.
    ///
    /// # Errors
    /// As [`VaultHome::ticket`].
    pub fn redeem(&self, id: &TicketId, now_ms: u64) -> Result<Invitation, HomeError> {
        let invitation = self.ticket(id, now_ms)?;
        if self.remove_ticket(id)? { Ok(invitation) } else { Err(HomeError::TicketNotOpen) }
    }

    /// Removes the ticket's file; whether it was this call that did.
    fn remove_ticket(&self, id: &TicketId) -> Result<bool, HomeError> {
        let path = self.ticket_path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => {
                removed.and_then(|()| durable::sync_dir(durable::directory_of(&path))).map(|()| true).map_err(failed("removing", &path))
            }
        }
    }

    fn invitation(&self, id: &TicketId) -> Result<Option<Invitation>, HomeError> {
        let path = self.ticket_path(id);
        let bytes = match private_file::read(&path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("reading", &path))?,
        };
        let damaged = |reason: String| HomeError::Damaged { file: path.clone(), reason };
        let file: TicketFile = codec::decode("ticket", &bytes).map_err(|error| damaged(error.to_string()))?;
        if file.format != FORMAT {
            return Err(damaged(format!("it has format {}, this program reads {FORMAT}", file.format)));
        }
        Ok(Some(Invitation { id: *id, key: file.key, role: file.role, expires_ms: file.expires_ms }))
    }

    /// Ids of all tickets that have a file, also of those that are over. Other files are not ours to judge.
    fn ticket_ids(&self) -> Result<Vec<TicketId>, HomeError> {
        let dir = self.dir.join("tickets");
        let entries = fs::read_dir(&dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed("reading", &dir))?;
        Ok(entries.iter().filter_map(|entry| ticket_id(&entry.path())).collect())
    }

    fn ticket_path(&self, id: &TicketId) -> PathBuf {
        self.dir.join("tickets").join(format!("{id}.{EXTENSION}"))
    }
}

fn ticket_id(path: &Path) -> Option<TicketId> {
    let stem = path.file_stem()?.to_str().filter(|_| path.extension().is_some_and(|extension| extension == EXTENSION))?;
    stem.parse().ok()
}
