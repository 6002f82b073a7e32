//! `mirord`: keeps vaults equal with their peers, for as long as it runs.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// The allocator of `mirror`: a daemon does the same work, for longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mirror_cli::mirord()
}
