//! Folders that a daemon follows, and limits by the clock.

use crate::{
    ask,
    support::{Device, Mirord, Ran, Sandbox, run_by, until},
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A device whose daemon keeps its only vault and a folder the same.
struct Side {
    device: Device,
    daemon: Mirord,
    folder: PathBuf,
}

impl Side {
    fn start(device: Device, folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        Self::start_at(device, folder, "127.0.0.1:0")
    }

    fn start_at(device: Device, folder: PathBuf, address: &str) -> Self {
        let daemon = device.mirord_at(address, &both_ways(folder.to_str().unwrap()));
        let side = Self { device, daemon, folder };
        until(|| side.now()["state"] == "followed");
        side
    }

    fn now(&self) -> Value {
        ask(&self.device)["vaults"][0]["folders"][0].clone()
    }

    fn save(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).unwrap();
    }

    fn has(&self, name: &str, text: &str) -> bool {
        fs::read(self.folder.join(name)).is_ok_and(|bytes| bytes == text.as_bytes())
    }

    /// The versions that lie beside what stands, by what is in them.
    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.to_string_lossy().contains(".conflict-"))
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .collect()
    }
}

fn both_ways(folder: &str) -> [&str; 4] {
    ["--watch", folder, "--materialize", folder]
}

fn pair(sandbox: &Sandbox) -> (Side, Side) {
    let a = Side::start(sandbox.device_with_vault(), sandbox.path("folder of a"));
    let b = sandbox.device("b").clone_from(&a.device, &a.daemon, "member", "b");
    let b = Side::start(b, sandbox.path("folder of b"));
    until(|| ask(&b.device)["vaults"][0]["peers"][0]["connected"] == true);
    (a, b)
}

fn write_settings(home: &Path, settings: &str) {
    fs::write(home.join("new"), settings).unwrap();
    fs::rename(home.join("new"), home.join("mirord.toml")).unwrap();
}

#[test]
fn what_is_saved_on_one_side_appears_on_the_other_and_two_changes_are_both_kept() {
    let sandbox = Sandbox::new();
    let (a, b) = pair(&sandbox);
    a.save("notes.txt", "from a");
    until(|| b.has("notes.txt", "from a"));
    b.save("notes.txt", "and b");
    until(|| a.has("notes.txt", "and b"));
    fs::remove_file(a.folder.join("notes.txt")).unwrap();
    until(|| !b.folder.join("notes.txt").exists());
    assert!(a.now()["taken_in"].as_u64().unwrap() >= 1 && b.now()["written_out"].as_u64().unwrap() >= 1, "{} {}", a.now(), b.now());

    for side in [&a, &b] {
        side.device.run(&["daemon", "pause"]).ok();
    }
    a.save("both.txt", "a's");
    b.save("both.txt", "b's");
    until(|| [&a, &b].iter().all(|side| side.device.run(&["get", "both.txt"]).code == Some(0)));
    for side in [&a, &b] {
        side.device.run(&["daemon", "resume"]).ok();
    }
    until(|| [&a, &b].iter().all(|side| side.beside().len() == 1));
    let standing = |side: &Side| fs::read_to_string(side.folder.join("both.txt")).unwrap();
    until(|| standing(&a) == standing(&b) && a.beside() == b.beside());
    let mut versions = [standing(&a), a.beside().remove(0)];
    versions.sort();
    assert_eq!(versions, ["a's", "b's"]);

    let status = a.device.status();
    assert_eq!((&status["daemon"]["folders"][0]["state"], &status["daemon"]["folders"][0]["flow"]), (&"followed".into(), &"both".into()));
    for args in [&["status"][..], &["daemon", "status"]] {
        let text = a.device.run(args).ok().text();
        assert!(text.contains("folder ") && text.contains("(both ways): followed"), "{text}");
    }
    let Side { device, daemon, folder } = a;
    let address = daemon.tcp().to_owned();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.finish(), Some(130));
    // What is saved while no daemon runs is not missed.
    fs::write(folder.join("later.txt"), "later").unwrap();
    let _a = Side::start_at(device, folder, &address);
    until(|| b.has("later.txt", "later"));
    b.device.verify();
}

