//! Finding what to add: files, directories and links below the paths a user names, with the keys they get.
//!
//! A tree's keys begin with its own name, as `cp -r` would copy it; `DIR/`, `.` and `..` add what is inside. Symbolic links are
//! kept as links, never followed; sockets, pipes and devices are reported and left out.

use super::{AddOptions, VaultError, view::FileState};
use crate::{
    clock,
    event::{Key, Value, ValueKind},
    id::EventId,
};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::{
    fs::{self, Metadata},
    io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};
use walkdir::WalkDir;

/// Linux stamps files by the tick: 10 ms at the slowest.
const CLOCK_GRANULARITY_NS: i64 = 20_000_000;

/// What identifies an unchanged file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) modified_ns: i64,
    pub(crate) changed_ns: i64,
    pub(crate) inode: u64,
    pub(crate) device: u64,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            size: metadata.size(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

/// One thing to add.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Absolute.
    pub(crate) path: PathBuf,
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
    /// Kind and times; the content of a file is still empty.
    pub(crate) value: Value,
}

impl Found {
    /// A value that is not on disk.
    pub(crate) fn value(key: Key, value: Value) -> Self {
        let stamp = Stamp { size: 0, modified_ns: 0, changed_ns: 0, inode: 0, device: 0 };
        Self { path: PathBuf::new(), key, stamp, value }
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self.value.kind, ValueKind::File(_))
    }

    /// Bytes that have to be read.
    pub(crate) fn value_bytes(&self) -> u64 {
        if self.is_file() { self.stamp.size } else { 0 }
    }

    /// Whether the next change of the file is sure to change its stamp: one within the granularity of the file system's clock
    /// after this stamp might not ("racy" in git's index).
    pub(crate) fn is_settled(&self) -> bool {
        let now_ns = (clock::wall_ms() as i64).saturating_mul(1_000_000);
        !self.path.as_os_str().is_empty() && self.stamp.changed_ns < now_ns - CLOCK_GRANULARITY_NS
    }

    /// Whether the file is what it was when `state` was taken, under the same key.
    pub(crate) fn is_as(&self, state: &FileState) -> bool {
        let FileState { size, modified_ns, changed_ns, inode, device, ref key, .. } = *state;
        self.stamp == Stamp { size, modified_ns, changed_ns, inode, device } && self.key == *key
    }

    /// What the view remembers of the file, which `event` put.
    pub(crate) fn into_state(self, event: EventId) -> (Vec<u8>, FileState) {
        let Stamp { size, modified_ns, changed_ns, inode, device } = self.stamp;
        let state = FileState { size, modified_ns, changed_ns, inode, device, key: self.key, event };
        (self.path.into_os_string().into_vec(), state)
    }

    /// Whether the file is not what it was when it was found.
    pub(crate) fn has_moved(&self) -> bool {
        fs::symlink_metadata(&self.path).map_or(true, |metadata| Stamp::of(&metadata) != self.stamp)
    }
}

/// Takes the metadata of a file that has changed since it was found.
pub(crate) fn restamp(found: &mut Found, metadata: &Metadata) {
    found.stamp = Stamp::of(metadata);
    found.value.kind = ValueKind::File(metadata.mode() & 0o7777);
    found.value.modified_s = metadata.mtime();
    found.value.modified_ns = metadata.mtime_nsec().clamp(0, 999_999_999) as u32;
}

/// Something that can't be added, with its reason.
pub(crate) type Skipped = (PathBuf, String);

/// The roots and rules of one `add`.
pub(crate) struct Walk {
    roots: Vec<(PathBuf, Vec<u8>)>,
    /// Named paths that are not there or cannot be looked at.
    absent: Vec<Skipped>,
    excluded: Excluded,
    vault: PathBuf,
}

