//! `--against`: an older build and the new one in turn, many times, and how sure it is that the new one is slower.
//!
//! Each pair runs `add` and `push` (with `serve` at the other end) of both builds right after each other, in an order that alternates; processor
//! time is that of whole processes, as `wait4` tells it. A machine that gets slower meanwhile slows both. The ratio of each pair, and the bootstrap
//! over all of them, give bounds; the gate fails when even the lower one is beyond the limit. See `statistics.rs`.

use super::{Metric, instructions, limits::Limits, verdict::Check};
use crate::{
    bench::{
        args::GateArgs,
        bed::Bed,
        console::Console,
        program::{Device, Mirror, run},
        statistics::{Ratio, ratio_of_pairs},
    },
    failure::Failure,
    render::Record,
};
use serde::Serialize;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// What is compared, in the order of [`Costs`].
const NAMES: [&str; 4] = ["add.cpu", "push.cpu", "add.wall", "push.wall"];
/// Seconds of one run of one build.
type Costs = [f64; 4];

/// One comparison: how many times what the old build costs.
#[derive(Debug, Serialize)]
struct Pairs {
    name: &'static str,
    pairs: usize,
    old_median_s: f64,
    new_median_s: f64,
    #[serde(flatten)]
    ratio: Ratio,
}

impl Record for Pairs {
    const TYPE: &'static str = "pairs";
}

pub(super) fn against(console: &Console, args: &GateArgs, limits: &Limits, old: &str) -> Result<Vec<Check>, Failure> {
    let new = Mirror::find(args.mirror.as_deref())?;
    let old = older(console, old)?;
    let bed = Bed::new()?;
    let data = bed.file(args.size.bytes, 1)?;
    // Memory and pages that are touched for the first time are nobody's fault.
    let paired = Paired::new(&bed, &old)?;
    costs(&bed, &old, &paired, &data)?;
    costs(&bed, &new, &paired, &data)?;
    let mut pairs = Vec::new();
    for pair in 0..args.pairs {
        if pair % 5 == 0 {
            console.step(&format!("pair {} of {}", pair + 1, args.pairs))?;
        }
        console.check()?;
        pairs.push(one_pair(&bed, [&old, &new], &paired, &data, pair)?);
    }
    let mut checks = judge(console, limits, &pairs)?;
    if args.instructions {
        console.step("instructions of both, under valgrind")?;
        checks.push(instructions_of_both(&bed, &old, &new, args.size.bytes, limits)?);
    }
    Ok(checks)
}

/// See `instructions.rs`.
fn instructions_of_both(bed: &Bed, old: &Mirror, new: &Mirror, bytes: u64, limits: &Limits) -> Result<Check, Failure> {
    let value =
        instructions::ratio(bed, old, new, bytes).map_err(|skipped| Failure::usage(skipped.reason).hint("leave --instructions out"))?;
    Ok(Check::at_most(&Metric::count("against.add.instructions", value, "times"), "against", limits.against.instructions))
}

/// Old first in even pairs, new first in odd ones.
fn one_pair(bed: &Bed, [old, new]: [&Mirror; 2], paired: &Paired, data: &Path, pair: u32) -> Result<(Costs, Costs), Failure> {
    if pair.is_multiple_of(2) {
        let first = costs(bed, old, paired, data)?;
        Ok((first, costs(bed, new, paired, data)?))
    } else {
        let first = costs(bed, new, paired, data)?;
        Ok((costs(bed, old, paired, data)?, first))
    }
}

/// Two devices with an empty vault each, that every run gets a copy of: chunks are cut where the vault's key says, and vaults with keys of their
/// own would differ by some percent of the work.
struct Paired {
    origin: Device,
    replica: Device,
}

impl Paired {
    fn new(bed: &Bed, mirror: &Mirror) -> Result<Self, Failure> {
        let origin = mirror.device(bed)?;
        let serving = mirror.serve(bed, &origin)?;
        let replica = mirror.clone_of(bed, &origin, &serving)?;
        serving.running.stop()?;
        Ok(Self { origin, replica })
    }
}

