//! Plain lanes: TCP connections without TLS, for networks that are trusted with what a keyless replica may know.
//!
//! ```text
//! dialer                                                             listener
//!   ── "mPL1" connection 16 · direction 1 · number 8 · proof 32 ─────►  allowed, known, number not used before?
//!   ◄───────────────────────────────────────────────── 1 accepted ──   else it hangs up, and the dialer goes on with TLS
//!   ── length u32 · bytes ── length u32 · bytes ── 0 ───────────────►  (or the other way round, once claimed)
//! ```
//! What travels is sealed, and its ids come over the authenticated session, so integrity is the hash's and confidentiality the seal's.
//! Given up are forward secrecy of the seal's outside and the hiding of chunk ids and sizes. Both ends must have been told to allow it.
//!
//! - The proof is keyed by the connection's exporter and covers direction and number; each number opens one lane, once. Who watches the
//!   network can neither open a lane nor use an opening again. Who can change packets can spoil bytes, which do not match their ids then.
//! - A length precedes whatever is sent, and a length of zero ends the lane: a connection that just ends was cut.
//! - Bytes that lie in a file go out by `sendfile`: the sender never touches them but to check them.

use super::{
    super::TransportError,
    lanes::{Direction, Token},
    stream::Meter,
};
use crate::{io::piece::Piece, limits::PLAIN_LANES_MAX};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{io::Interest, net::TcpStream, task::coop};

const MAGIC: [u8; 4] = *b"mPL1";
const CONNECTION_BYTES: usize = 16;
const PROOF_BYTES: usize = 32;
const OPENING_BYTES: usize = 4 + CONNECTION_BYTES + 1 + 8 + PROOF_BYTES;
const ACCEPTED: u8 = 1;
const LENGTH_BYTES: usize = 4;

/// Which connection a plain lane says that it belongs to; tells nothing of the token.
pub(super) type ConnectionTag = [u8; CONNECTION_BYTES];

/// Whether a fresh TCP connection begins as a plain lane does, and not as TLS. Leaves the bytes where they are.
pub(super) async fn is_plain(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 1];
    Ok(socket.peek(&mut first).await? == 1 && first[0] == MAGIC[0])
}

/// What the lanes of the connection with `token` are found by.
pub(super) fn tag(token: &Token) -> ConnectionTag {
    let mut tag = [0; CONNECTION_BYTES];
    tag.copy_from_slice(&blake3::derive_key("mirror 2026-11 v1 plain lane connection", token)[..CONNECTION_BYTES]);
    tag
}

fn proof(token: &Token, direction: Direction, number: u64) -> blake3::Hash {
    let key = blake3::derive_key("mirror 2026-11 v1 plain lane proof", token);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(&[direction as u8]).update(&number.to_le_bytes()).finalize()
}

/// What a plain lane begins with.
pub(super) struct Opening {
    pub(super) connection: ConnectionTag,
    pub(super) direction: Direction,
    number: u64,
    proof: blake3::Hash,
}

impl Opening {
    pub(super) fn new(token: &Token, direction: Direction, number: u64) -> Self {
        Self { connection: tag(token), direction, number, proof: proof(token, direction, number) }
    }

    pub(super) fn to_bytes(&self) -> [u8; OPENING_BYTES] {
        let mut bytes = [0; OPENING_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_slice(&self.connection);
        out.put_u8(self.direction as u8);
        out.put_u64_le(self.number);
        out.put_slice(self.proof.as_bytes());
        bytes
    }

    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let magic = bytes.try_get_array::<4>()?;
        let connection = bytes.try_get_array()?;
        let direction = Direction::from_byte(bytes.try_get_u8().ok()?)?;
        let number = bytes.try_get_u64_le().ok()?;
        let proof = blake3::Hash::from_bytes(bytes.try_get_array()?);
        (magic == MAGIC).then_some(Self { connection, direction, number, proof })
    }

    /// Reads what a plain lane says it is for.
    pub(super) async fn read(socket: &TcpStream) -> Result<Self, TransportError> {
        let mut bytes = BytesMut::with_capacity(OPENING_BYTES);
        while bytes.len() < OPENING_BYTES {
            let room = OPENING_BYTES - bytes.len();
            if receive(socket, &mut bytes, room).await? == 0 {
                return Err(refused("it ended before it began"));
            }
        }
        Self::parse(&bytes).ok_or_else(|| refused("it does not begin as one"))
    }
}

trait TryGetArray {
    fn try_get_array<const N: usize>(&mut self) -> Option<[u8; N]>;
}

impl TryGetArray for &[u8] {
    fn try_get_array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.split_first_chunk::<N>()?;
        *self = rest;
        Some(*first)
    }
}

/// Numbers that have opened a lane of one connection: each does so once.
#[derive(Default)]
pub(super) struct UsedNumbers(Mutex<HashSet<u64>>);

impl UsedNumbers {
    /// Uses `opening` up, if it was made by who has `token` and is new.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when it was not, its number has opened a lane before, or [`PLAIN_LANES_MAX`] numbers have.
    pub(super) fn admit(&self, token: &Token, opening: &Opening) -> Result<(), TransportError> {
        // Hashes compare in constant time.
        if opening.proof != proof(token, opening.direction, opening.number) {
            return Err(refused("its proof is wrong"));
        }
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= PLAIN_LANES_MAX || !used.insert(opening.number) {
            return Err(refused("its number was used before"));
        }
        Ok(())
    }
}

