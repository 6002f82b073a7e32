//! Benches of the engine's parts: the way of a chunk from the cutter to a replica's pack, one file a stage.
//!
//! ```text
//! cargo bench -p mirror-engine                         all of it, some minutes
//! cargo bench -p mirror-engine -- seal                 what has `seal` in its name
//! cargo bench -p mirror-engine -- --save-baseline was  ... change something ...  -- --baseline was
//! cargo test  -p mirror-engine --benches               each once, on tiny input: a bench that no longer works fails the tests
//! ```
//! Input is the same in every run (it grows from fixed seeds); keys of vaults in `replicate` are not, nothing measured depends on them.
//! Stores lie in the system's temporary directory: `TMPDIR=/dev/shm` leaves the disk out of it.
//!
//! What these figures are for: comparing two versions of one part on one machine. How fast `mirror` is, `perf/measure.sh` says.

mod chunk;
mod codec;
mod pack;
mod reconcile;
mod replicate;
mod seal;
mod session;
mod support;
mod transport;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    chunk::bench(&mut criterion);
    seal::bench(&mut criterion);
    pack::bench(&mut criterion);
    codec::bench(&mut criterion);
    reconcile::bench(&mut criterion);
    session::bench(&mut criterion);
    transport::bench(&mut criterion);
    replicate::bench(&mut criterion);
    criterion.final_summary();
}
