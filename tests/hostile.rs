//! A hostile peer against a real server: strangers, members that lie, and crowds. Whatever they do, the server goes on, keeps
//! nothing that is not true, and tells nothing to who does not belong.
//!
//! Everything runs in this process on the loopback interface and on ports that the system chooses. Silence is bounded by the
//! protocol's own limits, so no test sleeps.

#[path = "hostile/certificates.rs"]
mod certificates;
#[path = "hostile/chunks.rs"]
mod chunks;
#[path = "hostile/events.rs"]
mod events;
#[path = "hostile/greed.rs"]
mod greed;
#[path = "hostile/messages.rs"]
mod messages;
#[path = "hostile/noise.rs"]
mod noise;
#[path = "hostile/pairing.rs"]
mod pairing;
#[path = "hostile/peer.rs"]
mod peer;
#[path = "hostile/roles.rs"]
mod roles;
#[path = "hostile/strangers.rs"]
mod strangers;
#[path = "hostile/world.rs"]
mod world;
