//! What the two ends of an examination say to each other: strict CBOR, one request at a time, one or two answers.
//!
//! ```text
//! Ping                    ─► Pong
//! Work{what, ms}          ─► Measured | NotMeasured
//! Link{carrier, way, ms}  ─► Port{port, token} | NotMeasured    raw sockets: then bytes flow there
//!                            Measured | NotMeasured             what the listener saw of it
//! ```

use super::super::ReplicateError;
use crate::{
    codec,
    limits::{DOCTOR_MESSAGE_BYTES_MAX, DOCTOR_MS, DOCTOR_STAGE_MS_MAX},
    probe::Rate,
    transport::{ControlReceiver, ControlSender},
};
use minicbor::{Decode, Encode};
use std::time::Duration;
use tokio::time::timeout;

/// What a listener measures by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Work {
    #[n(0)]
    ReadCold,
    #[n(1)]
    Hash,
    #[n(2)]
    Write,
}

/// What carries bytes between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Carrier {
    /// A TCP connection with nothing on it.
    #[n(0)]
    Tcp,
    /// Datagrams.
    #[n(1)]
    Udp,
    /// A lane, as chunks travel.
    #[n(2)]
    Lane,
}

/// As the dialer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Way {
    #[n(0)]
    Up,
    #[n(1)]
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Link {
    #[n(0)]
    pub(super) carrier: Carrier,
    #[n(1)]
    pub(super) way: Way,
    #[n(2)]
    pub(super) ms: u64,
    /// Not faster than this (datagrams only).
    #[n(3)]
    pub(super) bits_per_s_max: Option<u64>,
}

impl Link {
    pub(super) fn time(&self) -> Duration {
        bounded(self.ms)
    }
}

/// However long somebody asks for.
pub(super) fn bounded(ms: u64) -> Duration {
    Duration::from_millis(ms.min(DOCTOR_STAGE_MS_MAX))
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Request {
    #[n(0)]
    Ping,
    #[n(1)]
    Work {
        #[n(0)]
        what: Work,
        #[n(1)]
        ms: u64,
    },
    #[n(2)]
    Link(#[n(0)] Link),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Answer {
    #[n(0)]
    Pong,
    #[n(1)]
    Measured {
        #[n(0)]
        bytes: u64,
        #[n(1)]
        elapsed_us: u64,
        /// Of datagrams.
        #[n(2)]
        count: u64,
    },
    #[n(2)]
    Port {
        #[n(0)]
        port: u16,
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        token: [u8; 32],
    },
    #[n(3)]
    NotMeasured {
        #[n(0)]
        why: String,
    },
}

impl Answer {
    pub(super) fn of(rate: Rate, count: u64) -> Self {
        Self::Measured { bytes: rate.bytes, elapsed_us: rate.elapsed.as_micros() as u64, count }
    }

    pub(super) fn not(why: impl ToString) -> Self {
        let mut why = why.to_string();
        while why.len() > DOCTOR_MESSAGE_BYTES_MAX / 2 {
            why.pop();
        }
        Self::NotMeasured { why }
    }
}

/// Says something.
pub(super) async fn say<T: Encode<()>>(control: &mut ControlSender, what: &T) -> Result<(), ReplicateError> {
    Ok(control.send(codec::encode(what).into()).await?)
}

/// Hears something; none when the peer has closed.
pub(super) async fn hear<T>(control: &mut ControlReceiver) -> Result<Option<T>, ReplicateError>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let silent = |_| ReplicateError::PeerStopped("it has said nothing for too long".into());
    let Some(message) = timeout(Duration::from_millis(DOCTOR_MS), control.recv()).await.map_err(silent)?? else { return Ok(None) };
    if message.len() > DOCTOR_MESSAGE_BYTES_MAX {
        return Err(ReplicateError::Peer("a message is too long".into()));
    }
    codec::decode("doctor", &message).map(Some).map_err(|error| ReplicateError::Peer(error.to_string()))
}
