//! What was typed: the commands and flags of `mirror`, and nothing about what they mean.
//!
//! Meaning comes later and elsewhere: [`crate::config`] puts flags, environment and the configuration file together, and
//! each file of [`crate::commands`] turns its arguments into one call of the engine. Values that have a form of their own
//! (sizes, rates, durations) are parsed here, so that a wrong one is a usage error before anything has been touched.

mod daemon;
mod demo;
mod doctor;
mod global;
mod merge;
mod nearest;
mod quantity;
mod replica;
mod timetable;
mod vault;
mod why;

pub(crate) use daemon::{DaemonArgs, DaemonCommand};
pub(crate) use demo::DemoArgs;
pub(crate) use doctor::DoctorArgs;
pub(crate) use global::{ColorChoice, GlobalArgs, IoChoice};
pub(crate) use merge::{ConflictsArgs, MergeArgs};
pub(crate) use nearest::nearest;
pub(crate) use quantity::{BandwidthLimit, MaxDelete, QuantityError, Rate, RateLimit, Size, Span};
pub(crate) use replica::{
    CloneArgs, CongestionChoice, FolderArgs, InviteArgs, PeerArgs, PeerCommand, PeerOptions, PullArgs, PushArgs, RekeyArgs, RoleChoice,
    ServeArgs, SyncArgs, TransportChoice,
};
pub(crate) use timetable::{Bandwidth, Minute, Timetable};
pub(crate) use vault::{
    AddArgs, GetArgs, InitArgs, ListArgs, LogArgs, PutArgs, RecoverArgs, RemoveArgs, RestoreArgs, ScrubArgs, UndeleteArgs, VerifyArgs,
};
pub(crate) use why::WhyArgs;

use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;

/// Help is never wider, and its examples are written for it.
const COLUMNS_MAX: usize = 100;

const EXAMPLES: &str = "\
Examples:
  mirror init photos                     make a vault
  cd photos && mirror add ~/Pictures     put a tree into it
  mirror serve & mirror invite           let a second machine in; prints a ticket
  mirror clone TICKET photos             (there) make the second replica
  mirror sync laptop                     make both the same, both ways

Exit codes:
   0 ok                3 partly done      9 rollback or fork    13 damage found
   1 failed            4 conflicts       10 no vault            14 no space
   2 usage             5 retry later     11 locked              15 safety fuse
 130 interrupted       6 refused         12 wrong passphrase    16 peer unreachable
                       8 too new";

/// Keeps replicas of an encrypted vault the same, peer to peer
///
/// A vault holds values under keys (files under their paths), sealed, in chunks. Every machine that clones it has a whole
/// replica; `push`, `pull` and `sync` make two replicas the same, over QUIC or TCP, and continue where they were
/// interrupted.
#[derive(Debug, Parser)]
#[command(name = "mirror", version, disable_version_flag = true, arg_required_else_help = true, max_term_width = COLUMNS_MAX, after_long_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// Print the version
    #[arg(long, action = ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One variant a command, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new vault
    Init(InitArgs),
    /// Put files and trees into the vault
    Add(AddArgs),
    /// Store one value under a key
    Put(PutArgs),
    /// Read one value
    Get(GetArgs),
    /// List current keys
    Ls(ListArgs),
    /// Show the history of the vault or of a key
    Log(LogArgs),
    /// Delete keys; every version stays and `undelete` brings them back
    Rm(RemoveArgs),
    /// Bring deleted keys back
    Undelete(UndeleteArgs),
    /// List the keys that replicas changed without knowing of each other
    Conflicts(ConflictsArgs),
    /// Explain a key's versions, or decide conflicts
    Merge(MergeArgs),
    /// Write values back to files
    Restore(RestoreArgs),
    /// Check that everything is there and intact
    Verify(VerifyArgs),
    /// Read everything again and heal it: fetch from peers what is damaged or missing
    Scrub(ScrubArgs),
    /// Rebuild what damage or a crash has left; needs no key
    Recover(RecoverArgs),
    /// Show root, counts and peers
    #[command(after_long_help = "\
Examples:
  mirror status             how this replica and its peers stand; live while mirord runs
  mirror --json status      for programs
Equal roots are equal contents. Of a peer that is not connected it says what it held when it was
last talked with; mirror why KEY says why something is not here.")]
    Status,
    /// Serve this vault to its peers, in the foreground
    Serve(ServeArgs),
    /// Print a one-time ticket that lets another device clone this vault
    Invite(InviteArgs),
    /// Make a replica of a peer's vault
    Clone(CloneArgs),
    /// Add, list, find or remove peers
    Peer(PeerArgs),
    /// Begin a new key epoch: what is written from now on is sealed under new keys
    Rekey(RekeyArgs),
    /// Send a peer what it lacks
    Push(PushArgs),
    /// Fetch from a peer what is missing here
    Pull(PullArgs),
    /// Make this replica and a peer's the same, both ways
    Sync(SyncArgs),
    /// Say why something is not here yet, or not there: what waits, for what, and who has it
    Why(WhyArgs),
    /// Ask mirord, which keeps vaults equal in the background, or tell it what to do
    Daemon(DaemonArgs),
    /// Measure each stage between here and a peer alone, and say which one limits
    Doctor(DoctorArgs),
    /// Show all of it on this machine: two replicas, the link cut half-way, resumed, restored, compared
    Demo(DemoArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write manual pages to a directory
    Man(ManArgs),
}

/// `completions`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror completions bash > ~/.local/share/bash-completion/completions/mirror
  mirror completions zsh > ~/.zfunc/_mirror          with ~/.zfunc in fpath
  mirror completions fish > ~/.config/fish/completions/mirror.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror man ~/.local/share/man/man1      then: man mirror-push, man mirord")]
pub(crate) struct ManArgs {
    /// Directory for the pages; made if it is not there
    pub(crate) dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        let command = Cli::command();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for arg in sub.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", sub.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn every_command_has_an_example_that_fits_a_line() {
        fn look(command: &clap::Command) {
            let is_leaf = command.get_subcommands().next().is_none();
            let help = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string).unwrap_or_default();
            assert!(!is_leaf || help.starts_with("Examples:"), "{} has no example", command.get_name());
            for line in help.lines() {
                assert!(line.chars().count() <= COLUMNS_MAX, "{}: would be wrapped: {line}", command.get_name());
            }
            command.get_subcommands().for_each(look);
        }
        look(&Cli::command());
    }

    #[test]
    fn clone_takes_a_ticket_or_a_file_with_one() {
        let parse = |line: &[&str]| match Cli::try_parse_from(line).map(|cli| cli.command) {
            Ok(Command::Clone(args)) => Some((args.ticket, args.ticket_file, args.dir)),
            _ => None,
        };
        assert_eq!(parse(&["mirror", "clone", "T", "d"]), Some((Some("T".into()), None, "d".into())));
        assert_eq!(parse(&["mirror", "clone", "--ticket-file", "f", "d"]), Some((None, Some("f".into()), "d".into())));
        assert_eq!(parse(&["mirror", "clone", "d"]), None);
        assert_eq!(parse(&["mirror", "clone", "--ticket-file", "f", "T", "d"]), None);
    }
}
