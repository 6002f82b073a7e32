//! `serve`, `invite`, `clone`: how a second replica comes to be.

use super::{Session, replicate::block_on};
use crate::{
    args::{CloneArgs, InviteArgs, RoleChoice, ServeArgs},
    failure::{Code, Failure},
    render::{self, Extent, Listening, TicketRecord},
    secrets,
};
use mirror_engine::{
    home::{Role, Ticket, TicketError},
    replicate::{self, Options, ReplicateError, Served},
    session::Direction,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
};
use zeroize::Zeroizing;

/// UDP and TCP.
pub(super) const PORT: u16 = 7740;

/// Runs until a signal ends it, which is the code it ends with.
pub(super) fn serve(session: &Session, args: &ServeArgs) -> Result<Code, Failure> {
    let vault = Arc::new(session.open()?);
    let everywhere = [everywhere()];
    let listen = if args.listen.is_empty() { &everywhere[..] } else { &args.listen };
    let progress = session.progress("serve");
    let (talk, device) = (session.talk.clone(), vault.info().device);
    let served = block_on(async {
        let server = replicate::Server::bind(vault, listen, &own_name()).await?;
        let (quic, tcp) = server.local_addrs();
        for (quic, tcp) in quic.into_iter().zip(tcp) {
            let listening = Listening { quic, tcp, device };
            session.output.show(|| render::listening_record(&listening), || render::listening_text(&listening))?;
        }
        session.output.flush()?;
        let report = Arc::new(move |served| talk.note(&served_text(&served)));
        server.run(Options::default(), progress.meter(), report).await;
        Ok::<_, Failure>(())
    })?;
    drop(progress);
    served?;
    Ok(if session.interrupt.is_set() { Code::Interrupted } else { Code::Ok })
}

/// What a server has to tell the person who watches it.
fn served_text(served: &Served) -> String {
    match served {
        Served::Session { peer, result: Ok(summary) } => render::transfer_text(&peer.short(), Extent::Done, summary),
        Served::Session { peer, result: Err(error) } => format!("session with {}: {error}", peer.short()),
        Served::Paired { peer, result: Ok(name) } => format!("paired with {name} (device {peer})"),
        Served::Paired { peer, result: Err(error) } => format!("pairing with {}: {error}", peer.short()),
    }
}

/// What other devices call this one at first.
fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// All interfaces: with IPv6, which takes IPv4 along, unless this machine has none.
fn everywhere() -> SocketAddr {
    let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let ip = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(ip, PORT)
}

pub(super) fn invite(session: &Session, args: &InviteArgs) -> Result<Code, Failure> {
    let role = match args.role {
        RoleChoice::Member => Role::Member,
        RoleChoice::Keyless => Role::Keyless,
    };
    let addresses = args.addresses.iter().map(|address| super::replicate::with_port(address)).collect::<Result<Vec<_>, _>>()?;
    let vault = session.open()?;
    let ticket = replicate::invite(&vault, role, addresses, args.expires.0)?.to_string();
    let expires_ms = args.expires.0.as_millis() as u64;
    session.output.show(|| TicketRecord { ticket: ticket.clone(), expires_ms }, || ticket.clone())?;
    session.talk.note(&format!("good once and for {}; whoever has it can join as {:?}", args.expires, args.role).to_lowercase());
    Ok(Code::Ok)
}

pub(super) fn clone(session: &Session, args: &CloneArgs) -> Result<Code, Failure> {
    let ticket = match (&args.ticket, &args.ticket_file) {
        (_, Some(file)) => secrets::read_ticket(file)?,
        (Some(ticket), None) if ticket == "-" => secrets::read_ticket(Path::new("-"))?,
        (Some(ticket), None) => Zeroizing::new(ticket.clone()),
        (None, None) => return Err(Failure::usage("there is no ticket").hint("mirror invite on the other device prints one")),
    };
    let home = session.home()?;
    let progress = session.transfer_progress("clone");
    let ticket: Ticket = ticket.parse().map_err(|error: TicketError| ReplicateError::Ticket(error.to_string()))?;
    let options = Options { direction: Direction::Pull, choice: super::replicate::choice(None), ..Options::default() };
    let summary = block_on(async {
        let (vault, origin) = replicate::pair(&ticket, &args.dir, &home, &own_name(), &options).await?;
        replicate::sync(&vault, &origin, &options, progress.meter())
            .await
            .map_err(|error| {
                Failure::from(error).cause(format!(
                    "the replica is there and knows its origin; only the first sync is missing: mirror -V {} pull {}",
                    args.dir.display(),
                    origin.name
                ))
            })
            .map(|summary| (summary, origin.name))
    })?;
    drop(progress);
    let (summary, peer) = summary?;
    session.report(
        || render::transfer_record("clone", &peer, Extent::Done, &summary),
        || render::transfer_text(&peer, Extent::Done, &summary),
    )?;
    Ok(Code::Ok)
}
