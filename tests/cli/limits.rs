//! Too few open files: named as what it is, and no harm done. Too little memory: the process dies, and no harm done either.

use crate::support::{Device, Ran, Sandbox, Serving, contents, incompressible, until};
use std::{
    net::TcpStream,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

/// Runs the program where a process may have `files` open.
fn run_with(device: &Device, files: u32, args: &[&str]) -> Ran {
    Ran::from(limited(device, &format!("-n {files}"), args).output().unwrap())
}

/// The program under a bound of the shell's `ulimit`.
fn limited(device: &Device, bound: &str, args: &[&str]) -> Command {
    let asked = device.command(args);
    let mut limited = Command::new("sh");
    limited.arg0("sh").args(["-c", &format!("ulimit {bound} && exec \"$0\" \"$@\"")]);
    limited.arg(asked.get_program()).args(args).current_dir(asked.get_current_dir().unwrap()).stdin(Stdio::null());
    asked.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(limited.env(name, value)),
        None => drop(limited.env_remove(name)),
    });
    limited
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
fn a_server_with_few_open_files_lives_through_more_peers_than_it_can_serve() {
    let sandbox = Sandbox::new();
    let a = sandbox.device_with_vault();
    let b = sandbox.device("b").clone_of(&a, &a.serve(), "b");
    a.run_with(&["put", "k"], &incompressible(3_000_000, 1)).ok();
    let serving = Serving::start(limited(&a, "-n 64", &["--json", "serve", "--listen", "127.0.0.1:0"]));
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
        let mut pull = limited(&b, &format!("-v {kib}"), &["pull", &serving.tcp, "--device", &serving.device]);
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
