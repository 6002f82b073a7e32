//! A port with so many seats and no more, that lets in whom it should and lets nobody sit in silence.

use super::caller::{self, Owner};
use axum::serve::Listener;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// Connections of one page at once.
const SEATS: usize = 32;
/// A connection on which nothing comes for so long is closed.
const SILENCE: Duration = Duration::from_secs(30);
/// After a failed accept: no descriptors are left, and trying at once would only spin.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Whose programs are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admit {
    /// This user's and root's, as far as the system tells.
    OwnUser,
    Anybody,
}

/// A listener that counts.
#[derive(Debug)]
pub(super) struct Seated {
    listener: TcpListener,
    admit: Admit,
    seats: Arc<Semaphore>,
    silence: Duration,
}

impl Seated {
    pub(super) fn new(listener: TcpListener, admit: Admit) -> Self {
        Self { listener, admit, seats: Arc::new(Semaphore::new(SEATS)), silence: SILENCE }
    }

    async fn is_admitted(&self, stream: &TcpStream, peer: SocketAddr) -> bool {
        let (Admit::OwnUser, Ok(local)) = (self.admit, stream.local_addr()) else { return self.admit == Admit::Anybody };
        let own = rustix::process::geteuid().as_raw();
        match tokio::task::spawn_blocking(move || caller::user_of(peer, local)).await {
            Ok(Owner::User(uid)) if uid != own && uid != 0 => {
                tracing::warn!(uid, "another user of this machine asked for the status page");
                false
            }
            Ok(Owner::User(_) | Owner::Unknown) => true,
            Ok(Owner::Nobody) | Err(_) => false,
        }
    }
}

impl Listener for Seated {
    type Io = Seat;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Seat, SocketAddr) {
        loop {
            let Ok(seat) = self.seats.clone().acquire_owned().await else { return std::future::pending().await };
            match self.listener.accept().await {
                Ok((stream, peer)) if self.is_admitted(&stream, peer).await => return (Seat::new(stream, seat, self.silence), peer),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a page takes nobody");
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Seat {
    stream: TcpStream,
    patience: Duration,
    silence: Pin<Box<Sleep>>,
    _seat: OwnedSemaphorePermit,
}

impl Seat {
    fn new(stream: TcpStream, seat: OwnedSemaphorePermit, patience: Duration) -> Self {
        Self { stream, patience, silence: Box::pin(sleep(patience)), _seat: seat }
    }
}

impl AsyncRead for Seat {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            let until = Instant::now() + self.patience;
            self.silence.as_mut().reset(until);
            return Poll::Ready(read);
        }
        self.silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Seat {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn whoever_is_silent_loses_the_seat() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silence = Duration::from_millis(5);
        let mut seated = Seated { silence, ..Seated::new(listener, Admit::Anybody) };
        let caller = TcpStream::connect(address).await.unwrap();
        let before = Instant::now();
        let (mut seat, _) = seated.accept().await;
        let ended = seat.read(&mut [0]).await.unwrap_err();
        assert_eq!((ended.kind(), before.elapsed() >= silence), (io::ErrorKind::TimedOut, true));
        assert_eq!(seated.seats.available_permits(), SEATS - 1);
        drop(seat);
        assert_eq!(seated.seats.available_permits(), SEATS);
        drop(caller);
    }
}
