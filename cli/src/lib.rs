//! The command line: parse, call, render. What the programs `mirror`, `mirord` and `mirror-bench` are made of.
//!
//! ```text
//! args      what was typed            ─► config   what it means, with environment and file
//! commands  one call of the engine each ─► render   text or JSON on stdout
//! failure   every error: message, causes, hint, exit code
//! daemon    all of `mirord`, and how commands ask it
//! bench     all of `mirror-bench`, which shares args, render and failure with it
//! ```
#![forbid(unsafe_code)]

mod args;
mod bandwidth;
mod bench;
mod commands;
mod config;
mod daemon;
mod failure;
mod interrupt;
mod logging;
mod progress;
mod render;
mod secrets;

use args::Cli;
use clap::{Parser, error::ErrorKind};
use commands::Session;
use failure::{Code, Failure};
use render::{Format, Output, Style};
use std::{ffi::OsString, process::ExitCode};

pub use bench::main as mirror_bench;

/// `mirror`: runs what the arguments of this process say.
pub fn mirror() -> ExitCode {
    start(run)
}

/// `mirord`: the same.
pub fn mirord() -> ExitCode {
    start(daemon::main)
}

/// Parses the arguments of this process for `run`; help and version are printed, and what is wrong with them.
fn start<C: Parser>(run: impl FnOnce(C) -> ExitCode) -> ExitCode {
    let typed: Vec<OsString> = std::env::args_os().collect();
    match C::try_parse_from(&typed) {
        Ok(cli) => run(cli),
        // A stdout that is closed has nobody to help.
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            drop(error.print());
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(error.print());
            ExitCode::from(Code::Usage.number())
        }
        Err(error) => report(&error.into(), typed_format(&typed), config::early_style()),
    }
}

fn run(cli: Cli) -> ExitCode {
    let format = if cli.global.json { Format::Json } else { Format::Text };
    let session = match Session::start(cli.global) {
        Ok(session) => session,
        Err(failure) => return report(&failure, format, config::early_style()),
    };
    let result = commands::run(&session, cli.command);
    // What was printed before a failure comes before it.
    let flushed = session.output.flush();
    end(result.and_then(|code| flushed.map(|()| code)), format, session.talk.style)
}

/// The exit code of what was run, after what went wrong was said.
fn end(result: Result<Code, Failure>, format: Format, style: Style) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code.number()),
        Err(failure) => report(&failure, format, style),
    }
}

/// Says what went wrong where it belongs: JSON on stdout, text on stderr.
fn report(failure: &Failure, format: Format, style: Style) -> ExitCode {
    if !failure.is_silent() {
        match format {
            Format::Json => {
                let output = Output::new(Format::Json);
                drop(output.line(&failure.to_json()).and_then(|()| output.flush()));
            }
            Format::Text => {
                use std::io::Write;
                drop(writeln!(std::io::stderr(), "{}", failure.to_text(style)));
            }
        }
    }
    ExitCode::from(failure.code.number())
}

/// The format of errors in a command line that could not be parsed.
fn typed_format(typed: &[OsString]) -> Format {
    let json = typed.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    if json { Format::Json } else { Format::Text }
}
