//! An examination: each stage of a transfer with a peer measured alone, at both ends and between them.
//!
//! ```text
//! dialer ── ALPN mirror-doctor/1, control stream ── requests ─► listener (known peers only, one at a time)
//!        ══ raw TCP or UDP to a port of its own, with a token ══►  measured, answered, closed
//! ```
//! Neither end shows anything of the vault but how fast its disk is: bytes on sockets are made up, packs are read and forgotten, what is
//! written has no name. Times and bytes are bounded by the listener, whatever is asked for; what it claims is bounded here.

mod answer;
mod lane;
mod socket;
#[cfg(test)]
mod tests;
mod verdict;
mod wire;

pub(super) use answer::answer;
pub use verdict::{Diagnosis, Finding, Verdict, What};

use super::{ReplicateError, Target};
use crate::{
    clock,
    limits::DOCTOR_DISK_BYTES_MAX,
    probe::{self, Cache, Rate, Threads},
    transport::{Choice, CloseReason, Connection, ControlReceiver, ControlSender, Dialer, Protocol, TransportError, Tuning},
    vault::{Vault, VaultError},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use wire::{Answer, Carrier, Link, Request, Way, Work, hear, say};

/// Round trips that are tried.
const PINGS: usize = 10;
/// Share of the rate that got through at which loss is looked at: below what the link takes.
const LOSS_AT: f64 = 0.75;

/// Measures each stage between this device and `target`, each for `time`. `tell` hears of each as it is done.
///
/// # Errors
/// [`ReplicateError::Unsupported`] for a peer that is too old, and what dialling can fail with. A stage that cannot be measured is no error.
pub async fn examine(
    vault: &Vault,
    target: &Target,
    choice: Choice,
    time: Duration,
    tell: &(dyn Fn(&Finding) + Send + Sync),
) -> Result<Diagnosis, ReplicateError> {
    let dialer = Dialer::new(vault.device(), Tuning::default())?;
    let dialled = dialer.dial_auto(&target.addresses, target.device, Protocol::Doctor, choice).await;
    let connection = dialled.map_err(unsupported)?;
    let result = Examination::begin(&connection, time, tell)?.run(vault.dir()).await;
    connection.close(CloseReason::Done);
    connection.flushed().await;
    result.map_err(|error| if let ReplicateError::Transport(error) = error { unsupported(error) } else { error })
}

/// A peer of an earlier version has no protocol of this name.
fn unsupported(error: TransportError) -> ReplicateError {
    match error {
        TransportError::Version => ReplicateError::Unsupported("it does not answer examinations: its mirror is older than this one".into()),
        other => other.into(),
    }
}

/// The pack files of the vault in `dir`.
fn packs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut packs: Vec<PathBuf> =
        fs::read_dir(dir.join("packs"))?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    packs.sort();
    if packs.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "the vault holds nothing yet")) } else { Ok(packs) }
}

struct Examination<'a> {
    connection: &'a Connection,
    out: ControlSender,
    inward: ControlReceiver,
    time: Duration,
    tell: &'a (dyn Fn(&Finding) + Send + Sync),
    findings: Vec<Finding>,
}

/// What both ends saw of a carrier: here, and there.
type Seen = Result<(probe::Datagrams, probe::Datagrams), String>;

impl<'a> Examination<'a> {
    fn begin(connection: &'a Connection, time: Duration, tell: &'a (dyn Fn(&Finding) + Send + Sync)) -> Result<Self, ReplicateError> {
        let (out, inward) = connection.take_control().ok_or_else(|| ReplicateError::Peer("the control stream is taken".into()))?;
        Ok(Self { connection, out, inward, time, tell, findings: Vec::new() })
    }

