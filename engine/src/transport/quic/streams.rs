//! Control stream and lanes on QUIC streams.

use super::{
    super::{
        CloseReason, TransportError,
        control::{self, Frame, Frames},
    },
    QuicConnection,
};
use bytes::{BufMut, Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt, WriteError};
use tokio::io::AsyncReadExt;

/// Code of a lane that was dropped, by either side: the lane failed, the connection lives.
const LANE_DROPPED: VarInt = VarInt::from_u32(1);

pub(in super::super) struct QuicControlSender {
    connection: QuicConnection,
    stream: SendStream,
}

impl QuicControlSender {
    pub(super) fn new(connection: QuicConnection, stream: SendStream) -> Self {
        Self { connection, stream }
    }

    pub(in super::super) async fn send_each(&mut self, messages: Vec<Bytes>) -> Result<(), TransportError> {
        let mut pieces = control::pieces(messages)?;
        self.connection.says();
        self.stream.write_all_chunks(&mut pieces).await.map_err(|_| control_error(&self.connection))
    }

    pub(in super::super) async fn nudge(&mut self) -> Result<(), TransportError> {
        self.stream.write_all(&control::keep_alive()).await.map_err(|_| control_error(&self.connection))
    }
}

/// The control stream lives as long as the connection: when it alone ends, the peer broke the contract.
fn control_error(connection: &QuicConnection) -> TransportError {
    match connection.lane_error() {
        TransportError::LaneReset => {
            connection.close(CloseReason::ProtocolError);
            TransportError::Protocol("the control stream ended before the connection".to_owned())
        }
        other => other,
    }
}

pub(super) fn write_failure(connection: &quinn::Connection, error: WriteError) -> TransportError {
    connection.close_reason().map_or_else(|| TransportError::Protocol(error.to_string()), super::ended)
}

pub(in super::super) struct QuicControlReceiver {
    connection: QuicConnection,
    stream: RecvStream,
    frames: Frames,
}

impl QuicControlReceiver {
    pub(super) fn new(connection: QuicConnection, stream: RecvStream) -> Self {
        Self { connection, stream, frames: Frames::default() }
    }

    pub(in super::super) async fn recv(&mut self) -> Result<Option<Bytes>, TransportError> {
        match self.next().await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.is_done() => Ok(None),
            Err(error) => {
                if matches!(error, TransportError::Protocol(_)) {
                    self.connection.close(CloseReason::ProtocolError);
                }
                Err(error)
            }
        }
    }

    async fn next(&mut self) -> Result<Bytes, TransportError> {
        loop {
            match self.frames.next()? {
                Some(Frame::Message(message)) => return Ok(message),
                Some(Frame::KeepAlive) => continue,
                Some(Frame::Close(_)) => return Err(TransportError::Protocol("a close frame on QUIC".to_owned())),
                None => {}
            }
            let buffer = self.frames.buffer();
            match self.stream.read_buf(&mut buffer.limit(Frames::room())).await {
                Ok(0) => return Err(self.end().await),
                Ok(_) => {}
                Err(_) => return Err(control_error(&self.connection)),
            }
        }
    }

    /// The peer finished the stream, which it does only by ending the connection: wait for the reason.
    async fn end(&self) -> TransportError {
        if !self.frames.is_empty() {
            return TransportError::Protocol("the control stream ended in the middle of a message".to_owned());
        }
        self.connection.closed().await
    }
}

pub(in super::super) struct QuicLaneSender {
    connection: QuicConnection,
    /// Gone once it is finished.
    stream: Option<SendStream>,
}

impl QuicLaneSender {
    pub(super) fn new(connection: QuicConnection, stream: SendStream) -> Self {
        Self { connection, stream: Some(stream) }
    }

    pub(in super::super) async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        match &mut self.stream {
            Some(stream) if !bytes.is_empty() => {
                let length = bytes.len();
                stream.write_chunk(bytes).await.map_err(|_| self.connection.lane_error())?;
                self.connection.sent(length);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(in super::super) async fn finish(mut self) -> Result<(), TransportError> {
        let finished = self.stream.take().map_or(Ok(()), |mut stream| stream.finish());
        finished.map_err(|_| self.connection.lane_error())
    }
}

impl Drop for QuicLaneSender {
    /// Quinn finishes a stream that is dropped, which would make a broken lane look whole.
    fn drop(&mut self) {
        if self.stream.as_mut().is_some_and(|stream| stream.reset(LANE_DROPPED).is_err()) {
            tracing::trace!("the lane's stream was closed already");
        }
    }
}

pub(in super::super) struct QuicLaneReceiver {
    connection: QuicConnection,
    stream: RecvStream,
}

impl QuicLaneReceiver {
    pub(super) fn new(connection: QuicConnection, stream: RecvStream) -> Self {
        Self { connection, stream }
    }

    /// Takes all that lies ready in one go: quinn copies piece after piece until it has no more or there is no room.
    pub(in super::super) async fn read(&mut self, buffer: &mut BytesMut, room: usize) -> Result<usize, TransportError> {
        let length = self.stream.read_buf(&mut buffer.limit(room)).await.map_err(|_| self.connection.lane_error())?;
        self.connection.received(length);
        Ok(length)
    }
}
