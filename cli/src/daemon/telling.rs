//! What nodes tell, as lines of the log: news of each peer, not each step of it.

use super::keeper::Heard;
use crate::render;
use mirror_engine::{
    id::DeviceId,
    node::{Pause, State, Told},
    replicate::{Findings, Served, Summary},
};
use std::{
    collections::HashMap,
    mem::{Discriminant, discriminant},
};

/// Names of devices, as people call them.
pub(super) trait Names {
    /// What `device` is called here.
    fn of(&self, device: &DeviceId) -> String;
}

/// Remembers what was said of each peer, so that a transfer that begins and ends is no news.
#[derive(Debug, Default)]
pub(super) struct Teller {
    said: HashMap<DeviceId, Discriminant<State>>,
}

impl Teller {
    pub(super) fn tell(&mut self, heard: &Heard, names: &impl Names) {
        let vault = heard.dir.display().to_string();
        match &heard.told {
            Told::Changed { peer, state } => self.changed(&vault, &names.of(peer), *peer, state),
            Told::Followed { peer, result } => match result {
                Ok(summary) => session(&vault, &names.of(peer), summary),
                Err(error) => tracing::debug!(%vault, peer = names.of(peer), %error, "a session that was dialled here has ended"),
            },
            Told::Served(served) => answered(&vault, served, names),
            Told::Paused(Some(Pause { text, .. })) => tracing::warn!(%vault, "paused: {text}"),
            Told::Paused(None) => tracing::info!(%vault, "goes on"),
        }
    }

    fn changed(&mut self, vault: &str, peer: &str, device: DeviceId, state: &State) {
        // Idle or busy: connected all the same.
        let kind = match state {
            State::Transferring(path) => discriminant(&State::Live(path.clone())),
            other => discriminant(other),
        };
        let before = self.said.insert(device, kind);
        match state {
            State::Live(path) | State::Transferring(path) if before != Some(kind) => {
                let address = path.address.map(|address| address.to_string()).unwrap_or_default();
                tracing::info!(%vault, %peer, transport = %path.transport, %address, "connected");
            }
            State::Live(_) | State::Transferring(_) | State::Connecting { .. } => tracing::debug!(%vault, %peer, ?state),
            State::Waiting { reason, .. } => tracing::info!(%vault, %peer, "waiting: {reason}"),
            State::Refused { reason, .. } => tracing::warn!(%vault, %peer, "refused: {reason}"),
            State::Paused(pause) => tracing::warn!(%vault, %peer, "paused: {}", pause.text),
        }
    }
}

fn answered(vault: &str, served: &Served, names: &impl Names) {
    match served {
        Served::Session { peer, result: Ok(summary) } => session(vault, &names.of(peer), summary),
        Served::Session { peer, result: Err(error) } => {
            tracing::debug!(%vault, peer = names.of(peer), %error, "a session that the peer dialled has ended");
        }
        Served::Examined { peer, result: Ok(()) } => tracing::info!(%vault, peer = names.of(peer), "examined by it"),
        Served::Examined { peer, result: Err(error) } => tracing::warn!(%vault, peer = names.of(peer), %error, "its examination failed"),
        Served::Paired { result: Ok(name), peer } => tracing::info!(%vault, peer = %name, device = %peer, "a ticket was redeemed"),
        Served::Paired { result: Err(error), peer } => tracing::warn!(%vault, device = %peer, %error, "a ticket was refused"),
    }
}

/// The end of a session: what it moved, and what was found of either replica's past.
fn session(vault: &str, peer: &str, summary: &Summary) {
    let (sent, received) = (summary.events_sent, summary.events_received);
    tracing::info!(%vault, %peer, events_sent = sent, events_received = received, "the session has ended");
    let findings: &Findings = &summary.findings;
    render::findings_text(peer, findings).iter().for_each(|line| tracing::warn!(%vault, "{line}"));
}
