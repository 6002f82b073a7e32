//! Which path a key has in a folder, and what the versions of a conflict are called.
//!
//! A name is made of the version's author and its number in the author's log, so it is the same on every replica.

use crate::{
    event::{Dot, Key},
    vault::{VaultError, relative_path},
};
use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Longest name that file systems take.
const NAME_BYTES_MAX: usize = 255;

/// The part of a vault's keys that one folder shows.
#[derive(Debug, Clone)]
pub(super) struct Naming {
    root: PathBuf,
    /// Empty, or ends with `/`.
    prefix: Vec<u8>,
}

impl Naming {
    /// Keys below `prefix` lie in `root`.
    ///
    /// # Errors
    /// [`VaultError::Usage`] for a prefix that is no path.
    pub(super) fn new(root: PathBuf, prefix: Option<&str>) -> Result<Self, VaultError> {
        let prefix = prefix.unwrap_or("").trim_end_matches('/').as_bytes().to_vec();
        if prefix.is_empty() {
            return Ok(Self { root, prefix });
        }
        let usage = |error: &dyn std::fmt::Display| VaultError::Usage(format!("the prefix cannot be a path: {error}"));
        let key = Key::new(prefix.clone()).map_err(|error| usage(&error))?;
        relative_path(&key).map_err(|error| usage(&error))?;
        Ok(Self { root, prefix: [prefix.as_slice(), b"/"].concat() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What the keys of this folder begin with.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The key of `path`; none for the folder itself, what lies outside, and names that are too long for a key.
    pub(super) fn key(&self, path: &Path) -> Option<Key> {
        let relative = path.strip_prefix(&self.root).ok()?.as_os_str().as_bytes();
        if relative.is_empty() { None } else { Key::new([&self.prefix, relative].concat()).ok() }
    }

    /// The path of `key` below the root; none if the key is not of this folder.
    ///
    /// # Errors
    /// Why the key cannot be a path.
    pub(super) fn relative(&self, key: &Key) -> Result<Option<PathBuf>, String> {
        match key.as_bytes().strip_prefix(self.prefix.as_slice()).map(Key::new) {
            None | Some(Err(_)) => Ok(None),
            Some(Ok(rest)) => relative_path(&rest).map(Some).map_err(|error| error.to_string()),
        }
    }

    /// The keys of the directories that `key` lies in.
    pub(super) fn above(&self, key: &Key) -> Vec<Key> {
        let bytes = key.as_bytes();
        let slashes = (self.prefix.len()..bytes.len()).filter(|at| bytes[*at] == b'/');
        slashes.filter_map(|at| Key::new(&bytes[..at]).ok()).collect()
    }

    /// The absolute path of `key`, if it can have one.
    pub(super) fn path(&self, key: &Key) -> Option<PathBuf> {
        self.relative(key).ok().flatten().map(|relative| self.root.join(relative))
    }
}

/// Where the version of `key` that the event at `dot` holds lies beside the one that stands: `NAME.conflict-AUTHOR-NUMBER.EXTENSION`.
/// None if that cannot be a key.
pub(super) fn copy_key(key: &Key, dot: &Dot) -> Option<Key> {
    let bytes = key.as_bytes();
    let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (directory, name) = bytes.split_at(start);
    // A dot that begins a name begins no extension.
    let dot_at = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot_at);
    let mark = format!(".conflict-{}-{}", dot.author.short(), dot.sequence);
    let mut room = NAME_BYTES_MAX.saturating_sub(mark.len() + extension.len()).min(stem.len());
    // Not within a letter of UTF-8.
    while stem.get(room).is_some_and(|byte| byte & 0xc0 == 0x80) && room > 0 {
        room -= 1;
    }
    Key::new([directory, &stem[..room], mark.as_bytes(), extension].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ReplicaId;

    fn copy(key: &str) -> String {
        let dot = Dot { author: ReplicaId::from_bytes([0xab; 32]), sequence: 17 };
        copy_key(&Key::new(key).unwrap(), &dot).unwrap().to_text().into_owned()
    }

    #[test]
    fn a_version_keeps_directory_and_extension() {
        assert_eq!(copy("d.e/notes.txt"), "d.e/notes.conflict-abababab-17.txt");
        assert_eq!(copy("d.e/Makefile"), "d.e/Makefile.conflict-abababab-17");
        assert_eq!(copy(".bashrc"), ".bashrc.conflict-abababab-17");
        assert_eq!(copy("a.tar.gz"), "a.tar.conflict-abababab-17.gz");
        let long = format!("d/{}.txt", "n".repeat(251));
        let name = copy(&long);
        assert_eq!(name.len() - "d/".len(), 255);
        assert!(name.ends_with("n.conflict-abababab-17.txt"), "{name}");
    }

    #[test]
    fn keys_and_paths_below_a_prefix_are_each_others_inverse() {
        let naming = Naming::new("/home/docs".into(), Some("work/docs/")).unwrap();
        let key = naming.key(Path::new("/home/docs/a/b")).unwrap();
        assert_eq!(key.to_text(), "work/docs/a/b");
        assert_eq!(naming.path(&key), Some("/home/docs/a/b".into()));
        assert_eq!(naming.key(Path::new("/home/docs")), None);
        assert_eq!(naming.key(Path::new("/home/other")), None);
        let above = naming.above(&naming.key(Path::new("/home/docs/a/b/c")).unwrap());
        assert_eq!(above, ["work/docs/a", "work/docs/a/b"].map(|key| Key::new(key).unwrap()));
        for other in ["work/docs", "work/docsx", "elsewhere"] {
            assert_eq!(naming.relative(&Key::new(other).unwrap()), Ok(None), "{other}");
        }
        assert!(naming.relative(&Key::new("work/docs/../x").unwrap()).is_err());
        assert!(Naming::new("/home/docs".into(), Some("../x")).is_err());
    }
}
