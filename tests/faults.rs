//! The real program when something breaks: processes killed, links cut, disks full, files damaged or gone, many at once.
//!
//! Every test asks the same of what is left: nothing that was acknowledged is lost, `verify --read-data` is clean, the exit code is that
//! of the contract, and once the fault is gone the same command finishes. Nothing here sleeps to be on time: faults strike
//! when a condition is met (so many bytes on the disk, so many through the relay), and every wait has a deadline. Where the machine does not
//! allow a fault (no root, no strace), the test says `SKIPPED` on stderr, past the capture of the test harness.

#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/files.rs"]
mod files;
#[path = "faults/fixture.rs"]
mod fixture;
#[path = "faults/kill.rs"]
mod kill;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/past.rs"]
mod past;
#[path = "faults/paths.rs"]
mod paths;
#[path = "faults/reconnects.rs"]
mod reconnects;
#[path = "faults/relay.rs"]
mod relay;
mod support;
#[path = "faults/sync.rs"]
mod sync;
