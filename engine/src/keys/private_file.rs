//! Small files that only the user can read and that appear whole or not at all, also after a power cut.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Writes `bytes` to `path`: a temporary file (0600), fsync, rename over `path`, fsync of the directory.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Unique among processes and threads, so that two writers never share a temporary file.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(format!(".new-{}-{}-", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_parent(path)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A leftover of a killed process with our id would be in the way for ever.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads at most `bytes_max` bytes; a longer file is an error, not memory.
pub(crate) fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Makes a directory (and those above it) that only the user can enter; one that is there already is left as it is.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the creation, renaming or removal of `path` itself durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}
