//! Where the time goes: what limits a transfer, and what `doctor` says of each stage.

use crate::support::{Running, Sandbox, incompressible};
use rustix::process::Signal;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn a_bandwidth_limit_is_named_in_progress_and_summary_of_who_is_limited() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    a.run_with(&["put", "large"], &incompressible(16 << 20, 1)).ok();
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
fn a_server_keeps_to_the_timetable_of_its_own_time_zone() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let timetable = ["serve", "--listen", "127.0.0.1:0", "--bwlimit", "00:00,off:1MiB 12:00,2MiB:off"];
    let hours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
    // Zones where it is 6 to 7 in the morning, and 6 to 7 in the evening. POSIX counts westwards.
    for (hour, said) in [
        (6, "sending no limit, receiving at most 8.4 Mbit/s (1.0 MB/s)"),
        (18, "sending at most 16.8 Mbit/s (2.1 MB/s), receiving no limit"),
    ] {
        let west = (hours as i64 - hour + 36) % 24 - 12;
        let mut command = a.command(&timetable);
        command.env("TZ", format!("XXX{west}"));
        let mut serving = Running::start(command);
        serving.wait_for_line(|line| line.contains("listening"));
        serving.signal(Signal::TERM);
        let stderr = serving.finish().stderr;
        assert!(stderr.contains(said), "{stderr}");
    }
}

#[test]
fn what_a_timetable_says_limits_a_transfer() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve_with(&["--bwlimit", "00:00,1MiB:off"]);
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    a.run_with(&["put", "large"], &incompressible(4 << 20, 3)).ok();
    let peer = serving.over("tcp");
    let summary = b.run(&[&["--json", "pull"][..], &peer.each_ref().map(String::as_str)].concat()).ok().last("summary");
    assert_eq!(summary["limiting_stage"], "limit", "{summary}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_of_low_priority_gives_way_with_every_thread_that_works() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let niceness = |id: u32| -> Vec<i32> {
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
        // The name, in parentheses, may hold spaces; the 17th field after it is the niceness.
        stats.map(|stat| stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()).collect()
    };
    let (normal, low) = (a.serve(), a.serve_with(&["--low-priority"]));
    let usual = niceness(normal.id())[0];
    assert!(niceness(normal.id()).iter().all(|nice| *nice == usual));
    let lowered = niceness(low.id());
    assert!(lowered.len() > 2, "the network has threads of its own: {lowered:?}");
    assert!(lowered.iter().all(|nice| *nice == (usual + 10).min(19)), "{lowered:?}");
    let ionice = Command::new("ionice").args(["-p", &low.id().to_string()]).output();
    match ionice {
        Ok(said) => assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "idle"),
        Err(_) => eprintln!("SKIPPED: ionice is not installed; the engine's own test asks the system"),
    }
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
