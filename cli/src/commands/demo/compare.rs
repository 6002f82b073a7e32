//! Whether two trees are equal: what is there, bytes, modes, modification times, link targets.

use crate::{failure::Failure, interrupt::Interrupt};
use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const BUFFER_BYTES: usize = 1 << 20;

/// What comparing two trees found.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Files, directories and links that are equal.
    pub(super) equal: u64,
    /// Bytes of the files among them.
    pub(super) bytes: u64,
    /// Paths of the left tree, each with what is different.
    pub(super) different: Vec<(PathBuf, String)>,
}

/// Compares `right` with `left`, without what was `skipped` there.
///
/// # Errors
/// [`Failure::interrupted`]; what cannot be read is a difference.
pub(super) fn compare(left: &Path, right: &Path, skipped: &[(PathBuf, String)], interrupt: &Interrupt) -> Result<Comparison, Failure> {
    let skipped = skipped.iter().map(|(path, _)| path.as_path()).collect();
    let mut walk = Walk { skipped, interrupt, found: Comparison::default(), buffers: [vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]] };
    walk.node(left, right)?;
    Ok(walk.found)
}

struct Walk<'a> {
    skipped: HashSet<&'a Path>,
    interrupt: &'a Interrupt,
    found: Comparison,
    buffers: [Vec<u8>; 2],
}

impl Walk<'_> {
    fn node(&mut self, left: &Path, right: &Path) -> Result<(), Failure> {
        if self.interrupt.is_set() {
            return Err(Failure::interrupted());
        }
        if self.skipped.contains(left) {
            return Ok(());
        }
        match self.difference(left, right) {
            Ok(None) => self.found.equal += 1,
            Ok(Some(what)) => self.found.different.push((left.to_owned(), what)),
            Err(error) => self.found.different.push((left.to_owned(), error.to_string())),
        }
        if fs::symlink_metadata(left).is_ok_and(|metadata| metadata.is_dir()) { self.children(left, right) } else { Ok(()) }
    }

    /// A name that only one side has is a difference that [`Walk::difference`] reports.
    fn children(&mut self, left: &Path, right: &Path) -> Result<(), Failure> {
        // A directory that cannot be read has been reported when it was added.
        let names: BTreeSet<OsString> =
            [left, right].into_iter().flat_map(fs::read_dir).flatten().flatten().map(|entry| entry.file_name()).collect();
        names.iter().try_for_each(|name| self.node(&left.join(name), &right.join(name)))
    }

    fn difference(&mut self, left: &Path, right: &Path) -> io::Result<Option<String>> {
        let (metadata, other) = match (stat(left)?, stat(right)?) {
            (Some(metadata), Some(other)) => (metadata, other),
            (Some(_), None) => return Ok(Some("is missing".into())),
            (None, _) => return Ok(Some("is not in the source".into())),
        };
        if metadata.file_type() != other.file_type() {
            return Ok(Some("is something else".into()));
        }
        // A link's mode means nothing, and systems differ in what they say it is.
        if !metadata.is_symlink() && metadata.mode() != other.mode() {
            return Ok(Some(format!("mode {:o} instead of {:o}", other.mode() & 0o7777, metadata.mode() & 0o7777)));
        }
        if (metadata.mtime(), metadata.mtime_nsec()) != (other.mtime(), other.mtime_nsec()) {
            return Ok(Some("another modification time".into()));
        }
        let equal = if metadata.is_symlink() { fs::read_link(left)? == fs::read_link(right)? } else { true };
        if !equal {
            return Ok(Some("links to something else".into()));
        }
        if metadata.is_file() { self.content(left, right) } else { Ok(None) }
    }

    fn content(&mut self, left: &Path, right: &Path) -> io::Result<Option<String>> {
        let (mut left, mut right) = (File::open(left)?, File::open(right)?);
        let [first, second] = &mut self.buffers;
        let mut offset = 0;
        loop {
            let (count, other) = (fill(&mut left, first)?, fill(&mut right, second)?);
            if first[..count] != second[..other] {
                return Ok(Some(format!("other bytes after offset {offset}")));
            }
            if count == 0 {
                self.found.bytes += offset;
                return Ok(None);
            }
            offset += count as u64;
        }
    }
}

fn stat(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Reads until the buffer is full or the file ends: both sides then stop at the same offsets.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        time::{Duration, UNIX_EPOCH},
    };

    fn tree(dir: &Path) {
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/file"), "bytes").unwrap();
        symlink("sub/file", dir.join("link")).unwrap();
        age(dir);
    }

    /// Gives everything the same time, links by way of leaving them as old as they are.
    fn age(dir: &Path) {
        for name in ["sub/file", "sub", "."] {
            File::open(dir.join(name)).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        }
    }

    /// What differs after `change` was made to the right tree, links' times aside.
    fn after(change: impl FnOnce(&Path)) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let (left, right) = (dir.path().join("left"), dir.path().join("right"));
        tree(&left);
        tree(&right);
        change(&right);
        let found = compare(&left, &right, &[], &Interrupt::default()).unwrap().different;
        found.into_iter().map(|(_, what)| what).filter(|what| what != "another modification time").collect()
    }

    #[test]
    fn equal_trees_differ_in_nothing() {
        assert!(after(|_| ()).is_empty());
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        assert_eq!(after(|dir| fs::write(dir.join("sub/file"), "bytez").map(|()| age(dir)).unwrap()), ["other bytes after offset 0"]);
        assert_eq!(after(|dir| fs::write(dir.join("more"), "").unwrap()), ["is not in the source"]);
        assert_eq!(after(|dir| fs::remove_file(dir.join("sub/file")).unwrap()), ["is missing"]);
        assert_eq!(
            after(|dir| fs::set_permissions(dir.join("sub/file"), fs::Permissions::from_mode(0o700)).unwrap()),
            ["mode 700 instead of 644"]
        );
    }

    #[test]
    fn a_time_that_differs_by_a_nanosecond_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let [left, right] = ["left", "right"].map(|name| dir.path().join(name));
        for (path, nanoseconds) in [(&left, 0), (&right, 1)] {
            fs::write(path, "").unwrap();
            File::open(path).unwrap().set_modified(UNIX_EPOCH + Duration::from_nanos(nanoseconds)).unwrap();
        }
        assert_eq!(compare(&left, &right, &[], &Interrupt::default()).unwrap().different.len(), 1);
    }

    #[test]
    fn what_was_skipped_is_not_compared() {
        let dir = tempfile::tempdir().unwrap();
        let (left, right) = (dir.path().join("left"), dir.path().join("right"));
        fs::write(&left, "").unwrap();
        let skipped = [(left.clone(), "why".to_owned())];
        assert!(compare(&left, &right, &skipped, &Interrupt::default()).unwrap().different.is_empty());
    }
}
