//! `link` and `local`: the raw link, the engine over it, and the ratio.

use super::{
    args::{LinkArgs, LocalArgs, MoveArgs},
    bare,
    bed::{self, Bed},
    block_on,
    console::Console,
    control::{Peer, RawKind, Replica},
    measurement::{Finished, Over, Row, Sample, Unit, Wire, rows_text},
};
use crate::{
    failure::{Code, Failure},
    interrupt::Interrupt,
};
use mirror_engine::{
    io::usage::{self, Usage},
    replicate::{self, Observer, Progress, Summary},
};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A point of the curve of throughput, at most.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

pub(super) fn link(console: &Console, args: &LinkArgs) -> Result<Code, Failure> {
    run(console, "link", Some(&args.target), &args.what)
}

pub(super) fn local(console: &Console, args: &LocalArgs) -> Result<Code, Failure> {
    run(console, "local", None, &args.what)
}

fn run(console: &Console, operation: &'static str, target: Option<&str>, what: &MoveArgs) -> Result<Code, Failure> {
    block_on(async {
        let bed = Bed::new()?;
        let data = bed.file(what.size.bytes, 1)?;
        let mut peer = Peer::reach(target).await?;
        let mut raw = [Row::new("raw tcp", Unit::Bits, Wire::Plain), Row::new("raw udp", Unit::Bits, Wire::Plain)];
        let name = |over: &Over| format!("mirror push, {}", over.name());
        let mut engine: Vec<Row> = what.transport.iter().map(|over| Row::new(name(over), Unit::Bits, Wire::Encrypted)).collect();
        // The first touch of memory and of code is not the link's doing.
        push_once(console, &bed, &mut peer, what.transport[0], &data).await?;
        for round in 1..=what.rounds {
            console.step(&format!("round {round} of {}", what.rounds))?;
            for (row, kind) in raw.iter_mut().zip([RawKind::Tcp, RawKind::Udp]) {
                row.samples.push(raw_sample(&mut peer, kind, what.raw_time.0).await?);
            }
            for (row, over) in engine.iter_mut().zip(&what.transport) {
                row.samples.push(push_once(console, &bed, &mut peer, *over, &data).await?);
            }
        }
        peer.part().await;
        let ceiling = raw[0].rate();
        let rows: Vec<&Row> = raw.iter().chain(&engine).collect();
        show(console, operation, what.rounds, &rows, Some(ceiling))
    })
}

/// Records, a table, and the end.
pub(super) fn show(console: &Console, operation: &str, rounds: u32, rows: &[&Row], raw: Option<f64>) -> Result<Code, Failure> {
    let records: Vec<_> = rows.iter().map(|row| row.record(operation, raw)).collect();
    records.iter().try_for_each(|record| console.record(record))?;
    console.text(|| rows_text(&records))?;
    console.record(&Finished { operation, rounds, ok: true, skipped: Vec::new() })?;
    Ok(Code::Ok)
}

/// The raw link, once.
pub(super) async fn raw_sample(peer: &mut Peer, kind: RawKind, time: Duration) -> Result<Sample, Failure> {
    let (to, token) = peer.raw(kind, time).await?;
    let (before, (there_before, _)) = (own()?, peer.usage().await?);
    let sent = bare::send(kind, to, &token, time).await?;
    let sender = own()?.cpu.saturating_sub(before.cpu);
    let received = peer.raw_end().await?;
    let (there, _) = peer.usage().await?;
    if kind == RawKind::Udp && sent.count > 0 && received.count == 0 {
        return Err(Failure::new(Code::Unreachable, "no datagram arrived at the other end").hint("let UDP pass between the hosts"));
    }
    let receiver = Some(there.saturating_sub(there_before));
    Ok(Sample { sender: Some(sender), receiver, ..Sample::of(received.rate.bytes, received.rate.elapsed) })
}

/// Puts `data` into a replica of a vault there that is empty, and pushes it: the push is what is measured.
pub(super) async fn push_once(console: &Console, bed: &Bed, peer: &mut Peer, over: Over, data: &Path) -> Result<Sample, Failure> {
    console.check()?;
    let replica = peer.replica(bed, over).await?;
    bed::add(&replica.vault, data)?;
    let sample = push(console, peer, &replica).await;
    bed::remove(replica.vault.dir());
    sample
}

async fn push(console: &Console, peer: &mut Peer, replica: &Replica) -> Result<Sample, Failure> {
    let (before, (there_before, _)) = (own()?, peer.usage().await?);
    let watched = Arc::new(Watched::new(console.interrupt.clone()));
    let summary = replicate::sync(&replica.vault, &replica.target, &replica.options, watched.clone()).await?;
    let (after, (there, there_peak)) = (own()?, peer.usage().await?);
    if !summary.is_identical() {
        return Err(Failure::new(Code::Failed, "the replicas are not identical after the push"));
    }
    Ok(Sample {
        rate: summary.goodput_bits_per_s() as f64,
        bytes: summary.bytes_sent,
        elapsed: summary.elapsed,
        sender: Some(after.cpu.saturating_sub(before.cpu)),
        receiver: Some(there.saturating_sub(there_before)),
        peak_bytes: Some(after.peak_bytes.max(there_peak)),
        progress: watched.curve(&summary),
        limiting_stage: Some(summary.limiting_stage.name().to_owned()),
    })
}

fn own() -> Result<Usage, Failure> {
    usage::own().map_err(|error| Failure::io("cannot tell what this process costs", &error))
}

/// Takes down how far a push is, as it goes.
#[derive(Debug)]
pub(super) struct Watched {
    began: Instant,
    interrupt: Interrupt,
    curve: Mutex<(u64, Vec<(Duration, u64)>)>,
}

impl Watched {
    pub(super) fn new(interrupt: Interrupt) -> Self {
        Self { began: Instant::now(), interrupt, curve: Mutex::new((0, Vec::new())) }
    }

    /// Bytes sent until then, ending with all of them.
    fn curve(&self, summary: &Summary) -> Vec<(Duration, u64)> {
        let mut curve = self.curve.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        curve.retain(|(at, _)| *at < summary.elapsed);
        curve.push((summary.elapsed, summary.bytes_sent));
        curve
    }
}

impl Observer for Watched {
    fn progress(&self, progress: Progress) {
        let Progress::Sent { bytes, .. } = progress else { return };
        let (at, mut curve) = (self.began.elapsed(), self.curve.lock().unwrap_or_else(PoisonError::into_inner));
        curve.0 += bytes;
        let sum = curve.0;
        if curve.1.last().is_none_or(|(last, _)| at.saturating_sub(*last) >= SAMPLE_INTERVAL) {
            curve.1.push((at, sum));
        }
    }

    fn cancelled(&self) -> bool {
        self.interrupt.is_set()
    }
}
