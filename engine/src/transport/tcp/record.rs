//! TLS records in memory: bytes from the socket in, plaintext out, and the other way round. No IO here.
//!
//! Two sessions of the same library behind one face. Lanes use rustls' unbuffered API: it decrypts in place from our large read
//! buffer and encrypts from the caller's bytes straight into our write buffer (measured: almost half the receiver's CPU time).
//! The control connection uses the buffered API, because only that one gives the exporter that lanes and sessions are bound to.

use super::super::{TransportError, tls};
use crate::limits::KIB;
use bytes::BytesMut;
use rustls::{
    ClientConfig, CommonState, Connection, Error, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    pki_types::ServerName,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};
use std::{
    io::{self, BufRead, Write},
    sync::Arc,
};

/// Read buffer until the handshake is done: a stranger costs this much.
const HANDSHAKE_BUFFER_BYTES: usize = 32 * KIB;
/// One read from the socket. More does not pay: it has to stay in the second-level cache.
const READ_BYTES: usize = 256 * KIB;
/// Largest TLS record on the wire (RFC 8446, section 5.2): what may be left over between two reads.
const RECORD_BYTES_MAX: usize = 16 * KIB + 256 + 5;
/// Plaintext in one write to the socket.
pub(super) const WRITE_BYTES: usize = 240 * KIB;
/// Records and alerts around that much plaintext: 22 bytes for each 16 KiB, and a key update.
const OVERHEAD_BYTES: usize = 4 * KIB;

/// Which of the two sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    Control,
    Lane,
}

enum Session {
    Control(Connection),
    LaneClient(UnbufferedClientConnection),
    LaneServer(UnbufferedServerConnection),
}

/// What is left after a look at the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    /// Nothing more comes out of what has been read.
    Drained,
    /// There is no more room for plaintext.
    Full,
    /// The peer has ended its direction properly.
    Ended,
}

/// One TLS connection's state and buffers.
pub(super) struct Records {
    session: Session,
    incoming: Incoming,
    /// Plaintext that came out of a record when there was no room for it, or when the aim was to write.
    carry: BytesMut,
    pub(super) outgoing: Outgoing,
    input_ended: bool,
}

impl Records {
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>, what: Use) -> Result<Self, TransportError> {
        let session = match what {
            Use::Control => rustls::ClientConnection::new(config, name).map(|session| Session::Control(session.into())),
            Use::Lane => UnbufferedClientConnection::new(config, name).map(Session::LaneClient),
        };
        Ok(Self::new(session.map_err(tls::failure)?, Incoming::new(HANDSHAKE_BUFFER_BYTES)))
    }

    /// `incoming` may hold what has been read already, to find out what the connection is for.
    pub(super) fn server(config: Arc<ServerConfig>, what: Use, incoming: Incoming) -> Result<Self, TransportError> {
        let session = match what {
            Use::Control => rustls::ServerConnection::new(config).map(|session| Session::Control(session.into())),
            Use::Lane => UnbufferedServerConnection::new(config).map(Session::LaneServer),
        };
        Ok(Self::new(session.map_err(tls::failure)?, incoming))
    }

    fn new(mut session: Session, incoming: Incoming) -> Self {
        if let Session::Control(connection) = &mut session {
            connection.set_buffer_limit(None);
        }
        Self { session, incoming, carry: BytesMut::new(), outgoing: Outgoing::default(), input_ended: false }
    }

    /// What both kinds of session know: handshake state, peer's key, protocol.
    pub(super) fn common(&self) -> &CommonState {
        match &self.session {
            Session::Control(connection) => connection,
            Session::LaneClient(session) => session,
            Session::LaneServer(session) => session,
        }
    }

    /// 32 bytes bound to this connection; control only.
    pub(super) fn exporter(&self, label: &[u8], context: &[u8]) -> Result<[u8; 32], TransportError> {
        match &self.session {
            Session::Control(connection) => connection.export_keying_material([0; 32], label, Some(context)).map_err(tls::failure),
            _ => Err(TransportError::Protocol("a lane has no exporter".to_owned())),
        }
    }

    /// Room for the next read from the socket.
    pub(super) fn space(&mut self) -> Result<&mut [u8], TransportError> {
        if !self.common().is_handshaking() {
            self.incoming.grow(READ_BYTES + RECORD_BYTES_MAX);
        }
        self.incoming.space()
    }

    /// `count` bytes have been read into [`Records::space`].
    pub(super) fn filled(&mut self, count: usize) {
        self.incoming.end += count;
    }

    /// Takes what has been read as far as it goes; at most `room` bytes of plaintext are appended to `into`.
    /// On an error, what is to be said to the peer about it lies in `outgoing`.
    pub(super) fn decrypt(&mut self, into: &mut BytesMut, room: usize) -> Result<Input, Error> {
        let carried = self.carry.len().min(room);
        into.extend_from_slice(&self.carry.split_to(carried));
        let mut plain = Plain { into, room: room - carried, carry: &mut self.carry };
        let result = match &mut self.session {
            Session::Control(connection) => pump_control(connection, &mut self.incoming, &mut self.outgoing, &mut plain),
            Session::LaneClient(session) => pump_lane(session, &mut self.incoming, &mut self.outgoing, &mut plain),
            Session::LaneServer(session) => pump_lane(session, &mut self.incoming, &mut self.outgoing, &mut plain),
        };
        if matches!(result, Ok(Input::Ended)) {
            self.input_ended = true;
        }
        match result {
            Ok(Input::Drained) if self.input_ended && self.carry.is_empty() => Ok(Input::Ended),
            other => other,
        }
    }

    /// Encrypts `bytes`, at most [`WRITE_BYTES`], into `outgoing`.
    pub(super) fn encrypt(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let outgoing = &mut self.outgoing;
        match &mut self.session {
            Session::Control(connection) => {
                connection.writer().write_all(bytes).and_then(|()| drain_control(connection, outgoing)).map_err(TransportError::io("TLS"))
            }
            Session::LaneClient(session) => encrypt_lane(session, &mut self.incoming, outgoing, &mut self.carry, Some(bytes)),
            Session::LaneServer(session) => encrypt_lane(session, &mut self.incoming, outgoing, &mut self.carry, Some(bytes)),
        }
    }

    /// Puts the end of our direction into `outgoing`.
    pub(super) fn end(&mut self) -> Result<(), TransportError> {
        let outgoing = &mut self.outgoing;
        match &mut self.session {
            Session::Control(connection) => {
                connection.send_close_notify();
                drain_control(connection, outgoing).map_err(TransportError::io("TLS"))
            }
            Session::LaneClient(session) => encrypt_lane(session, &mut self.incoming, outgoing, &mut self.carry, None),
            Session::LaneServer(session) => encrypt_lane(session, &mut self.incoming, outgoing, &mut self.carry, None),
        }
    }
}

