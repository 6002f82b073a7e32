//! What a process that has come to rest gives back to the system: memory that it freed, and pages that SQLite caches.
//!
//! A program of its own, with the allocator of `mirord`, and one test: what is resident belongs to the process.
#![cfg(target_os = "linux")]

use mirror_engine::{
    home::Home,
    io::surplus,
    vault::{AddOptions, InitOptions, Unwatched, Vault},
};
use std::{fs, path::Path};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// In small pieces, as keys and events come.
const FREED_BYTES: u64 = 64 << 20;
const PIECE_BYTES: u64 = 4 << 10;
/// With long names: each is a row of some hundred bytes in two tables.
const FILES: usize = 3_000;
/// Far less than those rows take, and more than anything else changes in a process that does nothing.
const CACHED_BYTES_MIN: u64 = 1 << 20;

/// Memory of this process alone.
fn private_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A vault to which many files were added.
fn filled(dir: &Path) -> Vault {
    let (files, home) = (dir.join("files"), Home::open(&dir.join("home")).unwrap());
    fs::create_dir(&files).unwrap();
    for n in 0..FILES {
        fs::write(files.join(format!("{n}-{}", "x".repeat(200))), n.to_le_bytes()).unwrap();
    }
    let options = InitOptions::for_this_device("v", "a");
    let vault = Vault::init(&dir.join("vault"), &home, options).unwrap().vault;
    vault.add(&AddOptions { paths: vec![files], ..AddOptions::default() }, &Unwatched).unwrap();
    vault
}

#[test]
fn at_rest_what_was_freed_and_what_was_cached_goes_back() {
    let pieces: Vec<Vec<u8>> = (0..FREED_BYTES / PIECE_BYTES).map(|n| vec![n as u8; PIECE_BYTES as usize]).collect();
    let held = private_bytes();
    drop(pieces);
    surplus::give_back();
    let left = private_bytes();
    assert!(left + FREED_BYTES / 2 < held, "{held} bytes with the pieces, {left} without");

    let dir = TempDir::new().unwrap();
    let vault = filled(dir.path());
    surplus::give_back();
    let caching = private_bytes();
    vault.give_back().unwrap();
    surplus::give_back();
    let left = private_bytes();
    assert!(left + CACHED_BYTES_MIN < caching, "{caching} bytes with caches, {left} without");
}
