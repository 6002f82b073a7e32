//! The newest certificate of a session, on its way to this device's directory.
//!
//! A session that stays may certify many times a second. The newest is written at most once in [`PAUSE`], beside the session, and once
//! more at its end.

use super::worker;
use crate::{
    clock,
    home::VaultHome,
    id::DeviceId,
    keys::{Certificate, DeviceKey},
};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Certificates {
    home: VaultHome,
    own: DeviceId,
    peer: DeviceId,
    unwritten: Option<Certificate>,
    written: Option<(Instant, JoinHandle<()>)>,
}

impl Certificates {
    pub(super) fn new(home: &VaultHome, own: &DeviceKey, peer: DeviceId) -> Self {
        Self { home: home.clone(), own: own.id(), peer, unwritten: None, written: None }
    }

    pub(super) fn note(&mut self, certificate: Certificate) {
        self.unwritten = Some(certificate);
    }

    /// Writes what is unwritten, unless it has just done so.
    pub(super) fn write_if_due(&mut self) {
        let due = self.written.as_ref().is_none_or(|(at, writing)| clock::since(*at) >= PAUSE && writing.is_finished());
        if let Some(certificate) = self.unwritten.take_if(|_| due) {
            self.written = Some((clock::now(), self.write(certificate)));
        }
    }

    /// Writes what is unwritten, after what is being written.
    pub(super) async fn finish(mut self) {
        if let Some((_, writing)) = self.written.take() {
            let _ = writing.await;
        }
        if let Some(certificate) = self.unwritten.take() {
            let _ = self.write(certificate).await;
        }
    }

    /// For `status` only: nothing else depends on it, so a failure is only logged.
    fn write(&self, certificate: Certificate) -> JoinHandle<()> {
        let (home, own, peer) = (self.home.clone(), self.own, self.peer);
        worker::call(move || {
            if let Err(error) = home.record_certificate(&own, &peer, &certificate) {
                tracing::warn!(%error, "the certificate with the peer was not recorded");
            }
        })
    }
}
