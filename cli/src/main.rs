//! `mirror`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Chunks are cut and sealed on many threads, where the system's allocator is slow on some platforms.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mirror_cli::mirror()
}
