//! Arguments of `doctor`.

use super::TransportChoice;
use clap::Args;
use mirror_engine::id::DeviceId;

/// `doctor`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  mirror doctor nas                    a peer from `mirror peer list`, some 20 seconds
  mirror doctor nas --seconds 5        longer, for links that need time to get going
  mirror --json doctor nas             for programs
The peer must be serving. Nothing of the vault is changed or sent: bytes are made up, and what is
written for measuring is gone again. Raw TCP and UDP use ports that the peer opens for it; a
firewall may keep them shut.")]
pub(crate) struct DoctorArgs {
    /// Name of a peer, or HOST:PORT with --device
    pub(crate) peer: String,
    /// The device that must answer at HOST:PORT
    #[arg(long, value_name = "ID")]
    pub(crate) device: Option<DeviceId>,
    /// How long each stage is measured
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=mirror_engine::limits::DOCTOR_STAGE_MS_MAX / 1000))]
    pub(crate) seconds: u64,
    /// How to connect, and what the lanes are measured over [env: MIRROR_FORCE_TCP=1 means tcp]
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) transport: Option<TransportChoice>,
}