/// Where plaintext goes.
struct Plain<'a> {
    into: &'a mut BytesMut,
    room: usize,
    carry: &'a mut BytesMut,
}

impl Plain<'_> {
    /// Takes all of `bytes`; what does not fit is carried over to the next read.
    fn take(&mut self, bytes: &[u8]) {
        let (now, later) = bytes.split_at(bytes.len().min(self.room));
        self.into.extend_from_slice(now);
        self.carry.extend_from_slice(later);
        self.room -= now.len();
    }
}

/// Ciphertext between the socket and TLS: `bytes[start..end]` is unprocessed.
pub(super) struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    pub(super) fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity], start: 0, end: 0 }
    }

    pub(super) fn for_handshake() -> Self {
        Self::new(HANDSHAKE_BUFFER_BYTES)
    }

    pub(super) fn unprocessed(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn filled(&mut self, count: usize) {
        self.end += count;
    }

    fn grow(&mut self, capacity: usize) {
        if self.bytes.len() < capacity {
            self.bytes.resize(capacity, 0);
        }
    }

    fn discard(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room behind the unprocessed bytes, which move to the front: never more than a record once the handshake is done.
    pub(super) fn space(&mut self) -> Result<&mut [u8], TransportError> {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.bytes.len() {
            return Err(TransportError::Protocol("a TLS message is too long".to_owned()));
        }
        Ok(&mut self.bytes[self.end..])
    }
}

/// Ciphertext on its way to the socket: `bytes[sent..filled]`. The buffer keeps its size, so it is zeroed once.
#[derive(Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    filled: usize,
}

impl Outgoing {
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..self.filled]
    }

    pub(super) fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.filled {
            (self.sent, self.filled) = (0, 0);
        }
    }

    fn space(&mut self, count: usize) -> &mut [u8] {
        if self.bytes.len() < self.filled + count {
            self.bytes.resize(self.filled + count, 0);
        }
        &mut self.bytes[self.filled..]
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn drain_control(connection: &mut Connection, outgoing: &mut Outgoing) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(outgoing)?;
    }
    Ok(())
}

fn pump_control(
    connection: &mut Connection,
    incoming: &mut Incoming,
    outgoing: &mut Outgoing,
    plain: &mut Plain<'_>,
) -> Result<Input, Error> {
    let general = |error: io::Error| Error::General(error.to_string());
    loop {
        match take_control(connection, plain) {
            Input::Drained if !incoming.unprocessed().is_empty() => {}
            input => return drain_control(connection, outgoing).map(|()| input).map_err(general),
        }
        let count = connection.read_tls(&mut incoming.unprocessed()).map_err(general)?;
        incoming.discard(count);
        if let Err(error) = connection.process_new_packets() {
            drain_control(connection, outgoing).map_err(general)?;
            return Err(error);
        }
    }
}

