//! Sessions against each other over a simulated link, between vaults in memory.

mod certificates;
mod convergence;
mod healing;
mod hostile;
mod live;
mod model;
mod rules;
mod simulation;
mod specification;
mod trips;
mod world;