    async fn run(mut self, dir: &Path) -> Result<Diagnosis, ReplicateError> {
        let round_trip = self.round_trip().await?;
        self.here(dir).await?;
        for (what, work) in [(What::ReadThere, Work::ReadCold), (What::HashThere, Work::Hash), (What::WriteThere, Work::Write)] {
            let outcome = self.work(work).await?;
            self.found(what, outcome, None);
        }
        for (way, tcp, udp, lane) in
            [(Way::Up, What::TcpUp, What::UdpUp, What::LaneUp), (Way::Down, What::TcpDown, What::UdpDown, What::LaneDown)]
        {
            self.tcp(tcp, way).await?;
            self.udp(udp, way).await?;
            self.lane(lane, way).await?;
        }
        Ok(Diagnosis { round_trip, findings: self.findings })
    }

    fn found(&mut self, what: What, outcome: Result<Rate, String>, loss: Option<f64>) {
        let finding = Finding { what, outcome, loss };
        (self.tell)(&finding);
        self.findings.push(finding);
    }

    async fn ask(&mut self, request: &Request) -> Result<(), ReplicateError> {
        say(&mut self.out, request).await
    }

    async fn answer(&mut self) -> Result<Answer, ReplicateError> {
        hear(&mut self.inward).await?.ok_or_else(|| TransportError::Closed(CloseReason::Done).into())
    }

    async fn round_trip(&mut self) -> Result<Duration, ReplicateError> {
        let mut shortest = Duration::MAX;
        for _ in 0..PINGS {
            let began = clock::now();
            self.ask(&Request::Ping).await?;
            if self.answer().await? != Answer::Pong {
                return Err(out_of_place());
            }
            shortest = shortest.min(began.elapsed());
        }
        Ok(shortest)
    }

    /// What this device does alone.
    async fn here(&mut self, dir: &Path) -> Result<(), ReplicateError> {
        type Probe = fn(&Path, Duration) -> io::Result<Rate>;
        let probes: [(What, Probe); 6] = [
            (What::ReadHereCold, |dir, time| probe::disk_read(&packs(dir)?, u64::MAX, time, Cache::Cold)),
            (What::ReadHereWarm, |dir, time| probe::disk_read(&packs(dir)?, DOCTOR_DISK_BYTES_MAX, time, Cache::Warm)),
            (What::HashHere, |_, time| Ok(probe::hash(Threads::One, time))),
            (What::SealHere, |_, time| Ok(probe::seal(Threads::One, time))),
            (What::SealHereAll, |_, time| Ok(probe::seal(Threads::All, time))),
            (What::WriteHere, |dir, time| probe::disk_write(dir, DOCTOR_DISK_BYTES_MAX, time)),
        ];
        for (what, probe) in probes {
            let (dir, time) = (dir.to_owned(), self.time);
            let measured = tokio::task::spawn_blocking(move || probe(&dir, time)).await.map_err(VaultError::internal)?;
            self.found(what, measured.map_err(|error| error.to_string()), None);
        }
        Ok(())
    }

    /// What the peer does alone, as it says; never more than it was allowed to do.
    async fn work(&mut self, what: Work) -> Result<Result<Rate, String>, ReplicateError> {
        self.ask(&Request::Work { what, ms: self.time.as_millis() as u64 }).await?;
        match self.answer().await? {
            Answer::Measured { bytes, .. } if what == Work::Write && bytes > DOCTOR_DISK_BYTES_MAX => {
                Err(ReplicateError::Peer("it claims to have written more than it may".into()))
            }
            Answer::Measured { bytes, elapsed_us, .. } => Ok(Ok(Rate { bytes, elapsed: Duration::from_micros(elapsed_us) })),
            Answer::NotMeasured { why } => Ok(Err(why)),
            Answer::Pong | Answer::Port { .. } => Err(out_of_place()),
        }
    }

    async fn tcp(&mut self, what: What, way: Way) -> Result<(), ReplicateError> {
        let seen = self.raw(&self.link(Carrier::Tcp, way, None)).await?;
        self.found(what, seen.map(|(here, there)| arrived(way, here, there).rate), None);
        Ok(())
    }

