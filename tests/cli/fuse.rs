//! `--max-delete`: somebody else's mass deletion is stopped before it is taken over, and goes through once the user agrees.

use crate::support::{Device, Sandbox, Serving};

/// `a` serves twenty keys, nineteen files and their directory, which `b` holds as well.
struct Twenty {
    _sandbox: Sandbox,
    a: Device,
    b: Device,
    serving: Serving,
}

impl Twenty {
    fn new(serve: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let a = sandbox.device_with_vault();
        (0..19).for_each(|n| _ = sandbox.write(&format!("data/file-{n}"), format!("{n}")));
        a.run(&["add", &sandbox.path("data").display().to_string()]).ok();
        let serving = a.serve_with(serve);
        let b = sandbox.device("b").clone_of(&a, &serving, "b");
        Self { a, b, serving, _sandbox: sandbox }
    }

    fn b_runs(&self, command: &str, flags: &[&str]) -> crate::support::Ran {
        let peer = self.serving.over("tcp");
        let peer: Vec<&str> = peer.iter().map(String::as_str).collect();
        self.b.run(&[&["--json", command], &peer[..], flags].concat())
    }
}

fn keys(device: &Device) -> usize {
    device.run(&["--json", "ls"]).ok().json().len()
}

#[test]
fn a_pull_stops_before_too_many_deletions_and_takes_them_when_told() {
    let twenty = Twenty::new(&[]);
    twenty.a.run(&["rm", "data"]).ok();
    let stopped = twenty.b_runs("pull", &["--max-delete", "19"]).ended_with(15).last("error");
    assert!(stopped["message"].as_str().unwrap().contains("20 keys would be deleted, more than the 19 allowed"), "{stopped}");
    assert!(stopped["hint"].as_str().unwrap().contains("--max-delete 20"), "{stopped}");
    assert_eq!(keys(&twenty.b), 20, "nothing was taken over");
    twenty.b_runs("pull", &["--max-delete", "20"]).ok();
    assert_eq!(keys(&twenty.b), 0);
    twenty.b.run(&["undelete", "data"]).ok();
    assert_eq!(keys(&twenty.b), 20);
}

#[test]
fn deletions_that_are_few_or_long_past_do_not_count() {
    let twenty = Twenty::new(&[]);
    twenty.a.run(&["rm", "data/file-1"]).ok();
    twenty.b_runs("pull", &["--max-delete", "1"]).ok();
    twenty.a.run_with(&["put", "brief"], b"b never saw it").ok();
    twenty.a.run(&["rm", "brief", "data/file-2"]).ok();
    twenty.b_runs("pull", &["--max-delete", "1"]).ok();
    assert_eq!(keys(&twenty.b), 18);
}

#[test]
fn a_server_with_a_limit_takes_no_mass_deletion_from_a_pusher() {
    let twenty = Twenty::new(&["--max-delete", "5"]);
    twenty.b.run(&["rm", "data"]).ok();
    let stopped = twenty.b_runs("push", &[]).ended_with(6).last("error");
    assert!(stopped["message"].as_str().unwrap().contains("20 keys would be deleted, more than the 5 allowed"), "{stopped}");
    assert_eq!(keys(&twenty.a), 20);
}
