//! Who has signed that it holds the same: in `status`.

use super::{escape, rfc3339};
use mirror_engine::{
    id::Root,
    keys::Certificate,
    vault::{Identical, PeerStatus},
};
use serde::Serialize;

/// What a peer and this device have both signed last.
#[derive(Serialize)]
pub(crate) struct CertificateState {
    peer: String,
    device: String,
    root: String,
    /// Whether it is of what is held here now.
    current: bool,
    since_ms: u64,
    time_ms: u64,
    peer_time_ms: u64,
}

fn certified(peers: &[PeerStatus]) -> impl Iterator<Item = (&PeerStatus, &Certificate)> {
    peers.iter().filter_map(|peer| Some((peer, peer.certificate.as_ref()?)))
}

pub(crate) fn certificate_states(root: &Root, peers: &[PeerStatus]) -> Vec<CertificateState> {
    let state = |(status, certificate): (&PeerStatus, &Certificate)| CertificateState {
        peer: status.peer.name.clone(),
        device: status.peer.device.to_string(),
        root: certificate.root().to_string(),
        current: certificate.root() == *root,
        since_ms: certificate.since_ms,
        time_ms: certificate.ours.wall_ms,
        peer_time_ms: certificate.theirs.wall_ms,
    };
    certified(peers).map(state).collect()
}

/// One line on who is the same now, and one for each that last was at an older state.
pub(crate) fn identical_lines(root: &Root, peers: &[PeerStatus]) -> Vec<String> {
    let Identical { replicas, since_ms } = Identical::at(root, peers);
    let now = since_ms.map(|since| format!("identical  at {} since {} with {replicas} replicas", root.short(), rfc3339(since as i64)));
    let older = certified(peers).filter(|(_, certificate)| certificate.root() != *root).map(|(status, certificate)| {
        let (name, at) = (escape(status.peer.name.as_bytes()), rfc3339(certificate.ours.wall_ms as i64));
        format!("identical  with {name} at {} on {at}: an older state", certificate.root().short())
    });
    now.into_iter().chain(older).collect()
}
