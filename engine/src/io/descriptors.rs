//! Open files, of which a process may have so many: whether they have run out, and how many there are.
//!
//! A library that only says "cannot open" hides that there is nothing wrong with the file. Taking that for damage would be the wrong
//! answer to a limit that the user can raise.

use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};
use std::{fs::File, io};

/// Files that one step may have open at once: a database, its log, its shared memory, a pack, and some to spare.
const SPARE: usize = 8;

/// Whether `error` says that this process, or the system, may not have more files open.
pub fn is_lack(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// The system's error if a few more files cannot be opened now: asked after a failure that did not say why.
pub fn lacking() -> Option<io::Error> {
    let opened: io::Result<Vec<File>> = (0..SPARE).map(|_| File::open("/")).collect();
    opened.err().filter(is_lack)
}

/// How many files this process may have open; none if there is no limit.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_open_files_is_told_from_every_other_failure() {
        assert!(is_lack(&Errno::MFILE.into()) && is_lack(&Errno::NFILE.into()));
        assert!(!is_lack(&Errno::NOENT.into()) && !is_lack(&io::Error::other("too many open files")));
        assert!(lacking().is_none(), "nothing lacks here");
        assert!(limit().is_none_or(|limit| limit >= SPARE as u64));
    }
}
