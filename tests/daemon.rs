//! The real daemon and the real program: replicas that follow each other, and what people and systems tell a daemon.

#[path = "daemon/control.rs"]
mod control;
#[path = "daemon/folders.rs"]
mod folders;
#[path = "daemon/follow.rs"]
mod follow;
#[path = "daemon/start.rs"]
mod start;
mod support;
#[path = "daemon/system.rs"]
mod system;

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};
use support::Device;

/// What the daemon of a device says of itself, asked as `mirror` asks.
fn ask(device: &Device) -> Value {
    let mut stream = UnixStream::connect(device.home().join("mirord.sock")).unwrap();
    stream.write_all(b"{\"do\":\"status\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// The digest over what the only vault of a device's daemon holds, as far as the daemon knows.
fn root(device: &Device) -> String {
    ask(device)["vaults"][0]["root"].as_str().unwrap_or_default().to_owned()
}

/// The same as the vault's files have it: at once, whichever program has written.
fn stored(device: &Device) -> String {
    device.status()["root"].as_str().unwrap().to_owned()
}
