//! `mirror-bench`: how fast `mirror` is here, what the machine and other programs would give, and whether it got worse.
//!
//! ```text
//! link, local     raw TCP and UDP between two ends, the engine over the same link, the ratio
//! ingest, small   files into a vault; many small objects to a peer          ─► measurements ─► report (HTML)
//! latency         round trips of one small object, cold and warm
//! compare         the same data with other programs
//! gate            counts, ratios and A/B pairs against limits and a baseline ─► ok or exit code 1
//! ```
//! The other end is always another process, on this machine or another: so the cost of each end is known by itself. Rounds are interleaved,
//! each measures everything once, and the median counts: speed drifts, and drifts for all alike. Vaults are made for the purpose, in a
//! temporary directory that is removed. Nothing is shown that was not measured: what cannot be is named, with the reason, as `skipped`.

mod args;
mod bare;
mod bed;
mod compare;
mod console;
mod control;
mod gate;
mod host;
mod ingest;
mod latency;
mod link;
mod measurement;
mod program;
mod report;
mod small;
mod statistics;

use crate::{
    config,
    failure::{Code, Failure},
    render::Format,
};
use args::{BenchCli, BenchCommand};
use console::Console;
use std::process::ExitCode;

/// One thread for the connection, one for its lanes, as in `mirror`.
const NETWORK_THREADS: usize = 2;

/// Runs what the arguments of this process say.
pub fn main() -> ExitCode {
    crate::start(run)
}

fn run(cli: BenchCli) -> ExitCode {
    let format = if cli.json { Format::Json } else { Format::Text };
    let result = Console::new(format, cli.quiet).and_then(|console| {
        let code = command(&console, cli.command)?;
        console.output.flush()?;
        Ok(code)
    });
    crate::end(result, format, config::early_style())
}

fn command(console: &Console, command: BenchCommand) -> Result<Code, Failure> {
    match command {
        BenchCommand::Serve(args) => host::serve(console, &args),
        BenchCommand::Link(args) => link::link(console, &args),
        BenchCommand::Local(args) => link::local(console, &args),
        BenchCommand::Ingest(args) => ingest::ingest(console, &args),
        BenchCommand::Small(args) => small::small(console, &args),
        BenchCommand::Latency(args) => latency::latency(console, &args),
        BenchCommand::Compare(args) => compare::compare(console, &args),
        BenchCommand::Gate(args) => gate::gate(console, &args),
        BenchCommand::Report(args) => report::report(console, &args),
    }
}

/// Runs what waits for the network.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(NETWORK_THREADS).enable_all().build();
    runtime.map_err(|error| Failure::io("cannot start the network threads", &error))?.block_on(future)
}
