//! Passphrases: where they come from, and what happens without one.

use crate::support::{Device, Sandbox, contents};
use std::os::unix::fs::PermissionsExt;

const PASSPHRASE: &str = "correct horse";

/// A vault that asks for its passphrase every time.
fn locked_vault(sandbox: &Sandbox) -> Device {
    sandbox.write("pw", format!("{PASSPHRASE}\n"));
    sandbox.write("wrong", "incorrect horse\n");
    let device = sandbox.device("a");
    device.run(&["init", "vault", "--passphrase-file", "pw", "--no-device-slot", "--no-recovery-kit"]).ok();
    device
}

#[test]
fn init_without_a_terminal_fails_at_once_and_names_the_flags() {
    let sandbox = Sandbox::new();
    let ran = sandbox.device("a").run(&["init", "vault"]).ended_with(2);
    assert!(ran.stderr.contains("--passphrase-file") && ran.stderr.contains("--no-passphrase"), "{}", ran.stderr);
    assert!(!sandbox.path("vault").exists());
}

#[test]
fn an_empty_passphrase_makes_no_vault() {
    let sandbox = Sandbox::new();
    sandbox.write("pw", "\n");
    sandbox.device("a").run(&["init", "vault", "--passphrase-file", "pw", "--recovery-file", "kit"]).ended_with(2);
    assert!(!sandbox.path("vault").exists() && !sandbox.path("kit").exists());
}

#[test]
fn a_passphrase_is_never_taken_from_the_command_line() {
    Sandbox::new().device("a").run(&["init", "vault", "--passphrase", "x"]).ended_with(2);
}

#[test]
fn a_recovery_file_inside_the_vault_or_over_another_file_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("pw", PASSPHRASE);
    sandbox.write("kit", "other");
    let device = sandbox.device("a");
    device.run(&["init", "vault", "--passphrase-file", "pw", "--recovery-file", "vault/kit"]).ended_with(2);
    device.run(&["init", "vault", "--passphrase-file", "pw", "--recovery-file", "kit"]).ended_with(1);
    assert_eq!(sandbox.read("kit"), b"other");
    assert!(!sandbox.path("vault").exists());
}

