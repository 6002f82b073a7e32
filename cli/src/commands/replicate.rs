//! `push`, `pull`, `sync`: one conversation with one peer.

use super::{Session, pairing::PORT};
use crate::{
    args::{CongestionChoice, PeerOptions, SyncArgs, TransportChoice, nearest},
    config::environment,
    failure::{Code, Failure},
    render::{self, Extent},
};
use mirror_engine::{
    home::Peer,
    replicate::{self, Direction, SyncOptions, Target},
    transport::{Choice, Congestion, TransportKind},
    vault::Vault,
};
use std::net::{SocketAddr, ToSocketAddrs};

pub(super) fn push(session: &Session, options: &PeerOptions) -> Result<Code, Failure> {
    run(session, "push", Direction::Push, options)
}

pub(super) fn pull(session: &Session, options: &PeerOptions) -> Result<Code, Failure> {
    run(session, "pull", Direction::Pull, options)
}

pub(super) fn sync(session: &Session, args: &SyncArgs) -> Result<Code, Failure> {
    let direction = match (args.push, args.pull) {
        (true, _) => Direction::Push,
        (_, true) => Direction::Pull,
        (false, false) => Direction::Both,
    };
    run(session, "sync", direction, &args.options)
}

fn run(session: &Session, operation: &'static str, direction: Direction, options: &PeerOptions) -> Result<Code, Failure> {
    let vault = session.open()?;
    let target = target(&vault, options)?;
    let progress = session.transfer_progress(operation);
    let summary = replicate::sync(&vault, &target, &sync_options(direction, options), progress.meter())?;
    drop(progress);
    let (peer, extent) = (&options.peer, Extent::of(options.dry_run));
    session.report(|| render::transfer_record(operation, peer, extent, &summary), || render::transfer_text(peer, extent, &summary))?;
    Ok(Code::Ok)
}

fn sync_options(direction: Direction, options: &PeerOptions) -> SyncOptions {
    let limit = options.bwlimit.unwrap_or_default();
    SyncOptions {
        direction,
        choice: choice(options.transport),
        lanes: options.lanes.map(usize::from),
        congestion: options.congestion.map(|choice| match choice {
            CongestionChoice::Bbr => Congestion::Bbr,
            CongestionChoice::Cubic => Congestion::Cubic,
        }),
        bandwidth_limit: (limit.send.map(|rate| rate.bytes_per_s), limit.receive.map(|rate| rate.bytes_per_s)),
        dry_run: options.dry_run,
        max_delete: options.max_delete,
    }
}

/// A transport that was typed wins over `MIRROR_FORCE_TCP`.
fn choice(typed: Option<TransportChoice>) -> Choice {
    let forced = || environment("MIRROR_FORCE_TCP").filter(|value| value != "0").map(|_| TransportChoice::Tcp);
    match typed.or_else(forced).unwrap_or_default() {
        TransportChoice::Auto => Choice::Auto,
        TransportChoice::Quic => Choice::Only(TransportKind::Quic),
        TransportChoice::Tcp => Choice::Only(TransportKind::Tcp),
    }
}

/// Who is meant: an address with a device, or a name that is known.
fn target(vault: &Vault, options: &PeerOptions) -> Result<Target, Failure> {
    if let Some(device) = options.device {
        return Ok(Target { device, addresses: resolve(&[with_port(&options.peer)?])? });
    }
    let peer = known_peer(vault, &options.peer)?;
    Ok(Target { device: peer.device, addresses: resolve(&peer.addresses)? })
}

/// # Errors
/// [`Code::Usage`] with the nearest known name.
pub(super) fn known_peer(vault: &Vault, name: &str) -> Result<Peer, Failure> {
    if let Some(peer) = vault.home().peer(name)? {
        return Ok(peer);
    }
    let peers = vault.home().peers()?;
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    let hint = match nearest(name, &names) {
        _ if name.contains(':') => "for an address, say which device must answer there: --device ID".to_owned(),
        Some(meant) => format!("did you mean {meant}?"),
        None => "mirror peer list shows who is known; mirror peer add or mirror invite makes a peer known".to_owned(),
    };
    Err(Failure::usage(format!("no peer is called {name}")).hint(hint))
}

/// `HOST` or `HOST:PORT` with a port: ours, unless one is given.
///
/// # Errors
/// [`Code::Usage`] for what cannot be an address.
pub(super) fn with_port(address: &str) -> Result<String, Failure> {
    let wrong = || {
        Failure::usage(format!("{address:?} is no address")).hint("write HOST:PORT, as in 10.0.0.7:7740, [fe80::1]:7740 or nas.local:7740")
    };
    if let Ok(ip) = address.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT).to_string());
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address.to_owned()),
        None if !address.is_empty() && !address.contains(char::is_whitespace) => Ok(format!("{address}:{PORT}")),
        _ => Err(wrong()),
    }
}

/// Every address that the names stand for.
///
/// # Errors
/// [`Code::Unreachable`] with each cause when there is none.
fn resolve(addresses: &[String]) -> Result<Vec<SocketAddr>, Failure> {
    let mut found: Vec<SocketAddr> = Vec::new();
    let mut failure = Failure::new(Code::Unreachable, "no address of the peer can be found")
        .hint("give one that works: mirror peer add NAME HOST:PORT --device ID");
    for address in addresses {
        match address.to_socket_addrs() {
            Ok(resolved) => found.extend(resolved),
            Err(error) => failure = failure.cause(format!("{address}: {error}")),
        }
    }
    found.dedup();
    if found.is_empty() { Err(failure) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_our_port_unless_it_has_one() {
        for (typed, address) in [
            ("10.0.0.7", "10.0.0.7:7740"),
            ("10.0.0.7:99", "10.0.0.7:99"),
            ("::1", "[::1]:7740"),
            ("[::1]:99", "[::1]:99"),
            ("nas.local", "nas.local:7740"),
            ("nas:1", "nas:1"),
        ] {
            assert_eq!(with_port(typed).as_deref(), Ok(address));
        }
    }

    #[test]
    fn what_cannot_be_an_address_is_a_usage_error() {
        for typed in ["", ":7740", "nas:port", "nas:70000", "a b"] {
            assert_eq!(with_port(typed).unwrap_err().code, Code::Usage, "{typed}");
        }
    }

    #[test]
    fn a_peer_without_an_address_is_unreachable() {
        assert_eq!(resolve(&[]).unwrap_err().code, Code::Unreachable);
        assert_eq!(resolve(&["127.0.0.1:1".to_owned()]).unwrap(), ["127.0.0.1:1".parse().unwrap()]);
    }
}
