//! Which numbers are within their limits.

use super::{
    Holds, Measured, Metric,
    limits::{Baseline, Limits},
};
use crate::{
    bench::console::{Console, table},
    failure::{Code, Failure},
    render::Record,
};
use serde::Serialize;

/// One number and what it must not pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// `most` or `least` on any machine, `baseline`, or `against`.
    pub(super) rule: &'static str,
    pub(super) limit: f64,
    pub(super) ok: bool,
}

impl Record for Check {
    const TYPE: &'static str = "check";
}

impl Check {
    pub(super) fn at_most(metric: &Metric, rule: &'static str, limit: f64) -> Self {
        Self { name: metric.name.clone(), value: metric.value, unit: metric.unit, rule, limit, ok: metric.value <= limit }
    }

    fn at_least(metric: &Metric, rule: &'static str, limit: f64) -> Self {
        Self { ok: metric.value >= limit, ..Self::at_most(metric, rule, limit) }
    }
}

/// Against what holds on any machine.
pub(super) fn against_limits(metrics: &[Metric], limits: &Limits) -> Vec<Check> {
    let most = |metric: &Metric| limits.most.get(&metric.name).map(|limit| Check::at_most(metric, "most", *limit));
    let least = |metric: &Metric| limits.least.get(&metric.name).map(|limit| Check::at_least(metric, "least", *limit));
    metrics.iter().flat_map(|metric| [most(metric), least(metric)]).flatten().collect()
}

/// Against what was recorded. `same_machine` lets times be compared too.
pub(super) fn against_baseline(metrics: &[Metric], baseline: &Baseline, limits: &Limits, same_machine: bool) -> Vec<Check> {
    let growth = |name: &str, otherwise: f64| limits.baseline.metrics.get(name).copied().unwrap_or(otherwise);
    let check = |metric: &Metric| {
        let before = *baseline.metrics.get(&metric.name)?;
        match metric.holds {
            Holds::Anywhere => Some(Check::at_most(metric, "baseline", before * growth(&metric.name, limits.baseline.default))),
            Holds::OnOneMachine if same_machine => {
                Some(Check::at_most(metric, "baseline", before * growth(&metric.name, limits.baseline.wall)))
            }
            Holds::OnOneMachine | Holds::AnywhereAsFloor => None,
        }
    };
    metrics.iter().filter_map(check).collect()
}

/// The end of a gate's run.
#[derive(Debug, Serialize)]
struct Verdict {
    operation: &'static str,
    ok: bool,
    checks: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Record for Verdict {
    const TYPE: &'static str = "summary";
}

/// Says everything, and with which code to exit.
pub(super) fn conclude(console: &Console, checks: &[Check], measured: &Measured) -> Result<Code, Failure> {
    measured.metrics.iter().try_for_each(|metric| console.record(metric))?;
    checks.iter().try_for_each(|check| console.record(check))?;
    console.text(|| text(checks, &measured.metrics))?;
    measured.skipped.iter().try_for_each(|skipped| console.skipped(skipped))?;
    let failed: Vec<String> = checks.iter().filter(|check| !check.ok).map(|check| check.name.clone()).collect();
    let ok = failed.is_empty() && !checks.is_empty();
    let skipped = measured.skipped.iter().map(|skipped| skipped.what.clone()).collect();
    console.record(&Verdict { operation: "gate", ok, checks: checks.len(), failed: failed.clone(), skipped })?;
    let verdict = match (ok, failed.len()) {
        (true, _) => format!("gate: {} checks passed", checks.len()),
        (false, 0) => "gate: there was nothing to check".to_owned(),
        (false, count) => format!("gate: {count} of {} checks FAILED: {}", checks.len(), failed.join(", ")),
    };
    console.text(|| verdict)?;
    Ok(if ok { Code::Ok } else { Code::Failed })
}

fn text(checks: &[Check], metrics: &[Metric]) -> String {
    let line = |check: &Check| {
        let (sign, verdict) = (if check.rule == "least" { ">=" } else { "<=" }, if check.ok { "ok" } else { "FAILED" });
        let limit = format!("{sign} {}", number(check.limit));
        vec![check.name.clone(), number(check.value), limit, check.unit.to_owned(), check.rule.to_owned(), verdict.to_owned()]
    };
    let unchecked = metrics.iter().filter(|metric| !checks.iter().any(|check| check.name == metric.name));
    let free = unchecked.map(|metric| vec![metric.name.clone(), number(metric.value), String::new(), metric.unit.to_owned()]);
    table(&["what", "measured", "limit", "unit", "rule", ""], &checks.iter().map(line).chain(free).collect::<Vec<_>>())
}

/// Four digits, as a person would write them.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 => format!("{:.0}k", value / 1_000.0),
        size if size >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        toml::from_str("[most]\ncalls = 10\n[least]\nratio = 0.5\n[baseline]\ndefault = 1.1\nwall = 1.3\n[against]\ncpu = 1.05\nwall = 1.15\ninstructions = 1.03").unwrap()
    }

    fn baseline(name: &str, value: f64) -> Baseline {
        let metrics = [(name.to_owned(), value)].into();
        let empty = String::new;
        Baseline { machine: empty(), revision: empty(), measured: empty(), measured_ms: 0, size_bytes: 1, metrics, units: [].into() }
    }

    #[test]
    fn a_limit_is_passed_only_beyond_it_and_a_floor_only_below() {
        let ratio = Metric { holds: Holds::AnywhereAsFloor, ..Metric::count("ratio", 0.4, "") };
        let checks = against_limits(&[Metric::count("calls", 10.0, ""), Metric::count("calls", 10.5, ""), ratio], &limits());
        assert_eq!(checks.iter().map(|check| check.ok).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn growth_over_the_baseline_fails_and_times_count_only_on_the_same_machine() {
        let ok = |value, holds, same| -> Vec<bool> {
            let metric = Metric { holds, ..Metric::count("m", value, "") };
            against_baseline(&[metric], &baseline("m", 100.0), &limits(), same).iter().map(|check| check.ok).collect()
        };
        assert_eq!(ok(109.0, Holds::Anywhere, false), [true]);
        assert_eq!(ok(111.0, Holds::Anywhere, false), [false]);
        assert_eq!(ok(500.0, Holds::OnOneMachine, false), [] as [bool; 0]);
        assert_eq!(ok(131.0, Holds::OnOneMachine, true), [false]);
    }
}
