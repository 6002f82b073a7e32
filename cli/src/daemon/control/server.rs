//! The daemon's end of the control socket.

use super::protocol::{ANSWER_BYTES_MAX, Answer, CONNECTIONS_MAX, QUESTION_BYTES_MAX, Question, Refusal, SOCKET};
use crate::failure::{Code, Failure};
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{RwLock, Semaphore},
    task::JoinSet,
    time::timeout,
};

/// Whoever is silent for so long is not listened to any more.
const SILENCE: Duration = Duration::from_secs(30);
/// Whoever has asked a daemon that ends gets so long to take the answer.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// After a failed accept: no descriptors are left, and trying at once would only spin.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Answers questions, on threads where it may wait for the disk.
pub(in crate::daemon) type Handler = Arc<dyn Fn(Question) -> Answer + Send + Sync>;

/// An open control socket; its file is gone when it is dropped.
#[derive(Debug)]
pub(in crate::daemon) struct Server {
    listener: UnixListener,
    path: PathBuf,
    answering: Answering,
}

/// Held for reading from a question until its answer is written.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct Answering(Arc<RwLock<()>>);

impl Answering {
    /// Waits until whoever has asked has the answer, or does not take it in time.
    pub(in crate::daemon) async fn ended(&self) {
        drop(timeout(LAST_WORDS, self.0.write()).await);
    }
}

impl Server {
    /// Opens the socket in `home`, which only this user may enter; whoever calls holds the lock of the daemon there.
    ///
    /// # Errors
    /// When something else than a socket is in its place, or the system refuses.
    pub(in crate::daemon) fn bind(home: &Path) -> Result<Self, Failure> {
        let path = home.join(SOCKET);
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path).map_err(|error| cannot_open(&path, &error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|error| cannot_open(&path, &error))?;
        Ok(Self { listener, path, answering: Answering::default() })
    }

    pub(in crate::daemon) fn answering(&self) -> Answering {
        self.answering.clone()
    }

