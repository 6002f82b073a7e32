//! A TCP connection with nothing on it but bytes.

use super::{Rate, noise};
use crate::{clock, limits::MIB};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

/// Bytes of one write.
const WRITE_BYTES: usize = MIB;
/// Bytes of one read at most.
const READ_BYTES: usize = MIB / 2;
/// A link that carries nothing for this long carries nothing.
const SILENCE: Duration = Duration::from_secs(2);

/// Sends bytes for `time`, then says that it was all. What counts is what [`tcp_receive`] finds at the other end.
///
/// # Errors
/// What the system says.
pub async fn tcp_send(stream: &mut TcpStream, time: Duration) -> io::Result<Rate> {
    let block = noise(WRITE_BYTES);
    let began = clock::now();
    let end = Instant::from_std(began + time);
    let mut bytes = 0;
    while bytes == 0 || began.elapsed() < time {
        match timeout_at(end + SILENCE, stream.write(&block)).await {
            Ok(written) => bytes += written? as u64,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    stream.shutdown().await?;
    Ok(Rate { bytes, elapsed: began.elapsed() })
}

/// Receives until the sender says that it was all, or `time_max` is over. The time counts from the first byte to the last.
///
/// # Errors
/// What the system says.
pub async fn tcp_receive(stream: &mut TcpStream, time_max: Duration) -> io::Result<Rate> {
    let mut buffer = vec![0; READ_BYTES];
    let waiting = stream.read(&mut buffer);
    let mut bytes = timeout(time_max, waiting).await.map_err(io::Error::from)?? as u64;
    let began = clock::now();
    let end = Instant::from_std(began + time_max);
    let mut last = began;
    while let Ok(read) = timeout_at(end, stream.read(&mut buffer)).await {
        match read? {
            0 => break,
            more => bytes += more as u64,
        }
        last = clock::now();
    }
    Ok(Rate { bytes, elapsed: last.duration_since(began) })
}
