//! Instructions, counted by valgrind's cachegrind: they do not depend on what else the machine does.
//!
//! Valgrind runs one thread at a time and knows no AVX-512, so that what it counts is the program on a plainer processor. `add` only: a push
//! waits for its peer, and how often it looks is up to the scheduler.

use super::Metric;
use crate::{
    bench::{
        bed::Bed,
        console::Skipped,
        measurement::GIB,
        program::{Device, Mirror, is_installed},
        statistics,
    },
    failure::Failure,
};
use std::{ffi::OsStr, fs, path::Path};

/// Valgrind is some fifty times slower: a quarter of the usual data will do.
const SHARE: u64 = 4;
const VAULTS: u32 = 5;

pub(super) fn instructions(bed: &Bed, mirror: &Mirror, bytes: u64) -> Result<Vec<Metric>, Skipped> {
    let giga = installed().and_then(|()| giga_per_gib(bed, mirror, bytes).map_err(|failure| skipped(&failure)))?;
    Ok(vec![Metric::count("add.instructions", giga, "G/GiB")])
}

/// How many times those of the older build, for the same data in the same vault.
pub(super) fn ratio(bed: &Bed, old: &Mirror, new: &Mirror, bytes: u64) -> Result<f64, Skipped> {
    installed()?;
    let both = || {
        let (vault, data) = (old.device(bed)?, bed.file(bytes / SHARE, 1)?);
        let old = count(bed, old, &vault, &data)?;
        Ok((old, count(bed, new, &vault, &data)?))
    };
    both().map(|(old, new)| new as f64 / old.max(1) as f64).map_err(|failure: Failure| skipped(&failure))
}

fn installed() -> Result<(), Skipped> {
    if is_installed("valgrind") { Ok(()) } else { Err(Skipped::new("instructions", "valgrind is not installed")) }
}

fn skipped(failure: &Failure) -> Skipped {
    Skipped::new("instructions", failure.causes.iter().fold(failure.message.clone(), |all, cause| format!("{all}: {cause}")))
}

/// Of several vaults the middle one: their keys decide where chunks are cut.
fn giga_per_gib(bed: &Bed, mirror: &Mirror, bytes: u64) -> Result<f64, Failure> {
    let data = bed.file(bytes / SHARE, 1)?;
    let mut counts = Vec::new();
    for _ in 0..VAULTS {
        counts.push(count(bed, mirror, &mirror.device(bed)?, &data)? as f64);
    }
    Ok(statistics::median(&counts) / (bytes / SHARE).max(1) as f64 * GIB / 1e9)
}

/// Of `add` into a copy of a vault, from start to end.
fn count(bed: &Bed, mirror: &Mirror, vault: &Device, data: &Path) -> Result<u64, Failure> {
    let (device, log, out) = (vault.copy(bed)?, bed.fresh("valgrind"), bed.fresh("cachegrind"));
    let log_flag = format!("--log-file={}", log.display());
    let out_flag = format!("--cachegrind-out-file={}", out.display());
    let valgrind = mirror.under(&["valgrind", "--tool=cachegrind", "--cache-sim=no", "--branch-sim=no", &log_flag, &out_flag]);
    valgrind.run(bed, &device, &[OsStr::new("add"), data.as_os_str()])?;
    device.remove();
    let text = fs::read_to_string(&log).map_err(|error| Failure::reading(&log, &error))?;
    refs(&text).ok_or_else(|| Failure::usage("valgrind has said no count of instructions"))
}

/// From `==7== I   refs:      1,234,567`.
fn refs(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("refs:"))?;
    let digits: String = line.rsplit_once("refs:")?.1.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_valgrind_says() {
        assert_eq!(refs("==7== Cachegrind\n==7== I refs:        1,234,567\n"), Some(1_234_567));
        assert_eq!(refs("==7== nothing"), None);
    }
}
