//! `why`

use clap::Args;
use std::ffi::OsString;

/// `why`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mirror why photos/2025/beach.jpg     a key: where its newest version is, and which peers had it
  mirror why 3f2a1b9c...               an event or a chunk, by its whole id: mirror --json log

Exit code 0 when all of it is here, 3 when something waits or is lost, 1 when nothing here knows of
it.")]
pub(crate) struct WhyArgs {
    /// A key, or the id of an event or a chunk: 64 hexadecimal digits
    #[arg(value_name = "KEY|ID")]
    pub(crate) subject: OsString,
}
