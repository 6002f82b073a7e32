//! Arguments of the commands that have to do with other replicas.

use super::{Bandwidth, MaxDelete, Span};
use clap::{Args, Subcommand, ValueEnum};
use mirror_engine::id::DeviceId;
use std::{net::SocketAddr, path::PathBuf};

/// `serve`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror serve                                all interfaces, UDP and TCP port 7740
  mirror serve --listen 192.168.1.5:7740      one interface
  mirror --json serve --listen 127.0.0.1:0    any free port; the line `listening` says which
Only paired devices can connect; `mirror invite` lets a new one in. Others on the local network can
see that this device serves (mirror peer discover), unless --no-discovery is given.")]
pub(crate) struct ServeArgs {
    /// Address to listen on, UDP and TCP (default: port 7740 on all interfaces); may be repeated
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Let peers that ask for it send chunks without TLS: on trusted networks only (chunks are sealed, their ids and sizes show)
    #[arg(long)]
    pub(crate) lanes_plain: bool,
    /// Most to send and receive, all peers together, or most to send:receive, as in 100Mbit, 12MiB or 10Mbit:off; or by local time, as in
    /// "08:00,1MiB:256KiB 19:00,off Sat-08:00,off", switched while it runs
    #[arg(long, value_name = "RATE[:RATE]|TIMETABLE")]
    pub(crate) bwlimit: Option<Bandwidth>,
    /// Take nothing over that deletes more keys here at once, as in 500, 10% (100 keys at least) or none
    #[arg(long, value_name = "N|N%", default_value = "none")]
    pub(crate) max_delete: MaxDelete,
}

/// `invite`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror invite                        a ticket for a device that reads and writes
  mirror invite --role keyless         for one that stores, checks and serves, and cannot read
  mirror invite --role owner           for one that may invite and remove others, too
Only owners can invite. Whoever redeems the ticket is in, on every replica that hears of it.")]
pub(crate) struct InviteArgs {
    /// What the new device may do
    #[arg(long, value_enum, default_value_t)]
    pub(crate) role: RoleChoice,
    /// HOST:PORT at which this device can be reached (default: its own addresses and name, with the port that mirord listens on, else 7740); may be repeated
    #[arg(long = "addr", value_name = "ADDR")]
    pub(crate) addresses: Vec<String>,
    /// How long the ticket is good for, as in 10m
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub(crate) expires: Span,
}

/// `invite --role`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleChoice {
    /// Reads, writes, and decides who is in
    Owner,
    /// Reads and writes
    #[default]
    Member,
    /// Stores, checks and serves, but gets no key and cannot read
    Keyless,
}

/// `clone`
#[derive(Debug, Args)]
#[command(
    allow_missing_positional = true,
    after_long_help = "\
Examples:
  mirror clone TICKET photos                 the ticket that `mirror invite` printed over there
  ssh nas mirror -V photos invite | mirror clone - photos
      the ticket from stdin, so that it is in no shell history
The other device must be serving: `mirror serve`. An interrupted clone continues with `mirror pull`."
)]
pub(crate) struct CloneArgs {
    /// The ticket; - reads it from stdin
    #[arg(required_unless_present = "ticket_file", conflicts_with = "ticket_file")]
    pub(crate) ticket: Option<String>,
    /// Directory of the new replica; must not exist or be empty
    #[arg(required = true)]
    pub(crate) dir: PathBuf,
    /// Read the ticket from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
}

/// `rekey`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror rekey -n       who would be given the new key
  mirror rekey          when a device may have been copied or read by somebody else
  mirror rekey --rewrite -n
                        how much is sealed under older keys, and the space that it would take
  mirror rekey --rewrite
                        seal it anew; interrupted, the same command goes on
Only owners begin an epoch; removing a device (mirror peer remove) begins one by itself. What was
written before stays as it is, under the keys that devices had: nothing is sealed or sent again.

