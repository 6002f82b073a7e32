//! Round trips of a cold push, counted with a relay that holds every byte back for a while.
//!
//! ```text
//! push ─► relay ─ delay ─► serve        elapsed = round trips * 2 * delay + work
//!      ◄─ delay ─       ◄─
//! ```
//! A push without delay tells the work. TCP's own handshake ends at the relay, so it is added as one. Of some pushes the shortest counts,
//! with and without: other load on the machine lengthens some, a round trip more lengthens all.

use super::Metric;
use crate::{
    bench::{
        bed::{self, Bed},
        program::Mirror,
    },
    failure::Failure,
};
use std::{
    ffi::OsStr,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Long against the work, so that this does not blur the count.
const DELAY: Duration = Duration::from_millis(40);
const ROUNDS: u32 = 5;

pub(super) fn round_trips(bed: &Bed, mirror: &Mirror) -> Result<Metric, Failure> {
    let origin = mirror.device(bed)?;
    let mut serving = mirror.serve(bed, &origin)?;
    let replica = mirror.clone_of(bed, &origin, &serving)?;
    let (direct, delayed) = (serving.address, relay(serving.address)?);
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (way, (address, times)) in [direct, delayed].into_iter().zip(&mut times).enumerate() {
            // Of its own: what the peer has already would not travel.
            let object = bed.file(1024, 1_000 + u64::from(round) * 2 + way as u64)?;
            mirror.run(bed, &replica, &[OsStr::new("add"), object.as_os_str()])?;
            serving = serving.through(address);
            let (ran, _) = mirror.push(bed, &replica, &serving, "tcp")?;
            bed::remove(&object);
            times.push(ran.elapsed.as_secs_f64());
        }
    }
    serving.running.stop()?;
    let [direct, delayed] = times.map(|times| times.into_iter().fold(f64::INFINITY, f64::min));
    let round_trips = (delayed - direct) / (2.0 * DELAY.as_secs_f64()) + 1.0;
    Ok(Metric::count("cold_push.round_trips", round_trips.round(), "round trips, tcp"))
}

/// A port behind which every byte takes [`DELAY`] longer, both ways, for as long as the process lives.
fn relay(to: SocketAddr) -> Result<SocketAddr, Failure> {
    let failed = |error| Failure::io("cannot open a port", &error);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(to) else { return };
            if let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) {
                carry(near, far);
                carry(far_too, near_too);
            }
        }
    });
    Ok(address)
}

/// One thread takes bytes and their time, another hands them on when it has come.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let (late, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    drop(to.set_nodelay(true));
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(got @ 1..) = from.read(&mut buffer) {
            if late.send((Instant::now() + DELAY, buffer[..got].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (at, bytes) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Write));
    });
}
