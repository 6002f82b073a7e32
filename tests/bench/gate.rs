//! The gate passes what is as it was, and fails what is worse.

use super::bench;
use crate::support::{Ran, Sandbox};
use serde_json::Value;
use std::fs;

const LIMITS: &str = "[most]\n\"nothing_changed.wire_bytes_tcp\" = 100000\n[least]\n\"push.ratio_to_raw\" = 1e-9\n\
    [baseline]\ndefault = 100.0\nwall = 1000.0\n[against]\ncpu = 100.0\nwall = 100.0\ninstructions = 100.0\n";

fn perf(limits: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("perf/limits.toml", limits);
    sandbox
}

fn gate(sandbox: &Sandbox, args: &[&str]) -> Ran {
    bench(sandbox, &[&["gate", "--size", "1MiB", "--mirror", env!("CARGO_BIN_EXE_mirror")], args].concat())
}

fn records(ran: &Ran, kind: &str) -> Vec<Value> {
    ran.json().into_iter().filter(|record| record["type"] == kind).collect()
}

#[test]
fn a_recorded_build_passes_and_a_better_baseline_fails_it() {
    let sandbox = perf(LIMITS);
    gate(&sandbox, &["--record", "here"]).ok();
    let ran = gate(&sandbox, &["--machine", "here", "--history", "history.json"]).ok();
    let rules: Vec<Value> = records(&ran, "check").iter().map(|check| check["rule"].clone()).collect();
    assert!(["most", "least", "baseline"].iter().all(|rule| rules.iter().any(|found| found == rule)), "{rules:?}");
    assert!(sandbox.path("history.json").is_file());

    let file = sandbox.path("perf/baselines/here.json");
    let mut baseline: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let before = baseline["metrics"]["add.allocations"].as_f64().unwrap();
    baseline["metrics"]["add.allocations"] = (before / 1_000.0).into();
    fs::write(&file, baseline.to_string()).unwrap();
    let failed = gate(&sandbox, &["--baseline", "here"]).ended_with(1).last("summary");
    assert_eq!((&failed["ok"], &failed["failed"]), (&false.into(), &serde_json::json!(["add.allocations"])));
}

#[test]
fn a_limit_that_is_passed_fails_and_a_missing_baseline_is_said() {
    let sandbox = perf(&LIMITS.replace("100000", "10"));
    let ran = gate(&sandbox, &["--machine", "m-series"]).ended_with(1);
    let skipped = records(&ran, "skipped");
    let hint = skipped.iter().find(|skipped| skipped["what"] == "baseline m-series").expect("it says that there is none");
    assert!(hint["reason"].as_str().unwrap().contains("gate --record m-series"), "{hint}");
    assert_eq!(ran.last("summary")["failed"], serde_json::json!(["nothing_changed.wire_bytes_tcp"]));
}

#[test]
fn every_count_is_there_or_said_to_be_missing() {
    let ran = gate(&perf(LIMITS), &[]).ok();
    let metrics = records(&ran, "metric");
    let value = |name: &str| metrics.iter().find(|metric| metric["name"] == name).and_then(|metric| metric["value"].as_f64());
    for name in ["add.allocations", "push.allocations", "add.allocated_bytes", "small_push.allocations", "push.ratio_to_raw", "push.wall"] {
        assert!(value(name).is_some_and(|value| value > 0.0), "{name}");
    }
    assert!((2.0..=6.0).contains(&value("cold_push.round_trips").unwrap()), "{metrics:?}");
    match value("push.copied") {
        // Read once, sent, received, written: less than two copies would be a wrong count, more than eight would be a bug.
        Some(copied) => assert!((2.0..8.0).contains(&copied) && value("push.system_calls").unwrap() > 0.0, "{copied}"),
        None => assert_eq!(records(&ran, "skipped")[0]["what"], "system calls and bytes copied"),
    }
}

#[test]
fn a_build_is_compared_with_another_in_pairs() {
    let (sandbox, mirror) = (perf(LIMITS), env!("CARGO_BIN_EXE_mirror"));
    let ran = gate(&sandbox, &["--against", mirror, "--only-against", "--pairs", "6"]).ok();
    let pairs = records(&ran, "pairs");
    assert_eq!(pairs.len(), 4);
    for pair in &pairs {
        let number = |name: &str| pair[name].as_f64().unwrap();
        assert!(number("low") <= number("median") && number("median") <= number("high"), "{pair}");
    }
    // The same build, with a limit that nothing can keep.
    let sandbox = perf(&LIMITS.replace("cpu = 100.0", "cpu = 0.01"));
    gate(&sandbox, &["--against", mirror, "--only-against", "--pairs", "6"]).ended_with(1);
    gate(&sandbox, &["--against", "no-such-revision", "--only-against"]).ended_with(1);
}
