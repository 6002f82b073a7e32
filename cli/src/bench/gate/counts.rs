//! What this process can count of the engine itself: allocations, bytes on the wire, and the ratio to the bare link.
//!
//! Both ends of a push are in this process here, so that one counter sees both.

use super::{Holds, Metric};
use crate::{
    bench::{
        bare::{self, Port},
        bed::{self, Bed},
        block_on,
        console::Console,
        control::{RawKind, Replica},
        measurement::{GIB, Over},
        statistics,
    },
    failure::{Code, Failure},
};
use mirror_engine::{
    home::{Home, Role},
    io::counting::{Allocated, counted},
    replicate::{self, Options, Server, Summary, Unobserved},
    session::Direction,
    vault::Vault,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// Small objects that are pushed: enough that what a session costs once does not show.
const SMALL_FILES: u32 = 2_000;
/// For allocations and wall times: the middle one counts. For the ratio: the best of each.
const ROUNDS: u32 = 5;
const RAW_TIME: Duration = Duration::from_millis(300);
const TICKET_LIFE: Duration = Duration::from_secs(60);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One round of everything.
struct Round {
    added: Allocated,
    pushed: Allocated,
    add_s: f64,
    push_s: f64,
    /// Bits a second.
    pushed_rate: f64,
    raw_rate: f64,
}

pub(super) fn counts(console: &Console, bed: &Bed, data: &Path) -> Result<Vec<Metric>, Failure> {
    block_on(async {
        console.step("allocations, bytes on the wire, the ratio to the bare link")?;
        let bytes = std::fs::metadata(data).map_err(|error| Failure::reading(data, &error))?.len();
        let gib = bytes.max(1) as f64 / GIB;
        // What is made once in a process is not made for each GiB.
        warm_up(bed).await?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(one_round(bed, data).await?);
        }
        let mut metrics: Vec<Metric> = rounds_metrics(&rounds, gib).into();
        metrics.extend(small(bed).await?);
        for over in [Over::Tcp, Over::Quic] {
            metrics.push(nothing_changed(bed, over).await?);
        }
        Ok(metrics)
    })
}

/// The middle of all rounds: how many buffers are under way at once is up to the scheduler. The ratio is a floor on any machine, whatever
/// else that does, so it is of the best push to the best of the bare streams.
fn rounds_metrics(rounds: &[Round], gib: f64) -> [Metric; 7] {
    let median = |of: fn(&Round) -> f64| statistics::median(&rounds.iter().map(of).collect::<Vec<_>>());
    let wall = |name: &str, value| Metric { holds: Holds::OnOneMachine, ..Metric::count(name, value, "s/GiB") };
    let best = |of: fn(&Round) -> f64| rounds.iter().map(of).fold(0.0, f64::max);
    let ratio = best(|round| round.pushed_rate) / best(|round| round.raw_rate).max(1.0);
    let ratio = Metric { holds: Holds::AnywhereAsFloor, ..Metric::count("push.ratio_to_raw", ratio, "of raw tcp") };
    let bytes = |name: &str, of: fn(&Round) -> f64| Metric::count(name, median(of) / GIB / gib, "bytes/byte");
    [
        Metric::count("add.allocations", median(|round| round.added.allocations as f64) / gib, "/GiB"),
        bytes("add.allocated_bytes", |round| round.added.bytes as f64),
        Metric::count("push.allocations", median(|round| round.pushed.allocations as f64) / gib, "/GiB"),
        bytes("push.allocated_bytes", |round| round.pushed.bytes as f64),
        wall("add.wall", median(|round| round.add_s) / gib),
        wall("push.wall", median(|round| round.push_s) / gib),
        ratio,
    ]
}

