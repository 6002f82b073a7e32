//! `daemon`

use super::Bandwidth;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `daemon`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror daemon status              what mirord does at the moment, for each vault and peer
  mirror daemon limit 10Mbit        from now on, over all vaults and peers; off lifts it
  mirror daemon limit '08:00,10Mbit 19:00,off'   by the clock of this machine
  mirror daemon pause               no sessions until: mirror daemon resume
  mirror daemon stop                ends mirord in order
mirord itself is started with: mirord -V DIR, or as a service (docs/daemon.md).")]
pub(crate) struct DaemonArgs {
    #[command(subcommand)]
    pub(crate) command: DaemonCommand,
}

/// `daemon status|limit|pause|resume|stop`
#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Say what mirord does: each vault, each peer, and why anything stands still
    #[command(after_long_help = "\
Examples:
  mirror daemon status             every vault, peer and folder of this device
  mirror --json daemon status      for programs; mirror status tells of one vault")]
    Status,
    /// Change how fast it may send and receive, until it is restarted
    #[command(after_long_help = "\
Examples:
  mirror daemon limit 10Mbit                       each way
  mirror daemon limit 10Mbit:off                   only what is sent
  mirror daemon limit '08:00,10Mbit 19:00,off'     by the clock of this machine
  mirror daemon limit off")]
    Limit {
        /// Most to send, or most to send:receive, as in 100Mbit, 12MiB, 10Mbit:off or off, or a timetable as in '08:00,1MiB 19:00,off'
        #[arg(value_name = "RATE[:RATE]|TIMETABLE")]
        limit: Bandwidth,
    },
    /// End all sessions and begin none
    #[command(after_long_help = "\
Examples:
  mirror daemon pause              all vaults, until: mirror daemon resume
  mirror daemon pause ~/photos     this one
Folders are followed all the same: what is saved meanwhile leaves afterwards.")]
    Pause {
        /// Only of the vault in this directory
        dir: Option<PathBuf>,
    },
    /// Go on at once, whatever stood still
    #[command(after_long_help = "\
Examples:
  mirror daemon resume             after a pause; or when there is room on the disk again
  mirror daemon resume ~/photos    this vault")]
    Resume {
        /// Only the vault in this directory
        dir: Option<PathBuf>,
    },
    /// End mirord in order: what is under way gets to its commit point
    #[command(after_long_help = "\
Examples:
  mirror daemon stop               started again with: mirord -V DIR, or by the system's service")]
    Stop,
}