impl Walk {
    /// Checks the paths and patterns before anything is read. With none of the paths there is nothing to do; with some of them
    /// the others are reported like what cannot be read further down.
    pub(crate) fn new(options: &AddOptions, vault: &Path) -> Result<Self, VaultError> {
        let prefix = options.prefix.as_deref().unwrap_or("").trim_end_matches('/');
        let vault = fs::canonicalize(vault).map_err(|error| VaultError::io(format!("resolving {}", vault.display()), error))?;
        let mut roots = Vec::with_capacity(options.paths.len());
        let mut absent = Vec::new();
        for path in &options.paths {
            let resolved = match resolve(path) {
                Ok(resolved) => resolved,
                Err(error) if absent.len() + 1 == options.paths.len() => {
                    return Err(VaultError::io(format!("looking at {}", path.display()), error));
                }
                Err(error) => {
                    absent.push((path.clone(), error.to_string()));
                    continue;
                }
            };
            if resolved.starts_with(&vault) {
                return Err(VaultError::Nested { inner: path.clone(), outer: vault });
            }
            roots.push((resolved, join(prefix.as_bytes(), &own_name(path)?)));
        }
        Ok(Self { roots, absent, excluded: Excluded::new(&options.exclude)?, vault })
    }

    /// Everything below the roots, directories before what is in them, by name.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<Found, Skipped>> {
        let found = self.roots.iter().flat_map(|(root, base)| self.below(root, base));
        self.absent.iter().cloned().map(Err).chain(found)
    }

    fn below<'a>(&'a self, root: &'a Path, base: &'a [u8]) -> impl Iterator<Item = Result<Found, Skipped>> + 'a {
        let key_of = move |path: &Path| match path.strip_prefix(root) {
            Ok(relative) => join(base, relative.as_os_str().as_bytes()),
            Err(_) => base.to_vec(),
        };
        WalkDir::new(root)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(move |entry| !(self.excluded.matches(&key_of(entry.path())) || self.is_vault(entry)))
            .filter_map(move |entry| match entry {
                Ok(entry) => {
                    let key = key_of(entry.path());
                    // The contents of `.` have no key for `.` itself.
                    if key.is_empty() { None } else { Some(found(&entry, key)) }
                }
                Err(error) => {
                    let path = error.path().unwrap_or(root).to_owned();
                    let reason = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                    Some(Err((path, reason)))
                }
            })
    }

    /// A vault inside the tree is not added to itself.
    fn is_vault(&self, entry: &walkdir::DirEntry) -> bool {
        entry.file_type().is_dir()
            && self.vault.file_name() == Some(entry.file_name())
            && fs::canonicalize(entry.path()).is_ok_and(|path| path == self.vault)
    }
}

fn resolve(path: &Path) -> io::Result<PathBuf> {
    // The last component may be a link, and is then added as one.
    if fs::symlink_metadata(path)?.is_symlink() { std::path::absolute(path) } else { fs::canonicalize(path) }
}

fn own_name(path: &Path) -> Result<Vec<u8>, VaultError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.ends_with(b"/") || bytes == b"." || bytes.ends_with(b"/.") {
        return Ok(Vec::new());
    }
    Ok(path.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default())
}

fn join(base: &[u8], rest: &[u8]) -> Vec<u8> {
    match (base.is_empty(), rest.is_empty()) {
        (true, _) => rest.to_vec(),
        (_, true) => base.to_vec(),
        _ => [base, b"/", rest].concat(),
    }
}

/// What lies at `entry`, to be added under `key`.
pub(crate) fn found(entry: &walkdir::DirEntry, key: Vec<u8>) -> Result<Found, Skipped> {
    let path = entry.path();
    let skip = |reason: String| (path.to_owned(), reason);
    let metadata = entry.metadata().map_err(|error| skip(error.to_string()))?;
    let key = Key::new(key).map_err(|error| skip(error.to_string()))?;
    let kind = kind_of(path, &metadata).map_err(skip)?;
    let value = Value {
        kind,
        modified_s: metadata.mtime(),
        modified_ns: metadata.mtime_nsec().clamp(0, 999_999_999) as u32,
        content: Default::default(),
    };
    Ok(Found { path: path.to_owned(), key, stamp: Stamp::of(&metadata), value })
}

fn kind_of(path: &Path, metadata: &Metadata) -> Result<ValueKind, String> {
    let mode = metadata.mode() & 0o7777;
    let file_type = metadata.file_type();
    if file_type.is_file() {
        Ok(ValueKind::File(mode))
    } else if file_type.is_dir() {
        Ok(ValueKind::Directory(mode))
    } else if file_type.is_symlink() {
        let target = fs::read_link(path).map_err(|error| error.to_string())?;
        Ok(ValueKind::Symlink(target.as_os_str().as_bytes().to_vec()))
    } else if file_type.is_socket() {
        Err("a socket cannot be added".into())
    } else if file_type.is_fifo() {
        Err("a named pipe cannot be added".into())
    } else {
        Err("a device cannot be added".into())
    }
}