With --rewrite, which members can do as well, no epoch begins. The bytes of every key's value (both
sides of conflicts, too) get new records under the newest keys and are read from there; keys, events
and conflicts stay what they are. Every replica receives the new records. Nothing is removed: old
records, and with them old names and versions, stay on every replica and open with old keys. A
device that was removed keeps what it has, and can still read an old record that it gets hold of.")]
pub(crate) struct RekeyArgs {
    /// Begin no epoch, but seal anew what stands and is sealed under older keys
    #[arg(long)]
    pub(crate) rewrite: bool,
    /// Say what would be done, do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// `peer`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror peer list                                  who is in, as what, and where
  mirror peer add nas 10.0.0.7 --device 3f9c...     where a peer is; who is in is what owners say
  mirror peer discover                              who announces itself on the local network
  mirror peer remove laptop --reason stolen         on an owner: out of the vault, everywhere")]
pub(crate) struct PeerArgs {
    #[command(subcommand)]
    pub(crate) command: PeerCommand,
}

/// `peer add|list|discover|remove`
#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Remember a peer under a name
    #[command(after_long_help = "\
Examples:
  mirror peer add nas 10.0.0.7 --device 3f9c...             port 7740
  mirror peer add nas nas.example:7741 --device 3f9c...     looked up at each dial
The device is what `mirror peer list`, `mirror status` and `mirror serve` print. This says where a
peer is; whether it may take part is what owners say: mirror invite.")]
    Add {
        /// Name to use in push, pull and sync
        name: String,
        /// HOST or HOST:PORT (default port: 7740)
        #[arg(value_name = "ADDR")]
        address: String,
        /// Its device, as its `mirror serve` prints it
        #[arg(long, value_name = "ID")]
        device: DeviceId,
    },
    /// List who is in the vault, and peers with an address here
    #[command(after_long_help = "\
Examples:
  mirror peer list             name, device, addresses, role
  mirror --json peer list      for programs")]
    List,
    /// List the devices that announce themselves on the local network
    #[command(after_long_help = "\
Examples:
  mirror peer discover             listens for three seconds
  mirror peer discover --for 10s   for slow networks
Whatever announces itself is listed and nothing is trusted: a known peer is only talked to once it
has proved its key.")]
    Discover {
        /// How long to listen, as in 3s
        #[arg(long = "for", value_name = "TIME", default_value = "3s")]
        time: Span,
    },
    /// On an owner: put a device out of the vault, on every replica. Elsewhere: forget where it is
    #[command(after_long_help = "\
Examples:
  mirror peer remove laptop --reason stolen
  mirror --passphrase-file pw peer remove laptop     on a member, if the only owner's device is lost
What it had it keeps; what is written from now on is sealed under keys that it does not get.")]
    Remove {
        /// Its name, as in `mirror peer list`, or its device
        name: String,
        /// Why, for those who see it in the vault's history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Even this device, or the last owner, after whom nobody can invite or remove anyone: then the passphrase is asked for, if there is one
        #[arg(long)]
        force: bool,
    },
}

/// `push`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror push nas                                 a peer from `mirror peer list`
  mirror push 10.0.0.7:7740 --device 3f9c...      an address, and who must answer there
  mirror push nas --transport tcp --bwlimit 100Mbit
  mirror push nas -n                              only say what would be sent
  mirror push nas --ack 3                         done when three replicas hold it, with this one
Interrupted? The same command continues where it stopped.")]
pub(crate) struct PushArgs {
    #[command(flatten)]
    pub(crate) options: PeerOptions,
    /// Push on to other known peers until N replicas hold everything durably, this one included; else end with 3
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=mirror_engine::limits::PEERS_MAX as i64))]
    pub(crate) ack: Option<u16>,
}

/// `pull`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror pull nas                                 a peer from `mirror peer list`
  mirror pull 10.0.0.7:7740 --device 3f9c...      an address, and who must answer there
  mirror pull nas -n                              only say what would be fetched