    /// Answers for as long as it is polled.
    pub(in crate::daemon) async fn run(&self, handler: Handler) {
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    // Whoever finds no seat finds the connection closed.
                    Ok((stream, _)) => if let Ok(seat) = seats.clone().try_acquire_owned() {
                        let (handler, answering) = (handler.clone(), self.answering());
                        connections.spawn(async move {
                            serve(stream, &handler, &answering).await;
                            drop(seat);
                        });
                    },
                    Err(error) => {
                        tracing::warn!(%error, "the control socket takes nobody");
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

fn remove_stale(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path).map_err(|error| cannot_open(path, &error)),
        Ok(_) => Err(Failure::new(Code::Failed, format!("{} is in the way: it is no socket", path.display())).hint("move it away")),
        Err(error) => Err(cannot_open(path, &error)),
    }
}

fn cannot_open(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::io(format!("cannot open the control socket {}", path.display()), error);
    // The system's error for a path longer than an address of a socket can be.
    if error.kind() == io::ErrorKind::InvalidInput { failure.hint("set MIRROR_HOME to a shorter path") } else { failure }
}

/// One connection: questions until it is closed, silent, or says what nobody could mean.
async fn serve(stream: UnixStream, handler: &Handler, answering: &Answering) {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(user) if is_allowed(user.uid(), own) => {}
        Ok(user) => return tracing::warn!(uid = user.uid(), "another user asked at the control socket"),
        Err(error) => return tracing::warn!(%error, "who asks at the control socket is not known"),
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Ok(Ok(line)) = timeout(SILENCE, question(&mut reader)).await {
        let Some(line) = line else { return };
        let _answering = answering.0.read().await;
        let (answer, last) = match serde_json::from_str(&line) {
            Ok(question) => (answer(handler, question).await, false),
            Err(error) => (not_understood(&error), true),
        };
        let line = to_line(&answer);
        if !matches!(timeout(SILENCE, writer.write_all(&line)).await, Ok(Ok(()))) || last {
            return;
        }
    }
}

async fn answer(handler: &Handler, question: Question) -> Answer {
    let handler = handler.clone();
    let answered = tokio::task::spawn_blocking(move || handler(question)).await;
    answered
        .unwrap_or_else(|error| Answer::Error(Failure::new(Code::Failed, "the daemon failed to answer").cause(error.to_string()).into()))
}

/// This user and root, who can do all of it anyway.
fn is_allowed(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

/// The next line; none at the end.
async fn question(reader: &mut BufReader<tokio::net::unix::OwnedReadHalf>) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = reader.take(QUESTION_BYTES_MAX as u64).read_line(&mut line).await?;
    match read {
        0 => Ok(None),
        _ if line.ends_with('\n') || read < QUESTION_BYTES_MAX => Ok(Some(line)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn not_understood(error: &serde_json::Error) -> Answer {
    Answer::Error(Refusal {
        code: Code::Usage.number(),
        message: format!("this daemon does not understand that: {error}"),
        causes: Vec::new(),
        hint: Some("mirror and mirord must be of the same version: restart mirord after an update".into()),
    })
}

fn to_line(answer: &Answer) -> Vec<u8> {
    let line = serde_json::to_vec(answer).unwrap_or_default();
    let too_long = || Answer::Error(Refusal { code: 1, message: "the answer is too long".into(), causes: Vec::new(), hint: None });
    let mut line = if line.len() < ANSWER_BYTES_MAX { line } else { serde_json::to_vec(&too_long()).unwrap_or_default() };
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{
        control::client::{Client, NotRunning},
        state::DaemonState,
    };
    use std::{
        io::{BufRead, Read, Write},
        os::unix::net::UnixStream as Blocking,
    };

    fn handler() -> Handler {
        Arc::new(|question| match question {
            Question::Status => Answer::Daemon(Box::new(DaemonState { pid: 7, ..DaemonState::default() })),
            _ => not_understood(&serde::de::Error::custom("not in this test")),
        })
    }

    /// A server on a thread of its own, for as long as the test runs.
    fn serving(home: &Path) -> tokio::runtime::Runtime {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(async { Server::bind(home) }).unwrap();
        runtime.spawn(async move { server.run(handler()).await });
        runtime
    }

    fn say(home: &Path, bytes: &[u8]) -> Vec<String> {
        let mut stream = Blocking::connect(home.join(SOCKET)).unwrap();
        // A server that has heard enough closes the connection before all is said.
        drop(stream.write_all(bytes));
        drop(stream.shutdown(std::net::Shutdown::Write));
        io::BufReader::new(stream).lines().map_while(Result::ok).collect()
    }

    #[test]
    fn questions_are_answered_in_order_and_the_socket_is_the_user_s() {
        let home = tempfile::tempdir().unwrap();
        let _runtime = serving(home.path());
        assert_eq!(fs::metadata(home.path().join(SOCKET)).unwrap().permissions().mode() & 0o777, 0o600);
        let answers = say(home.path(), b"{\"do\":\"status\"}\n{\"do\":\"status\"}\n");
        assert_eq!(answers.len(), 2);
        assert!(answers.iter().all(|line| line.starts_with(r#"{"type":"daemon","#)), "{answers:?}");
        let mut client = Client::connect(home.path()).unwrap();
        assert_eq!(client.ask(&Question::Status).unwrap().pid, 7);
        assert_eq!(client.ask(&Question::Stop).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn what_nobody_could_mean_ends_that_connection_and_no_other() {
        let home = tempfile::tempdir().unwrap();
        let _runtime = serving(home.path());
        let answers = say(home.path(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(answers[0].contains("does not understand"), "{answers:?}");
        assert!(say(home.path(), &vec![b'x'; 4 * QUESTION_BYTES_MAX]).is_empty());
        assert_eq!(Client::connect(home.path()).unwrap().ask(&Question::Status).unwrap().pid, 7);
    }

    #[test]
    fn more_than_a_few_at_once_find_the_connection_closed() {
        let home = tempfile::tempdir().unwrap();
        let _runtime = serving(home.path());
        let mut held: Vec<Blocking> = (0..CONNECTIONS_MAX).map(|_| Blocking::connect(home.path().join(SOCKET)).unwrap()).collect();
        let mut late = Blocking::connect(home.path().join(SOCKET)).unwrap();
        assert_eq!(late.read(&mut [0]).unwrap(), 0);
        held.clear();
        crate::daemon::until(|| Client::connect(home.path()).is_ok_and(|mut client| client.ask(&Question::Status).is_ok()));
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_a_file_is_not() {
        let home = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(home.path().join(SOCKET)).unwrap());
        assert!(matches!(Client::connect(home.path()), Err(NotRunning)));
        drop(serving(home.path()));
        fs::remove_file(home.path().join(SOCKET)).ok();
        fs::write(home.path().join(SOCKET), "mine").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime.block_on(async { Server::bind(home.path()) }).unwrap_err();
        assert!(refused.message.contains("it is no socket"), "{}", refused.message);
    }

    #[test]
    fn only_this_user_and_root_may_ask() {
        assert!(is_allowed(1000, 1000) && is_allowed(0, 1000));
        assert!(!is_allowed(1001, 1000) && !is_allowed(1000, 0));
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_explained() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refused = runtime.block_on(async { Server::bind(&deep) }).unwrap_err();
        assert_eq!(refused.hint.as_deref(), Some("set MIRROR_HOME to a shorter path"));
    }
}
