//! Bytes of a file on their way to a socket: in memory for whoever has to look at them, and by their place for the system, which can
//! send them without a copy.

use bytes::Bytes;
use std::{fs::File, io, sync::Arc};

/// Bytes, and where they lie if they lie in a file.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The bytes.
    pub bytes: Bytes,
    /// The file that holds them, and the offset of the first; none of bytes that are in memory only.
    origin: Option<(Arc<File>, u64)>,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, origin: None }
    }
}

impl Piece {
    /// `bytes` as they lie in `file` from `offset` on.
    pub fn of_file(bytes: Bytes, file: Arc<File>, offset: u64) -> Self {
        Self { bytes, origin: Some((file, offset)) }
    }

    /// Sends what follows the first `sent` bytes to `socket`, as much as it takes at once; returns how much that was.
    ///
    /// # Errors
    /// The system's: `WouldBlock` when the socket takes nothing, `UnexpectedEof` when the file has become shorter.
    pub fn send_to(&self, socket: impl rustix::fd::AsFd, sent: usize) -> io::Result<usize> {
        match &self.origin {
            Some((file, offset)) if cfg!(target_os = "linux") => send_file(socket, file, offset + sent as u64, self.bytes.len() - sent),
            Some(_) | None => Ok(rustix::io::write(socket, &self.bytes[sent..])?),
        }
    }
}

#[cfg(target_os = "linux")]
fn send_file(socket: impl rustix::fd::AsFd, file: &File, mut offset: u64, length: usize) -> io::Result<usize> {
    match rustix::fs::sendfile(socket, file, Some(&mut offset), length)? {
        0 if length > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

/// Never called: other systems' calls of that name differ, and a copy from the map is what they do inside.
#[cfg(not(target_os = "linux"))]
fn send_file(_: impl rustix::fd::AsFd, _: &File, _: u64, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    #[test]
    fn a_piece_of_a_file_and_one_in_memory_arrive_alike() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before, the piece, after").unwrap();
        let bytes = Bytes::from_static(b"the piece");
        for piece in [Piece::of_file(bytes.clone(), Arc::new(file), 8), Piece::from(bytes)] {
            let (to, mut from) = UnixStream::pair().unwrap();
            assert_eq!((piece.send_to(&to, 4).unwrap(), piece.send_to(&to, 0).unwrap()), (5, 9));
            drop(to);
            let mut received = String::new();
            from.read_to_string(&mut received).unwrap();
            assert_eq!(received, "piecethe piece");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_has_become_shorter_is_an_error_and_not_an_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        let piece = Piece::of_file(Bytes::from_static(&[0; 100]), Arc::new(file), 5);
        let (to, _from) = UnixStream::pair().unwrap();
        assert_eq!(piece.send_to(&to, 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
