//! The engine of `mirror`: keeps two or more replicas of an encrypted, append-only, content-addressed vault the same.
//!
//! # Layers
//! A module uses only those below it; `docs/architecture.md` draws the map and a test holds the code to it.
//! ```text
//! node        a vault kept equal with its peers: listener, followers, what stands still and why
//! folder      a directory followed into a vault and out of it
//! replicate   drives one session over one connection and one store · pairing
//! transport   quic | tcp | memory          vault   ingest, restore, view, verify, recover
//! session     (pure)                       store   packs, log, heads, index, journal
//! merge       (pure)                       home    device key, peers, tickets
//! event, keys, seal, chunk, bitmap, frame, codec, id, limits, clock · io  map of a pack, durable files
//! ```
//! The engine never prints, never reads the environment or the home directory, and reads the clock only through [`clock`].
#![warn(missing_docs)]

/// [`tokio::select!`], whose branches get their turns by chance so that none starves. Tests go by their order: one seed has one outcome.
#[cfg(not(test))]
macro_rules! select {
    ($($branches:tt)*) => { tokio::select! { $($branches)* } };
}
#[cfg(test)]
macro_rules! select {
    ($($branches:tt)*) => { tokio::select! { biased; $($branches)* } };
}

pub mod bitmap;
pub mod chunk;
pub mod clock;
pub mod codec;
pub mod discovery;
pub mod event;
pub mod folder;
pub mod frame;
pub mod home;
pub mod id;
pub mod io;
pub mod keys;
pub mod limits;
pub mod members;
pub mod merge;
pub mod meter;
pub mod node;
pub mod probe;
pub mod replicate;
pub mod seal;
pub mod session;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod transport;
pub mod vault;

// What tests of this crate share with those outside it names it as they do.
#[cfg(test)]
extern crate self as mirror_engine;

#[cfg(test)]
#[path = "../../tests/vectors/read.rs"]
mod vectors;
