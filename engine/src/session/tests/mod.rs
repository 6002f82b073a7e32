//! Sessions against each other over a simulated link, between vaults in memory.

mod convergence;
mod hostile;
mod model;
mod rules;
mod specification;
mod world;
