//! The listener's side of an examination: measures what a known peer asks for, within bounds.

use super::{
    super::ReplicateError,
    lane,
    socket::Port,
    wire::{Answer, Carrier, Link, Request, Way, Work, bounded, hear, say},
};
use crate::{
    limits::{DOCTOR_DISK_BYTES_MAX, DOCTOR_MS, DOCTOR_REQUESTS_MAX},
    probe::{self, Cache, Threads},
    transport::{CloseReason, Connection, ControlSender, TransportError},
    vault::{Vault, VaultError},
};
use ring::rand::{SecureRandom, SystemRandom};
use std::{path::Path, sync::Arc, time::Duration};

/// Answers one examination to its end.
pub(in super::super) async fn answer(vault: &Arc<Vault>, connection: &Connection) -> Result<(), ReplicateError> {
    let whole = tokio::time::timeout(Duration::from_millis(DOCTOR_MS), converse(vault, connection)).await;
    let result = whole.unwrap_or(Err(TransportError::Timeout.into()));
    connection.close(match &result {
        Ok(()) => CloseReason::Done,
        Err(ReplicateError::Peer(_)) => CloseReason::ProtocolError,
        Err(_) => CloseReason::Shutdown,
    });
    connection.flushed().await;
    result
}

async fn converse(vault: &Arc<Vault>, connection: &Connection) -> Result<(), ReplicateError> {
    let Some((mut out, mut inward)) = connection.take_control() else {
        return Err(ReplicateError::Peer("the control stream is taken".into()));
    };
    for _ in 0..DOCTOR_REQUESTS_MAX {
        let Some(request) = hear(&mut inward).await? else { return Ok(()) };
        let answer = match request {
            Request::Ping => Answer::Pong,
            Request::Work { what, ms } => work(vault, what, bounded(ms)).await?,
            Request::Link(link) => carry(connection, &mut out, &link).await?,
        };
        say(&mut out, &answer).await?;
    }
    Err(ReplicateError::Peer("too many requests in one examination".into()))
}

async fn work(vault: &Arc<Vault>, what: Work, time: Duration) -> Result<Answer, ReplicateError> {
    let dir = vault.dir().to_owned();
    let measured = tokio::task::spawn_blocking(move || measure(&dir, what, time)).await.map_err(VaultError::internal)?;
    Ok(measured)
}

fn measure(dir: &Path, what: Work, time: Duration) -> Answer {
    let rate = match what {
        Work::Hash => Ok(probe::hash(Threads::One, time)),
        Work::Write => probe::disk_write(dir, DOCTOR_DISK_BYTES_MAX, time),
        Work::ReadCold => super::packs(dir).and_then(|packs| probe::disk_read(&packs, u64::MAX, time, Cache::Cold)),
    };
    rate.map_or_else(Answer::not, |rate| Answer::of(rate, 0))
}

async fn carry(connection: &Connection, out: &mut ControlSender, link: &Link) -> Result<Answer, ReplicateError> {
    let peer = connection.remote_addr().map(|addr| addr.ip());
    let opened = match (link.carrier, peer) {
        (Carrier::Lane, _) => {
            let carried = match link.way {
                Way::Up => lane::receive(connection, link.time()).await,
                Way::Down => lane::send(connection, link.time()).await,
            };
            return Ok(Answer::of(carried?, 0));
        }
        (_, None) => return Ok(Answer::not("there is no network between the two")),
        (Carrier::Tcp, Some(peer)) => Port::tcp(peer).await.map(|port| (port, peer)),
        (Carrier::Udp, Some(peer)) => Port::udp(peer).await.map(|port| (port, peer)),
    };
    let (port, peer) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Answer::not(error)),
    };
    let mut token = [0; 32];
    SystemRandom::new().fill(&mut token).map_err(|_| VaultError::internal("the system has no random numbers"))?;
    match port.number() {
        Ok(number) => say(out, &Answer::Port { port: number, token }).await?,
        Err(error) => return Ok(Answer::not(error)),
    }
    Ok(port.serve(peer, &token, link).await.map_or_else(Answer::not, |seen| Answer::of(seen.rate, seen.count)))
}
