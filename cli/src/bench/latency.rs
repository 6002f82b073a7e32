//! `latency`: how long one small object takes until the peer has it, durably.
//!
//! *Cold* is all that a `push` does when there is no session yet: dial, handshake, the object, and the peer's `Applied`, which says that it
//! is on its disk. The object is put into the vault before the clock starts. Percentiles are those of an HDR histogram (hdrhistogram.org)
//! with three significant digits.

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
    render::Record,
};
use hdrhistogram::Histogram;
use mirror_engine::{event::Key, replicate, vault::Unwatched};
use serde::Serialize;
use std::{io::Cursor, sync::Arc, time::Duration};

/// Shown, and kept in the record.
const PERCENTILES: [f64; 9] = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 100.0];
/// Not counted: code and connection tables are touched for the first time.
const WARM_UP: u32 = 3;
const DIGITS: u8 = 3;
/// Ten minutes; what takes longer counts as that.
const LONGEST_US: u64 = 600_000_000;

/// Whether a session is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    /// Each object dials anew.
    Cold,
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
            console.step(&format!("{} objects over {}, cold", args.count, over.name()))?;
            let histogram = cold(console, &bed, &mut peer, *over, args).await?;
            results.push(record(&histogram, Start::Cold, *over, args));
        }
        peer.part().await;
        results.iter().try_for_each(|result| console.record(result))?;
        console.text(|| text(&results))?;
        console.record(&Finished { operation: "latency", rounds: args.count, ok: true, skipped: Vec::new() })?;
        Ok(Code::Ok)
    })
}

/// One session for each object.
async fn cold(console: &Console, bed: &Bed, peer: &mut Peer, over: Over, args: &LatencyArgs) -> Result<Histogram<u64>, Failure> {
    let replica = peer.replica(bed, over).await?;
    let send = async |number| {
        put(&replica, number, args.size.bytes)?;
        let began = std::time::Instant::now();
        let watched = Arc::new(Watched::new(console.interrupt.clone()));
        let summary = replicate::sync(&replica.vault, &replica.target, &replica.options, watched).await?;
        let elapsed = began.elapsed();
        if summary.is_identical() { Ok(elapsed) } else { Err(Failure::new(Code::Failed, "the peer does not have the object")) }
    };
    collect(console, args.count, send).await
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

fn put(replica: &Replica, number: u32, bytes: u64) -> Result<(), Failure> {
    let mut value = vec![0; bytes as usize];
    Random::new(u64::from(number) + 100).fill(&mut value);
    let key = Key::new(format!("object-{number}").into_bytes()).map_err(|error| Failure::usage(error.to_string()))?;
    replica.vault.put(&key, &mut Cursor::new(value), &Unwatched)?;
    Ok(())
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
        std::iter::once(format!("{} x {} B, {}, cold", result.count, result.object_bytes, result.transport)).chain(times).collect()
    };
    table(&head, &results.iter().map(line).collect::<Vec<_>>())
}
