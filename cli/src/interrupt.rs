//! Ctrl-C and SIGTERM: the first asks the command to stop at its next commit point, the second ends the process at once. A terminal that
//! goes away (SIGHUP) asks, too, however often it says so; where `nohup` has it ignored it stays ignored.
//!
//! One small thread waits for signals. Ending at once is safe at any time: what is not committed is dropped at the next
//! open, as after a crash.

use crate::failure::{Code, Failure};
use mirror_engine::io::descriptors;
use std::{
    fs, io, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether the user wants the command to stop. Cheap to clone and to ask.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Starts to listen; signals that come after this has returned are seen.
    ///
    /// # Errors
    /// When the system gives no thread or no signal handler.
    pub(crate) fn install() -> Result<Self, Failure> {
        // The runtime does not say it well.
        if let Some(error) = descriptors::lacking() {
            return Err(Failure::io("cannot start", &error));
        }
        let interrupt = Self::default();
        let (ready, is_ready) = mpsc::channel();
        let flag = interrupt.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || flag.wait_for_signals(&ready))
            .and_then(|_| is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the signal thread ended"))))
            .map_err(|error| Failure::io("cannot listen for signals", &error))?;
        Ok(interrupt)
    }

    /// Whether a signal has come.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// As if a signal had come.
    #[cfg(test)]
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wait_for_signals(&self, ready: &mpsc::Sender<io::Result<()>>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        runtime.block_on(async {
            match Signals::listen() {
                Ok(signals) => {
                    drop(ready.send(Ok(())));
                    self.count(signals).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    }

    async fn count(&self, mut signals: Signals) {
        loop {
            let meant = signals.next().await;
            if self.0.swap(true, Ordering::Relaxed) && meant == Meant::Typed {
                process::exit(Code::Interrupted.number().into());
            }
        }
    }
}

/// Who wants an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meant {
    /// A user, or whoever runs the program for one.
    Typed,
    /// The terminal, of which both the system and the shell tell.
    HungUp,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let hangup = if ignores_hangups() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())?, hangup })
    }

    async fn next(&mut self) -> Meant {
        tokio::select! {
            _ = self.interrupt.recv() => Meant::Typed,
            _ = self.terminate.recv() => Meant::Typed,
            () = hung_up(self.hangup.as_mut()) => Meant::HungUp,
        }
    }
}

async fn hung_up(hangup: Option<&mut Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this process is to outlive its terminal; where the system does not say, a hangup stays what it was.
fn ignores_hangups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_none_or(|mask| mask & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// The only test that signals this process: a second signal would end it.
    #[test]
    fn the_first_signal_is_seen_and_ends_nothing() {
        let interrupt = Interrupt::install().unwrap();
        assert!(!interrupt.is_set());
        let sent = process::Command::new("kill").args(["-TERM", &process::id().to_string()]).status().unwrap();
        assert!(sent.success());
        let begun = Instant::now();
        while !interrupt.is_set() {
            assert!(begun.elapsed() < Duration::from_secs(10), "no signal was seen");
            thread::yield_now();
        }
    }
}