/// Two vaults of one kind in this process, the one served to the other.
struct Pair {
    replica: Replica,
    serving: JoinHandle<()>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Pair {
    async fn new(bed: &Bed, over: Over) -> Result<Self, Failure> {
        let origin = Arc::new(bed.vault()?);
        let server = Server::bind(Arc::clone(&origin), &[SocketAddr::new(LOOPBACK, 0)], "origin", &Options::default()).await?;
        let addresses = server.local_addrs().1.iter().map(ToString::to_string).collect();
        let ticket = replicate::invite(&origin, Role::Member, addresses, TICKET_LIFE)?;
        let serving = tokio::spawn(server.run(Options::default(), Arc::new(Unobserved), Arc::new(|_| ())));
        let options = Options { direction: Direction::Push, choice: over.choice(), ..Options::default() };
        let home = Home::open(&bed.fresh("home"))?;
        let (vault, target) = replicate::pair(&ticket, &bed.fresh("replica"), &home, "replica", &options).await?;
        Ok(Self { replica: Replica { vault, target, options }.let_in().await?, serving })
    }

    fn vault(&self) -> &Vault {
        &self.replica.vault
    }

    async fn push(&self) -> Result<Summary, Failure> {
        let Replica { vault, target, options } = &self.replica;
        let summary = replicate::sync(vault, target, options, Arc::new(Unobserved)).await?;
        if summary.is_identical() { Ok(summary) } else { Err(Failure::new(Code::Failed, "the replicas are not identical")) }
    }
}

async fn warm_up(bed: &Bed) -> Result<(), Failure> {
    let pair = Pair::new(bed, Over::Tcp).await?;
    bed::add(pair.vault(), &bed.small_files(10)?)?;
    pair.push().await.map(drop)
}

async fn one_round(bed: &Bed, data: &Path) -> Result<Round, Failure> {
    let pair = Pair::new(bed, Over::Tcp).await?;
    let (before, began) = (counted(), Instant::now());
    bed::add(pair.vault(), data)?;
    let (added, add_s) = (counted().since(before), began.elapsed().as_secs_f64());
    let before = counted();
    let summary = pair.push().await?;
    let pushed = counted().since(before);
    let (pushed_rate, raw_rate) = (summary.goodput_bits_per_s() as f64, raw_rate().await?);
    Ok(Round { added, pushed, add_s, push_s: summary.elapsed.as_secs_f64(), pushed_rate, raw_rate })
}

/// Bits a second of one bare TCP stream, between two tasks.
async fn raw_rate() -> Result<f64, Failure> {
    let (token, port) = (bare::token()?, Port::open(RawKind::Tcp, LOOPBACK).await?);
    let to = SocketAddr::new(LOOPBACK, port.number()?);
    let receiving = tokio::spawn(port.receive(token, RAW_TIME));
    let sending = tokio::spawn(async move { bare::send(RawKind::Tcp, to, &token, RAW_TIME).await });
    let failed = |error: tokio::task::JoinError| Failure::new(Code::Failed, error.to_string());
    sending.await.map_err(failed)??;
    let received = receiving.await.map_err(failed)??.rate;
    Ok(received.bits_per_s().unwrap_or_default() as f64)
}

async fn small(bed: &Bed) -> Result<[Metric; 2], Failure> {
    let (pair, tree) = (Pair::new(bed, Over::Tcp).await?, bed.small_files(SMALL_FILES)?);
    let each = |allocated: Allocated| allocated.allocations as f64 / f64::from(SMALL_FILES);
    let before = counted();
    bed::add(pair.vault(), &tree)?;
    let added = each(counted().since(before));
    let before = counted();
    pair.push().await?;
    let pushed = each(counted().since(before));
    Ok([Metric::count("small_add.allocations", added, "/object"), Metric::count("small_push.allocations", pushed, "/object")])
}

/// A push when the peer has everything.
async fn nothing_changed(bed: &Bed, over: Over) -> Result<Metric, Failure> {
    let pair = Pair::new(bed, over).await?;
    bed::add(pair.vault(), &bed.small_files(10)?)?;
    pair.push().await?;
    let summary = pair.push().await?;
    let bytes = summary.wire_bytes_sent + summary.wire_bytes_received;
    Ok(Metric::count(format!("nothing_changed.wire_bytes_{}", over.name()), bytes as f64, "bytes"))
}
