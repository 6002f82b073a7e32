//! Files as the store needs them: maps that survive truncation, and writes that are durable or are reported.
//!
//! The only module of the engine with `unsafe` code; it lies in [`map`], `sigbus`, [`counting`] and [`usage`], one operation a block.

pub mod counting;
pub mod durable;
pub mod map;
mod sigbus;
pub mod usage;
