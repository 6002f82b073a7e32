//! Progress: bars on terminals, JSON lines for programs, nothing else anywhere.

use crate::support::{Device, Relay, Sandbox, Serving, incompressible};
use serde_json::Value;
use std::process::{Command, Stdio};

const BYTES: usize = 6 << 20;

/// `a` is served with a value that `b` lacks, over a link that takes a second and a half for it.
fn behind() -> (Sandbox, Serving, Device, Device) {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    (sandbox, serving, a, b)
}

fn transfer(operation: &'static str, serving: &Serving, more: &[&str]) -> Vec<String> {
    let peer = serving.over("tcp");
    let words = [operation].into_iter().chain(peer.iter().map(String::as_str)).chain(["--bwlimit", "4MiB"]).chain(more.iter().copied());
    words.map(str::to_owned).collect()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The command on a terminal of its own, and all that this shows. None where there is no `script` to make one.
fn on_a_terminal(command: &Command) -> Option<String> {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''"));
    let line: Vec<String> = [command.get_program()].into_iter().chain(command.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]).stdin(Stdio::null()).env("TERM", "xterm");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let shown = script.current_dir(command.get_current_dir().unwrap()).output().ok()?;
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stdout));
    Some(String::from_utf8_lossy(&shown.stdout).into_owned())
}

/// Progress with a total, and one that never goes back nor beyond it.
fn check(records: &[Value]) {
    let steps: Vec<&Value> = records.iter().filter(|record| record["type"] == "progress").collect();
    assert!(!steps.is_empty(), "{records:?}");
    let number = |record: &Value, name: &str| record[name].as_u64().unwrap();
    for pair in steps.windows(2) {
        assert!(number(pair[0], "bytes") <= number(pair[1], "bytes"), "{pair:?}");
    }
    let last = steps[steps.len() - 1];
    assert!(number(last, "bytes") <= number(last, "bytes_total"), "{last}");
    let total = number(last, "bytes_total") as usize;
    assert!((BYTES..BYTES + BYTES / 50).contains(&total), "{last}");
}

#[test]
fn a_push_and_a_pull_know_how_much_is_to_come() {
    let (_sandbox, serving, a, b) = behind();
    a.run_with(&["put", "from a"], &incompressible(BYTES, 1)).ok();
    check(&b.run(&[&["--json"], &words(&transfer("pull", &serving, &[]))[..]].concat()).ok().json());
    b.run_with(&["put", "from b"], &incompressible(BYTES, 2)).ok();
    check(&b.run(&[&["--json"], &words(&transfer("push", &serving, &[]))[..]].concat()).ok().json());
}

#[test]
fn a_terminal_shows_a_bar_with_total_time_left_and_what_limits() {
    let (_sandbox, serving, a, b) = behind();
    a.run_with(&["put", "from a"], &incompressible(BYTES, 3)).ok();
    let arguments = transfer("pull", &serving, &[]);
    let Some(shown) = on_a_terminal(&b.command(&words(&arguments))) else {
        eprintln!("SKIPPED: there is no script(1) to make a terminal with");
        return;
    };
    for part in ["\u{2588}", " of 6.0 MiB", " left", "tcp", " limited by "] {
        assert!(shown.contains(part), "no {part:?} in {shown:?}");
    }
}

#[test]
fn nothing_is_drawn_where_nobody_looks_or_nobody_wants_it() {
    let (_sandbox, serving, a, b) = behind();
    a.run_with(&["put", "from a"], &incompressible(BYTES, 4)).ok();
    let piped = b.run(&words(&transfer("pull", &serving, &[]))).ok();
    assert!(!piped.stderr.contains(['\r', '\u{1b}', '\u{2588}']), "{:?}", piped.stderr);
    assert!(piped.stderr.starts_with("sent 0 events") && piped.stderr.lines().count() == 3, "the summary alone: {}", piped.stderr);
    b.run_with(&["put", "from b"], &incompressible(BYTES, 5)).ok();
    let silent = b.run(&[&["--json", "--no-progress"], &words(&transfer("push", &serving, &[]))[..]].concat()).ok();
    assert_eq!(silent.json().len(), 1, "{}", silent.text());
}

#[test]
fn what_was_on_its_way_when_a_connection_was_cut_is_not_counted_twice() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    // It takes slowly what is sent at once: much of it is on its way.
    let serving = a.serve_with(&["--bwlimit", "off:8MiB"]);
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    b.run_with(&["put", "from b"], &incompressible(4 * BYTES, 6)).ok();
    let relay = Relay::cut_once_to(&serving.tcp, 2 * BYTES as u64);
    let pushed = b.run(&["--json", "push", &relay.address.to_string(), "--device", &serving.device]).ok();
    let records = pushed.json();
    let summary = records.last().unwrap();
    assert_eq!(summary["reconnects"], 1, "{summary}");
    let last = records.iter().rfind(|record| record["type"] == "progress").unwrap();
    let number = |name: &str| last[name].as_u64().unwrap() as usize;
    let most = 4 * BYTES + 4 * BYTES / 50;
    assert!((4 * BYTES..most).contains(&number("bytes_total")) && number("bytes") <= number("bytes_total"), "{last}");
    assert!(summary["bytes_sent"].as_u64().unwrap() as usize > most, "some of it was sent twice: {summary}");
    assert_eq!(a.entries(), b.entries());
}
