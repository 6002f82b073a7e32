//! The other device: a `mirror serve` of its own process, and the hand that kills it.

use super::Device;
use crate::{
    failure::{Code, Failure},
    progress::Meter,
};
use mirror_engine::{
    id::DeviceId,
    io::backend::Choice,
    replicate::{Observer, Progress, Target},
    transport::TransportKind,
};
use serde::Deserialize;
use std::{
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// A serving child; dropping it kills it.
#[derive(Debug)]
pub(super) struct Serving {
    child: Child,
    listening: Listening,
    /// Open as long as the child may write to it.
    _stdout: BufReader<ChildStdout>,
}

/// The line that `mirror --json serve` prints when it accepts connections.
#[derive(Debug, Deserialize)]
struct Listening {
    quic: SocketAddr,
    tcp: SocketAddr,
    device: String,
}

impl Serving {
    /// `mirror --json -V VAULT --io CHOICE serve` on free ports of the loopback interface, once it accepts connections.
    ///
    /// # Errors
    /// When the child does not start, with what it said instead.
    pub(super) fn start(device: &Device, io: Choice) -> Result<Self, Failure> {
        let failed = |error| Failure::io("cannot start the serving process", &error);
        let mut command = command(&env::current_exe().map_err(failed)?, device, io);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let Some(mut stdout) = child.stdout.take().map(BufReader::new) else {
            return Err(Failure::new(Code::Failed, "the serving process has no stdout"));
        };
        let mut line = String::new();
        stdout.read_line(&mut line).map_err(failed)?;
        match serde_json::from_str(&line) {
            Ok(listening) => Ok(Self { child, listening, _stdout: stdout }),
            Err(_) => {
                end(&mut child);
                Err(Failure::new(Code::Failed, "the serving process does not listen").cause(line.trim()))
            }
        }
    }

    pub(super) fn address(&self, transport: TransportKind) -> SocketAddr {
        match transport {
            TransportKind::Quic => self.listening.quic,
            _ => self.listening.tcp,
        }
    }

    /// As `pull HOST:PORT --device ID` would name it.
    pub(super) fn target(&self, transport: TransportKind) -> Result<Target, Failure> {
        let device: DeviceId =
            self.listening.device.parse().map_err(|_| Failure::new(Code::Failed, "the serving process names no device"))?;
        Ok(Target { name: "laptop".into(), device, addresses: vec![self.address(transport)] })
    }
}

/// It takes nothing from the environment but what is said here.
fn command(program: &Path, device: &Device, io: Choice) -> Command {
    let mut command = Command::new(program);
    env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MIRROR_")).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.arg("--json").arg("-V").arg(&device.vault).args(["--io", &io.to_string()]).args([
        "--no-discovery",
        "serve",
        "--listen",
        "127.0.0.1:0",
    ]);
    command.env("MIRROR_HOME", &device.home);
    command
}

impl Drop for Serving {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// SIGKILL: no goodbye, no flush. A child that has ended already is what was wanted.
fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

/// Watches a pull, and kills who serves it when so many bytes have been verified and stored here.
#[derive(Debug)]
pub(super) struct CutHalfWay {
    meter: Arc<Meter>,
    serving: Mutex<Option<Serving>>,
    cut_after: u64,
    received: AtomicU64,
    cut: OnceLock<(Instant, u64)>,
}

impl CutHalfWay {
    pub(super) fn new(meter: Arc<Meter>, serving: Serving, cut_after: u64) -> Arc<Self> {
        let serving = Mutex::new(Some(serving));
        Arc::new(Self { meter, serving, cut_after, received: AtomicU64::new(0), cut: OnceLock::new() })
    }

    /// When that was, if it came to it, and how many bytes were here then. More may have been on their way.
    pub(super) fn cut(&self) -> Option<(Instant, u64)> {
        self.cut.get().copied()
    }
}

impl Observer for CutHalfWay {
    fn progress(&self, progress: Progress) {
        let more = if let Progress::Received { bytes, .. } = progress { bytes } else { 0 };
        let received = self.received.fetch_add(more, Relaxed) + more;
        self.meter.progress(progress);
        if received >= self.cut_after
            && let Some(serving) = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            drop(serving);
            self.cut.get_or_init(|| (Instant::now(), received));
        }
    }

    fn cancelled(&self) -> bool {
        Observer::cancelled(&*self.meter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, IoChoice};
    use clap::Parser;

    #[test]
    fn the_serving_process_writes_as_this_one_does() {
        let device = Device { home: "home".into(), vault: "vault".into() };
        for (choice, typed) in [(Choice::Auto, IoChoice::Auto), (Choice::Uring, IoChoice::Uring), (Choice::Portable, IoChoice::Portable)] {
            let command = command(Path::new("mirror"), &device, choice);
            let words = std::iter::once(command.get_program()).chain(command.get_args());
            assert_eq!(Cli::try_parse_from(words).unwrap().global.io, Some(typed));
        }
    }
}
