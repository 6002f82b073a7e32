//! Why something is not here, or not there: `why`.

use crate::support::{Sandbox, incompressible};
use std::fs;

#[test]
fn why_says_which_peer_has_it_and_which_command_brings_it() {
    let sandbox = Sandbox::new();
    let first = sandbox.device_with_vault();
    first.run_with(&["put", "plan"], b"one").ok();
    let serving = first.serve();
    let second = sandbox.device("second").clone_of(&first, &serving, "copy");
    assert_eq!(second.run(&["--json", "why", "plan"]).ok().last("why")["here"], true);

    second.run_with(&["put", "answer"], b"two").ok();
    let name = second.status()["peers"][0]["name"].as_str().unwrap().to_owned();
    let asked = second.run(&["why", "answer"]).ok();
    assert!(asked.text().contains(&format!("{name}: did not have it")), "{}", asked.text());
    assert!(asked.stderr.contains(&format!("mirror push {name} brings it there")), "{}", asked.stderr);
    second.run(&["push", &name]).ok();
    assert_eq!(second.run(&["--json", "why", "answer"]).ok().last("why")["peers"][0]["has"], true);
}

#[test]
fn why_of_what_nobody_knows_fails_and_an_id_is_understood() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    device.run_with(&["put", "k"], b"v").ok();
    let unknown = device.run(&["why", "nothing"]).ended_with(1);
    assert!(unknown.text().contains("nothing here knows of it"), "{}", unknown.text());
    let event = device.entries()[0]["event"].as_str().unwrap().to_owned();
    let by_id = device.run(&["--json", "why", &event]).ok().last("why");
    assert_eq!((&by_id["event"], &by_id["here"]), (&event.into(), &true.into()));
}

#[test]
fn why_tells_a_value_whose_chunks_are_gone() {
    let sandbox = Sandbox::new();
    let device = sandbox.device_with_vault();
    let file = sandbox.write("file", incompressible(300_000, 1));
    device.run(&["add", file.to_str().unwrap()]).ok();
    for pack in fs::read_dir(sandbox.path("vault").join("packs")).unwrap() {
        fs::remove_file(pack.unwrap().path()).unwrap();
    }
    device.run(&["recover"]);
    let why = device.run(&["--json", "why", "file"]).ended_with(3).last("why");
    assert_eq!((&why["here"], &why["events"][0]["state"]), (&false.into(), &"lost".into()));
}
