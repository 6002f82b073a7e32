//! Arguments of `demo`.

use super::Size;
use clap::{Args, ValueEnum};
use mirror_engine::transport::TransportKind;
use std::path::PathBuf;

/// `demo`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror demo                              a generated tree, in a directory that is removed again
  mirror demo ~/Pictures                   your files; they are only read
  mirror demo --transport quic             the first half over QUIC, the rest over TCP; a peer that
                                           vanishes without a word is given up after 30 s there
  mirror --json demo --keep /tmp/demo      figures for a program; vaults, homes and files stay
Needs about three times the size of PATH in the temporary directory (TMPDIR). Exits with 0 only if
every file came back equal: bytes, mode, modification time, links.")]
pub(crate) struct DemoArgs {
    /// File or tree to use (default: a generated one)
    #[arg(conflicts_with = "size")]
    pub(crate) path: Option<PathBuf>,
    /// Work in this new or empty directory and leave everything there
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// What carries the first half; the other one carries the rest
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    pub(crate) transport: FirstTransport,
    /// Size of the generated tree
    #[arg(long, hide = true, value_name = "SIZE")]
    pub(crate) size: Option<Size>,
}

/// `demo --transport`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FirstTransport {
    /// TLS over TCP
    #[default]
    Tcp,
    /// QUIC over UDP
    Quic,
}

impl FirstTransport {
    /// The first half's, and the second's.
    pub(crate) fn both(self) -> [TransportKind; 2] {
        match self {
            Self::Tcp => [TransportKind::Tcp, TransportKind::Quic],
            Self::Quic => [TransportKind::Quic, TransportKind::Tcp],
        }
    }
}
