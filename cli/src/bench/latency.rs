//! `latency`: how long one small object takes until the peer has it, durably.
//!
//! ```text
//! cold   put │ dial ─ handshake ─ object ─► Applied ─ goodbye │      a session for each
//! warm   put │ object ─► Applied │                                   all in one that stays
//! ```
//! The peer's `Applied` says that the object is on its disk. *Cold* is all that a `push` does when there is no session yet; *warm* is what a
//! change takes between two that follow each other. The object is durable here before the clock starts. Percentiles are those of an HDR
//! histogram (hdrhistogram.org) with three significant digits.

use super::{
    args::LatencyArgs,
    bed::Bed,
    block_on,
    console::{Console, table},
    control::{Peer, Replica},
    link::Watched,
    measurement::{Finished, Over},
    statistics::Random,
};
use crate::{
    failure::{Code, Failure},
    interrupt::Interrupt,
    render::Record,
};
use hdrhistogram::Histogram;
use mirror_engine::{
    event::{Dot, Frontier, Key},
    replicate::{self, Observer, Progress},
    vault::Unwatched,
};
use serde::Serialize;
use std::{
    io::Cursor,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::watch::{self, error::RecvError},
    task::JoinError,
};

/// Shown, and kept in the record.
const PERCENTILES: [f64; 9] = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 100.0];
/// Not counted: code and connection tables are touched for the first time.
const WARM_UP: u32 = 3;
const DIGITS: u8 = 3;
/// A session that stays and says nothing for this long is not one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ten minutes; what takes longer counts as that.
const LONGEST_US: u64 = 600_000_000;

/// Whether a session is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    /// Each object dials anew.
    Cold,
    /// It is, and stays.
    Warm,
}

impl Start {
    fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// Percentiles of one way to send, in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    operation: &'static str,
    start: Start,
    transport: &'static str,
    object_bytes: u64,
    count: u64,
    mean_us: f64,
    /// `[percentile, microseconds]`
    percentiles: Vec<(f64, u64)>,
}

impl Record for Latency {
    const TYPE: &'static str = "latency";
}

pub(super) fn latency(console: &Console, args: &LatencyArgs) -> Result<Code, Failure> {
    block_on(async {
        let (bed, mut peer) = (Bed::new()?, Peer::reach(args.target.as_deref()).await?);
        let mut results = Vec::new();
        for over in &args.transport {
            for start in [Start::Cold, Start::Warm] {
                console.step(&format!("{} objects over {}, {}", args.count, over.name(), start.name()))?;
                let objects = Objects { replica: Arc::new(peer.replica(&bed, *over).await?), bytes: args.size.bytes };
                let histogram = match start {
                    Start::Cold => cold(console, &objects, args.count).await?,
                    Start::Warm => warm(console, &objects, args.count).await?,
                };
                results.push(record(&histogram, start, *over, args));
            }
        }
        peer.part().await;
        results.iter().try_for_each(|result| console.record(result))?;
        console.text(|| text(&results))?;
        console.record(&Finished { operation: "latency", rounds: args.count, ok: true, skipped: Vec::new() })?;
        Ok(Code::Ok)
    })
}

/// One session for each object.
async fn cold(console: &Console, objects: &Objects, count: u32) -> Result<Histogram<u64>, Failure> {
    let replica = &objects.replica;
    let send = async |number| {
        objects.put(number)?;
        let began = Instant::now();
        let watched = Arc::new(Watched::new(console.interrupt.clone()));
        let summary = replicate::sync(&replica.vault, &replica.target, &replica.options, watched).await?;
        let elapsed = began.elapsed();
        if summary.is_identical() { Ok(elapsed) } else { Err(Failure::new(Code::Failed, "the peer does not have the object")) }
    };
    collect(console, count, send).await
}

