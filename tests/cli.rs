//! The real program, as users and scripts run it: what is printed where, and with which exit code it ends.

#[path = "cli/acknowledge.rs"]
mod acknowledge;
#[path = "cli/certificates.rs"]
mod certificates;
#[path = "cli/damage.rs"]
mod damage;
#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/discovery.rs"]
mod discovery;
#[path = "cli/epochs.rs"]
mod epochs;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/folder.rs"]
mod folder;
#[path = "cli/follow.rs"]
mod follow;
#[path = "cli/fuse.rs"]
mod fuse;
#[path = "cli/healing.rs"]
mod healing;
#[path = "cli/history.rs"]
mod history;
#[path = "cli/interruption.rs"]
mod interruption;
#[path = "cli/leaks.rs"]
mod leaks;
#[path = "cli/limits.rs"]
mod limits;
#[path = "cli/merge.rs"]
mod merge;
#[path = "cli/mistakes.rs"]
mod mistakes;
#[path = "cli/pairing.rs"]
mod pairing;
#[path = "cli/peers.rs"]
mod peers;
#[path = "cli/progress.rs"]
mod progress;
#[path = "cli/rewrite.rs"]
mod rewrite;
#[path = "cli/roles.rs"]
mod roles;
#[path = "cli/secrets.rs"]
mod secrets;
#[path = "cli/slots.rs"]
mod slots;
#[path = "cli/slow.rs"]
mod slow;
mod support;
#[path = "cli/trees.rs"]
mod trees;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/values.rs"]
mod values;
#[path = "cli/why.rs"]
mod why;
