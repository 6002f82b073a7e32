//! Serving one vault: accepts peers, answers each in a session of its own, and pairs the bearers of tickets.

use super::{
    Observer, Options, Progress, ReplicateError,
    beside::watch,
    doctor,
    drive::{Party, drive},
    pairing,
    seats::{Seat, Seats},
    silence,
    tally::Ended,
};
use crate::{
    clock,
    home::VaultHome,
    id::DeviceId,
    members::Admittance,
    session::{Direction, Side},
    store::Store,
    transport::{Admission, CloseReason, Connection, Listener, Protocol, Standing},
    vault::Vault,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// How often a user's wish to stop is looked for.
const CANCEL_POLL: Duration = Duration::from_millis(50);
/// How long sessions get to reach their commit point when serving ends.
const DRAIN: Duration = Duration::from_secs(5);

/// What a server has to tell.
#[derive(Debug)]
pub enum Served {
    /// A session ended.
    Session {
        /// With whom.
        peer: DeviceId,
        /// How.
        result: Result<Box<super::Summary>, ReplicateError>,
    },
    /// A peer measured what is between it and this device.
    Examined {
        /// Which.
        peer: DeviceId,
        /// How it ended.
        result: Result<(), ReplicateError>,
    },
    /// A ticket was offered.
    Paired {
        /// By whom.
        peer: DeviceId,
        /// The name it has now.
        result: Result<String, ReplicateError>,
    },
}

/// Peers of this vault, as its log and this device's files say at this moment.
struct KnownPeers {
    store: Store,
    home: VaultHome,
}

impl Admission for KnownPeers {
    fn standing(&self, device: &DeviceId) -> Standing {
        // What another process has just appended counts, too: `mirror peer remove` beside a server.
        if let Err(error) = self.store.refresh() {
            tracing::warn!(%error, "the log cannot be looked at: nobody is let in");
            return Standing::Unclear;
        }
        let admittance = self.store.roster().map_or(Admittance::Unknown, |roster| roster.admittance(device));
        match admittance {
            Admittance::In(_) => Standing::Known,
            Admittance::Removed => Standing::Stranger,
            Admittance::Unknown => match self.home.peer_of(device) {
                Ok(Some(_)) => Standing::Known,
                Ok(None) => Standing::Stranger,
                Err(error) => {
                    tracing::warn!(%error, "the known peers cannot be looked at: nobody is let in");
                    Standing::Unclear
                }
            },
        }
    }

    fn pairing_open(&self) -> bool {
        self.home.pairing_open(clock::wall_ms()).unwrap_or(false)
    }
}

/// A vault's open ports.
pub struct Server {
    vault: Arc<Vault>,
    listener: Listener,
    name: String,
    seats: Seats,
}

impl Server {
    /// Opens UDP and TCP ports at each of `addresses`. `name` is what new replicas call this one.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn bind(vault: Arc<Vault>, addresses: &[SocketAddr], name: &str, options: &Options) -> Result<Self, ReplicateError> {
        let admission = Arc::new(KnownPeers { store: Store::clone(vault.store()), home: vault.home().clone() });
        let listener = Listener::bind(addresses, vault.device(), admission, options.tuning())?;
        Ok(Self { vault, listener, name: name.to_owned(), seats: Seats::default() })
    }

    /// The addresses that are open: for QUIC, for TCP.
    pub fn local_addrs(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        self.listener.local_addrs()
    }

    /// The next who was let in and has a place; none once closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Caller> {
        loop {
            let connection = self.listener.accept().await?;
            match self.seats.take(&connection.peer(), connection.protocol()) {
                Some(seat) => return Some(Caller { vault: self.vault.clone(), connection, _seat: seat }),
                None => connection.close(CloseReason::Busy),
            }
        }
    }

    /// Lets nobody in any more. Who is in stays.
    pub fn close(&self) {
        self.listener.close();
    }

    /// Serves until `observer` says stop; then sessions get a few seconds to finish.
    pub async fn run(self, options: Options, observer: Arc<dyn Observer>, report: Arc<dyn Fn(Served) + Send + Sync>) {
        let mut sessions = JoinSet::new();
        let mut cancel = tokio::time::interval(CANCEL_POLL);
        let mut watching = std::pin::pin!(watch(self.vault.store()));
        loop {
            select! {
                caller = self.accept() => {
                    let Some(caller) = caller else { break };
                    let (options, observer, report, name) = (options.clone(), observer.clone(), report.clone(), self.name.clone());
                    let options = Options { direction: Direction::Both, ..options };
                    sessions.spawn(async move { report(caller.answer(&options, &name, observer).await) });
                }
                Some(_) = sessions.join_next() => {}
                never = &mut watching => match never {},
                _ = cancel.tick() => if observer.cancelled() { break },
            }
        }
        self.close();
        let finish = async { while sessions.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN, finish).await;
    }
}

/// A peer that has proved its key, has a place, and waits for an answer.
pub struct Caller {
    vault: Arc<Vault>,
    connection: Connection,
    _seat: Seat,
}

impl Caller {
    /// Who.
    pub fn peer(&self) -> DeviceId {
        self.connection.peer()
    }

    /// What for.
    pub fn protocol(&self) -> Protocol {
        self.connection.protocol()
    }

    /// Sends it away: it may come again later.
    pub fn turn_away(self) {
        self.connection.close(CloseReason::Busy);
    }

    /// Does what the peer came for, to the end. `name` is what a new replica calls this one.
    pub async fn answer(self, options: &Options, name: &str, observer: Arc<dyn Observer>) -> Served {
        let (vault, connection, peer) = (&self.vault, &self.connection, self.peer());
        match self.protocol() {
            Protocol::Pairing => {
                let result = pairing::answer(vault, connection, name).await.map(|peer| peer.name);
                Served::Paired { peer, result }
            }
            Protocol::Doctor => Served::Examined { peer, result: doctor::answer(vault, connection).await },
            Protocol::Session => {
                observer.progress(Progress::Connected { transport: connection.kind(), address: connection.remote_addr() });
                let mut listening = JoinSet::new();
                listening.spawn(silence::listen(connection.clone(), options.clone(), observer.clone()));
                let party = Party::of(vault, options);
                let result = drive(connection, Side::Listener, party, observer).await.and_then(Ended::whole).map(Box::new);
                Served::Session { peer, result }
            }
        }
    }
}
