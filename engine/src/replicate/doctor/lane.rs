//! A lane with made-up bytes on it: the link as chunks see it, with encryption and the protocol.

use super::super::ReplicateError;
use crate::{
    clock,
    limits::MIB,
    probe::Rate,
    transport::{Connection, TransportError},
};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::time::timeout;

/// How much longer than the other end sends it may take until all has arrived.
const DRAIN: Duration = Duration::from_secs(10);

/// Sends over a lane for `time`, from when it is open, and one block in any case.
pub(super) async fn send(connection: &Connection, time: Duration) -> Result<Rate, ReplicateError> {
    let block = Bytes::from(vec![0x5a; MIB]);
    let sending = async {
        let mut lane = connection.open_lane().await?;
        let (began, mut bytes) = (clock::now(), 0);
        while bytes == 0 || began.elapsed() < time {
            lane.send(block.clone()).await?;
            bytes += block.len() as u64;
        }
        lane.finish().await?;
        Ok(Rate { bytes, elapsed: began.elapsed() })
    };
    timeout(time + DRAIN, sending).await.map_err(|_| TransportError::Timeout)?
}

/// Takes what comes over a lane, from the first byte to the last.
pub(super) async fn receive(connection: &Connection, time: Duration) -> Result<Rate, ReplicateError> {
    let receiving = async {
        let mut lane = connection.accept_lane().await?;
        let mut buffer = BytesMut::with_capacity(MIB / 4);
        let mut bytes = lane.read(&mut buffer).await? as u64;
        let (began, mut last) = (clock::now(), clock::now());
        loop {
            buffer.clear();
            match lane.read(&mut buffer).await? {
                0 => return Ok(Rate { bytes, elapsed: last.duration_since(began) }),
                more => bytes += more as u64,
            }
            last = clock::now();
        }
    };
    timeout(time + DRAIN, receiving).await.map_err(|_| TransportError::Timeout)?
}
