//! Replication: one session over one connection between two stores, and what leads to it: dialling, serving, pairing.
//!
//! The session decides, the transport carries, the store keeps; here they are connected. See `drive.rs` for the picture.
//! Needs no key of the vault but the replication key: a keyless replica does all of it.

mod absence;
mod beside;
mod carriers;
mod certificates;
mod choice;
pub mod doctor;
mod drive;
mod failover;
mod failure;
mod follow;
mod heal;
mod keep;
mod keeper;
mod lanes;
mod loads;
mod outgoing;
mod pace;
mod pairing;
mod remembered;
mod rounds;
mod seats;
mod serve;
mod server;
mod silence;
mod tally;
mod types;
mod worker;

pub use crate::meter::{Shares, Stage};
pub use absence::Haste;
pub(crate) use absence::{Absence, SELDOM};
pub use beside::watch;
pub use failover::jittered;
pub use follow::follow;
pub use heal::{Asked, heal};
pub use keep::{Outlook, keep_following, outlook};
pub use pace::{Limits, Rate};
pub use pairing::invite;
pub use remembered::Findings;
pub use serve::{Caller, Served, Server};
pub use types::{ByTransport, Observer, Options, Progress, ReplicateError, Summary, Target, Unobserved};

use crate::{
    home::{Home, Ticket},
    members::Admittance,
    transport::{CloseReason, Dialer, Protocol, TransportError},
    vault::Vault,
};
use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
};

/// Brings this replica and `target` together: one session, or more when a connection breaks that [`Choice::Auto`](crate::transport::Choice)
/// may replace.
///
/// # Errors
/// [`ReplicateError`]; what was committed before stays, and the next session goes on from there.
pub async fn sync(vault: &Vault, target: &Target, options: &Options, observer: Arc<dyn Observer>) -> Result<Summary, ReplicateError> {
    let membership = vault.membership()?;
    if membership.is_some_and(|membership| membership.admittance(&target.device) == Admittance::Removed) {
        return Err(ReplicateError::NotAllowed(format!("{} was removed from the vault", target.name)));
    }
    failover::run(vault, target, options, observer).await
}

/// Redeems `ticket`: makes a replica in `dir` and knows the issuer as a peer. The first sync is the caller's, with the target
/// returned: if it breaks, the replica is there and `pull` goes on.
///
/// # Errors
/// [`ReplicateError::Ticket`], what dialling can fail with, or what making the directory can.
pub async fn pair(ticket: &Ticket, dir: &Path, home: &Home, own_name: &str, options: &Options) -> Result<(Vault, Target), ReplicateError> {
    let now_ms = crate::clock::wall_ms();
    if ticket.expires_ms <= now_ms {
        let minutes = (now_ms - ticket.expires_ms) / 60_000;
        return Err(ReplicateError::Ticket(format!(
            "it has expired, {minutes} min ago by this device's clock; if it was made just now, that clock is at least {minutes} min off"
        )));
    }
    let device = home.device().map_err(crate::vault::VaultError::from)?;
    let dialer = Dialer::new(&device, options.tuning())?;
    let addresses = resolve(&ticket.addresses)?;
    let connection = dialer.dial_auto(&addresses, ticket.device, Protocol::Pairing, options.choice).await.map_err(|error| {
        // Without an open ticket a stranger is refused in the handshake already.
        if is_refusal(&error) { ReplicateError::Ticket("its issuer has no open ticket".into()) } else { error.into() }
    })?;
    pairing::ask(&connection, ticket, dir, home, own_name).await
}

/// Looks addresses up; those that cannot be are left out unless none is left.
///
/// # Errors
/// [`ReplicateError::NoAddress`] saying what was wrong with each.
pub fn resolve(addresses: &[String]) -> Result<Vec<SocketAddr>, ReplicateError> {
    let mut found = Vec::new();
    let mut causes = Vec::new();
    for address in addresses {
        match address.to_socket_addrs() {
            Ok(addresses) => found.extend(addresses),
            Err(error) => causes.push(format!("{address}: {error}")),
        }
    }
    if found.is_empty() { Err(ReplicateError::NoAddress(causes.join("; "))) } else { Ok(found) }
}

/// As [`resolve`], which may wait for a name server, away from the tasks of the network.
///
/// # Errors
/// As there; [`ReplicateError::BrokeDown`] when the look-up itself did.
pub(crate) async fn look_up(addresses: Vec<String>) -> Result<Vec<SocketAddr>, ReplicateError> {
    worker::call(move || resolve(&addresses)).await.map_err(ReplicateError::broke_down)?
}

/// The peer answered and does not want this device.
fn is_refusal(error: &TransportError) -> bool {
    matches!(error, TransportError::Refused | TransportError::Closed(CloseReason::Refused))
}
