//! Asking the daemon, from a command. Blocking, and bounded: a daemon that hangs does not hang whoever asks.

use super::protocol::{ANSWER_BYTES_MAX, Answer, Question, SOCKET};
use crate::{
    daemon::state::DaemonState,
    failure::{Code, Failure},
};
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
    time::Duration,
};

/// Longer than any answer takes, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// No daemon answers for this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotRunning;

impl From<NotRunning> for Failure {
    fn from(_: NotRunning) -> Self {
        Self::new(Code::Unreachable, "mirord is not running for this device")
            .hint("start it: mirord -V DIR & (or, as a service: systemctl --user start mirord)")
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub(crate) struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects to the daemon of the device whose directory `home` is.
    ///
    /// # Errors
    /// [`NotRunning`], also when the socket there is another user's.
    pub(crate) fn connect(home: &Path) -> Result<Self, NotRunning> {
        let path = home.join(SOCKET);
        let is_ours = |metadata: fs::Metadata| metadata.uid() == rustix::process::geteuid().as_raw();
        if !fs::symlink_metadata(&path).is_ok_and(is_ours) {
            return Err(NotRunning);
        }
        let stream = UnixStream::connect(&path).map_err(|_| NotRunning)?;
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(|_| NotRunning)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the daemon answers instead, with its code; [`Code::Temporary`] when it does not answer.
    pub(crate) fn ask(&mut self, question: &Question) -> Result<DaemonState, Failure> {
        let answer = self.exchange(question).map_err(|error| {
            let failure = Failure::new(Code::Temporary, "mirord does not answer").cause(error.to_string());
            failure.hint("try again; if it stays so, its log says more, and a restart helps")
        })?;
        match answer {
            Answer::Daemon(state) => Ok(*state),
            Answer::Error(refusal) => Err(refusal.into()),
        }
    }

    fn exchange(&mut self, question: &Question) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        self.0.get_mut().write_all(&line)?;
        let mut answer = String::new();
        (&mut self.0).take(ANSWER_BYTES_MAX as u64 + 1).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}
