//! Flags that every command takes.

use super::Size;
use clap::{ArgAction, Args, ValueEnum};
use std::path::PathBuf;

/// As typed; [`crate::config::Settings`] is what they mean together with environment and configuration file.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// The vault (default: the nearest parent directory that is one)
    #[arg(short = 'V', long, global = true, value_name = "DIR", env = "MIRROR_VAULT", hide_env_values = true)]
    pub(crate) vault: Option<PathBuf>,
    /// Print JSON lines to stdout and nothing else there; never prompt
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; repeat for more still
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Show no progress
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// When to use colour (default: auto; NO_COLOR is honoured)
    #[arg(long, global = true, value_name = "WHEN")]
    pub(crate) color: Option<ColorChoice>,
    /// Give way to everything else on this machine: processor time that is left over, and on Linux the disk when it is idle
    #[arg(long, global = true)]
    pub(crate) low_priority: bool,
    /// Neither announce this device on the local network nor look for others there [env: MIRROR_NO_DISCOVERY=1]
    #[arg(long, global = true)]
    pub(crate) no_discovery: bool,
    /// Write a log to this file, as JSON lines
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// Memory to use at most, 256MiB or more (default: 512MiB)
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,
    /// How to write packs (default: auto)
    #[arg(long, global = true, value_name = "BACKEND", env = "MIRROR_IO", hide_env_values = true)]
    pub(crate) io: Option<IoChoice>,
    /// Read the passphrase from this file (- is stdin, /dev/fd/3 is file descriptor 3) [env: MIRROR_PASSPHRASE_FILE]
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["passphrase_command", "recovery_phrase_file"])]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Run this shell command and read the passphrase from its output [env: MIRROR_PASSPHRASE_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", conflicts_with = "recovery_phrase_file")]
    pub(crate) passphrase_command: Option<String>,
    /// Unlock with the recovery phrase in this file instead of the passphrase
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) recovery_phrase_file: Option<PathBuf>,
}

/// `--color`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// `--io`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IoChoice {
    /// io_uring where it can be used and the file system takes direct writes, else portable
    #[default]
    Auto,
    /// io_uring (Linux)
    Uring,
    /// Positioned writes, on any system
    Portable,
}
