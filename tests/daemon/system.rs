//! What a system that starts services sees of it.

use crate::support::{Mirord, Sandbox, until};
use rustix::process::Signal;
use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// What it has told since this was last asked.
fn heard(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let mut lines = Vec::new();
    while let Ok(length) = socket.recv(&mut buffer) {
        lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
    }
    lines
}

#[test]
fn systemd_is_told_that_it_is_ready_alive_reloading_and_stopping() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let place = sandbox.path("notify");
    let socket = UnixDatagram::bind(&place).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut command = a.mirord_command(&["--json", "--no-discovery", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &place).env("WATCHDOG_USEC", "200000");
    let daemon = Mirord::start(command);
    let mut lines = Vec::new();
    let mut told = |word: &str| {
        lines.extend(heard(&socket));
        lines.iter().any(|line: &String| line.starts_with(word))
    };
    until(|| told("READY=1") && told("STATUS=1 vault, 0 of 0 peers connected") && told("WATCHDOG=1"));
    daemon.signal(Signal::HUP);
    until(|| told("RELOADING=1") && told("MONOTONIC_USEC="));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.finish(), Some(130));
    until(|| told("STOPPING=1"));
}

fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("contrib").join(path)
}

#[test]
fn the_units_are_what_systemd_understands() {
    let sandbox = Sandbox::new();
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return println!("SKIPPED: systemd-analyze is not installed");
    }
    for (unit, named, scope) in [("mirord.service", "mirord.service", "--user"), ("mirord@.service", "mirord@somebody.service", "--system")]
    {
        // A program that is there, in place of the installed one.
        let text = fs::read_to_string(contrib("systemd").join(unit)).unwrap();
        let program = env!("CARGO_BIN_EXE_mirord");
        let exec = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        let (path, _) = exec["ExecStart=".len()..].split_once(' ').unwrap_or((&exec["ExecStart=".len()..], ""));
        let file = sandbox.write(named, text.replace(path, program));
        let verified =
            Command::new("systemd-analyze").args(["verify", "--recursive-errors=no", "--man=no", scope]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stderr);
        let about_it: Vec<&str> = said.lines().filter(|line| line.contains("mirord")).collect();
        assert!(about_it.is_empty(), "{said}");
    }
}

#[test]
fn the_property_list_starts_the_daemon_and_is_xml_of_its_kind() {
    let text = fs::read_to_string(contrib("launchd/mirord.plist")).unwrap();
    for part in ["<!DOCTYPE plist PUBLIC", "<key>ProgramArguments</key>", "mirord</string>", "<key>KeepAlive</key>", "</plist>"] {
        assert!(text.contains(part), "{part}");
    }
    let count = |tag: &str| text.matches(tag).count();
    for tag in ["dict", "array", "key", "string"] {
        assert_eq!(count(&format!("<{tag}>")), count(&format!("</{tag}>")), "{tag}");
    }
}
