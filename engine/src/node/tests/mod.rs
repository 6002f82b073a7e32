//! Two nodes on loopback, of which one's disk does as it is told.

mod breaking;
#[allow(dead_code, reason = "the tests over real sockets use all of it")]
#[path = "../../../../tests/node/world.rs"]
mod sockets;
mod standing;
mod world;