Interrupted? The same command continues where it stopped.")]
pub(crate) struct PullArgs {
    #[command(flatten)]
    pub(crate) options: PeerOptions,
}

/// `sync`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror sync nas            both ways
  mirror sync nas --pull     only fetch
  mirror sync nas --follow   stay, and send each change the moment it is durable, both ways
  mirror sync nas --follow --watch ~/docs --materialize ~/docs
      keep the files of a folder the same, too: what is saved there goes in, what others change out
  mirror sync nas --follow --watch ~/camera --prefix camera
      only in: the folder's files become the keys below camera/
Interrupted? The same command continues where it stopped.")]
pub(crate) struct SyncArgs {
    #[command(flatten)]
    pub(crate) options: PeerOptions,
    /// Only send
    #[arg(long, conflicts_with = "pull")]
    pub(crate) push: bool,
    /// Only fetch
    #[arg(long)]
    pub(crate) pull: bool,
    /// Stay connected and keep both the same until Ctrl-C; goes on by itself when the link or the peer comes back
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) folders: FolderArgs,
}

/// Folders that are followed beside a peer.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FolderArgs {
    /// Take what changes in this folder into the vault; with --materialize of the same folder, keep both the same
    #[arg(long, value_name = "DIR", requires = "follow")]
    pub(crate) watch: Option<PathBuf>,
    /// Write what changes in the vault out to this folder; what was changed there and not taken in is never replaced
    #[arg(long, value_name = "DIR", requires = "follow")]
    pub(crate) materialize: Option<PathBuf>,
    /// The keys below K only, which lie in the folder without K
    #[arg(long, value_name = "K", requires = "follow")]
    pub(crate) prefix: Option<String>,
}

/// With whom, and how.
#[derive(Debug, Args)]
pub(crate) struct PeerOptions {
    /// Name of a peer, or HOST:PORT with --device
    pub(crate) peer: String,
    /// The device that must answer at HOST:PORT
    #[arg(long, value_name = "ID")]
    pub(crate) device: Option<DeviceId>,
    /// Only say what would be transferred
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// How to connect; auto (the default) takes what works and changes to what is faster [env: MIRROR_FORCE_TCP=1 means tcp]
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) transport: Option<TransportChoice>,
    /// QUIC's congestion control (TCP's is the system's); auto (the default) is CUBIC that bears loss which is not congestion
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) congestion: Option<CongestionChoice>,
    /// Streams or connections that carry data at once, 1 to 16 (default: what the transport needs, 1 or 2)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=mirror_engine::limits::LANES_MAX as i64))]
    pub(crate) lanes: Option<u8>,
    /// Send chunks without TLS if the peer allows it: on trusted networks only (chunks are sealed, their ids and sizes show)
    #[arg(long)]
    pub(crate) lanes_plain: bool,
    /// Most to send and receive, or most to send:receive, as in 100Mbit, 12MiB or 10Mbit:off; or by local time, as in
    /// "08:00,1MiB:256KiB 19:00,off Sat-08:00,off", switched while it runs
    #[arg(long, value_name = "RATE[:RATE]|TIMETABLE")]
    pub(crate) bwlimit: Option<Bandwidth>,
    /// Stop with exit code 15 before the peer deletes more keys here at once, as in 500, 10% (100 keys at least) or none (the default;
    /// with --follow 10%, at most 10000). A folder of --watch in which more is gone at once is left alone until it is back
    #[arg(long, value_name = "N|N%")]
    pub(crate) max_delete: Option<MaxDelete>,
}

/// `--transport`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TransportChoice {
    /// What works, then what is faster
    #[default]
    Auto,
    /// QUIC over UDP
    Quic,
    /// TLS over TCP
    Tcp,
}

/// `--congestion`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CongestionChoice {
    /// CUBIC, but loss without a queue is not taken for congestion
    Auto,
    /// BBR
    Bbr,
    /// CUBIC
    Cubic,
}
