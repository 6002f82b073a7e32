//! `ingest`: `add` by size of file.

use super::{
    args::IngestArgs,
    bed::{self, Bed},
    console::Console,
    link::show,
    measurement::{Row, Sample, Unit, Wire},
};
use crate::{
    failure::{Code, Failure},
    render::bytes_text,
};
use mirror_engine::io::usage;
use std::{path::Path, time::Instant};

/// Of files smaller than this there would be more than a directory tree is quickly made of.
const FILES_MAX: u64 = 100_000;

pub(super) fn ingest(console: &Console, args: &IngestArgs) -> Result<Code, Failure> {
    let bed = Bed::new()?;
    let mut cases = Vec::new();
    for size in args.files.iter().filter(|size| size.bytes > 0) {
        let count = (args.size.bytes / size.bytes).clamp(1, FILES_MAX);
        console.step(&format!("making {count} files of {}", bytes_text(size.bytes)))?;
        let name = format!("add, {count} x {}", bytes_text(size.bytes));
        cases.push((bed.files(count as u32, size.bytes)?, Row::new(name, Unit::Bits, Wire::None)));
    }
    if cases.is_empty() {
        return Err(Failure::usage("there is no size of file to measure").hint("name one: --file 1MiB"));
    }
    for round in 1..=args.rounds {
        console.step(&format!("round {round} of {}", args.rounds))?;
        for (data, row) in &mut cases {
            console.check()?;
            row.samples.push(add_once(&bed, data)?);
        }
    }
    let rows: Vec<&Row> = cases.iter().map(|(_, row)| row).collect();
    show(console, "ingest", args.rounds, &rows, None)
}

/// Into a vault of its own.
pub(super) fn add_once(bed: &Bed, data: &Path) -> Result<Sample, Failure> {
    let own = || usage::own().map_err(|error| Failure::io("cannot tell what this process costs", &error));
    let vault = bed.vault()?;
    let (before, began) = (own()?, Instant::now());
    let report = bed::add(&vault, data)?;
    let (elapsed, after) = (began.elapsed(), own()?);
    bed::remove(vault.dir());
    let sender = Some(after.cpu.saturating_sub(before.cpu));
    Ok(Sample { sender, peak_bytes: Some(after.peak_bytes), ..Sample::of(report.bytes_read, elapsed) })
}
