//! `compare`: one file from one process to another over the loopback interface, by whatever is installed.
//!
//! The time is that of the sending program from its start to its end ([`peers`] says where it has none), so that nobody's handshake is left
//! out; CPU-seconds are those of all processes of both ends from start to end, as `wait4` tells them; peak memory is that of the largest
//! process. Daemons are ours, on free ports, and end before the next program starts. What is received must have the right length, or there is
//! no figure.

mod peers;
mod tools;

use super::{
    args::CompareArgs,
    bed::{self, Bed},
    console::{Console, Skipped},
    measurement::{Finished, Row, Sample, Unit, rows_text},
    program::{Mirror, is_installed},
};
use crate::failure::{Code, Failure};
use std::path::PathBuf;
use tools::{TOOLS, Tool};

/// What every program works with.
pub(super) struct Setup {
    bed: Bed,
    data: PathBuf,
    bytes: u64,
    mirror: Option<Mirror>,
}

pub(super) fn compare(console: &Console, args: &CompareArgs) -> Result<Code, Failure> {
    let tools = chosen(args)?;
    let bed = Bed::new()?;
    let data = bed.file(args.size.bytes, 1)?;
    let setup = Setup { bed, data, bytes: args.size.bytes, mirror: Mirror::find(args.mirror.as_deref()).ok() };
    let (tools, missing): (Vec<&Tool>, Vec<&Tool>) = tools.into_iter().partition(|tool| setup.lacks(tool).is_none());
    let mut skipped: Vec<Skipped> = missing.iter().map(|tool| Skipped::new(tool.name, setup.lacks(tool).unwrap_or_default())).collect();
    let mut rows: Vec<Row> = tools.iter().map(|tool| Row::new(tool.name, Unit::Bits, tool.wire)).collect();
    for round in 1..=args.rounds {
        console.step(&format!("round {round} of {}", args.rounds))?;
        for (tool, row) in tools.iter().zip(&mut rows) {
            console.check()?;
            match setup.run(tool) {
                Ok(sample) => row.samples.push(sample),
                Err(failure) => {
                    skipped.push(Skipped::new(tool.name, failure.causes.iter().fold(failure.message, |all, c| format!("{all}: {c}"))))
                }
            }
        }
    }
    rows.retain(|row| row.samples.len() == args.rounds as usize);
    finish(console, args, &rows, &skipped)
}

fn chosen(args: &CompareArgs) -> Result<Vec<&'static Tool>, Failure> {
    let names: Vec<&str> = TOOLS.iter().map(|tool| tool.name).collect();
    if let Some(unknown) = args.only.iter().find(|only| !names.contains(&only.as_str())) {
        return Err(Failure::usage(format!("nothing is called {unknown}")).hint(format!("these are: {}", names.join(", "))));
    }
    let wanted = |tool: &&Tool| args.only.is_empty() || args.only.iter().any(|only| only == tool.name);
    Ok(TOOLS.iter().filter(wanted).collect())
}

fn finish(console: &Console, args: &CompareArgs, rows: &[Row], skipped: &[Skipped]) -> Result<Code, Failure> {
    let records: Vec<_> = rows.iter().map(|row| row.record("compare", None)).collect();
    records.iter().try_for_each(|record| console.record(record))?;
    console.text(|| rows_text(&records))?;
    skipped.iter().try_for_each(|skipped| console.skipped(skipped))?;
    let names = skipped.iter().map(|skipped| skipped.what.clone()).collect();
    console.record(&Finished { operation: "compare", rounds: args.rounds, ok: !rows.is_empty(), skipped: names })?;
    Ok(if rows.is_empty() { Code::Partial } else { Code::Ok })
}

impl Setup {
    /// Why a program cannot be run.
    fn lacks(&self, tool: &Tool) -> Option<String> {
        if tool.needs.is_empty() && self.mirror.is_none() {
            return Some("there is no mirror beside mirror-bench: cargo build --release, or --mirror FILE".into());
        }
        tool.needs.iter().find(|name| !is_installed(name)).map(|name| format!("{name} is not installed"))
    }

    /// In a directory of its own, which goes at the end.
    fn run(&self, tool: &Tool) -> Result<Sample, Failure> {
        let place = self.bed.fresh("place");
        std::fs::create_dir_all(&place).map_err(|error| Failure::writing(&place, &error))?;
        let sample = (tool.run)(self, &place);
        bed::remove(&place);
        sample
    }
}