fn refused(why: &str) -> TransportError {
    TransportError::Protocol(format!("a plain lane was dropped: {why}"))
}

/// A plain lane at either end.
pub(super) struct PlainStream {
    socket: TcpStream,
    meter: Arc<Meter>,
    incoming: Incoming,
}

/// Where the reader stands in the stream of lengths and bytes.
#[derive(Default)]
struct Incoming {
    /// Of a length that has not come whole.
    length: BytesMut,
    /// Bytes that belong to the last length and are still to come.
    left: usize,
    ended: bool,
}

impl PlainStream {
    /// Dials on a connected socket: says what the lane is for and waits until the listener takes it.
    pub(super) async fn open(socket: TcpStream, token: &Token, direction: Direction, number: u64) -> Result<Self, TransportError> {
        let stream = Self::new(socket);
        stream.write_all(&Opening::new(token, direction, number).to_bytes()).await?;
        let mut answer = BytesMut::with_capacity(1);
        match receive(&stream.socket, &mut answer, 1).await? {
            1 if answer[0] == ACCEPTED => Ok(stream),
            _ => Err(refused("the peer does not take it")),
        }
    }

    /// The listener's end of a lane that was admitted.
    pub(super) async fn accept(socket: TcpStream) -> Result<Self, TransportError> {
        let stream = Self::new(socket);
        stream.write_all(&[ACCEPTED]).await?;
        Ok(stream)
    }

    fn new(socket: TcpStream) -> Self {
        Self { socket, meter: Arc::default(), incoming: Incoming::default() }
    }

    /// From now on counts for the connection that this lane belongs to.
    pub(super) fn count_for(&mut self, meter: &Arc<Meter>) {
        meter.add(&self.meter);
        self.meter = meter.clone();
    }

    /// Sends `piece` behind its length.
    pub(super) async fn write(&self, piece: &Piece) -> Result<(), TransportError> {
        let length = u32::try_from(piece.bytes.len()).map_err(|_| refused("a piece is too long"))?;
        if length == 0 {
            return Ok(());
        }
        self.write_all(&length.to_le_bytes()).await?;
        let mut sent = 0;
        while sent < piece.bytes.len() {
            coop::consume_budget().await;
            sent += self.when_writable(|| piece.send_to(&self.socket, sent)).await?;
        }
        Ok(())
    }

    /// Ends our direction: the zero tells it from a cut.
    pub(super) async fn finish(&self) -> Result<(), TransportError> {
        self.write_all(&[0; LENGTH_BYTES]).await?;
        let _ = socket2::SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write);
        Ok(())
    }

    /// Sends `bytes` as they are, with no length before them: an opening, an answer, the byte that claims a parked lane, or a length.
    pub(super) async fn write_all(&self, bytes: &[u8]) -> Result<(), TransportError> {
        let piece = Piece::from(Bytes::copy_from_slice(bytes));
        let mut sent = 0;
        while sent < bytes.len() {
            sent += self.when_writable(|| piece.send_to(&self.socket, sent)).await?;
        }
        Ok(())
    }

    async fn when_writable(&self, send: impl FnMut() -> io::Result<usize>) -> Result<usize, TransportError> {
        let sent = self.socket.async_io(Interest::WRITABLE, send).await.map_err(TransportError::io("sending over TCP"))?;
        self.meter.count_sent(sent);
        Ok(sent)
    }

    /// The byte that claims a parked lane, as it is; none if the peer has gone.
    pub(super) async fn read_claim(&self) -> Result<Option<u8>, TransportError> {
        let mut byte = BytesMut::with_capacity(1);
        receive(&self.socket, &mut byte, 1).await?;
        Ok(byte.first().copied())
    }

    /// Appends up to `room` bytes to `into`, waiting for at least one; 0 is the proper end. Cancel-safe.
    pub(super) async fn read(&mut self, into: &mut BytesMut, room: usize) -> Result<usize, TransportError> {
        loop {
            coop::consume_budget().await;
            if self.incoming.ended {
                return Ok(0);
            }
            if self.incoming.left > 0 {
                let count = receive(&self.socket, into, room.min(self.incoming.left)).await?;
                if count == 0 {
                    return Err(cut());
                }
                self.incoming.left -= count;
                self.meter.count_received(count);
                return Ok(count);
            }
            self.read_length().await?;
        }
    }

    async fn read_length(&mut self) -> Result<(), TransportError> {
        let missing = LENGTH_BYTES - self.incoming.length.len();
        let count = receive(&self.socket, &mut self.incoming.length, missing).await?;
        if count == 0 {
            return Err(cut());
        }
        self.meter.count_received(count);
        if self.incoming.length.len() == LENGTH_BYTES {
            self.incoming.left = self.incoming.length.get_u32_le() as usize;
            self.incoming.ended = self.incoming.left == 0;
        }
        Ok(())
    }
}

/// One read of at most `room` bytes, appended to `into`; 0 is the end of the TCP stream. Cancel-safe.
async fn receive(socket: &TcpStream, into: &mut BytesMut, room: usize) -> Result<usize, TransportError> {
    let failed = TransportError::io("receiving over TCP");
    loop {
        match socket.try_read_buf(&mut (&mut *into).limit(room)) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(failed(error)),
        }
        socket.readable().await.map_err(TransportError::io("receiving over TCP"))?;
    }
}

/// The TCP stream ended before the lane did.
fn cut() -> TransportError {
    TransportError::io("the lane was cut")(io::ErrorKind::UnexpectedEof.into())
}
