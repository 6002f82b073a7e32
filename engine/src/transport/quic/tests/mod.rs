//! Batches and congestion control, without a network.

mod batches;
mod simulation;
