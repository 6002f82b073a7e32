//! `peer add|list|remove`: who may connect, and where they are.

use super::{Session, replicate};
use crate::{
    args::PeerCommand,
    failure::{Code, Failure},
    render,
};
use mirror_engine::home::{Peer, Role};

pub(super) fn peer(session: &Session, command: PeerCommand) -> Result<Code, Failure> {
    let vault = session.open()?;
    match command {
        PeerCommand::Add { name, address, device } => {
            let added_ms = mirror_engine::clock::wall_ms();
            let peer = Peer { name, device, addresses: vec![replicate::with_port(&address)?], role: Role::Member, added_ms };
            vault.home().add_peer(peer.clone())?;
            session.report(|| render::peer_record(&peer), || format!("added {}", render::peer_text(&peer)))?;
        }
        PeerCommand::List => {
            for peer in vault.home().peers()? {
                session.output.show(|| render::peer_record(&peer), || render::peer_text(&peer))?;
            }
        }
        PeerCommand::Remove { name } => {
            let peer = replicate::known_peer(&vault, &name)?;
            vault.home().remove_peer(&name)?;
            session.report(|| render::peer_record(&peer), || format!("removed {}", render::peer_text(&peer)))?;
        }
    }
    Ok(Code::Ok)
}
