//! `mirord`: vaults that stay equal with their peers by themselves.
//!
//! ```text
//! args, settings ─► plan ─► run ─┬─ keeper: a vault and its node (the engine's), one each; its folders, each on a thread of its own
//!                                ├─ control: the socket that `mirror` asks ─┐
//!                                ├─ nearby: peers on local networks
//!                                ├─ web: status page and metrics ───────────┴─ state: what it says of itself
//!                                └─ signals, supervisor (systemd), log
//! ```
//! # Invariants
//! - Nothing here decides what is transferred: that is the engine's `node`.
//! - Nothing is served to other machines but vaults to their peers, and metrics if the user says so.
//! - The log does not grow with how often the same thing happens.

mod args;
pub(crate) mod control;
mod folders;
mod keeper;
mod log;
mod nearby;
mod plan;
mod repeats;
mod rest;
mod run;
mod settings;
mod signals;
pub(crate) mod state;
mod supervisor;
mod telling;
mod web;

pub(crate) use args::MirordCli;

use crate::{config, end, render::Format};
use std::process::ExitCode;

/// `mirord`: runs what the arguments of this process say.
pub(crate) fn main(cli: MirordCli) -> ExitCode {
    let format = if cli.json { Format::Json } else { Format::Text };
    end(run::run(&cli), format, config::early_style())
}

/// Waits until `done`, in tests.
#[cfg(test)]
fn until(mut done: impl FnMut() -> bool) {
    let begun = mirror_engine::clock::now();
    while !done() {
        assert!(begun.elapsed().as_secs() < 60, "it did not come to that");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
