//! `mirror-bench`: measures `mirror`, other programs beside it, and whether it got worse.
#![forbid(unsafe_code)]

use mirror_engine::io::counting::Counting;
use std::process::ExitCode;

/// The allocator of `mirror`, and a count of what is asked of it.
#[global_allocator]
static ALLOCATOR: Counting<mimalloc::MiMalloc> = Counting(mimalloc::MiMalloc);

fn main() -> ExitCode {
    mirror_cli::mirror_bench()
}
