//! `serve`, `invite`, `clone`: how a second replica comes to be.

use super::Session;
use crate::{
    args::{CloneArgs, InviteArgs, RoleChoice, ServeArgs},
    failure::{Code, Failure},
    render::{self, Extent, TicketRecord},
    secrets,
};
use mirror_engine::replicate::{self, Role};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
};
use zeroize::Zeroizing;

/// UDP and TCP.
pub(super) const PORT: u16 = 7740;

/// Runs until a signal ends it, which is the code it ends with.
pub(super) fn serve(session: &Session, args: &ServeArgs) -> Result<Code, Failure> {
    let vault = session.open()?;
    let everywhere = [everywhere()];
    let listen = if args.listen.is_empty() { &everywhere[..] } else { &args.listen };
    let progress = session.progress("serve");
    let mut announced = Ok(());
    let served = replicate::serve(
        &vault,
        listen,
        &mut |listening| {
            let shown = session.output.show(|| render::listening_record(&listening), || render::listening_text(&listening));
            announced = shown.and_then(|()| session.output.flush());
        },
        progress.meter(),
    );
    drop(progress);
    announced?;
    served?;
    Ok(if session.interrupt.is_set() { Code::Interrupted } else { Code::Ok })
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
    let ticket = replicate::invite(&vault, role, &addresses, args.expires.0)?;
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
    let (_, summary) = replicate::clone_vault(&ticket, &args.dir, &home, progress.meter())?;
    drop(progress);
    let peer = summary.peer.to_string();
    session.report(
        || render::transfer_record("clone", &peer, Extent::Done, &summary),
        || render::transfer_text(&peer, Extent::Done, &summary),
    )?;
    Ok(Code::Ok)
}