fn judge(console: &Console, limits: &Limits, pairs: &[(Costs, Costs)]) -> Result<Vec<Check>, Failure> {
    let mut checks = Vec::new();
    for (at, name) in NAMES.into_iter().enumerate() {
        let each: Vec<(f64, f64)> = pairs.iter().map(|(old, new)| (old[at], new[at])).collect();
        let ratio = ratio_of_pairs(&each);
        let median = |of: fn(&(f64, f64)) -> f64| crate::bench::statistics::median(&each.iter().map(of).collect::<Vec<_>>());
        let record = Pairs { name, pairs: each.len(), old_median_s: median(|pair| pair.0), new_median_s: median(|pair| pair.1), ratio };
        console.record(&record)?;
        console.text(|| {
            format!(
                "{name:10} {:.3} s -> {:.3} s: x {:.3} ({:.3} to {:.3})",
                record.old_median_s, record.new_median_s, ratio.median, ratio.low, ratio.high
            )
        })?;
        let limit = if name.ends_with("cpu") { limits.against.cpu } else { limits.against.wall };
        checks.push(Check {
            name: format!("against.{name}"),
            value: ratio.low,
            unit: "times, at least",
            rule: "against",
            limit,
            ok: ratio.low <= limit,
        });
    }
    Ok(checks)
}

/// One run of everything by one build.
fn costs(bed: &Bed, mirror: &Mirror, paired: &Paired, data: &Path) -> Result<Costs, Failure> {
    let (origin, replica) = (paired.origin.copy(bed)?, paired.replica.copy(bed)?);
    let added = mirror.run(bed, &replica, &[OsStr::new("add"), data.as_os_str()])?;
    let serving = mirror.serve(bed, &origin)?;
    let (pushed, _) = mirror.push(bed, &replica, &serving, "tcp")?;
    let served = serving.running.stop()?;
    [origin, replica].iter().for_each(|device| device.remove());
    let push_cpu = pushed.usage.cpu + served.usage.cpu;
    Ok([added.usage.cpu, push_cpu, added.elapsed, pushed.elapsed].map(|time| time.as_secs_f64()))
}

/// A program, or a revision of this repository, which is built in a work tree of its own.
fn older(console: &Console, named: &str) -> Result<Mirror, Failure> {
    let program = Path::new(named);
    if program.is_file() {
        return Mirror::find(Some(program));
    }
    let bed = Bed::new()?;
    let commit = git(&bed, &["rev-parse", "--verify", "--end-of-options", &format!("{named}^{{commit}}")])
        .map_err(|failure| failure.hint("--against takes a program mirror, or a git revision of the repository you are in"))?;
    let built = kept_program(&bed, &commit)?;
    if !built.is_file() {
        console.step(&format!("building {named} ({commit})"))?;
        build(&bed, &commit, &built)?;
    }
    Mirror::find(Some(&built))
}

/// Where a build of a commit stays, so that it is built once.
fn kept_program(bed: &Bed, commit: &str) -> Result<PathBuf, Failure> {
    let top = PathBuf::from(git(bed, &["rev-parse", "--show-toplevel"])?);
    Ok(top.join("target").join("against").join(format!("mirror-{commit}")))
}

fn build(bed: &Bed, commit: &str, to: &Path) -> Result<(), Failure> {
    let (tree, target) = (bed.fresh("tree"), to.parent().unwrap_or(Path::new("target")).join("target"));
    let path = tree.to_string_lossy().into_owned();
    git(bed, &["worktree", "add", "--detach", &path, commit])?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--quiet", "--bin", "mirror", "--target-dir"]).arg(&target).current_dir(&tree);
    let built = run(bed, &mut cargo);
    drop(git(bed, &["worktree", "remove", "--force", &path]));
    built?;
    std::fs::copy(target.join("release").join("mirror"), to).map(drop).map_err(|error| Failure::writing(to, &error))
}

fn git(bed: &Bed, args: &[&str]) -> Result<String, Failure> {
    Ok(run(bed, Command::new("git").args(args))?.stdout.trim().to_owned())
}
