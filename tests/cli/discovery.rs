//! The local network: two machines, as far as a kernel can tell, with a cable between them.
//!
//! Each test runs itself again in a network namespace of its own, which nobody outside hears. Where the system does not allow that to
//! this user, it says so and shows nothing.

use crate::support::{Device, Mirord, Ran, Running, Sandbox, Serving, until};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    env,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

/// Set where a test runs inside.
const INSIDE: &str = "DISCOVERY_TEST_INSIDE";
const HERE: &str = "10.9.0.1";

/// The other end of the cable, until it is dropped.
struct There(Child);

impl There {
    /// A cable from `v0` here to `v1` there.
    fn plug_in() -> Self {
        let holder = Command::new("unshare").args(["--net", "sh", "-c", "echo; exec sleep 600"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut there = Self(holder);
        // A line says that its namespace is there.
        std::io::Read::read_exact(there.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let id = there.0.id().to_string();
        ip(&["link", "set", "lo", "up"]);
        ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        ip(&["link", "set", "v1", "netns", &id]);
        ip(&["addr", "add", &format!("{HERE}/24"), "dev", "v0"]);
        ip(&["link", "set", "v0", "up"]);
        for args in [&["addr", "add", "10.9.0.2/24", "dev", "v1"][..], &["link", "set", "lo", "up"], &["link", "set", "v1", "up"]] {
            let mut command = Command::new("ip");
            assert!(there.runs(command.args(args)).status().unwrap().success());
        }
        there
    }

    /// The same command on the other machine.
    fn runs(&self, command: &Command) -> Command {
        let mut moved = Command::new("nsenter");
        moved.args(["--net", "--target", &self.0.id().to_string()]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => moved.env(name, value),
                None => moved.env_remove(name),
            };
        }
        moved.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
        moved
    }

    fn run(&self, device: &Device, args: &[&str]) -> Ran {
        Ran::from(self.runs(&announced(device, args)).output().unwrap())
    }

    fn discovered(&self, device: &Device) -> Vec<Value> {
        self.run(device, &["--json", "peer", "discover", "--for", "3s"]).ok().json()
    }
}

impl Drop for There {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn ip(args: &[&str]) {
    assert!(Command::new("ip").args(args).status().unwrap().success(), "ip {args:?}");
}

/// With discovery, which other tests are without.
fn announced(device: &Device, args: &[&str]) -> Command {
    let mut command = device.command(args);
    command.env_remove("MIRROR_NO_DISCOVERY");
    command
}

fn serve(device: &Device) -> Serving {
    Serving::start(announced(device, &["--json", "serve", "--listen", "[::]:0"]))
}

fn address(serving: &Serving) -> String {
    format!("{HERE}:{}", serving.tcp.rsplit_once(':').unwrap().1)
}

/// Runs `body` on a machine that has only itself, in this process or in another one.
fn alone(body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let unshared = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--"]);
        command
    };
    if !unshared().args(["ip", "link", "add", "v0", "type", "veth"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no network namespaces here (unshare --user --net, ip link add type veth)");
        return;
    }
    let name = thread::current().name().unwrap().to_owned();
    let ran = unshared().arg(env::current_exe().unwrap()).args(["--exact", &name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

/// A vault here that is served, and a replica on the other machine; what the other machine calls this one.
struct Pair {
    there: There,
    a: Device,
    b: Device,
    name: String,
    sandbox: Sandbox,
}

impl Pair {
    fn new() -> Self {
        let (there, sandbox) = (There::plug_in(), Sandbox::new());
        let a = sandbox.device_with_vault();
        let serving = serve(&a);
        let ticket = a.run(&["--json", "invite", "--addr", &address(&serving)]).ok().last("ticket")["ticket"].as_str().unwrap().to_owned();
        let b = sandbox.device("b");
        there.run(&b, &["--json", "clone", &ticket, "b"]).ok();
        let b = b.within(&sandbox.path("b"));
        let name = there.run(&b, &["--json", "peer", "list"]).ok().last("peer")["name"].as_str().unwrap().to_owned();
        assert_eq!(serving.terminate(), Some(130));
        Self { there, a, b, name, sandbox }
    }
}

#[test]
fn a_peer_that_has_moved_or_never_had_an_address_is_found() {
    alone(|| {
        let Pair { there, a, b, name, .. } = Pair::new();
        let nobody = there.run(&b, &["--json", "--no-discovery", "pull", &name]);
        assert_eq!(nobody.code, Some(16), "nobody serves at the port of the ticket any more");
        let _serving = serve(&a);
        a.run_with(&["put", "moved"], b"1").ok();
        let pulled = there.run(&b, &["pull", &name]).ok();
        assert!(pulled.stderr.contains("announces itself on the local network at 10.9.0.1:"), "{}", pulled.stderr);
        assert_eq!(b.run(&["get", "moved"]).ok().stdout, b"1");

        there.run(&b, &["peer", "remove", &name]).ok();
        a.run_with(&["put", "forgotten"], b"2").ok();
        there.run(&b, &["pull", &name]).ok();
        assert_eq!(b.run(&["get", "forgotten"]).ok().stdout, b"2");
        assert_eq!(there.run(&b, &["--json", "--no-discovery", "pull", &name]).code, Some(16));
    });
}

#[test]
fn devices_are_listed_with_what_they_are_called_and_the_next_command_for_strangers() {
    alone(|| {
        let Pair { there, a, b, name, sandbox } = Pair::new();
        let serving = serve(&a);
        let stranger = sandbox.device("c");
        stranger.run(&["init", "other", "--no-passphrase", "--no-recovery-kit"]).ok();
        let other = serve(&stranger.within(&sandbox.path("other")));
        let ipv6 = Path::new("/proc/net/if_inet6").exists();
        let is_whole = |record: &Value| !ipv6 || record["addresses"].to_string().contains("[fe80::");
        let mut seen = Vec::new();
        // A device may be heard before all its addresses are.
        until(|| {
            seen = there.discovered(&b);
            seen.len() == 2 && seen.iter().all(is_whole)
        });
        let of = |device: &str| seen.iter().find(|record| record["device"] == device).unwrap();
        assert_eq!((of(&serving.device)["type"].as_str(), of(&serving.device)["name"].as_str()), (Some("neighbour"), Some(name.as_str())));
        assert_eq!(of(&serving.device)["addresses"][0], address(&serving), "IPv4 first");
        assert_eq!(of(&other.device)["name"], Value::Null);

        let text = there.run(&b, &["peer", "discover", "--for", "3s"]).ok();
        assert!(text.text().contains(&format!("unknown  {}  {}", other.device, address(&other))), "{}", text.text());
        let next = format!("mirror peer add NAME {} --device {}", address(&other), other.device);
        assert!(text.stderr.contains(&next), "{}", text.stderr);
    });
}

#[test]
fn a_new_address_is_announced_and_a_follower_without_one_waits_for_its_peer() {
    alone(|| {
        let Pair { there, a, b, name, .. } = Pair::new();
        there.run(&b, &["peer", "remove", &name]).ok();
        let mut follower = Running::start(there.runs(&announced(&b, &["--json", "sync", "--follow", &name])));
        follower.wait_for(|record| record["state"] == "waiting");
        let serving = serve(&a);
        follower.wait_for(|record| record["state"] == "identical");

        ip(&["addr", "add", "10.9.0.77/24", "dev", "v0"]);
        let new = address(&serving).replace(HERE, "10.9.0.77");
        until(|| there.discovered(&b).iter().any(|record| record["addresses"].as_array().unwrap().iter().any(|at| *at == *new)));
        follower.signal(Signal::INT);
        assert_eq!(follower.finish().code, Some(130));
    });
}

#[test]
fn two_daemons_that_know_no_address_of_each_other_find_each_other_and_a_moved_one_again() {
    alone(|| {
        let Pair { there, a, b, name, .. } = Pair::new();
        there.run(&b, &["peer", "remove", &name]).ok();
        let daemon = |device: &Device| {
            let mut command = device.mirord_command(&["--json", "--listen", "[::]:0"]);
            command.env_remove("MIRROR_NO_DISCOVERY");
            command
        };
        let here = Mirord::start(daemon(&a));
        let _there = Mirord::start(there.runs(&daemon(&b)));
        a.run_with(&["put", "found"], b"1").ok();
        until(|| b.run(&["get", "found"]).stdout == b"1");
        b.run_with(&["put", "back"], b"2").ok();
        until(|| a.run(&["get", "back"]).stdout == b"2");
        // Another port, which nobody is told of but by its announcement.
        here.signal(Signal::TERM);
        assert_eq!(here.finish(), Some(130));
        let _here = Mirord::start(daemon(&a));
        a.run_with(&["put", "moved"], b"3").ok();
        until(|| b.run(&["get", "moved"]).stdout == b"3");
    });
}

#[test]
fn a_machine_without_a_network_is_told_so_and_goes_on() {
    alone(|| {
        ip(&["link", "set", "lo", "up"]);
        let sandbox = Sandbox::new();
        let a = sandbox.device_with_vault();
        let listed = Ran::from(announced(&a, &["peer", "discover", "--for", "100ms"]).output().unwrap()).ok();
        assert!(listed.stderr.contains("warning: no network interface is up"), "{}", listed.stderr);
        let mut serving = Running::start(announced(&a, &["serve", "--listen", "0.0.0.0:0"]));
        serving.wait_for_line(|line| line.contains("listening"));
        serving.signal(Signal::TERM);
        let served = serving.finish();
        assert_eq!(served.code, Some(130));
        assert!(served.stderr.contains("announced once there is one"), "{}", served.stderr);
    });
}

#[test]
fn a_device_whose_owner_does_not_want_it_is_not_seen() {
    alone(|| {
        let Pair { there, a, b, .. } = Pair::new();
        let _silent = Serving::start(announced(&a, &["--json", "--no-discovery", "serve", "--listen", "[::]:0"]));
        assert!(there.discovered(&b).is_empty());
    });
}
