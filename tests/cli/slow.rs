//! Where the time goes: what limits a transfer, and what `doctor` says of each stage.

use crate::support::{Sandbox, incompressible};

#[test]
fn a_bandwidth_limit_is_named_in_progress_and_summary_of_who_is_limited() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    a.run_with(&["put", "large"], &incompressible(6 << 20, 1)).ok();
    let peer = serving.over("tcp");
    let arguments = [&["--json", "pull"][..], &peer.each_ref().map(String::as_str), &["--bwlimit", "off:4MiB"]].concat();
    let ran = b.run(&arguments).ok();
    let summary = ran.last("summary");
    assert_eq!(summary["limiting_stage"], "limit", "{summary}");
    assert!(summary["stages"]["limit"].as_f64() > Some(0.5), "{summary}");
    let named = ran.json().into_iter().any(|record| record["type"] == "progress" && record["limiting_stage"] == "limit");
    assert!(named, "no progress record names the limit");
}

#[test]
fn doctor_measures_both_ends_and_names_what_limits_and_strangers_are_refused() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    a.run_with(&["put", "value"], &incompressible(1 << 20, 2)).ok();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let peer = serving.over("tcp");
    let arguments = [&["--json", "doctor"][..], &peer.each_ref().map(String::as_str)].concat();
    let doctor = b.run(&arguments).ok().last("doctor");
    for operation in ["push", "pull"] {
        assert!(doctor[operation]["bits_per_s"].as_u64() > Some(0), "{doctor}");
        assert!(doctor[operation]["limiting_stage"].is_string(), "{doctor}");
    }
    let stranger = sandbox.device("c");
    stranger.run(&["init", "c", "--no-passphrase", "--no-recovery-kit"]).ok();
    stranger.within(&sandbox.path("c")).run(&arguments).ended_with(6);
}