/// Hands over the plaintext that the session holds.
fn take_control(connection: &mut Connection, plain: &mut Plain<'_>) -> Input {
    let mut reader = connection.reader();
    loop {
        match reader.fill_buf() {
            Ok([]) => return Input::Ended,
            Ok(_) if plain.room == 0 => return Input::Full,
            Ok(bytes) => {
                let count = bytes.len().min(plain.room);
                plain.take(&bytes[..count]);
                reader.consume(count);
            }
            Err(_) => return Input::Drained,
        }
    }
}

/// What the library's client and server have in common, but not in one trait.
trait Unbuffered {
    type Data;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// How one step of the unbuffered state machine went.
enum Step {
    /// Call again.
    Again,
    /// Input is needed, or output may be written.
    Blocked,
    /// The peer ended its direction.
    Ended,
}

fn step<U: Unbuffered>(session: &mut U, incoming: &mut Incoming, outgoing: &mut Outgoing, plain: &mut Plain<'_>) -> Result<Step, Error> {
    let (start, end) = (incoming.start, incoming.end);
    let UnbufferedStatus { mut discard, state, .. } = session.process(&mut incoming.bytes[start..end]);
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                discard += record.discard;
                plain.take(record.payload);
            }
            Ok(Step::Again)
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(|space| data.encode(space), outgoing).map(|()| Step::Again),
        // It lies in `outgoing`, which leaves before anything that is encrypted later.
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Ended),
        Ok(_) => Err(Error::General("unexpected TLS state".to_owned())),
        Err(error) => Err(error),
    };
    incoming.discard(discard);
    step
}

fn encode(mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>, outgoing: &mut Outgoing) -> Result<(), Error> {
    let mut needed = RECORD_BYTES_MAX;
    loop {
        match encode(outgoing.space(needed)) {
            Ok(count) => {
                outgoing.filled += count;
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > needed => needed = size.required_size,
            Err(error) => return Err(Error::General(error.to_string())),
        }
    }
}

fn pump_lane<U: Unbuffered>(
    session: &mut U,
    incoming: &mut Incoming,
    outgoing: &mut Outgoing,
    plain: &mut Plain<'_>,
) -> Result<Input, Error> {
    loop {
        if plain.room == 0 && !plain.carry.is_empty() {
            return Ok(Input::Full);
        }
        match step(session, incoming, outgoing, plain) {
            Ok(Step::Again) => {}
            Ok(Step::Blocked) => return Ok(Input::Drained),
            Ok(Step::Ended) => return Ok(Input::Ended),
            Err(error) => {
                collect_alert(session, incoming, outgoing);
                return Err(error);
            }
        }
    }
}

/// After an error the session holds an alert for the peer.
fn collect_alert<U: Unbuffered>(session: &mut U, incoming: &mut Incoming, outgoing: &mut Outgoing) {
    let (start, end) = (incoming.start, incoming.end);
    while let Ok(ConnectionState::EncodeTlsData(mut data)) = session.process(&mut incoming.bytes[start..end]).state {
        if encode(|space| data.encode(space), outgoing).is_err() {
            return;
        }
    }
}

/// Encrypts `bytes`, or the end when there are none.
fn encrypt_lane<U: Unbuffered>(
    session: &mut U,
    incoming: &mut Incoming,
    outgoing: &mut Outgoing,
    carry: &mut BytesMut,
    bytes: Option<&[u8]>,
) -> Result<(), TransportError> {
    let mut nowhere = BytesMut::new();
    let mut plain = Plain { into: &mut nowhere, room: 0, carry };
    while matches!(step(session, incoming, outgoing, &mut plain).map_err(tls::failure)?, Step::Again) {}
    let (start, end) = (incoming.start, incoming.end);
    let UnbufferedStatus { discard, state, .. } = session.process(&mut incoming.bytes[start..end]);
    let encrypted = match state.map_err(tls::failure)? {
        ConnectionState::WriteTraffic(mut traffic) => match bytes {
            Some(bytes) => traffic.encrypt(bytes, outgoing.space(bytes.len() + OVERHEAD_BYTES)),
            None => traffic.queue_close_notify(outgoing.space(OVERHEAD_BYTES)),
        },
        other => return Err(TransportError::Protocol(format!("TLS cannot send: {other:?}"))),
    };
    outgoing.filled += encrypted.map_err(|error: EncryptError| TransportError::Protocol(error.to_string()))?;
    incoming.discard(discard);
    Ok(())
}
