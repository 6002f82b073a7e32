//! `serve`, `invite`, `clone`: how a second replica comes to be.

use super::{Session, discover, replicate::block_on, telling::Telling};
use crate::{
    args::{CloneArgs, InviteArgs, RoleChoice, ServeArgs},
    bandwidth::Kept,
    failure::{Code, Failure, require_open_files},
    progress::Several,
    render::{self, Extent, Format, Listening, Output, Talk, TicketRecord},
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
pub(crate) const PORT: u16 = 7740;

/// Runs until a signal ends it, which is the code it ends with.
pub(super) fn serve(session: &Session, args: &ServeArgs) -> Result<Code, Failure> {
    require_open_files(1)?;
    let vault = Arc::new(session.open()?);
    let everywhere = [everywhere()];
    let listen = if args.listen.is_empty() { &everywhere[..] } else { &args.listen };
    let kept = Kept::to(args.bwlimit.as_ref(), &session.talk);
    let options = Options {
        limits: Arc::clone(&kept.limits),
        plain_lanes: super::replicate::plain_lanes(args.lanes_plain),
        fuse: super::replicate::lasting_fuse(&vault, args.max_delete)?,
        ..Options::default()
    };
    let progress = session.progress("serve");
    let (output, talk, device) = (Arc::clone(&session.output), session.talk.clone(), vault.info().device);
    // A reader of stdout that has gone does not end a server.
    let telling = Telling::start(move |served| drop(tell(&output, &talk, served))).map_err(|error| Failure::io("cannot start", &error))?;
    let served = block_on(async {
        let server = replicate::Server::bind(Arc::clone(&vault), listen, &own_name(), &options).await?;
        let (quic, tcp) = server.local_addrs();
        let announcement = discover::announce(session, &vault, &tcp);
        for (quic, tcp) in quic.into_iter().zip(tcp) {
            let listening = Listening { quic, tcp, device };
            session.output.show(|| render::listening_record(&listening), || render::listening_text(&listening))?;
        }
        session.output.flush()?;
        server.run(options, Arc::new(Several(progress.meter())), telling.report()).await;
        drop(announcement);
        Ok::<_, Failure>(())
    })?;
    telling.finish();
    drop(progress);
    served?;
    Ok(if session.interrupt.is_set() { Code::Interrupted } else { Code::Ok })
}

/// What a server has to tell: JSON for the program that runs it, talk for the person who watches.
fn tell(output: &Output, talk: &Talk, served: &Served) -> Result<(), Failure> {
    if output.format() == Format::Text {
        talk.note(&served_text(served));
        return Ok(());
    }
    output.line(&match served {
        Served::Session { peer, result } => render::json_line(&render::session_record(*peer, result)),
        Served::Examined { peer, result } => render::json_line(&render::examined_record(*peer, result)),
        Served::Paired { peer, result } => render::json_line(&render::paired_record(*peer, result)),
    })?;
    output.flush()
}

fn served_text(served: &Served) -> String {
    match served {
        Served::Session { peer, result: Ok(summary) } => {
            let text = render::transfer_text(&peer.short(), Extent::Done, summary);
            render::findings_text(&peer.short(), &summary.findings).into_iter().fold(text, |text, line| format!("{text}\n{line}"))
        }
        Served::Session { peer, result: Err(error) } => format!("session with {}: {error}", peer.short()),
        Served::Examined { peer, result: Ok(()) } => format!("examined by {}", peer.short()),
        Served::Examined { peer, result: Err(error) } => format!("examination by {}: {error}", peer.short()),
        Served::Paired { peer, result: Ok(name) } => format!("paired with {name} (device {peer})"),
        Served::Paired { peer, result: Err(error) } => format!("pairing with {}: {error}", peer.short()),
    }
}

/// What other devices call this one at first.
pub(crate) fn own_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// All interfaces: with IPv6, which takes IPv4 along, unless this machine has none.
pub(crate) fn everywhere() -> SocketAddr {
    let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let ip = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(ip, PORT)
}

pub(super) fn invite(session: &Session, args: &InviteArgs) -> Result<Code, Failure> {
    let role = match args.role {
        RoleChoice::Owner => Role::Owner,
        RoleChoice::Member => Role::Member,
        RoleChoice::Keyless => Role::Keyless,
    };
    let mut addresses = args.addresses.iter().map(|address| super::replicate::with_port(address)).collect::<Result<Vec<_>, _>>()?;
    let vault = session.open()?;
    if addresses.is_empty() {
        addresses = addresses_of(&places(session, &vault));
    }
    let ticket = replicate::invite(&vault, role, addresses, args.expires.0)?.to_string();
    let expires_ms = args.expires.0.as_millis() as u64;
    session.output.show(|| TicketRecord { ticket: ticket.clone(), expires_ms }, || ticket.clone())?;
    session.talk.note(&format!("good once and for {}; whoever has it can join as {:?}", args.expires, args.role).to_lowercase());
    Ok(Code::Ok)
}

/// Where a running daemon listens for this vault; else where `serve` would.
fn places(session: &Session, vault: &mirror_engine::vault::Vault) -> Vec<SocketAddr> {
    let running = super::daemon::running(session);
    let info = vault.info();
    let kept = running.as_ref().and_then(|daemon| daemon.vault(&info.id.to_string(), vault.dir())?.kept.as_ref());
    let listening: Vec<SocketAddr> = kept.iter().flat_map(|kept| &kept.tcp).filter_map(|place| place.parse().ok()).collect();
    if listening.is_empty() { vec![everywhere()] } else { listening }
}

/// Where others reach who listens there. All interfaces are this device's own addresses.
fn addresses_of(places: &[SocketAddr]) -> Vec<String> {
    let mut addresses = Vec::new();
    for place in places {
        let reached = if place.ip().is_unspecified() { own_addresses(place.port()) } else { vec![place.to_string()] };
        addresses.extend(reached.into_iter().filter(|address| !addresses.contains(address)).collect::<Vec<_>>());
    }
    addresses
}

/// Where this device is likely to be reached: the addresses from which it would reach others, and its name. Nothing is sent.
fn own_addresses(port: u16) -> Vec<String> {
    // Any address outside does: the system only looks up the route (these are for documentation, RFC 5737 and 3849).
    let routes = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let source = |(from, to): (&str, &str)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(SocketAddr::new(socket.local_addr().ok()?.ip(), port).to_string())
    };
    routes.into_iter().filter_map(source).chain([format!("{}:{port}", own_name())]).collect()
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
    let (peer, result) = block_on(async {
        let (vault, origin) = replicate::pair(&ticket, &args.dir, &home, &own_name(), &options).await?;
        let result = replicate::sync(&vault, &origin, &options, progress.meter()).await;
        Ok::<_, Failure>((origin.name, result))
    })??;
    drop(progress);
    let to_go_on = || {
        format!(
            "the replica is there and knows its origin; only the rest is missing: mirror -V {} pull {peer}",
            render::path_text(&args.dir)
        )
    };
    let code = super::replicate::report(session, "clone", &peer, Extent::Done, result).map_err(|failure| failure.cause(to_go_on()))?;
    session
        .talk
        .note(&format!("the other device is called {peer} here; from now on: mirror -V {} sync {peer}", render::path_text(&args.dir)));
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_without_addresses_says_where_this_device_is() {
        let addresses = addresses_of(&[everywhere()]);
        assert!(!addresses.is_empty());
        for address in addresses {
            assert_eq!(crate::commands::replicate::with_port(&address).as_ref(), Ok(&address));
            assert!(!address.starts_with("0.0.0.0") && !address.starts_with("[::]"), "{address}");
        }
        let chosen = ["10.0.0.7:7743", "127.0.0.1:7744"].map(|place| place.parse().unwrap());
        assert_eq!(addresses_of(&chosen), ["10.0.0.7:7743", "127.0.0.1:7744"]);
        assert!(addresses_of(&["0.0.0.0:7743".parse().unwrap()]).iter().all(|address| address.ends_with(":7743")));
    }
}
