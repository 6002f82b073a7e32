//! Arguments of the commands about conflicts.

use clap::{ArgGroup, Args};
use std::ffi::OsString;

/// `conflicts`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror conflicts                         which keys, what stands and what else there is
  mirror conflicts --fail-on-conflict      for scripts: exit code 4 if there are any
Then: mirror merge --explain KEY, and mirror merge --resolve KEY --select EVENT.")]
pub(crate) struct ConflictsArgs {
    /// Only keys that begin with this
    pub(crate) prefix: Option<OsString>,
    /// End with code 4 if there are any
    #[arg(long)]
    pub(crate) fail_on_conflict: bool,
}

/// `merge`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true), after_long_help = "\
Examples:
  mirror merge --explain plan.txt                      every version, and which rule chose
  mirror merge --resolve plan.txt --select 3f2a1b9c    what that event said of it stands
  mirror merge --resolve --prefer newest -n            what deciding all by time would do
  mirror merge --resolve Pictures/ --prefer replica laptop
A decision reaches every replica with the next sync. A later edit beats it, and every version stays
readable: get --event.")]
pub(crate) struct MergeArgs {
    /// Say why what stands for KEY stands
    #[arg(long, group = "what", value_name = "KEY", conflicts_with_all = ["select", "prefer", "dry_run"])]
    pub(crate) explain: Option<OsString>,
    /// Decide conflicts: that of KEY, with --select; those at or below a key, or all, with --prefer
    #[arg(long, group = "what", value_name = "KEY", num_args = 0..=1)]
    pub(crate) resolve: Option<Option<OsString>>,
    /// The event whose version shall stand; the beginning of its id is enough
    #[arg(long, value_name = "EVENT", requires = "resolve", conflicts_with_all = ["prefer", "dry_run"])]
    pub(crate) select: Option<String>,
    /// Decide by a rule: newest (by its author's clock), or replica NAME (a peer, here, or the beginning of a replica's id)
    #[arg(long, value_name = "RULE", requires = "resolve", num_args = 1..=2)]
    pub(crate) prefer: Vec<String>,
    /// Only say what would be decided
    #[arg(short = 'n', long, requires = "prefer")]
    pub(crate) dry_run: bool,
}