/// All objects in one session that stays.
async fn warm(console: &Console, objects: &Objects, count: u32) -> Result<Histogram<u64>, Failure> {
    let (replica, following) = (objects.replica.clone(), Arc::new(Following::new(console.interrupt.clone())));
    let observer = following.clone();
    let mut session = tokio::spawn(async move { replicate::follow(&replica.vault, &replica.target, &replica.options, observer).await });
    let measuring = async {
        within(following.live.subscribe().wait_for(|live| *live)).await?;
        let send = async |number| {
            let dot = objects.put(number)?;
            let began = Instant::now();
            within(following.applied.subscribe().wait_for(|applied| applied.contains(&dot))).await?;
            Ok(began.elapsed())
        };
        collect(console, count, send).await
    };
    let failed = |error: JoinError| Failure::new(Code::Failed, error.to_string());
    let histogram = tokio::select! {
        // It stays until somebody says stop: the user, if it has not failed.
        ended = &mut session => return Err(ended.map_err(failed)?.map_or_else(Failure::from, |_| Failure::interrupted())),
        histogram = measuring => histogram,
    };
    following.stop.store(true, Relaxed);
    session.await.map_err(failed)??;
    histogram
}

/// Waits for something that the other end has to say.
async fn within<T>(news: impl Future<Output = Result<T, RecvError>>) -> Result<(), Failure> {
    match tokio::time::timeout(PATIENCE, news).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Failure::new(Code::Unreachable, format!("the other end has not answered for {} s", PATIENCE.as_secs()))),
    }
}

/// What any way to send has in common: so many objects, one after the other.
async fn collect(console: &Console, count: u32, send: impl AsyncFn(u32) -> Result<Duration, Failure>) -> Result<Histogram<u64>, Failure> {
    let mut histogram = Histogram::new_with_bounds(1, LONGEST_US, DIGITS).map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
    for number in 0..count + WARM_UP {
        console.check()?;
        let elapsed = send(number).await?;
        if number >= WARM_UP {
            histogram.saturating_record(elapsed.as_micros() as u64);
        }
    }
    Ok(histogram)
}

/// What is sent: objects of one size, put into a replica one by one.
struct Objects {
    replica: Arc<Replica>,
    bytes: u64,
}

impl Objects {
    /// Makes one durable here; returns the event that it is.
    fn put(&self, number: u32) -> Result<Dot, Failure> {
        let mut value = vec![0; self.bytes as usize];
        Random::new(u64::from(number) + 100).fill(&mut value);
        let key = Key::new(format!("object-{number}").into_bytes()).map_err(|error| Failure::usage(error.to_string()))?;
        let vault = &self.replica.vault;
        vault.put(&key, &mut Cursor::new(value), &Unwatched)?;
        let author = vault.info().replica;
        Ok(Dot { author, sequence: vault.store().frontier().sequence_of(&author) })
    }
}

/// What a session that stays has told so far.
#[derive(Debug)]
struct Following {
    live: watch::Sender<bool>,
    /// By the peer, durably.
    applied: watch::Sender<Frontier>,
    stop: AtomicBool,
    interrupt: Interrupt,
}

impl Following {
    fn new(interrupt: Interrupt) -> Self {
        Self { live: watch::Sender::new(false), applied: watch::Sender::new(Frontier::new()), stop: AtomicBool::new(false), interrupt }
    }
}

impl Observer for Following {
    fn progress(&self, progress: Progress) {
        match progress {
            Progress::Live => drop(self.live.send_replace(true)),
            Progress::PeerApplied { frontier, .. } => drop(self.applied.send_replace(frontier)),
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Relaxed) || self.interrupt.is_set()
    }
}

fn record(histogram: &Histogram<u64>, start: Start, over: Over, args: &LatencyArgs) -> Latency {
    Latency {
        operation: "latency",
        start,
        transport: over.name(),
        object_bytes: args.size.bytes,
        count: histogram.len(),
        mean_us: histogram.mean(),
        percentiles: PERCENTILES.iter().map(|at| (*at, histogram.value_at_percentile(*at))).collect(),
    }
}

fn text(results: &[Latency]) -> String {
    let names: Vec<String> = PERCENTILES.iter().map(|at| if *at == 0.0 { "least".into() } else { format!("p{at}") }).collect();
    let head: Vec<&str> = ["what (ms)"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let line = |result: &Latency| {
        let times = result.percentiles.iter().map(|(_, us)| format!("{:.2}", *us as f64 / 1e3));
        std::iter::once(format!("{} x {} B, {}, {}", result.count, result.object_bytes, result.transport, result.start.name()))
            .chain(times)
            .collect()
    };
    table(&head, &results.iter().map(line).collect::<Vec<_>>())
}
