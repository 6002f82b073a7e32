//! What signals mean to a daemon: INT and TERM end it in order and a second one ends it at once; HUP has it read its settings anew.

use crate::failure::{Code, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals of a daemon.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Stop,
    Reload,
}

impl Signals {
    /// Signals that come after this has returned are seen.
    ///
    /// # Errors
    /// When the system gives no handler.
    pub(super) fn install() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io("cannot listen for signals", &error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next wish. Cancel-safe.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for a signal to stop, and ends the process: what is not committed is dropped at the next open, as after a crash.
    pub(super) async fn end_at_once(&mut self) -> std::convert::Infallible {
        while self.next().await != Wish::Stop {}
        std::process::exit(Code::Interrupted.number().into())
    }
}