/// `--exclude`: a pattern without `/` matches any last component, one with `/` the whole key; `**` crosses directories.
struct Excluded {
    names: GlobSet,
    keys: GlobSet,
}

impl Excluded {
    fn new(patterns: &[String]) -> Result<Self, VaultError> {
        let mut names = GlobSetBuilder::new();
        let mut keys = GlobSetBuilder::new();
        for pattern in patterns {
            let anchored = pattern.trim_end_matches('/');
            let glob = GlobBuilder::new(anchored.trim_start_matches('/'))
                .literal_separator(true)
                .build()
                .map_err(|error| VaultError::Usage(format!("--exclude {pattern}: {}", error.kind())))?;
            if anchored.contains('/') {
                keys.add(glob)
            } else {
                names.add(glob)
            };
        }
        let build = |builder: GlobSetBuilder| builder.build().map_err(|error| VaultError::Usage(format!("--exclude: {error}")));
        Ok(Self { names: build(names)?, keys: build(keys)? })
    }

    fn matches(&self, key: &[u8]) -> bool {
        if self.names.is_empty() && self.keys.is_empty() {
            return false;
        }
        let path = Path::new(std::ffi::OsStr::from_bytes(key));
        self.keys.is_match(path) || path.file_name().is_some_and(|name| self.names.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(options: &AddOptions, vault: &Path) -> Vec<String> {
        let walk = Walk::new(options, vault).unwrap();
        walk.entries().map(|entry| entry.unwrap().key.to_text().into_owned()).collect()
    }

    fn tree() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (tree, vault) = (dir.path().join("tree"), dir.path().join("vault"));
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::create_dir(&vault).unwrap();
        for name in ["a.txt", "b.log", "sub/c.log", "sub/d"] {
            fs::write(tree.join(name), name).unwrap();
        }
        (dir, tree, vault)
    }

    #[test]
    fn a_tree_keeps_its_name_and_a_trailing_slash_drops_it() {
        let (_dir, tree, vault) = tree();
        let named = AddOptions { paths: vec![tree.clone()], ..AddOptions::default() };
        assert_eq!(keys(&named, &vault), ["tree", "tree/a.txt", "tree/b.log", "tree/sub", "tree/sub/c.log", "tree/sub/d"]);
        let contents = AddOptions { paths: vec![tree.join("")], prefix: Some("p/".into()), ..AddOptions::default() };
        assert_eq!(keys(&contents, &vault), ["p", "p/a.txt", "p/b.log", "p/sub", "p/sub/c.log", "p/sub/d"]);
    }

    #[test]
    fn patterns_match_names_anywhere_or_whole_keys() {
        let (_dir, tree, vault) = tree();
        let without = |pattern: &str| {
            let exclude = vec![pattern.to_owned()];
            keys(&AddOptions { paths: vec![tree.join("")], exclude, ..AddOptions::default() }, &vault)
        };
        assert_eq!(without("*.log"), ["a.txt", "sub", "sub/d"]);
        assert_eq!(without("sub/*"), ["a.txt", "b.log", "sub"]);
        assert_eq!(without("sub/"), ["a.txt", "b.log"]);
        assert_eq!(without("/**/d"), ["a.txt", "b.log", "sub", "sub/c.log"]);
    }

    #[test]
    fn a_vault_is_neither_added_to_itself_nor_a_source() {
        let (dir, _tree, vault) = tree();
        fs::write(vault.join("vault.toml"), "").unwrap();
        let around = AddOptions { paths: vec![dir.path().to_owned()], ..AddOptions::default() };
        assert!(keys(&around, &vault).iter().all(|key| !key.contains("vault")));
        let inside = AddOptions { paths: vec![vault.join("vault.toml")], ..AddOptions::default() };
        assert!(matches!(Walk::new(&inside, &vault), Err(VaultError::Nested { .. })));
    }
}
