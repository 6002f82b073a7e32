//! `push`, `pull`, `sync`: one conversation with one peer.

use super::{Session, acknowledge, discover, follow, pairing::PORT};
use crate::{
    args::{CongestionChoice, MaxDelete, PeerOptions, PushArgs, SyncArgs, TransportChoice, nearest},
    bandwidth::Kept,
    config::environment,
    failure::{Code, Failure, ROLLED_BACK_HINT},
    render::{self, Extent},
};
use mirror_engine::{
    home::{HomeError, Peer},
    id::DeviceId,
    replicate::{self, Findings, Options, ReplicateError, Summary, Target},
    session::Direction,
    transport::{Choice, Congestion, PlainLanes, TransportError, TransportKind},
    vault::{Fuse, Vault},
};
use std::{net::SocketAddr, sync::Arc};

/// One for the session, one for its lanes: more than one core only helps when both ends have it.
const NETWORK_THREADS: usize = 2;

pub(super) fn push(session: &Session, args: &PushArgs) -> Result<Code, Failure> {
    match args.ack {
        Some(replicas) => acknowledge::push(session, &args.options, replicas.into()),
        None => run(session, "push", Direction::Push, &args.options),
    }
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
    if args.follow { follow::run(session, direction, &args.options, &args.folders) } else { run(session, "sync", direction, &args.options) }
}

fn run(session: &Session, operation: &'static str, direction: Direction, options: &PeerOptions) -> Result<Code, Failure> {
    let vault = session.open()?;
    let target = target(session, &vault, &options.peer, options.device)?;
    let kept = Kept::to(options.bwlimit.as_ref(), &session.talk);
    let options_of_sync =
        Options { fuse: fuse(&vault, options.max_delete.unwrap_or(MaxDelete(None)))?, ..sync_options(direction, options, &kept) };
    let mut result = transfer(session, operation, &vault, &target, &options_of_sync)?;
    if options.device.is_none()
        && is_unreachable(&result)
        && let Some(target) = elsewhere(session, &vault, &target)
    {
        result = transfer(session, operation, &vault, &target, &options_of_sync)?;
    }
    report(session, operation, &options.peer, Extent::of(options.dry_run), result)
}

fn is_unreachable(result: &Result<Summary, ReplicateError>) -> bool {
    matches!(result, Err(ReplicateError::Transport(TransportError::Unreachable { .. })))
}

/// The same peer where it says on the local network that it is, unless that is where it has just been looked for.
fn elsewhere(session: &Session, vault: &Vault, target: &Target) -> Option<Target> {
    let mut addresses = discover::find(session, vault, &target.name, &target.device);
    addresses.retain(|address| !target.addresses.contains(address));
    (!addresses.is_empty()).then(|| Target { addresses, ..target.clone() })
}

/// One conversation, with its progress.
pub(super) fn transfer(
    session: &Session,
    operation: &'static str,
    vault: &Vault,
    target: &Target,
    options: &Options,
) -> Result<Result<Summary, ReplicateError>, Failure> {
    let progress = session.transfer_progress(operation);
    let result = block_on(replicate::sync(vault, target, options, progress.meter()))?;
    drop(progress);
    Ok(result)
}

/// Says what a transfer did. One that could not do everything did the rest, so it has its summary too.
pub(super) fn report(
    session: &Session,
    operation: &'static str,
    peer: &str,
    extent: Extent,
    result: Result<Summary, ReplicateError>,
) -> Result<Code, Failure> {
    let (summary, code) = match result {
        Ok(summary) => (summary, Code::Ok),
        Err(ReplicateError::Partial(summary)) => {
            let chunks = render::count_text(summary.chunks_unavailable, "chunk");
            session.talk.warn(&format!("{chunks} are not available from {peer}; everything else was done"));
            session.talk.note("hint: run mirror verify there, or sync with another replica that has them");
            (*summary, Code::Partial)
        }
        Err(error) => return Err(error.into()),
    };
    session.report(|| render::transfer_record(operation, peer, extent, &summary), || render::transfer_text(peer, extent, &summary))?;
    Ok(warn_of(session, peer, &summary.findings).unwrap_or(code))
}

/// Says what was found of either replica's past. The transfer did what it could; that the user knows is worth an exit code.
fn warn_of(session: &Session, peer: &str, findings: &Findings) -> Option<Code> {
    let lines = render::findings_text(peer, findings);
    lines.iter().for_each(|line| session.talk.warn(line));
    findings.holes.iter().for_each(|hole| session.talk.warn(&render::hole_text(hole)));
    let hints = [
        (
            !findings.peer_rolled_back.is_empty(),
            format!("mirror sync {peer} gives it back what it lacks; find out there why it was put back"),
        ),
        (!findings.lost.is_empty(), ROLLED_BACK_HINT.to_owned()),
        (!findings.forks.is_empty(), "mirror log --forks shows both branches; do not copy or roll back a vault, clone it".to_owned()),
    ];
    hints.iter().filter(|(applies, _)| *applies).for_each(|(_, hint)| session.talk.note(&format!("hint: {hint}")));
    match (lines.is_empty(), findings.holes.is_empty()) {
        (false, _) => Some(Code::Forked),
        (true, false) => Some(Code::Partial),
        (true, true) => None,
    }
}

