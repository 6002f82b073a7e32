//! `limits.toml`, and baselines: what was measured once, under a name.

use super::{GateArgs, Metric};
use crate::{
    failure::Failure,
    render::{path_text, rfc3339},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    process::Command,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// `perf/limits.toml`. Every name in it is that of a metric.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// The most that holds on any machine.
    pub(super) most: BTreeMap<String, f64>,
    /// The least that holds on any machine.
    #[serde(default)]
    pub(super) least: BTreeMap<String, f64>,
    pub(super) baseline: Growth,
    pub(super) against: Slowdown,
}

/// How many times its baseline a number may be.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Growth {
    /// Where nothing else is said.
    pub(super) default: f64,
    /// Wall times, on the machine that was named.
    pub(super) wall: f64,
    /// Numbers with a noise of their own.
    #[serde(default)]
    pub(super) metrics: BTreeMap<String, f64>,
}

/// How many times as slow as the older build the new one may surely be.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slowdown {
    pub(super) cpu: f64,
    pub(super) wall: f64,
    /// For the same data in the same vault.
    pub(super) instructions: f64,
}

impl Limits {
    pub(super) fn read(perf: &Path) -> Result<Self, Failure> {
        let file = perf.join("limits.toml");
        let text = fs::read_to_string(&file).map_err(|error| {
            Failure::reading(&file, &error).hint("run it at the top of the repository, or say where limits.toml is: --perf DIR")
        })?;
        toml::from_str(&text).map_err(|error| Failure::usage(format!("{} is not valid", path_text(&file))).cause(error.to_string()))
    }
}

/// Numbers of one machine at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::bench) struct Baseline {
    /// System, processor architecture and cores.
    pub(in crate::bench) machine: String,
    /// Of the sources, as git names them; empty without git.
    pub(in crate::bench) revision: String,
    pub(in crate::bench) measured: String,
    pub(in crate::bench) measured_ms: u64,
    pub(in crate::bench) size_bytes: u64,
    pub(in crate::bench) metrics: BTreeMap<String, f64>,
    pub(in crate::bench) units: BTreeMap<String, String>,
}

impl Baseline {
    pub(super) fn of(args: &GateArgs, metrics: &[Metric]) -> Self {
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let measured_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        Self {
            machine: format!("{} {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH),
            revision: revision(),
            measured: rfc3339(measured_ms as i64),
            measured_ms,
            size_bytes: args.size.bytes,
            metrics: metrics.iter().map(|metric| (metric.name.clone(), rounded(metric.value))).collect(),
            units: metrics.iter().map(|metric| (metric.name.clone(), metric.unit.to_owned())).collect(),
        }
    }

    /// None if there is no such file.
    pub(super) fn read(file: &Path) -> Result<Option<Self>, Failure> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::reading(file, &error)),
        };
        let invalid = |error: serde_json::Error| Failure::usage(format!("{} is not valid", path_text(file))).cause(error.to_string());
        serde_json::from_str(&text).map(Some).map_err(invalid)
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Failure::usage(error.to_string()))?;
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).map_err(|error| Failure::writing(dir, &error))?;
        }
        fs::write(file, text + "\n").map_err(|error| Failure::writing(file, &error))
    }
}

/// Six digits say more than any of these numbers means.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

fn revision() -> String {
    let asked = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    asked
        .ok()
        .filter(|asked| asked.status.success())
        .map(|asked| String::from_utf8_lossy(&asked.stdout).trim().to_owned())
        .unwrap_or_default()
}
