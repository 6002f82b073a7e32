//! Too few open files: named as what it is, and no harm done. Too little memory: the process dies, and no harm done either.

use crate::support::{Device, Mirord, Ran, Sandbox, Serving, contents, incompressible, run_by, until};
use std::{
    net::TcpStream,
    process::{Command, Stdio},
};

/// Runs the program where a process may have `files` open.
fn run_with(device: &Device, files: u32, args: &[&str]) -> Ran {
    Ran::from(limited(&device.command(args), &format!("-n {files}")).output().unwrap())
}

/// A command under a bound of the shell's `ulimit`.
fn limited(asked: &Command, bound: &str) -> Command {
    within(asked, &format!("ulimit {bound} && exec \"$0\" \"$@\""), &[])
}

/// A command that a shell's script executes as what comes after `parameters`.
fn within(asked: &Command, script: &str, parameters: &[&std::ffi::OsStr]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).args(parameters);
    run_by(shell, asked)
}

#[test]
fn too_few_open_files_are_named_with_the_limit_and_are_not_taken_for_damage() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    device.run_with(&["put", "k"], &[7; 100_000]).ok();
    let before = contents(&sandbox.path("vault/packs"));
    let mut refused = 0;
    // From what the program cannot begin with to what is enough.
    for files in 4..=40 {
        for args in [&["--json", "ls"][..], &["--json", "get", "k", "-o", "../out"], &["--json", "verify", "--read-data"]] {
            let ran = run_with(&device, files, args);
            if ran.code == Some(0) {
                continue;
            }
            refused += 1;
            let error = ran.ended_with(1).last("error");
            let said = error["hint"].as_str().unwrap_or_default();
            assert!(said.contains(&format!("{files} files")) && said.contains("ulimit -n"), "{files} {args:?}: {error}");
        }
    }
    assert!(refused > 0, "some of these limits are too low");
    assert_eq!(contents(&sandbox.path("vault/packs")), before);
    assert!(!sandbox.path("vault/quarantine").exists(), "nothing was taken for damaged");
    device.verify();
}

#[test]
fn sixty_four_open_files_are_enough_to_write_serve_and_pull() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let file = sandbox.write("file", vec![7; 3_000_000]);
    run_with(&device, 64, &["put", "k", file.to_str().unwrap()]).ok();
    let serving = device.serve();
    let b = sandbox.device("b").clone_of(&device, &serving, "b");
    device.run_with(&["put", "l"], &[8; 3_000_000]).ok();
    for transport in ["tcp", "quic"] {
        let address = if transport == "tcp" { &serving.tcp } else { &serving.quic };
        run_with(&b, 64, &["pull", address, "--device", &serving.device, "--transport", transport]).ok();
    }
    assert_eq!(run_with(&b, 64, &["get", "l"]).ok().stdout, [8; 3_000_000]);
}

#[test]
fn who_serves_says_at_once_that_so_few_open_files_will_not_do() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    for files in [8, 12, 32, 63] {
        let bound = format!("-n {files}");
        let serve = limited(&device.command(&["--json", "serve", "--listen", "127.0.0.1:0"]), &bound);
        let daemon = limited(&device.mirord_command(&["--json", "--listen", "127.0.0.1:0"]), &bound);
        for mut command in [serve, daemon] {
            let ran = Ran::from(command.output().unwrap()).ended_with(1);
            let said = ran.text() + &ran.stderr;
            assert!(said.contains(&format!("{files} files")) && said.contains("ulimit -n"), "{files}: {said}");
        }
    }
    // As many as it asks for are enough for it.
    let running = Mirord::start(limited(&device.mirord_command(&["--json", "--no-discovery", "--listen", "127.0.0.1:0"]), "-n 64"));
    let b = sandbox.device("b").clone_from(&device, &running, "member", "b");
    device.run_with(&["put", "k"], &[7; 3_000_000]).ok();
    let peer = ["--device", device.status()["device"].as_str().unwrap()].map(str::to_owned);
    for (transport, address) in [("tcp", running.tcp()), ("quic", running.quic())] {
        b.run(&["pull", address, &peer[0], &peer[1], "--transport", transport]).ok();
    }
    assert_eq!(b.run(&["get", "k"]).ok().stdout, [7; 3_000_000]);
}

#[test]
fn a_server_with_few_open_files_lives_through_more_peers_than_it_can_serve() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let b = sandbox.device("b").clone_of(&a, &a.serve(), "b");
    a.run_with(&["put", "k"], &incompressible(3_000_000, 1)).ok();
    let serving = Serving::start(limited(&a.command(&["--json", "serve", "--listen", "127.0.0.1:0"]), "-n 64"));
    let strangers: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&serving.tcp).unwrap()).collect();
    let crowded = b.run(&["pull", &serving.tcp, "--device", &serving.device, "--transport", "tcp"]);
    assert!(matches!(crowded.code, Some(0 | 5 | 16)), "{:?} {}", crowded.code, crowded.stderr);
    drop(strangers);
    let pulls = || b.run(&["pull", &serving.tcp, "--device", &serving.device, "--transport", "tcp"]).code == Some(0);
    until(pulls);
    b.verify();
    a.verify();
    assert!(!sandbox.path("vault/quarantine").exists(), "nothing was taken for damaged");
    assert_eq!(serving.terminate(), Some(130));
}

