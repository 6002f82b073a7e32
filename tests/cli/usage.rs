//! Command lines that are wrong, and commands that need no vault.

use crate::support::{Sandbox, incompressible};
use std::process::Stdio;

#[test]
fn an_unknown_flag_is_a_usage_error_with_a_suggestion() {
    let ran = Sandbox::new().device("a").run(&["ls", "--jsno"]).ended_with(2);
    assert!(ran.stderr.contains("--json"), "{}", ran.stderr);
    assert!(ran.stdout.is_empty());
}

#[test]
fn an_unknown_command_is_a_usage_error_with_a_suggestion() {
    let ran = Sandbox::new().device("a").run(&["pish", "nas"]).ended_with(2);
    assert!(ran.stderr.contains("'push'"), "{}", ran.stderr);
}

#[test]
fn with_json_an_error_is_one_record_on_stdout_and_stderr_is_empty() {
    let device = Sandbox::new().device("a");
    for (args, code) in [(&["--json", "ls", "--bogus"][..], 2), (&["ls", "--json"][..], 10)] {
        let ran = device.run(args).ended_with(code);
        assert_eq!(ran.stderr, "");
        assert_eq!(ran.json().len(), 1);
        let error = ran.last("error");
        assert_eq!(error["code"], code);
        assert!(error["message"].is_string() && error["causes"].is_array() && error["hint"].is_string(), "{error}");
    }
}

#[test]
fn sizes_rates_and_durations_are_refused_with_the_nearest_right_form() {
    let device = Sandbox::new().device("a");
    for (args, form) in [
        (&["--memory", "12", "ls"][..], "12MiB"),
        (&["push", "nas", "--bwlimit", "100Mb"][..], "100Mbit"),
        (&["serve", "--bwlimit", "08:00,1Mb 19:00,off"], "write 1MB for bytes or 1Mbit for bits"),
        (&["sync", "nas", "--bwlimit", "Mno-08:00,1MB"], "did you mean Mon?"),
        (&["pull", "nas", "--bwlimit", "08:00,1MB 24:00,off"], "\"24:00\" is no time of day; write it from 00:00 to 23:59"),
        (&["invite", "--expires", "10min"][..], "10m"),
    ] {
        let ran = device.run(args).ended_with(2);
        assert!(ran.stderr.contains(form), "{}", ran.stderr);
    }
}

#[test]
fn where_there_is_no_vault_the_hint_says_how_to_name_or_make_one() {
    let sandbox = Sandbox::new();
    let device = sandbox.device("a");
    for args in [&["ls"][..], &["status"], &["-V", "nowhere", "verify"], &["serve"], &["recover", "-V", "nowhere"]] {
        let ran = device.run(args).ended_with(10);
        assert!(ran.stderr.contains("mirror init"), "{}", ran.stderr);
    }
    assert!(!sandbox.path("nowhere").exists());
}

#[test]
fn the_vault_can_be_named_by_flag_environment_and_configuration_in_this_order() {
    let sandbox = Sandbox::new();
    let device = sandbox.device("a");
    sandbox.write("home-a/config.toml", "vault = \"from-config\"\n");
    let named = |args: &[&str], variable: Option<&str>| {
        let mut command = device.command(args);
        variable.map(|value| command.env("MIRROR_VAULT", value));
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(named(&["ls"], None).contains("from-config"));
    assert!(named(&["ls"], Some("from-environment")).contains("from-environment"));
    assert!(named(&["-V", "from-flag", "ls"], Some("from-environment")).contains("from-flag"));
}

#[test]
fn a_setting_that_nobody_knows_is_refused_with_the_nearest_one() {
    let sandbox = Sandbox::new();
    sandbox.write("home-a/config.toml", "colour = \"never\"\n");
    let ran = sandbox.device("a").run(&["ls"]).ended_with(2);
    assert!(ran.stderr.contains("did you mean color?"), "{}", ran.stderr);
}

#[test]
fn an_explicit_backend_is_used_or_refused_and_the_log_says_which_and_why() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    for (choice, number) in [("portable", 1), ("uring", 2), ("auto", 3)] {
        // Of its own for each: what is stored already is not written again.
        let file = sandbox.write("file", incompressible(3 << 20, number));
        let (log, prefix) = (sandbox.path(&format!("log-{number}")), format!("copy-{number}"));
        let mut command = device.command(&["--log-file", log.to_str().unwrap(), "put", &prefix, file.to_str().unwrap()]);
        let ran = command.env("MIRROR_IO", choice).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        if choice == "uring" && said.contains("io_uring cannot be used here") {
            assert!(ran.status.code() == Some(1) && said.contains("--io auto"), "says what to type: {said}");
            continue;
        }
        assert!(ran.status.success(), "{said}");
        let log = std::fs::read_to_string(log).unwrap();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("how packs are written")).collect();
        assert!(lines.len() == 1 && lines[0].contains("reason"), "{log}");
        assert!(choice == "auto" || lines[0].contains(&format!("\"backend\":\"{choice}\"")), "{lines:?}");
    }
    device.verify();
    assert!(device.run(&["--io", "floppy", "ls"]).ended_with(2).stderr.contains("portable"));
}

#[test]
fn colour_is_used_when_it_is_asked_for_and_only_then() {
    let device = Sandbox::new().device("a");
    assert!(!device.run(&["ls"]).stderr.contains('\x1b'));
    assert!(device.run(&["--color", "always", "ls"]).stderr.contains("\x1b[1;31merror:"));
}

#[test]
fn help_and_version_go_to_stdout() {
    let device = Sandbox::new().device("a");
    assert!(device.run(&["--help"]).ok().text().contains("mirror init photos"));
    assert!(device.run(&["clone", "--help"]).ok().text().contains("mirror clone TICKET"));
    assert_eq!(device.run(&["--version"]).ok().text(), concat!("mirror ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn completions_are_scripts_for_each_shell() {
    let device = Sandbox::new().device("a");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(device.run(&["completions", shell]).ok().text().contains("undelete"), "{shell}");
    }
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let sandbox = Sandbox::new();
    sandbox.device("a").run(&["man", "pages/man1"]).ok();
    for page in ["mirror.1", "mirror-init.1", "mirror-peer-add.1"] {
        assert!(String::from_utf8(sandbox.read(&format!("pages/man1/{page}"))).unwrap().contains(".TH"), "{page}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let device = Sandbox::new().device("a");
    let mut child = device.command(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn a_stdout_that_is_full_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Sandbox::new().device("a").command(&["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(14));
}