    async fn udp(&mut self, what: What, way: Way) -> Result<(), ReplicateError> {
        let flooded = self.raw(&self.link(Carrier::Udp, way, None)).await?.map(|(here, there)| arrived(way, here, there).rate);
        let flooded = flooded.and_then(|rate| if rate.bytes == 0 { Err("port closed".to_owned()) } else { Ok(rate) });
        let pace = flooded.as_ref().ok().and_then(Rate::bits_per_s).map(|bits| (bits as f64 * LOSS_AT) as u64);
        let loss = match pace {
            Some(pace) => self.raw(&self.link(Carrier::Udp, way, Some(pace))).await?.ok().and_then(|(here, there)| match way {
                Way::Up => lost(here.count, there.count),
                Way::Down => lost(there.count, here.count),
            }),
            None => None,
        };
        self.found(what, flooded, loss);
        Ok(())
    }

    fn link(&self, carrier: Carrier, way: Way, bits_per_s_max: Option<u64>) -> Link {
        Link { carrier, way, ms: self.time.as_millis() as u64, bits_per_s_max }
    }

    /// Over a socket of its own. A port that cannot be reached is an outcome.
    async fn raw(&mut self, link: &Link) -> Result<Seen, ReplicateError> {
        self.ask(&Request::Link(*link)).await?;
        let (port, token) = match self.answer().await? {
            Answer::Port { port, token } => (port, token),
            Answer::NotMeasured { why } => return Ok(Err(why)),
            Answer::Pong | Answer::Measured { .. } => return Err(out_of_place()),
        };
        let here = match self.connection.remote_addr() {
            Some(mut to) => {
                to.set_port(port);
                match link.carrier {
                    Carrier::Udp => socket::udp(to, &token, link).await,
                    Carrier::Tcp | Carrier::Lane => socket::tcp(to, &token, link).await.map(|rate| probe::Datagrams { count: 0, rate }),
                }
            }
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        // Also after a failure here: the peer says in any case that it is done.
        let there = self.seen_there().await?;
        let seen = here.map_err(|error| error.to_string()).and_then(|here| there.map(|there| (here, there)));
        if let Ok((here, there)) = &seen
            && link.way == Way::Up
            && (there.rate.bytes > here.rate.bytes || there.count > here.count)
        {
            return Err(ReplicateError::Peer("it claims to have received more than was sent".into()));
        }
        Ok(seen)
    }

    async fn seen_there(&mut self) -> Result<Result<probe::Datagrams, String>, ReplicateError> {
        match self.answer().await? {
            Answer::Measured { bytes, elapsed_us, count } => {
                Ok(Ok(probe::Datagrams { count, rate: Rate { bytes, elapsed: Duration::from_micros(elapsed_us) } }))
            }
            Answer::NotMeasured { why } => Ok(Err(why)),
            Answer::Pong | Answer::Port { .. } => Err(out_of_place()),
        }
    }

    async fn lane(&mut self, what: What, way: Way) -> Result<(), ReplicateError> {
        self.ask(&Request::Link(self.link(Carrier::Lane, way, None))).await?;
        let here = match way {
            Way::Up => lane::send(self.connection, self.time).await?,
            Way::Down => lane::receive(self.connection, self.time).await?,
        };
        let there = self.seen_there().await?;
        let outcome = match way {
            Way::Up => there.map(|there| there.rate),
            Way::Down => Ok(here),
        };
        if way == Way::Up && outcome.as_ref().is_ok_and(|rate| rate.bytes > here.bytes) {
            return Err(ReplicateError::Peer("it claims to have received more than was sent".into()));
        }
        self.found(what, outcome, None);
        Ok(())
    }
}

fn out_of_place() -> ReplicateError {
    ReplicateError::Peer("an answer came that was not asked for".into())
}

fn arrived(way: Way, here: probe::Datagrams, there: probe::Datagrams) -> probe::Datagrams {
    match way {
        Way::Up => there,
        Way::Down => here,
    }
}

fn lost(sent: u64, received: u64) -> Option<f64> {
    (sent > 0).then(|| 1.0 - (received.min(sent) as f64 / sent as f64))
}
