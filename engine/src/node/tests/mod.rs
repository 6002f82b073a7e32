//! Two nodes on loopback, of which one's disk does as it is told.

mod breaking;
mod standing;
mod world;
