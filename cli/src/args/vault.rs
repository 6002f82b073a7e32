//! Arguments of the commands that work on the vault of this machine.

use super::{Bandwidth, RateLimit, TransportChoice};
use clap::Args;
use mirror_engine::id::DeviceId;
use std::{ffi::OsString, path::PathBuf};

/// `init`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror init photos
      asks for a passphrase twice and prints a recovery phrase once: write it down
  mirror init photos --passphrase-file pw --recovery-file phrase.txt
      asks nothing; the phrase goes to a new file that only you can read
  mirror init scratch --no-passphrase --no-recovery-kit
      only this device can ever open it")]
pub(crate) struct InitArgs {
    /// Directory of the new vault; must not exist or be empty
    pub(crate) dir: PathBuf,
    /// Name of the vault (default: the directory's)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Do without a passphrase
    #[arg(long, conflicts_with_all = ["passphrase_file", "passphrase_command"])]
    pub(crate) no_passphrase: bool,
    /// Write the recovery phrase to this new file instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_file: Option<PathBuf>,
    /// Make no recovery phrase
    #[arg(long, conflicts_with = "recovery_file")]
    pub(crate) no_recovery_kit: bool,
    /// Ask for the passphrase on this device every time
    #[arg(long)]
    pub(crate) no_device_slot: bool,
}

/// `add`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror add ~/Pictures                     keys begin with Pictures/
  mirror add . --exclude '*.tmp'            what is in this directory, without its name
  mirror add report.pdf --prefix 2026/q3/   the key is 2026/q3/report.pdf
Files whose size and times have not changed since the last add are not read again.")]
pub(crate) struct AddArgs {
    /// Files and trees
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Put this before every key
    #[arg(long, value_name = "KEY")]
    pub(crate) prefix: Option<String>,
    /// Leave out what matches (*, ?, **; a leading / anchors); may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Only say what would be added
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// `put`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror put notes/today note.txt            the bytes of a file
  date | mirror put last-run                 what a program prints")]
pub(crate) struct PutArgs {
    /// The key
    pub(crate) key: OsString,
    /// Where the value is; - is stdin
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
}

/// `get`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror get notes/today                     to stdout
  mirror get Pictures/a.jpg -o a.jpg         to a file
  mirror get plan.txt --event 3f2a1b9c       an older version, or one that lost: mirror log plan.txt")]
pub(crate) struct GetArgs {
    /// The key
    pub(crate) key: OsString,
    /// Write to this file, which appears whole or not at all (default: stdout)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The version that this event wrote, whatever stands now; the beginning of its id is enough
    #[arg(long, value_name = "EVENT")]
    pub(crate) event: Option<String>,
}

/// `ls`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror ls                    every key
  mirror ls Pictures/ -l       what is below Pictures/, with size, time and author
  mirror ls --deleted          what was deleted as well")]
pub(crate) struct ListArgs {
    /// Only keys that begin with this
    pub(crate) prefix: Option<OsString>,
    /// Show size, time and author
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Show deleted keys too
    #[arg(long)]
    pub(crate) deleted: bool,
}

/// `log`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror log                   who changed what, when, and by which event
  mirror log plan.txt          of one key
  mirror log --forks           after exit code 9")]
pub(crate) struct LogArgs {
    /// Only forked logs, and what their other branches say
    #[arg(long, conflicts_with = "key")]
    pub(crate) forks: bool,
    /// Only changes of this key
    pub(crate) key: Option<OsString>,
}

/// `rm`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror rm plan.txt
  mirror rm Pictures/2019 --reason 'moved to the archive'
Nothing gets smaller: mirror undelete Pictures/2019 brings all of it back.")]
pub(crate) struct RemoveArgs {
    /// Keys; a directory's key means everything below it
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<OsString>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// `undelete`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror undelete plan.txt
  mirror undelete Pictures/2019      what was deleted below it; mirror ls --deleted lists it")]
pub(crate) struct UndeleteArgs {
    /// Keys; a directory's key means everything below it
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<OsString>,
}

/// `restore`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror restore /tmp/all                         everything
  mirror restore /tmp/some Pictures/2025          one tree
  mirror restore / home/me/notes --overwrite      over files that have changed since
Nothing is written outside DEST, and a file appears whole or not at all.")]
pub(crate) struct RestoreArgs {
    /// Directory to write to
    pub(crate) dest: PathBuf,
    /// Only keys at or below these
    #[arg(value_name = "PREFIX")]
    pub(crate) prefixes: Vec<OsString>,
    /// Replace files that are there and differ
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// `verify`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror verify                    whether everything is there: seconds
  mirror verify --read-data        and every byte right: as long as reading the vault takes
Changes nothing and needs no key. Exit code 13 if something is damaged or missing: mirror scrub.")]
pub(crate) struct VerifyArgs {
    /// Read and check every byte, not only that everything is there
    #[arg(long)]
    pub(crate) read_data: bool,
}

/// `scrub`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror scrub                          reads everything; asks every known peer for what is missing
  mirror scrub --from nas               asks this one only
  mirror scrub --rate 20MiB             slowly, beside other work
Interrupted? The same command goes on where it stopped. What is damaged is kept in quarantine/
and never served. Needs no key. Exit code 13 if something is still missing at the end.")]
pub(crate) struct ScrubArgs {
    /// Peer to fetch from, or HOST:PORT with --device (default: every known peer in turn)
    #[arg(long, value_name = "PEER")]
    pub(crate) from: Option<String>,
    /// The device that must answer at HOST:PORT
    #[arg(long, value_name = "ID", requires = "from")]
    pub(crate) device: Option<DeviceId>,
    /// Most to read from the disk, as in 64MiB or 1Gbit; off for no limit
    #[arg(long, value_name = "RATE", default_value = "128MiB")]
    pub(crate) rate: RateLimit,
    /// Most to send and receive, or most to send:receive, as in 100Mbit, 12MiB or 10Mbit:off; or by local time, as in
    /// "08:00,1MiB:256KiB 19:00,off Sat-08:00,off"
    #[arg(long, value_name = "RATE[:RATE]|TIMETABLE")]
    pub(crate) bwlimit: Option<Bandwidth>,
    /// How to connect (default: auto)
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) transport: Option<TransportChoice>,
}

/// `recover`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror recover -n                        what would be rebuilt
  mirror recover --accept-loss             after a backup was put back and nobody has what is gone
  mirror log --forks                       which logs were forked, and what other branches say
  mirror recover --leave-branch 3f9c -n    what this replica holds of a forked log
  mirror recover --leave-branch 3f9c       on each replica that holds the branch that gives way;
                                           then mirror sync with one that does not
Leaving a branch keeps its events beside the log, where get KEY --event EVENT reads them, and writes
again what they said; nothing is decided that somebody else decided otherwise meanwhile. Choose the
branch that fewer replicas hold.")]
pub(crate) struct RecoverArgs {
    /// Go on from what is here after the vault was rolled back and no peer has what is gone
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// Of a forked log, make room for the branch that others hold: what the one here says is written again (mirror log --forks)
    #[arg(long, value_name = "REPLICA", conflicts_with = "accept_loss")]
    pub(crate) leave_branch: Option<String>,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}
