//! Commands that measure.

use super::{bench, command};
use crate::support::{Ran, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

fn rows(ran: &Ran) -> Vec<Value> {
    ran.json().into_iter().filter(|record| record["type"] == "measurement").collect()
}

/// Something was moved, both ends cost something, and the spread is around the median.
#[track_caller]
fn is_plausible(row: &Value) {
    let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}"));
    assert!(number("least") > 0.0 && number("least") <= number("median") && number("median") <= number("most"), "{row}");
    assert!(number("bytes") > 0.0 && number("elapsed_ms") > 0.0, "{row}");
}

#[test]
fn local_gives_the_raw_link_and_the_engine_over_it() {
    let ran = bench(&Sandbox::new(), &["local", "--size", "2MiB", "--rounds", "2", "--raw-time", "20ms"]).ok();
    let rows = rows(&ran);
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["raw tcp", "raw udp", "mirror push, tcp", "mirror push, quic"]);
    rows.iter().for_each(is_plausible);
    for row in &rows[2..] {
        let cpu = |name: &str| row[name].as_f64().unwrap();
        assert!(cpu("cpu_s_per_gib_sender") > 0.0 && cpu("cpu_s_per_gib_receiver") > 0.0, "{row}");
        assert!(row["ratio_to_raw"].as_f64().unwrap() > 0.0 && row["bytes"].as_u64().unwrap() >= 2 << 20, "{row}");
        assert!(!row["progress"].as_array().unwrap().is_empty(), "{row}");
    }
    assert_eq!(ran.last("summary")["ok"], true);
}

#[test]
fn link_takes_the_word_that_serve_prints_and_no_other() {
    let sandbox = Sandbox::new();
    let mut serving = command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut serving = serving.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let target = serde_json::from_str::<Value>(&line).unwrap()["target"].as_str().unwrap().to_owned();
    let wrong =
        if target.ends_with('0') { target[..target.len() - 1].to_owned() + "1" } else { target[..target.len() - 1].to_owned() + "0" };
    let args = ["--size", "1MiB", "--rounds", "1", "--raw-time", "10ms", "--transport", "tcp"];
    let refused = bench(&sandbox, &[&["link", &wrong], &args[..]].concat());
    let worked = bench(&sandbox, &[&["link", &target], &args[..]].concat());
    kill_process(Pid::from_child(&serving), Signal::TERM).unwrap();
    assert_eq!(serving.wait().unwrap().code(), Some(130));
    refused.ended_with(6);
    assert_eq!(rows(&worked.ok()).len(), 3);
}

#[test]
fn ingest_measures_each_size_of_file() {
    let ran = bench(&Sandbox::new(), &["ingest", "--file", "1KiB", "--file", "256KiB", "--size", "512KiB", "--rounds", "2"]).ok();
    let rows = rows(&ran);
    assert_eq!(rows.len(), 2);
    rows.iter().for_each(is_plausible);
    assert_eq!((&rows[0]["bytes"], &rows[0]["wire"]), (&(512 << 10).into(), &"none".into()));
}

#[test]
fn small_counts_objects() {
    let ran = bench(&Sandbox::new(), &["small", "--count", "50", "--rounds", "1", "--transport", "tcp"]).ok();
    let rows = rows(&ran);
    assert_eq!((rows.len(), &rows[0]["unit"]), (1, &"objects/s".into()));
    is_plausible(&rows[0]);
}

#[test]
fn latency_gives_percentiles_that_rise_cold_and_warm() {
    let ran = bench(&Sandbox::new(), &["latency", "--count", "5", "--transport", "tcp", "--transport", "quic"]).ok();
    let records: Vec<Value> = ran.json().into_iter().filter(|record| record["type"] == "latency").collect();
    let which = |record: &Value| (record["transport"].as_str().unwrap().to_owned(), record["start"].as_str().unwrap().to_owned());
    let which: Vec<(String, String)> = records.iter().map(which).collect();
    let wanted = [("tcp", "cold"), ("tcp", "warm"), ("quic", "cold"), ("quic", "warm")];
    assert_eq!(which, wanted.map(|(transport, start)| (transport.to_owned(), start.to_owned())));
    for record in records {
        let times: Vec<u64> = record["percentiles"].as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap()).collect();
        assert!(times[0] > 0 && times.is_sorted(), "{record}");
        assert_eq!(record["count"], 5);
    }
}

#[test]
fn compare_names_what_it_cannot_run_and_measures_what_it_can() {
    let mirror = env!("CARGO_BIN_EXE_mirror");
    let ran = bench(&Sandbox::new(), &["compare", "--size", "1MiB", "--rounds", "1", "--mirror", mirror]).ok();
    let (rows, summary) = (rows(&ran), ran.last("summary"));
    rows.iter().for_each(is_plausible);
    let named =
        |name: &str| rows.iter().any(|row| row["name"] == name) || summary["skipped"].as_array().unwrap().iter().any(|s| *s == name);
    for name in [
        "mirror-tcp",
        "mirror-quic",
        "tar-openssl",
        "rclone-https",
        "restic",
        "rclone-http",
        "rsync-daemon",
        "iperf3",
        "syncthing",
        "sendme",
    ] {
        assert!(named(name), "{name}: {summary}");
    }
    assert!(rows.iter().any(|row| row["name"] == "mirror-tcp" && row["wire"] == "encrypted"), "{summary}");
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for args in [
        &["link", "nonsense"][..],
        &["local", "--size", "12"],
        &["local", "--rounds", "0"],
        &["compare", "--only", "nothing"],
        &["gate", "--perf", "nowhere", "--record", "../x"],
        &["nothing"],
    ] {
        let error = bench(&sandbox, args);
        assert!(matches!(error.code, Some(1 | 2)), "{args:?}: {error:?}");
        assert_eq!(error.last("error")["hint"].as_str().map(str::is_empty), Some(false), "{args:?}");
    }
}
