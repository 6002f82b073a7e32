//! Nodes over real sockets: who dials whom, what is waited for, and what the status says of it.

#[path = "node/chain.rs"]
mod chain;
#[path = "node/crowd.rs"]
mod crowd;
#[path = "node/dialling.rs"]
mod dialling;
#[path = "node/silence.rs"]
mod silence;
#[path = "node/world.rs"]
mod world;