#[test]
fn a_folder_that_is_not_there_is_waited_for_and_other_settings_take_effect_while_it_runs() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let (folder, vault) = (sandbox.path("later"), sandbox.path("vault"));
    let settings = format!("[[vault]]\ndir = \"{}\"\nlisten = []\n", vault.display());
    write_settings(a.home(), &settings);
    let daemon = Mirord::start(a.mirord_command(&["--json", "--no-discovery"]));
    assert_eq!(ask(&a)["vaults"][0]["folders"], serde_json::json!([]));
    write_settings(a.home(), &format!("{settings}watch = \"{}\"\nprefix = \"docs\"\n", folder.display()));
    daemon.signal(Signal::HUP);
    until(|| ask(&a)["vaults"][0]["folders"][0]["state"] == "failing");
    let now = ask(&a)["vaults"][0]["folders"][0].clone();
    assert!(now["reason"].as_str().unwrap().contains("make it: mkdir -p "), "{now}");
    assert!(a.run(&["daemon", "status"]).ok().text().contains("into the vault as docs/...): failing"), "people are told");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("one"), "1").unwrap();
    until(|| a.run(&["get", "docs/one"]).code == Some(0));
    // It goes, and nothing is deleted for that; it comes back.
    fs::rename(&folder, sandbox.path("away")).unwrap();
    until(|| ask(&a)["vaults"][0]["folders"][0]["state"] == "paused");
    a.run(&["get", "docs/one"]).ok();
    let told = a.run(&["status"]).ok().text();
    assert!(told.contains("): paused: the folder is not there") && told.contains(&format!("kill -HUP {}", daemon.id())), "{told}");
    write_settings(a.home(), &settings);
    daemon.signal(Signal::HUP);
    until(|| ask(&a)["vaults"][0]["folders"] == serde_json::json!([]));
}

/// Its ports close when the goodbyes of its connections have been heard.
#[test]
fn a_vault_whose_settings_change_is_kept_on_the_same_ports_at_once() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let (folder, vault) = (sandbox.path("folder"), sandbox.path("vault"));
    fs::create_dir(&folder).unwrap();
    let listening_at = |address: &str| format!("[[vault]]\ndir = \"{}\"\nlisten = [\"{address}\"]\n", vault.display());
    write_settings(a.home(), &listening_at("127.0.0.1:0"));
    let daemon = Mirord::start(a.mirord_command(&["--json", "--no-discovery"]));
    let b = sandbox.device("b").clone_from(&a, &daemon, "member", "b");
    let _at_b = b.mirord(&[]);
    until(|| ask(&b)["vaults"][0]["peers"][0]["connected"] == true);
    write_settings(a.home(), &format!("{}watch = \"{}\"\n", listening_at(daemon.tcp()), folder.display()));
    daemon.signal(Signal::HUP);
    until(|| {
        let now = &ask(&a)["vaults"][0];
        assert_eq!(now["trouble"], Value::Null);
        now["folders"][0]["state"] == "followed"
    });
    assert_eq!(ask(&a)["vaults"][0]["tcp"], serde_json::json!([daemon.tcp()]));
    until(|| ask(&b)["vaults"][0]["peers"][0]["connected"] == true);
}

#[test]
fn a_folder_that_was_emptied_says_what_to_type_if_that_is_meant_and_that_works() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let (folder, vault) = (sandbox.path("docs"), sandbox.path("vault"));
    fs::create_dir(&folder).unwrap();
    (0..20).for_each(|n| fs::write(folder.join(n.to_string()), "1").unwrap());
    let settings = format!("[[vault]]\ndir = \"{}\"\nlisten = []\nwatch = \"{}\"\n", vault.display(), folder.display());
    write_settings(a.home(), &settings);
    let daemon = Mirord::start(a.mirord_command(&["--json", "--no-discovery"]));
    let now = || ask(&a)["vaults"][0]["folders"][0].clone();
    until(|| now()["taken_in"] == 20);
    // At once: one after the other they might be seen to go, and be deletions.
    fs::rename(&folder, sandbox.path("full")).unwrap();
    fs::create_dir(&folder).unwrap();
    until(|| now()["reason"].as_str().is_some_and(|reason| reason.contains("20 things were in it")));
    let hint = now()["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("max_delete = \"none\" below its [[vault]]"), "{hint}");
    assert!(hint.ends_with(&format!("kill -HUP {}", daemon.id())), "{hint}");
    assert!(a.run(&["daemon", "status"]).ok().text().contains(&hint));
    a.run(&["get", "7"]).ok();
    write_settings(a.home(), &format!("{settings}max_delete = \"none\"\n"));
    daemon.signal(Signal::HUP);
    until(|| now()["state"] == "followed" && now()["hint"].is_null() && a.run(&["get", "7"]).code != Some(0));
}

