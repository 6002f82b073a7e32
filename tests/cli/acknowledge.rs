//! `push --ack N`: a push that is done when N replicas hold it.

use crate::support::{Device, Sandbox, Serving};

/// Three replicas; two serve, and the third knows where.
struct Three {
    _sandbox: Sandbox,
    a: Device,
    _near: Serving,
    far: Serving,
    /// What the first calls the two that serve.
    names: [String; 2],
    far_device: Device,
}

impl Three {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let a = sandbox.device_with_vault();
        let serving = a.serve();
        let [b, c] = ["b", "c"].map(|name| sandbox.device(name).clone_of(&a, &serving, name));
        drop(serving);
        let (near, far) = (b.serve(), c.serve());
        let known = a.run(&["--json", "peer", "list"]).ok().json();
        let names = [&near, &far].map(|replica| {
            let peer = known.iter().find(|peer| peer["device"] == replica.device.as_str()).expect("it was cloned from here");
            let name = peer["name"].as_str().unwrap().to_owned();
            a.run(&["peer", "add", &name, &replica.tcp, "--device", &replica.device]).ok();
            name
        });
        Self { a, _near: near, far, names, far_device: c, _sandbox: sandbox }
    }
}

#[test]
fn a_push_goes_on_to_other_peers_until_enough_hold_it() {
    let three = Three::new();
    three.a.run_with(&["put", "k"], b"v").ok();
    let records = three.a.run(&["--json", "push", &three.names[0], "--ack", "3"]).ok().json();
    let acknowledged = records.iter().find(|record| record["type"] == "acknowledged").expect("a record");
    assert_eq!((&acknowledged["replicas"], &acknowledged["wanted"]), (&3.into(), &3.into()));
    assert_eq!(records.last().unwrap()["type"], "summary");
    assert_eq!(three.far_device.run(&["get", "k"]).ok().text(), "v");
}

#[test]
fn too_few_that_can_be_reached_are_a_partial_success_that_names_the_others() {
    let three = Three::new();
    three.a.run_with(&["put", "k"], b"v").ok();
    assert_eq!(three.far.terminate(), Some(130));
    let ran = three.a.run(&["--json", "push", &three.names[0], "--ack", "3"]).ended_with(3);
    let acknowledged = ran.json().into_iter().find(|record| record["type"] == "acknowledged").expect("a record");
    assert_eq!((&acknowledged["replicas"], &acknowledged["unheld"][0]["name"]), (&2.into(), &three.names[1].as_str().into()));
    three.a.run(&["push", &three.names[0], "--ack", "2"]).ok();
}

#[test]
fn more_replicas_than_there_are_is_refused_before_anything_is_sent() {
    let three = Three::new();
    let refused = three.a.run(&["--json", "push", &three.names[0], "--ack", "4"]).ended_with(2).last("error");
    assert!(refused["message"].as_str().unwrap().contains("only 3 replicas are known here"), "{refused}");
}
