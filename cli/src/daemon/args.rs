//! What was typed after `mirord`.

use crate::args::{Bandwidth, ColorChoice, GlobalArgs, IoChoice, MaxDelete, Size, TransportChoice};
use clap::{ArgAction, Parser, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  mirord -V photos                          keep this vault equal with every peer that can be reached
  mirord                                    the vaults of mirord.toml, else the nearest one above
  mirord -V notes --watch ~/notes --materialize ~/notes   keep a folder and the vault the same, too
  mirord -V photos --ui 127.0.0.1:7741      with a status page, for this machine's user only
  mirror daemon status                      what it does at the moment; mirror daemon stop ends it

mirord.toml, in this device's directory ($MIRROR_HOME, else ~/.config/mirror):
  bwlimit = \"20Mbit:off\"
  ui = \"127.0.0.1:7741\"
  [[vault]]
  dir = \"/home/me/photos\"
  [[vault]]
  dir = \"/srv/backup\"
  listen = [\"[::]:7742\"]
  follow = [\"nas\"]
  watch = \"/home/me/docs\"          # a folder that is taken in,
  materialize = \"/home/me/docs\"    # written out, or both

Signals: INT and TERM end it in order (exit code 130), a second one at once; HUP reads the settings
anew.";

/// Keeps vaults equal with their peers, for as long as it runs
///
/// Every change is sent the moment it is durable, both ways, over QUIC or TCP. Peers that are away are looked for again and
/// again; a full disk, a peer that would delete too much, or a vault that is gone pause what they concern, are shown by
/// `mirror status`, and are gone on from by themselves.
#[derive(Debug, Parser)]
#[command(name = "mirord", version, disable_version_flag = true, max_term_width = 100, after_long_help = EXAMPLES)]
pub(crate) struct MirordCli {
    /// Read the daemon's settings from this file (default: mirord.toml in this device's directory)
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A vault to keep, instead of those of the settings; may be repeated
    #[arg(short = 'V', long = "vault", value_name = "DIR", env = "MIRROR_VAULT", hide_env_values = true)]
    pub(super) vaults: Vec<PathBuf>,
    /// Address to listen on, UDP and TCP, when one vault is kept (default: port 7740 on all interfaces); may be repeated
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Vec<SocketAddr>,
    /// Listen nowhere, only dial
    #[arg(long, conflicts_with = "listen")]
    pub(super) no_listen: bool,
    /// Neither announce the vaults on local networks nor look for peers there
    #[arg(long)]
    no_discovery: bool,
    /// Dial only this peer; may be repeated (default: every peer whose address is known)
    #[arg(long, value_name = "PEER")]
    pub(super) follow: Vec<String>,
    /// How to connect; auto takes what works and changes to what is faster [env: MIRROR_FORCE_TCP=1 means tcp]
    #[arg(long, value_enum, value_name = "NAME")]
    pub(super) transport: Option<TransportChoice>,
    /// Most to send, or most to send:receive, over all vaults and peers, as in 100Mbit, 12MiB or 10Mbit:off, or a timetable as in '08:00,1MiB:256KiB 19:00,off'
    #[arg(long, value_name = "RATE[:RATE]|TIMETABLE")]
    pub(super) bwlimit: Option<Bandwidth>,
    /// Pause a peer before it deletes more keys here at once, as in 500, 10% (100 keys at least) or none (default: 10%, at most 10000)
    #[arg(long, value_name = "N|N%")]
    pub(super) max_delete: Option<MaxDelete>,
    /// Take what changes in this folder into the vault, when one vault is kept; with --materialize of the same folder, keep both the same
    #[arg(long, value_name = "DIR")]
    pub(super) watch: Option<PathBuf>,
    /// Write what changes in the vault out to this folder; what was changed there and not taken in is never replaced
    #[arg(long, value_name = "DIR")]
    pub(super) materialize: Option<PathBuf>,
    /// The keys below K only, which lie in the folder without K
    #[arg(long, value_name = "K")]
    pub(super) prefix: Option<String>,
    /// Show a status page at this address of the loopback interface, as in 127.0.0.1:7741
    #[arg(long, value_name = "ADDR")]
    pub(super) ui: Option<SocketAddr>,
    /// Serve metrics for Prometheus at this address, path /metrics
    #[arg(long, value_name = "ADDR")]
    pub(super) metrics: Option<SocketAddr>,
    /// Let --metrics be an address that others reach: whoever does can read the names of vaults and peers, and how they stand
    #[arg(long)]
    pub(super) metrics_remote: bool,
    /// Let other programs go first
    #[arg(long)]
    pub(super) low_priority: bool,
    /// Print JSON lines to stdout: where it listens, then `ready`
    #[arg(long)]
    pub(super) json: bool,
    /// Log only what went wrong
    #[arg(short, long, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Log more; repeat for more still
    #[arg(short, long, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// How the log on stderr looks
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
    /// Write the log to this file, too, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(super) log_file: Option<PathBuf>,
    /// When to use colour (NO_COLOR is honoured)
    #[arg(long, value_name = "WHEN")]
    color: Option<ColorChoice>,
    /// Memory to use at most for each vault, as in 512MiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// How to write packs
    #[arg(long, value_name = "BACKEND", env = "MIRROR_IO", hide_env_values = true)]
    io: Option<IoChoice>,
    /// Read the passphrase of vaults that this device has no slot for from this file [env: MIRROR_PASSPHRASE_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_command")]
    passphrase_file: Option<PathBuf>,
    /// Run this shell command and read that passphrase from its output [env: MIRROR_PASSPHRASE_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    passphrase_command: Option<String>,
    /// Print the version
    #[arg(long, action = ArgAction::Version)]
    version: (),
}

impl MirordCli {
    /// What is the same for all programs. Nobody is there to be asked, so nothing prompts.
    pub(super) fn global(&self) -> GlobalArgs {
        GlobalArgs {
            json: true,
            quiet: self.quiet,
            verbose: self.verbose,
            no_progress: true,
            no_discovery: self.no_discovery,
            color: self.color,
            log_file: self.log_file.clone(),
            memory: self.memory,
            io: self.io,
            passphrase_file: self.passphrase_file.clone(),
            passphrase_command: self.passphrase_command.clone(),
            ..GlobalArgs::default()
        }
    }
}

/// `--log-format`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// A line each, for people
    #[default]
    Text,
    /// A JSON object each
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent_and_every_flag_is_explained() {
        let command = MirordCli::command();
        command.clone().debug_assert();
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{}", arg.get_id());
        }
    }
}
