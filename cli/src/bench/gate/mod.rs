//! `gate`: did it get worse? Counts first, times only where they mean something.
//!
//! ```text
//! counts      allocations, system calls, bytes copied, bytes on the wire, round trips    the same on any machine: limits.toml, baseline
//! ratio       the push over the bare link, in turn, in one process                       a floor on any machine
//! --against   old and new in turn, processor time and wall time pair by pair             a confidence bound of the slowdown
//! --machine   wall times                                                                 only against that machine's own baseline
//! ```
//! A measure that a system does not offer is skipped loudly, and never counted as passed. `perf/README.md` says what each number means.

mod against;
mod counts;
mod delay;
mod instructions;
mod limits;
mod trace;
mod verdict;

use super::{
    args::GateArgs,
    bed::Bed,
    console::{Console, Skipped},
    program::Mirror,
};
use crate::failure::{Code, Failure};
pub(super) use limits::Baseline;
use limits::Limits;
use serde::Serialize;
use std::path::PathBuf;
use verdict::Check;

/// One number of this build.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    pub(super) holds: Holds,
}

/// Where a number can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Holds {
    /// On any machine; more is worse.
    Anywhere,
    /// On any machine; less is worse.
    AnywhereAsFloor,
    /// On the machine where it was measured; more is worse.
    OnOneMachine,
}

impl Metric {
    pub(super) fn count(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, holds: Holds::Anywhere }
    }
}

/// What was measured, and what could not be.
#[derive(Debug, Default)]
struct Measured {
    metrics: Vec<Metric>,
    skipped: Vec<Skipped>,
}

pub(super) fn gate(console: &Console, args: &GateArgs) -> Result<Code, Failure> {
    let limits = Limits::read(&args.perf)?;
    let (mut checks, mut measured) = (Vec::new(), Measured::default());
    if !args.only_against {
        measured = measure(console, args)?;
        if let Some(name) = &args.record {
            return record(console, args, name, &measured);
        }
        checks.extend(verdict::against_limits(&measured.metrics, &limits));
        checks.extend(compared(args, &limits, &mut measured)?);
    }
    if let Some(old) = &args.against {
        checks.extend(against::against(console, args, &limits, old)?);
    }
    if let Some(file) = &args.history {
        Baseline::of(args, &measured.metrics).write(file)?;
    }
    verdict::conclude(console, &checks, &measured)
}

/// Against the baseline that was named, if there is one.
fn compared(args: &GateArgs, limits: &Limits, measured: &mut Measured) -> Result<Vec<Check>, Failure> {
    let Some(name) = args.machine.as_ref().or(args.baseline.as_ref()) else { return Ok(Vec::new()) };
    let Some(baseline) = Baseline::read(&baseline_file(args, name)?)? else {
        let reason =
            format!("no baseline for {name} yet: record one with mirror-bench gate --record {name}; only limits for any machine hold");
        measured.skipped.push(Skipped::new(format!("baseline {name}"), reason));
        return Ok(Vec::new());
    };
    if baseline.size_bytes != args.size.bytes {
        let failure = Failure::usage(format!("baseline {name} was measured with --size {}B", baseline.size_bytes));
        return Err(failure.hint("use the same size, or record it anew with --record"));
    }
    for missing in baseline.metrics.keys().filter(|name| !measured.metrics.iter().any(|metric| metric.name == **name)) {
        measured.skipped.push(Skipped::new(missing, format!("is in baseline {name} and was not measured now")));
    }
    Ok(verdict::against_baseline(&measured.metrics, &baseline, limits, args.machine.is_some()))
}

fn baseline_file(args: &GateArgs, name: &str) -> Result<PathBuf, Failure> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Failure::usage(format!("{name:?} cannot be the name of a baseline")).hint("letters, digits, - and _, as in ci-linux"));
    }
    Ok(args.perf.join("baselines").join(format!("{name}.json")))
}

fn record(console: &Console, args: &GateArgs, name: &str, measured: &Measured) -> Result<Code, Failure> {
    let file = baseline_file(args, name)?;
    Baseline::of(args, &measured.metrics).write(&file)?;
    measured.metrics.iter().try_for_each(|metric| console.record(metric))?;
    measured.skipped.iter().try_for_each(|skipped| console.skipped(skipped))?;
    console.talk.note(&format!("recorded {} numbers in {}", measured.metrics.len(), file.display()));
    Ok(Code::Ok)
}

impl crate::render::Record for Metric {
    const TYPE: &'static str = "metric";
}

/// Everything but pairs.
fn measure(console: &Console, args: &GateArgs) -> Result<Measured, Failure> {
    let bed = Bed::new()?;
    let data = bed.file(args.size.bytes, 1)?;
    let mut measured = Measured::default();
    measured.metrics.extend(counts::counts(console, &bed, &data)?);
    let mirror = Mirror::find(args.mirror.as_deref())?;
    console.step("system calls and bytes copied, under strace")?;
    measured.take(trace::trace(&bed, &mirror, &data));
    console.step("round trips, through a relay that delays")?;
    measured.metrics.push(delay::round_trips(&bed, &mirror)?);
    if args.instructions {
        console.step("instructions, under valgrind")?;
        measured.take(instructions::instructions(&bed, &mirror, args.size.bytes));
    }
    Ok(measured)
}

impl Measured {
    /// What a tool gave, or why it gave nothing.
    fn take(&mut self, result: Result<Vec<Metric>, Skipped>) {
        match result {
            Ok(metrics) => self.metrics.extend(metrics),
            Err(skipped) => self.skipped.push(skipped),
        }
    }
}