#[test]
#[cfg(target_os = "linux")]
fn a_pull_that_runs_out_of_memory_loses_nothing_and_the_next_one_goes_on() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let file = sandbox.write("file", incompressible(96 << 20, 1));
    a.run(&["put", "k", file.to_str().unwrap()]).ok();
    let mut died = 0;
    // From what the program cannot begin with to what is enough, however much is pulled.
    let enough = (60_000..400_000).step_by(20_000).find(|kib| {
        let mut pull = limited(&b.command(&["pull", &serving.tcp, "--device", &serving.device]), &format!("-v {kib}"));
        let ran = Ran::from(pull.output().unwrap());
        died += u32::from(ran.code.is_none());
        ran.code == Some(0)
    });
    assert!(enough.is_some() && died > 0, "{enough:?} {died}");
    b.verify();
    assert_eq!(a.entries(), b.entries());
}

#[test]
#[cfg(target_os = "linux")]
fn what_a_server_needs_does_not_grow_with_what_it_takes_in() {
    const BYTES: usize = 192 << 20;
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let file = sandbox.write("file", incompressible(BYTES, 1));
    b.run(&["put", "k", file.to_str().unwrap()]).ok();
    b.run(&["push", &serving.tcp, "--device", &serving.device]).ok();
    let status = std::fs::read_to_string(format!("/proc/{}/status", serving.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib << 10 < BYTES * 3 / 4, "{peak_kib} KiB");
    assert_eq!(a.entries(), b.entries());
}

/// A control group of memory that goes with this; none where this user makes none.
#[cfg(target_os = "linux")]
struct Group(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl Group {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("mirror-test-{}", std::process::id());
        let group = |place: &str, limit: &str| {
            let dir = std::path::Path::new(place).join(&name);
            std::fs::create_dir(&dir).ok()?;
            let group = Self(dir);
            std::fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            // Nothing goes to a swap file instead, where there is one.
            let _ = std::fs::write(group.0.join("memory.swap.max"), "0");
            let _ = std::fs::write(group.0.join("memory.swappiness"), "0");
            Some(group)
        };
        group("/sys/fs/cgroup/memory", "memory.limit_in_bytes").or_else(|| group("/sys/fs/cgroup", "memory.max"))
    }

    fn limit(&self, bytes: u64) {
        let file = ["memory.limit_in_bytes", "memory.max"].map(|name| self.0.join(name)).into_iter().find(|file| file.exists()).unwrap();
        std::fs::write(file, bytes.to_string()).unwrap();
    }

    /// The command, in it from its first page on.
    fn holding(&self, asked: &Command) -> Command {
        within(asked, "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"", &[self.0.as_os_str()])
    }
}

#[cfg(target_os = "linux")]
impl Drop for Group {
    fn drop(&mut self) {
        // Whoever was killed in it may not be gone yet.
        until(|| std::fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_daemon_that_the_system_kills_for_its_memory_goes_on_where_it_was() {
    const MIB: u64 = 1 << 20;
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let serving = a.serve();
    let b = sandbox.device("b").clone_of(&a, &serving, "b");
    let Some(group) = Group::new(12 * MIB) else {
        return eprintln!("SKIPPED: this user makes no control groups of memory (/sys/fs/cgroup)");
    };
    for n in 0..4 {
        let file = sandbox.write("file", incompressible(48 << 20, n));
        a.run(&["put", &n.to_string(), file.to_str().unwrap()]).ok();
    }
    let mut killed = 0;
    // From what the program cannot begin with to what is enough, however much is to come.
    let enough = (1..=16).map(|step| step * 12 * MIB).find(|bytes| {
        group.limit(*bytes);
        let mut daemon = group.holding(&b.mirord_command(&["--json", "--no-discovery", "--listen", "127.0.0.1:0"]));
        let mut daemon = daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut ended = None;
        until(|| {
            ended = daemon.try_wait().unwrap();
            ended.is_some() || b.status()["root"] == a.status()["root"]
        });
        let Some(status) = ended else {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            return true;
        };
        assert_eq!(status.code(), None, "it is killed, and does not end by itself");
        killed += 1;
        false
    });
    assert!(killed > 0 && enough.is_some_and(|bytes| bytes < 4 * 48 * MIB), "{killed} {enough:?}");
    assert_eq!(a.entries(), b.entries());
    b.verify();
}
