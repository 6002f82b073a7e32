//! `mirror daemon`: what is asked and told while it runs, and what is said when it does not.

use crate::{
    ask,
    support::{Ran, Sandbox, until},
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Command,
};

#[test]
fn without_a_daemon_every_question_ends_with_16_and_the_command_that_starts_one() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    for args in [&["daemon", "status"][..], &["daemon", "stop"], &["daemon", "pause"], &["daemon", "resume"], &["daemon", "limit", "1MB"]] {
        let ran = a.run(args).ended_with(16);
        assert!(ran.stderr.contains("mirord -V"), "{}", ran.stderr);
    }
    // What a daemon left behind that was killed is none.
    drop(UnixListener::bind(a.home().join("mirord.sock")).unwrap());
    a.run(&["daemon", "status"]).ended_with(16);
    assert_eq!(a.status()["daemon"], serde_json::Value::Null);
    a.mirord(&[]);
}

#[test]
fn only_this_user_reaches_the_socket_and_limits_and_pauses_hold_while_it_runs() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let _daemon = a.mirord(&["--bwlimit", "8Mbit:off"]);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(a.home().join("mirord.sock")), mode(a.home().to_owned())), (0o600, 0o700));
    assert_eq!(ask(&a)["limits"], serde_json::json!({"send": 1_000_000, "receive": null}));
    a.run(&["daemon", "limit", "off:16Mbit"]).ok();
    assert_eq!(ask(&a)["limits"], serde_json::json!({"send": null, "receive": 2_000_000}));
    assert!(a.run(&["daemon", "limit", "16"]).ended_with(2).stderr.contains("no unit"));

    a.run(&["daemon", "pause"]).ok();
    assert_eq!(ask(&a)["vaults"][0]["paused"]["kind"], "user");
    assert!(a.run(&["status"]).ok().text().contains("go on: mirror daemon resume"), "people are told");
    a.run(&["daemon", "resume", "../vault"]).ok();
    until(|| ask(&a)["vaults"][0]["paused"].is_null());
    let other = a.run(&["daemon", "pause", "/elsewhere"]).ended_with(2);
    assert!(other.stderr.contains("it keeps "), "{}", other.stderr);
    let state = a.run(&["--json", "daemon", "status"]).ok().last("daemon");
    assert_eq!(state["vaults"][0]["name"], "vault");
}

/// Who anybody may be: a user without rights of his own.
const NOBODY: &str = "65534";

#[test]
#[cfg(target_os = "linux")]
fn another_user_hears_nothing_at_the_socket_even_where_it_lies_open() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let _daemon = a.mirord(&[]);
    let socket = a.home().join("mirord.sock");
    let as_nobody = |script: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "python3", "-c", script]).arg(&socket);
        Ran::from(command.output().unwrap())
    };
    let is_able = Command::new("setpriv").args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "python3", "-c", ""]).output();
    if !is_able.is_ok_and(|ran| ran.status.success()) {
        return eprintln!("SKIPPED: only root becomes another user (setpriv --reuid), and python3 is needed to ask as one");
    }
    const ASKS: &str = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'{\"do\":\"stop\"}\\n'); print(len(s.recv(1000)))";
    assert!(as_nobody(ASKS).stderr.contains("Permission"), "the directory and the socket are this user's alone");
    // As if somebody had opened both.
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for directory in a.home().ancestors().take_while(|directory| directory.starts_with(sandbox.path(""))) {
        open(directory, 0o755);
    }
    open(&socket, 0o666);
    let heard = as_nobody(ASKS);
    assert!(heard.text().trim() == "0" || heard.stderr.contains("Connection reset") || heard.stderr.contains("Broken pipe"), "{heard:?}");
    assert_eq!(ask(&a)["vaults"][0]["name"], "vault", "it was not told to stop");
    // And a socket that is another user's is nobody's daemon.
    std::os::unix::fs::chown(&socket, Some(65534), None).unwrap();
    a.run(&["daemon", "status"]).ended_with(16);
}

fn request(address: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn address(place: &serde_json::Value) -> String {
    let place = place.as_str().unwrap().strip_prefix("http://").unwrap();
    place.split('/').next().unwrap().to_owned()
}

#[test]
fn metrics_and_the_page_are_there_when_asked_for_and_the_page_is_for_nobody_else() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let daemon = a.mirord(&["--ui", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let (ui, metrics) = (address(&daemon.ready["ui"]), address(&daemon.ready["metrics"]));
    let text = request(&metrics, &format!("GET /metrics HTTP/1.1\r\nHost: {metrics}"));
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("mirror_vault_up{vault=\"vault\""), "{text}");
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
    let page = request(&ui, &format!("GET / HTTP/1.1\r\nHost: {ui}"));
    assert!(page.contains("content-security-policy: default-src 'none'") && page.contains("<title>mirror</title>"), "{page}");
    assert!(!page.contains("{{"), "everything is filled in");
    for head in ["GET / HTTP/1.1\r\nHost: attacker.example", "GET / HTTP/1.0", &format!("GET /api/state HTTP/1.1\r\nHost: {ui}")] {
        let refused = request(&ui, head);
        assert!(refused.starts_with("HTTP/1.1 403") || refused.starts_with("HTTP/1.0 403"), "{refused}");
    }
    assert!(request(&ui, &format!("GET /nothing HTTP/1.1\r\nHost: {ui}")).starts_with("HTTP/1.1 404"));
}

#[test]
fn a_ticket_names_the_port_that_the_daemon_listens_on() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let _daemon = a.mirord(&[]);
    let ticket = a.run(&["--json", "invite"]).ok().last("ticket")["ticket"].as_str().unwrap().to_owned();
    let (b, copy) = (sandbox.device("b"), sandbox.path("copy"));
    b.run(&["clone", &ticket, copy.to_str().unwrap()]).ok();
}