/// Runs what waits for the network, on threads of its own.
///
/// # Errors
/// When the system has no thread to spare.
pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(NETWORK_THREADS).enable_all().build();
    Ok(runtime.map_err(|error| Failure::io("cannot start the network threads", &error))?.block_on(future))
}

pub(super) fn sync_options(direction: Direction, options: &PeerOptions, kept: &Kept) -> Options {
    Options {
        direction,
        choice: choice(options.transport),
        lanes: options.lanes.map(usize::from),
        congestion: options.congestion.map(|choice| match choice {
            CongestionChoice::Auto => Congestion::Auto,
            CongestionChoice::Bbr => Congestion::Bbr,
            CongestionChoice::Cubic => Congestion::Cubic,
        }),
        limits: Arc::clone(&kept.limits),
        plain_lanes: plain_lanes(options.lanes_plain),
        dry_run: options.dry_run,
        ..Options::default()
    }
}

/// `--max-delete`; nothing on a keyless replica, which sees no keys.
pub(super) fn fuse(vault: &Vault, limit: MaxDelete) -> Result<Option<Arc<Fuse>>, Failure> {
    Ok(limit.0.map(|limit| vault.fuse(limit)).transpose()?.flatten())
}

/// The same for a session that stays.
pub(super) fn lasting_fuse(vault: &Arc<Vault>, limit: MaxDelete) -> Result<Option<Arc<Fuse>>, Failure> {
    Ok(limit.0.map(|limit| vault.lasting_fuse(limit)).transpose()?.flatten())
}

/// `--lanes-plain`
pub(crate) fn plain_lanes(typed: bool) -> PlainLanes {
    if typed { PlainLanes::Allowed } else { PlainLanes::Refused }
}

/// A transport that was typed wins over `MIRROR_FORCE_TCP`.
pub(crate) fn choice(typed: Option<TransportChoice>) -> Choice {
    let forced = || environment("MIRROR_FORCE_TCP").filter(|value| value != "0").map(|_| TransportChoice::Tcp);
    match typed.or_else(forced).unwrap_or_default() {
        TransportChoice::Auto => Choice::Auto,
        TransportChoice::Quic => Choice::Only(TransportKind::Quic),
        TransportChoice::Tcp => Choice::Only(TransportKind::Tcp),
    }
}

/// Who is meant: an address with a device, or a name that is known.
pub(super) fn target(session: &Session, vault: &Vault, typed: &str, device: Option<DeviceId>) -> Result<Target, Failure> {
    if let Some(device) = device {
        let addresses = replicate::resolve(&[with_port(typed)?])?;
        return Ok(Target { name: typed.to_owned(), device, addresses });
    }
    known_target(session, vault, known_peer(vault, typed)?)
}

/// Where a known peer is: at its addresses, or, when none is known or none can be looked up, where the local network says.
pub(super) fn known_target(session: &Session, vault: &Vault, peer: Peer) -> Result<Target, Failure> {
    let addresses = match addresses_of(&peer) {
        Ok(addresses) => addresses,
        Err(failure) => match discover::find(session, vault, &peer.name, &peer.device) {
            found if found.is_empty() => return Err(failure),
            found => found,
        },
    };
    Ok(Target { device: peer.device, addresses, name: peer.name })
}

/// What `peers.toml` says.
pub(super) fn addresses_of(peer: &Peer) -> Result<Vec<SocketAddr>, Failure> {
    if peer.addresses.is_empty() {
        let failure = Failure::new(Code::Unreachable, format!("no address of {} is known here", peer.name));
        return Err(failure
            .hint(format!("let it push or pull, or say where it is: mirror peer add {} HOST:PORT --device {}", peer.name, peer.device)));
    }
    Ok(replicate::resolve(&peer.addresses)?)
}

/// A peer by its name here, or by what the vault calls a device that is in it.
///
/// # Errors
/// [`Code::Usage`] with the nearest known name.
pub(super) fn known_peer(vault: &Vault, name: &str) -> Result<Peer, Failure> {
    match vault.home().peer(name) {
        Err(HomeError::NoSuchPeer(_)) => {}
        found => return Ok(found?),
    }
    let mut called = vault.acquaintances()?.into_iter().filter(|known| known.peer.name == name);
    match (called.next(), called.next()) {
        (Some(known), None) => Ok(known.peer),
        _ => Err(unknown_peer(vault, name)),
    }
}

/// [`Code::Usage`] with the nearest known name.
pub(super) fn unknown_peer(vault: &Vault, name: &str) -> Failure {
    let peers = vault.home().peers().unwrap_or_default();
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    let hint = match nearest(name, &names) {
        _ if name.contains(':') => "for an address, say which device must answer there: --device ID".to_owned(),
        Some(meant) => format!("did you mean {meant}?"),
        None => "mirror peer list shows who is known; mirror peer add or mirror invite makes a peer known".to_owned(),
    };
    Failure::usage(format!("no peer is called {name}")).hint(hint)
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
}
