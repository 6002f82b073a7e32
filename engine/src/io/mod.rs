//! Files as the store needs them: maps that survive truncation, and writes that are durable or are reported.
//!
//! The only module of the engine with `unsafe` code; it lies in [`map`], `sigbus`, `uring`, [`counting`],
//! [`priority`], [`surplus`] and [`usage`], one operation a block.

pub mod append;
pub mod backend;
pub mod buffers;
pub mod cached;
pub mod counting;
pub mod descriptors;
pub mod durable;
pub mod map;
pub mod pages;
pub mod piece;
mod portable;
pub mod priority;
mod sigbus;
pub mod surplus;
#[cfg(test)]
mod tests;
#[cfg(target_os = "linux")]
mod uring;
#[cfg(not(target_os = "linux"))]
#[path = "uring_absent.rs"]
mod uring;
pub mod usage;
