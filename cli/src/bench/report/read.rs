//! What a report is made from: records of this program and of `mirror`, and history files.

use crate::{bench::gate::Baseline, failure::Failure, render::path_text};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Everything that was found, in the order of the files.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) measurements: Vec<Measurement>,
    pub(super) latencies: Vec<Latency>,
    pub(super) checks: Vec<Check>,
    pub(super) pairs: Vec<Pairs>,
    pub(super) skipped: Vec<Skipped>,
    /// Of each summary that has them: its name, and the share of each stage.
    pub(super) stages: Vec<(String, Vec<(String, f64)>)>,
    /// By time.
    pub(super) history: Vec<Baseline>,
}

/// As `measurement.rs` prints it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Measurement {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) wire: String,
    pub(super) rounds: u64,
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) ratio_to_raw: Option<f64>,
    pub(super) cpu_s_per_gib: Option<f64>,
    pub(super) peak_bytes: Option<u64>,
    pub(super) limiting_stage: Option<String>,
    #[serde(default)]
    pub(super) progress: Vec<(f64, u64)>,
}

/// As `latency.rs` prints it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Latency {
    pub(super) start: String,
    pub(super) transport: String,
    pub(super) object_bytes: u64,
    pub(super) count: u64,
    /// `[percentile, microseconds]`
    pub(super) percentiles: Vec<(f64, u64)>,
}

/// As `gate` prints it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: String,
    pub(super) rule: String,
    pub(super) limit: f64,
    pub(super) ok: bool,
}

/// As `gate --against` prints it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Pairs {
    pub(super) name: String,
    pub(super) pairs: u64,
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Skipped {
    pub(super) what: String,
    pub(super) reason: String,
}

pub(super) fn read(files: &[PathBuf]) -> Result<Found, Failure> {
    let mut found = Found::default();
    files.iter().try_for_each(|file| found.file(file))?;
    found.history.sort_by_key(|entry| entry.measured_ms);
    Ok(found)
}

impl Found {
    /// A history file is one object over many lines; all others have one on each.
    fn file(&mut self, file: &Path) -> Result<(), Failure> {
        let text = fs::read_to_string(file).map_err(|error| Failure::reading(file, &error))?;
        if let Ok(entry) = serde_json::from_str::<Baseline>(&text) {
            self.history.push(entry);
            return Ok(());
        }
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let invalid = |error: serde_json::Error| {
                let place = format!("{}, line {}, is no record", path_text(file), number + 1);
                Failure::usage(place).cause(error.to_string()).hint("give what mirror-bench --json printed, or a file of perf/history/")
            };
            let value: Value = serde_json::from_str(line).map_err(invalid)?;
            self.record(value).map_err(invalid)?;
        }
        Ok(())
    }

    /// Records of other types are no concern of a report.
    fn record(&mut self, value: Value) -> serde_json::Result<()> {
        match value["type"].as_str().unwrap_or_default() {
            "measurement" => self.measurements.push(serde_json::from_value(value)?),
            "latency" => self.latencies.push(serde_json::from_value(value)?),
            "check" => self.checks.push(serde_json::from_value(value)?),
            "pairs" => self.pairs.push(serde_json::from_value(value)?),
            "skipped" => self.skipped.push(serde_json::from_value(value)?),
            "summary" => self.summary(&value),
            _ => {}
        }
        Ok(())
    }

    /// A summary of `push`, `pull`, `sync`: `stages`, if it has them, by name with a number each, whose unit does not matter for shares.
    fn summary(&mut self, value: &Value) {
        let Some(stages) = value["stages"].as_object() else { return };
        let amounts: BTreeMap<&String, f64> = stages.iter().filter_map(|(name, amount)| Some((name, amount.as_f64()?))).collect();
        let sum: f64 = amounts.values().sum();
        if sum > 0.0 {
            let text = |name: &str| value[name].as_str().unwrap_or("?").to_owned();
            let shares = amounts.into_iter().map(|(name, amount)| (name.trim_end_matches("_ms").to_owned(), amount / sum)).collect();
            self.stages.push((format!("{} over {}", text("operation"), text("transport")), shares));
        }
    }
}
