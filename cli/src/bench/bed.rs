//! A temporary directory with devices, vaults and data in it, gone at the end, however it ends.

use super::statistics::Random;
use crate::failure::Failure;
use mirror_engine::{
    home::Home,
    vault::{AddOptions, AddReport, InitOptions, Unwatched, Vault},
};
use std::{
    cell::Cell,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const PIECE_BYTES: u64 = 1 << 20;
const FILES_PER_DIRECTORY: u32 = 1_000;

#[derive(Debug)]
pub(super) struct Bed {
    dir: TempDir,
    /// Names of what was made so far are numbers.
    made: Cell<u32>,
}

impl Bed {
    pub(super) fn new() -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("mirror-bench-").tempdir();
        let dir = dir.map_err(|error| Failure::io("cannot make a temporary directory", &error).hint("name another place with TMPDIR"))?;
        Ok(Self { dir, made: Cell::new(0) })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path that nothing has yet.
    pub(super) fn fresh(&self, name: &str) -> PathBuf {
        self.made.set(self.made.get() + 1);
        self.dir.path().join(format!("{name}-{}", self.made.get()))
    }

    /// A vault of a device of its own.
    pub(super) fn vault(&self) -> Result<Vault, Failure> {
        let home = Home::open(&self.fresh("home"))?;
        let options = InitOptions::for_this_device("bench", "first");
        Ok(Vault::init(&self.fresh("vault"), &home, options)?.vault)
    }

    /// A file that nothing can compress, the same for the same seed.
    pub(super) fn file(&self, bytes: u64, seed: u64) -> Result<PathBuf, Failure> {
        let path = self.fresh("file");
        write_file(&path, bytes, &mut Random::new(seed))?;
        Ok(path)
    }

    /// So many files of `bytes` each, in a directory.
    pub(super) fn files(&self, count: u32, bytes: u64) -> Result<PathBuf, Failure> {
        self.tree(count, |_| bytes)
    }

    /// So many files of 1 to 16 KiB, in a directory.
    pub(super) fn small_files(&self, count: u32) -> Result<PathBuf, Failure> {
        self.tree(count, |random| 1024 + random.next() % (15 * 1024 + 1))
    }

    fn tree(&self, count: u32, size: impl Fn(&mut Random) -> u64) -> Result<PathBuf, Failure> {
        let (top, mut random) = (self.fresh("tree"), Random::new(2));
        let mut directory = top.clone();
        for number in 0..count {
            if number % FILES_PER_DIRECTORY == 0 {
                directory = top.join(format!("{:06}", number / FILES_PER_DIRECTORY));
                fs::create_dir_all(&directory).map_err(|error| Failure::writing(&directory, &error))?;
            }
            let bytes = size(&mut random);
            write_file(&directory.join(format!("{number:08}")), bytes, &mut random)?;
        }
        Ok(top)
    }
}

fn write_file(path: &Path, mut bytes: u64, random: &mut Random) -> Result<(), Failure> {
    let failed = |error| Failure::writing(path, &error);
    let mut file = File::create(path).map_err(failed)?;
    let mut piece = vec![0; bytes.min(PIECE_BYTES) as usize];
    while bytes > 0 {
        let part = bytes.min(PIECE_BYTES) as usize;
        random.fill(&mut piece[..part]);
        file.write_all(&piece[..part]).map_err(failed)?;
        bytes -= part as u64;
    }
    Ok(())
}

/// `mirror add`.
///
/// # Errors
/// Also when something was left out.
pub(super) fn add(vault: &Vault, path: &Path) -> Result<AddReport, Failure> {
    let options = AddOptions { paths: vec![path.to_owned()], ..AddOptions::default() };
    let report = vault.add(&options, &Unwatched)?;
    match report.skipped.first() {
        Some((path, reason)) => Err(Failure::new(crate::failure::Code::Failed, format!("{}: {reason}", path.display()))),
        None => Ok(report),
    }
}

/// What is not there any more is as good as removed.
pub(super) fn remove(path: &Path) {
    drop(if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) });
}
