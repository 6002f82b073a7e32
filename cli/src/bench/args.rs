//! What was typed: the commands and flags of `mirror-bench`.

use super::measurement::Over;
use crate::args::{Size, Span};
use clap::{ArgAction, Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  mirror-bench local                          this machine alone: raw TCP and UDP, then the engine
  mirror-bench serve --listen 0.0.0.0:7750    on the other host; prints a target
  mirror-bench link TARGET --size 1GiB        here: raw ceiling, engine, and the ratio
  mirror-bench compare --size 256MiB          the same data with rsync, rclone, restic and others
  mirror-bench --json local > local.json && mirror-bench report local.json -o report.html
  mirror-bench gate                           counts against perf/limits.toml
  mirror-bench gate --against main            old and new in interleaved pairs

Exit codes: 0 ok, 1 failed (also: a gate has), 2 usage, 3 something could not be measured,
130 interrupted.";

/// Measures mirror: against the raw link, against other programs, and against itself
///
/// Makes throw-away vaults in the temporary directory (TMPDIR) and removes them. Sizes are written like 64MiB or 1GB.
#[derive(Debug, Parser)]
#[command(name = "mirror-bench", version, disable_version_flag = true, arg_required_else_help = true, max_term_width = 100, after_long_help = EXAMPLES)]
pub(super) struct BenchCli {
    /// Print JSON lines to stdout and nothing else there
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Print the version
    #[arg(long, action = ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    pub(super) command: BenchCommand,
}

/// One variant a command, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Be the other end for link, small and latency; prints a target to paste there
    Serve(ServeArgs),
    /// Raw TCP and UDP to a host that serves, the engine over the same link, and the ratio
    Link(LinkArgs),
    /// The same between two processes on this machine
    Local(LocalArgs),
    /// Files of several sizes into a vault
    Ingest(IngestArgs),
    /// Many small objects pushed to a peer
    Small(SmallArgs),
    /// How long one small object takes until the peer has it: in a session of its own, and in one that stays
    Latency(LatencyArgs),
    /// The same data with other programs, as far as they are installed
    Compare(CompareArgs),
    /// Counts, ratios and A/B pairs against limits and a baseline
    Gate(GateArgs),
    /// One HTML page from what --json printed
    Report(ReportArgs),
}

/// `serve`
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Where to listen; without a port of its own (0) the system chooses. Further ports are the system's choice too
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7750")]
    pub(super) listen: SocketAddr,
    /// Serve one client, then end
    #[arg(long, hide = true)]
    pub(super) once: bool,
}

/// What is moved, over what, how often.
#[derive(Debug, Args)]
pub(super) struct MoveArgs {
    /// Bytes to push in each round
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub(super) size: Size,
    /// What carries them; repeat for several
    #[arg(long, value_enum, value_name = "NAME", default_values_t = [Over::Tcp, Over::Quic])]
    pub(super) transport: Vec<Over>,
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
    /// How long each raw measurement sends
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub(super) raw_time: Span,
}

/// `link`
#[derive(Debug, Args)]
pub(super) struct LinkArgs {
    /// What `mirror-bench serve` printed on the other host
    pub(super) target: String,
    #[command(flatten)]
    pub(super) what: MoveArgs,
}

/// `local`
#[derive(Debug, Args)]
pub(super) struct LocalArgs {
    #[command(flatten)]
    pub(super) what: MoveArgs,
}

/// `ingest`
#[derive(Debug, Args)]
pub(super) struct IngestArgs {
    /// Size of each file; repeat for several
    #[arg(long = "file", value_name = "SIZE", default_values = ["4KiB", "64KiB", "1MiB", "64MiB"])]
    pub(super) files: Vec<Size>,
    /// Bytes in all, for each size of file
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(super) size: Size,
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
}

