//! Telling systemd how the daemon is (sd_notify): ready, what it does, alive, reading its settings anew, about to end.
//!
//! Without `NOTIFY_SOCKET` in the environment, which only systemd sets, nothing happens.

use sd_notify::NotifyState;
use std::time::Duration;

/// What systemd is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word<'a> {
    /// Everything is up; with what it does.
    Ready(&'a str),
    /// What it does, for `systemctl status`.
    Doing(&'a str),
    /// It is not stuck.
    Alive,
    /// Settings are read; `Ready` follows.
    Reloading,
    Stopping,
}

/// Tells it. A supervisor that does not listen is nobody's concern.
pub(super) fn tell(word: Word<'_>) {
    let told = match word {
        Word::Ready(line) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(line)]),
        Word::Doing(line) => sd_notify::notify(&[NotifyState::Status(line)]),
        Word::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        Word::Reloading => reloading(),
        Word::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    };
    if let Err(error) = told {
        tracing::debug!(%error, ?word, "the supervisor does not listen");
    }
}

/// With the time since which it does, so that a `systemctl reload` knows which of several it waits for.
fn reloading() -> std::io::Result<()> {
    sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
}

/// How often `Alive` has to be told: twice in the time after which systemd would restart the daemon.
pub(super) fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|within| within / 2)
}
