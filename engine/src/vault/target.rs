//! Where `restore` may write: never outside DEST, never through a link, never over what is there unless asked.
//!
//! A key is bytes that another replica chose. It becomes a path only if each component is a plain name; parents are checked
//! (or made) as real directories once each, and links are written after everything else, so that nothing is written through one.

use crate::event::Key;
use std::{
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Longest name that file systems take.
const NAME_BYTES_MAX: usize = 255;

/// Why a key cannot be a path below DEST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsafePath {
    #[error("the key is an absolute path")]
    Absolute,
    #[error("the key climbs out with `..` or has an empty or `.` component")]
    Climbs,
    #[error("the key holds a NUL byte")]
    Nul,
    #[error("a name in the key is longer than {NAME_BYTES_MAX} bytes")]
    LongName,
}

/// The path of `key` below DEST, relative.
pub(crate) fn relative_path(key: &Key) -> Result<PathBuf, UnsafePath> {
    let bytes = key.as_bytes();
    if bytes.starts_with(b"/") {
        return Err(UnsafePath::Absolute);
    }
    if bytes.contains(&0) {
        return Err(UnsafePath::Nul);
    }
    for component in bytes.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." | b".." => return Err(UnsafePath::Climbs),
            name if name.len() > NAME_BYTES_MAX => return Err(UnsafePath::LongName),
            _ => {}
        }
    }
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// The destination directory.
pub(crate) struct Target {
    root: PathBuf,
    checked: Mutex<HashSet<PathBuf>>,
}

impl Target {
    /// Makes DEST if it is not there; it may itself be reached through links.
    pub(crate) fn open(destination: &Path) -> io::Result<Self> {
        fs::create_dir_all(destination)?;
        Ok(Self { root: fs::canonicalize(destination)?, checked: Mutex::new(HashSet::new()) })
    }

    /// The directory `root`, which is there: it is not made should it vanish.
    pub(crate) fn existing(root: &Path) -> Self {
        Self { root: root.to_owned(), checked: Mutex::new(HashSet::new()) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The full path for `relative`, its parents being real directories below DEST.
    pub(crate) fn place(&self, relative: &Path) -> io::Result<PathBuf> {
        if let Some(parent) = relative.parent() {
            self.directory(parent)?;
        }
        Ok(self.root.join(relative))
    }

    /// Makes sure that `relative` is a real directory below DEST.
    pub(crate) fn directory(&self, relative: &Path) -> io::Result<()> {
        if relative.as_os_str().is_empty() || self.known(relative) {
            return Ok(());
        }
        if let Some(parent) = relative.parent() {
            self.directory(parent)?;
        }
        let path = self.root.join(relative);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&path)?.is_dir() {
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, "something else stands where a directory must be"));
                }
            }
            Err(error) => return Err(error),
        }
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).insert(relative.to_owned());
        Ok(())
    }

    fn known(&self, relative: &Path) -> bool {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).contains(relative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(key: &str) -> Result<PathBuf, UnsafePath> {
        relative_path(&Key::new(key).unwrap())
    }

    #[test]
    fn keys_that_climb_or_start_at_the_root_are_refused() {
        assert_eq!(path("/etc/passwd"), Err(UnsafePath::Absolute));
        for key in ["..", "../x", "a/../../x", "a/..", "./a", "a//b", "a/"] {
            assert_eq!(path(key), Err(UnsafePath::Climbs), "{key}");
        }
        assert_eq!(path("a\0b"), Err(UnsafePath::Nul));
        assert_eq!(path(&"n".repeat(256)), Err(UnsafePath::LongName));
        assert_eq!(path("a/..b/c..").unwrap(), Path::new("a/..b/c.."));
    }

    #[test]
    fn a_link_is_never_taken_for_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let target = Target::open(dir.path()).unwrap();
        assert!(target.place(Path::new("link/file")).is_err());
        assert!(target.place(Path::new("a/b/file")).is_ok());
    }
}