#[test]
fn a_recovery_phrase_is_printed_once_or_goes_to_a_private_file() {
    let sandbox = Sandbox::new();
    let device = sandbox.device("a");
    let made = device.run(&["--json", "init", "one", "--no-passphrase"]).ok().last("initialised");
    assert_eq!(made["recovery_phrase"].as_str().unwrap().split_whitespace().count(), 24);
    let made = device.run(&["--json", "init", "two", "--no-passphrase", "--recovery-file", "kit"]).ok().last("initialised");
    assert!(made["recovery_phrase"].is_null());
    assert_eq!(String::from_utf8(sandbox.read("kit")).unwrap().split_whitespace().count(), 24);
    assert_eq!(sandbox.path("kit").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_recovery_phrase_opens_the_vault_on_another_device() {
    let sandbox = Sandbox::new();
    sandbox.device("a").run(&["init", "vault", "--no-passphrase", "--recovery-file", "kit"]).ok();
    sandbox.device("b").run(&["-V", "vault", "ls"]).ended_with(11);
    sandbox.device("b").run(&["-V", "vault", "ls", "--recovery-phrase-file", "kit"]).ok();
}

#[test]
fn a_device_with_a_slot_is_not_asked() {
    let sandbox = Sandbox::new();
    sandbox.write("pw", PASSPHRASE);
    let device = sandbox.device("a");
    device.run(&["init", "vault", "--passphrase-file", "pw", "--no-recovery-kit"]).ok();
    device.run(&["-V", "vault", "ls"]).ok();
}

#[test]
fn a_locked_vault_without_a_terminal_names_the_flags() {
    let sandbox = Sandbox::new();
    let device = locked_vault(&sandbox);
    let error = device.run(&["--json", "-V", "vault", "ls"]).ended_with(11).last("error");
    assert!(error["hint"].as_str().unwrap().contains("--passphrase-file"), "{error}");
}

#[test]
fn the_passphrase_comes_from_a_file_a_command_a_descriptor_or_the_environment() {
    let sandbox = Sandbox::new();
    let device = locked_vault(&sandbox);
    let command = format!("echo '{PASSPHRASE}'");
    device.run(&["-V", "vault", "ls", "--passphrase-file", "pw"]).ok();
    device.run(&["-V", "vault", "ls", "--passphrase-command", &command]).ok();
    device.run_with(&["-V", "vault", "ls", "--passphrase-file", "/dev/fd/0"], PASSPHRASE.as_bytes()).ok();
    for (name, value) in [("MIRROR_PASSPHRASE_FILE", "pw"), ("MIRROR_PASSPHRASE_COMMAND", command.as_str())] {
        assert!(device.command(&["-V", "vault", "ls"]).env(name, value).status().unwrap().success(), "{name}");
    }
}

#[test]
fn a_flag_wins_over_the_environment() {
    let sandbox = Sandbox::new();
    let device = locked_vault(&sandbox);
    let status = device.command(&["-V", "vault", "ls", "--passphrase-file", "pw"]).env("MIRROR_PASSPHRASE_FILE", "wrong").status();
    assert!(status.unwrap().success());
}

#[test]
fn what_is_no_passphrase_of_this_vault_ends_with_12() {
    let sandbox = Sandbox::new();
    let device = locked_vault(&sandbox);
    sandbox.write("empty", "");
    sandbox.write("binary", b"\xff\xfe\x00");
    sandbox.write("long", vec![b'x'; (1 << 20) + 1]);
    for file in ["wrong", "empty", "binary", "long"] {
        device.run(&["-V", "vault", "ls", "--passphrase-file", file]).ended_with(12);
    }
    device.run(&["-V", "vault", "ls", "--passphrase-file", "pw"]).ok();
}

#[test]
fn a_wrong_passphrase_that_is_named_is_noticed_also_where_the_device_has_a_slot() {
    let sandbox = Sandbox::new();
    sandbox.write("pw", PASSPHRASE);
    sandbox.write("wrong", "incorrect horse");
    let device = sandbox.device("a");
    device.run(&["init", "vault", "--passphrase-file", "pw", "--no-recovery-kit"]).ok();
    device.run(&["-V", "vault", "ls", "--passphrase-file", "wrong"]).ended_with(12);
    device.run(&["-V", "vault", "ls", "--passphrase-command", "echo wrong"]).ended_with(12);
    device.run(&["-V", "vault", "ls", "--passphrase-file", "pw"]).ok();
    let from_environment = device.command(&["-V", "vault", "ls"]).env("MIRROR_PASSPHRASE_FILE", "wrong").output().unwrap();
    assert_eq!(from_environment.status.code(), Some(12));
    // What is configured is only for vaults that the device cannot open by itself.
    sandbox.write("home-a/config.toml", "passphrase_file = \"wrong\"\n");
    device.run(&["-V", "vault", "ls"]).ok();
}

#[test]
fn a_wrong_passphrase_costs_one_derivation_and_changes_nothing() {
    let sandbox = Sandbox::new();
    let device = locked_vault(&sandbox);
    let before = contents(&sandbox.path("vault"));
    let args = ["-vvv", "--log-file", "log", "--json", "-V", "vault", "ls", "--passphrase-file", "wrong"];
    let error = device.run(&args).ended_with(12).last("error");
    assert!(error["hint"].as_str().unwrap().contains("--recovery-phrase-file"), "{error}");
    let log = String::from_utf8(sandbox.read("log")).unwrap();
    assert_eq!(log.matches("deriving a key from a passphrase").count(), 1, "{log}");
    assert_eq!(contents(&sandbox.path("vault")), before);
}

#[test]
fn a_passphrase_is_not_in_what_is_printed_or_logged() {
    let sandbox = Sandbox::new();
    let device = locked_vault(&sandbox);
    let ran = device.run(&["-vvv", "--log-file", "log", "-V", "vault", "ls", "--passphrase-file", "wrong"]).ended_with(12);
    let log = String::from_utf8(sandbox.read("log")).unwrap();
    for said in [ran.text(), ran.stderr, log] {
        assert!(!said.contains("incorrect horse"), "{said}");
    }
}