/// `small`
#[derive(Debug, Args)]
pub(super) struct SmallArgs {
    /// What `mirror-bench serve` printed on the other host (default: a second process here)
    pub(super) target: Option<String>,
    /// Objects of 1 to 16 KiB
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) count: u32,
    /// What carries them; repeat for several
    #[arg(long, value_enum, value_name = "NAME", default_values_t = [Over::Tcp, Over::Quic])]
    pub(super) transport: Vec<Over>,
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
}

/// `latency`
#[derive(Debug, Args)]
pub(super) struct LatencyArgs {
    /// What `mirror-bench serve` printed on the other host (default: a second process here)
    pub(super) target: Option<String>,
    /// Bytes of the object
    #[arg(long, value_name = "SIZE", default_value = "1KiB")]
    pub(super) size: Size,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) count: u32,
    /// What carries it; repeat for several
    #[arg(long, value_enum, value_name = "NAME", default_values_t = [Over::Tcp, Over::Quic])]
    pub(super) transport: Vec<Over>,
}

/// `compare`
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Bytes of the one file that each program moves
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub(super) size: Size,
    /// Only these programs; repeat for several
    #[arg(long, value_name = "NAME")]
    pub(super) only: Vec<String>,
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
    /// The program `mirror` (default: the one beside mirror-bench)
    #[arg(long, value_name = "FILE")]
    pub(super) mirror: Option<PathBuf>,
}

/// `gate`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Without flags: counts (allocations, system calls, bytes copied, bytes on the wire, round trips) and
the ratio to the raw link, each against the limit in perf/limits.toml that holds on any machine.
With --baseline NAME also against what was recorded there; with --machine NAME its wall times too.
With --against: pairs of add and push, old and new in turn; fails when the slowdown is surely beyond
the limit.")]
pub(super) struct GateArgs {
    /// Compare with perf/baselines/NAME.json too
    #[arg(long, value_name = "NAME", conflicts_with = "machine")]
    pub(super) baseline: Option<String>,
    /// This is that machine: compare with its baseline, wall times included
    #[arg(long, value_name = "NAME")]
    pub(super) machine: Option<String>,
    /// Measure and write perf/baselines/NAME.json instead of comparing
    #[arg(long, value_name = "NAME", conflicts_with_all = ["baseline", "machine", "against"])]
    pub(super) record: Option<String>,
    /// An older `mirror` to run in pairs with the new one: a program, or a git revision, which is built
    #[arg(long, value_name = "PROGRAM|REVISION")]
    pub(super) against: Option<String>,
    /// Pairs for --against
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(6..=10_000))]
    pub(super) pairs: u32,
    /// Only --against, nothing else
    #[arg(long, requires = "against")]
    pub(super) only_against: bool,
    /// Also count instructions, under valgrind (of both builds with --against); takes a minute
    #[arg(long)]
    pub(super) instructions: bool,
    /// Bytes that each measurement moves
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub(super) size: Size,
    /// Where limits.toml and baselines/ are
    #[arg(long, value_name = "DIR", default_value = "perf")]
    pub(super) perf: PathBuf,
    /// Write what was measured to this file too, as for perf/history/
    #[arg(long, value_name = "FILE")]
    pub(super) history: Option<PathBuf>,
    /// The program `mirror` (default: the one beside mirror-bench)
    #[arg(long, value_name = "FILE")]
    pub(super) mirror: Option<PathBuf>,
}

/// `report`
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Files with JSON lines that --json printed, and history files of gate
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Where to write the page
    #[arg(short, long, value_name = "FILE", default_value = "mirror-bench.html")]
    pub(super) output: PathBuf,
    /// What stands at its top
    #[arg(long, value_name = "TEXT", default_value = "mirror-bench")]
    pub(super) title: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent_and_every_argument_is_explained() {
        let mut command = BenchCli::command();
        command.build();
        BenchCli::command().debug_assert();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for arg in sub.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", sub.get_name(), arg.get_id());
            }
        }
    }
}
