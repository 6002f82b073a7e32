//! Instructions, counted by valgrind's cachegrind: the same to a fraction of a percent whatever else the machine does.
//!
//! Valgrind runs one thread at a time and knows no AVX-512, so that what it counts is the program on a plainer processor. `add` only: a push
//! waits for its peer, and how often it looks is up to the scheduler.

use super::Metric;
use crate::{
    bench::{
        bed::Bed,
        console::Skipped,
        measurement::GIB,
        program::{Mirror, is_installed},
    },
    failure::Failure,
};
use std::{ffi::OsStr, fs};

/// Valgrind is some fifty times slower: a quarter of the usual data will do.
const SHARE: u64 = 4;

pub(super) fn instructions(bed: &Bed, mirror: &Mirror, bytes: u64) -> Result<Vec<Metric>, Skipped> {
    if !is_installed("valgrind") {
        return Err(Skipped::new("instructions", "valgrind is not installed"));
    }
    let giga = giga_per_gib(bed, mirror, bytes).map_err(|failure| Skipped::new("instructions", failure.message))?;
    Ok(vec![Metric::count("add.instructions", giga, "G/GiB")])
}

/// What the second half of the data takes, so that starting the program does not count.
fn giga_per_gib(bed: &Bed, mirror: &Mirror, bytes: u64) -> Result<f64, Failure> {
    let bytes = (bytes / SHARE).max(2);
    let (half, whole) = (count(bed, mirror, bytes / 2)?, count(bed, mirror, bytes)?);
    Ok(whole.saturating_sub(half) as f64 / (bytes - bytes / 2) as f64 * GIB / 1e9)
}

/// Of `add` of so many bytes, from start to end.
fn count(bed: &Bed, mirror: &Mirror, bytes: u64) -> Result<u64, Failure> {
    let (device, data, log, out) = (mirror.device(bed)?, bed.file(bytes, 1)?, bed.fresh("valgrind"), bed.fresh("cachegrind"));
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
