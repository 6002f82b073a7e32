//! The real program, as users and scripts run it: what is printed where, and with which exit code it ends.

#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/history.rs"]
mod history;
#[path = "cli/pairing.rs"]
mod pairing;
#[path = "cli/secrets.rs"]
mod secrets;
mod support;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/values.rs"]
mod values;