#[test]
fn what_is_wrong_with_a_folder_in_the_settings_is_said_with_the_way_out() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let vault = sandbox.path("vault");
    let of = |setting: &str| format!("[[vault]]\ndir = \"{}\"\nlisten = []\n{setting}\n", vault.display());
    let inside = vault.join("inside");
    let (inside, two) = (inside.to_str().unwrap(), format!("{}[[vault]]\ndir = \"/other\"\nlisten = []\n", of("")));
    for (settings, flags, said) in [
        (of("wacth = \"/d\""), &[][..], "did you mean watch?"),
        (of("watch = \"~/docs\""), &[], "no shell reads it"),
        (of("prefix = \"docs\""), &[], "add watch = "),
        (of(&format!("watch = \"{inside}\"")), &[], "follow a folder elsewhere"),
        (two, &["--watch", "/d"], "below a [[vault]]"),
        ("bwlimit = \"08:00,1MiB 19:00\"".to_owned(), &[], "08:00,1MiB:256KiB 19:00,off"),
        ("bwlimit = \"Mno-08:00,1MiB\"".to_owned(), &[], "did you mean Mon?"),
    ] {
        write_settings(a.home(), &settings);
        let ran = Ran::from(a.mirord_command(flags).output().unwrap()).ended_with(2);
        assert!(ran.stderr.contains(said), "{settings} {flags:?}: {}", ran.stderr);
    }
}

#[test]
fn limits_by_the_clock_are_set_changed_and_taken_back_while_it_runs() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let _daemon = a.mirord(&["--bwlimit", "00:00,8Mbit:off 12:00,8Mbit:off"]);
    let limits = |state: &Value| (state["limits"]["send"].as_u64(), state["limits"]["receive"].as_u64());
    let state = ask(&a);
    assert_eq!((limits(&state), &state["timetable"]["until"]), ((Some(1_000_000), None), &Value::Null));
    // Another rate for each half of the day: it says until when.
    let told = a.run(&["daemon", "limit", "00:00,16Mbit 12:00,32Mbit"]).ok().stderr;
    assert!(told.contains("by the timetable 00:00,16Mbit 12:00,32Mbit"), "{told}");
    let state = ask(&a);
    assert!([Some(2_000_000), Some(4_000_000)].contains(&limits(&state).0), "{state}");
    assert!(state["timetable"]["until"].as_str().unwrap().ends_with(":00"), "{state}");
    assert!(a.run(&["daemon", "limit", "25:00,1MiB"]).ended_with(2).stderr.contains("no time of day"));
    a.run(&["daemon", "limit", "off"]).ok();
    assert_eq!((limits(&ask(&a)), &ask(&a)["timetable"]), ((None, None), &Value::Null));
}

/// The daemon in a user namespace of its own, in which no more than `most` of what `limit` counts may be.
#[cfg(target_os = "linux")]
fn where_few(device: &Device, limit: &str, most: u32, flags: &[&str]) -> Command {
    let script = format!("echo {most} > /proc/sys/user/{limit} && exec \"$0\" \"$@\"");
    let mut namespace = Command::new("unshare");
    namespace.args(["--user", "--map-root-user", "sh", "-c", &script]);
    run_by(namespace, &device.mirord_command(flags))
}

#[test]
#[cfg(target_os = "linux")]
fn where_the_system_watches_no_more_folders_they_are_looked_at_and_the_limit_is_named() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let probe = where_few(&a, "max_inotify_watches", 3, &["--version"]).output();
    if !probe.is_ok_and(|ran| ran.status.success()) {
        return eprintln!("SKIPPED: no user namespaces here (unshare --user, /proc/sys/user/max_inotify_watches)");
    }
    let folder = sandbox.path("docs");
    (0..8).for_each(|n| fs::create_dir_all(folder.join(n.to_string())).unwrap());
    for (limit, most, named) in [
        ("max_inotify_watches", 3, "raise fs.inotify.max_user_watches"),
        ("max_inotify_instances", 0, "raise fs.inotify.max_user_instances"),
    ] {
        fs::write(folder.join("7").join(limit), limit).unwrap();
        let flags = ["--json", "--no-discovery", "--listen", "127.0.0.1:0", "--watch", folder.to_str().unwrap()];
        let daemon = Mirord::start(where_few(&a, limit, most, &flags));
        let now = || ask(&a)["vaults"][0]["folders"][0].clone();
        until(|| {
            now()["problems"]
                .as_array()
                .is_some_and(|problems| problems.iter().any(|problem| problem["reason"].as_str().unwrap().contains(named)))
        });
        assert!(a.run(&["daemon", "status"]).ok().text().contains(named));
        until(|| a.run(&["get", &format!("7/{limit}")]).stdout == limit.as_bytes());
        // What another process writes into the vault is noticed all the same.
        a.run_with(&["put", limit], b"beside").ok();
        until(|| ask(&a)["vaults"][0]["root"] == a.status()["root"]);
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.finish(), Some(130));
    }
}
