//! Files as the store needs them: maps that survive truncation, and writes that are durable or are reported.
//!
//! The only module of the engine with `unsafe` code; it lies in [`map`] and `sigbus`, one operation a block.

pub mod cached;
pub mod durable;
pub mod map;
mod sigbus;
