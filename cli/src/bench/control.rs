//! Talking with the other end: `mirror-bench serve`, here as a second process or on another host.
//!
//! ```text
//! serve ─ prints a target: ADDRESS/SEED
//! link  ─ connection of the engine (TLS 1.3, both keys pinned) ─► serve        requests and answers, JSON
//!       ─ a ticket for a vault that serve has just made ─► pair, push           what is measured
//!       ─ bare TCP or UDP to a port that serve has just opened ─►               the ceiling
//! ```
//! The seed is the secret: both keys follow from it, and each end accepts only the other's. Whoever has the target can fill the other end's
//! temporary directory and network, and nothing else; it is good until that end is stopped.

use super::{bare::Token, bed::Bed, measurement::Over};
use crate::failure::{Code, Failure};
use mirror_engine::{
    home::{Home, Ticket},
    keys::DeviceKey,
    probe::{Datagrams, Rate},
    replicate::{self, Options, Target, Unobserved},
    session::Direction,
    transport::{Choice, CloseReason, Connection, ControlReceiver, ControlSender, Dialer, Protocol, TransportKind, Tuning},
    vault::Vault,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    env, fmt,
    io::{BufRead, BufReader},
    net::{SocketAddr, ToSocketAddrs},
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// What one end asks of the other.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Request {
    /// Make a vault, and forget the one before.
    Vault,
    /// Open a port for bare bytes, which come for this long.
    Raw { kind: RawKind, time: Duration },
    /// No more of them come: what was received?
    RawEnd,
    /// What has your process cost so far?
    Usage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RawKind {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Answer {
    /// A ticket, and the port where its vault is served over both transports.
    Vault {
        ticket: String,
        port: u16,
    },
    /// Bytes that begin with `token` are counted there.
    Raw {
        port: u16,
        token: Token,
    },
    /// What came in over a bare socket: bytes, between the first and the last of them.
    Received {
        datagrams: u64,
        bytes: u64,
        elapsed: Duration,
    },
    Usage {
        cpu_s: f64,
        peak_bytes: u64,
    },
    Failed(String),
}

/// Where the other end is, and the secret both have: the word to paste.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) address: String,
    pub(super) seed: [u8; 32],
}

impl Word {
    pub(super) fn new(address: String) -> Result<Self, Failure> {
        let random = DeviceKey::generate().map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
        Ok(Self { address, seed: *random.id().as_bytes() })
    }

    /// Keys of the serving and of the asking end. Ed25519 hashes its seed, so that neither tells of the other.
    pub(super) fn keys(&self) -> (DeviceKey, DeviceKey) {
        (DeviceKey::from_seed(&self.seed), DeviceKey::from_seed(&self.seed.map(|byte| !byte)))
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.address)?;
        self.seed.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Word {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong =
            || Failure::usage("that is no target").hint("paste what mirror-bench serve printed on the other host: HOST:PORT/SECRET");
        let (address, seed) = text.trim().rsplit_once('/').ok_or_else(wrong)?;
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let seed: Option<Vec<u8>> = seed.as_bytes().chunks(2).map(byte).collect();
        let seed = seed.and_then(|seed| seed.try_into().ok()).ok_or_else(wrong)?;
        Ok(Self { address: address.to_owned(), seed })
    }
}

/// Both halves of a control stream that carries JSON.
pub(super) struct Wire {
    sender: ControlSender,
    receiver: ControlReceiver,
}

impl Wire {
    pub(super) fn of(connection: &Connection) -> Option<Self> {
        connection.take_control().map(|(sender, receiver)| Self { sender, receiver })
    }

    pub(super) async fn say<T: Serialize>(&mut self, what: &T) -> Result<(), Failure> {
        let text = serde_json::to_vec(what).map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
        Ok(self.sender.send(text.into()).await?)
    }

    /// None when the other end has said goodbye.
    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let Some(text) = self.receiver.recv().await? else { return Ok(None) };
        let strange = |error: serde_json::Error| {
            Failure::new(Code::TooNew, "the other end says what is not understood here")
                .cause(error.to_string())
                .hint("use the same version")
        };
        serde_json::from_slice(&text).map(Some).map_err(strange)
    }
}

/// The other end, as the asking end has it.
pub(super) struct Peer {
    wire: Wire,
    connection: Connection,
    address: SocketAddr,
    /// Last: it ends after the connection.
    _child: Option<Serving>,
}

impl Peer {
    /// What was named, else a process of our own on this machine.
    pub(super) async fn reach(target: Option<&str>) -> Result<Self, Failure> {
        match target {
            Some(target) => Self::connect(&target.parse()?, None).await,
            None => {
                let (serving, word) = Serving::start()?;
                Self::connect(&word, Some(serving)).await
            }
        }
    }

    async fn connect(word: &Word, child: Option<Serving>) -> Result<Self, Failure> {
        let address = word.address.to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = address.ok_or_else(|| Failure::new(Code::Unreachable, format!("{} is not found", word.address)))?;
        let (serving, asking) = word.keys();
        let dialer = Dialer::new(&asking, Tuning::default())?;
        let only_tcp = Choice::Only(TransportKind::Tcp);
        let connection = dialer.dial_auto(&[address], serving.id(), Protocol::Session, only_tcp).await?;
        let wire = Wire::of(&connection).ok_or_else(|| Failure::new(Code::Failed, "the connection has no control stream"))?;
        Ok(Self { wire, connection, address, _child: child })
    }

    async fn ask(&mut self, request: Request) -> Result<Answer, Failure> {
        self.wire.say(&request).await?;
        match self.wire.hear().await? {
            Some(Answer::Failed(reason)) => Err(Failure::new(Code::Failed, "the other end could not do it").cause(reason)),
            Some(answer) => Ok(answer),
            None => Err(Failure::new(Code::Unreachable, "the other end has ended")),
        }
    }

    /// An empty vault there, and a replica of it here.
    pub(super) async fn replica(&mut self, bed: &Bed, over: Over) -> Result<Replica, Failure> {
        let Answer::Vault { ticket, port } = self.ask(Request::Vault).await? else { return Err(misheard()) };
        let mut ticket: Ticket = ticket.parse().map_err(|_| misheard())?;
        ticket.addresses = vec![SocketAddr::new(self.address.ip(), port).to_string()];
        let home = Home::open(&bed.fresh("home"))?;
        let options = Options { direction: Direction::Push, choice: over.choice(), ..Options::default() };
        let (vault, target) = replicate::pair(&ticket, &bed.fresh("replica"), &home, "bench", &options).await?;
        Replica { vault, target, options }.let_in().await
    }

    /// A port for bare bytes there, and what they must begin with.
    pub(super) async fn raw(&mut self, kind: RawKind, time: Duration) -> Result<(SocketAddr, Token), Failure> {
        let Answer::Raw { port, token } = self.ask(Request::Raw { kind, time }).await? else { return Err(misheard()) };
        Ok((SocketAddr::new(self.address.ip(), port), token))
    }

    pub(super) async fn raw_end(&mut self) -> Result<Datagrams, Failure> {
        let Answer::Received { datagrams, bytes, elapsed } = self.ask(Request::RawEnd).await? else { return Err(misheard()) };
        Ok(Datagrams { count: datagrams, rate: Rate { bytes, elapsed } })
    }

    /// Processor time and peak memory of the other process.
    pub(super) async fn usage(&mut self) -> Result<(Duration, u64), Failure> {
        let Answer::Usage { cpu_s, peak_bytes } = self.ask(Request::Usage).await? else { return Err(misheard()) };
        Ok((Duration::from_secs_f64(cpu_s.max(0.0)), peak_bytes))
    }

    /// Says goodbye, so that the other end does not take it for a broken connection.
    pub(super) async fn part(self) {
        self.connection.close(CloseReason::Done);
        self.connection.flushed().await;
    }
}

/// A replica here of an empty vault there.
pub(super) struct Replica {
    pub(super) vault: Vault,
    pub(super) target: Target,
    pub(super) options: Options,
}

impl Replica {
    /// Fetches the event that lets it in, without which it may not write.
    pub(super) async fn let_in(self) -> Result<Self, Failure> {
        let pull = Options { direction: Direction::Pull, ..self.options.clone() };
        replicate::sync(&self.vault, &self.target, &pull, Arc::new(Unobserved)).await?;
        Ok(self)
    }
}

fn misheard() -> Failure {
    Failure::new(Code::Failed, "the other end answered something else").hint("use the same version at both ends")
}

/// The other end as a second process on this machine; dropping it ends it.
#[derive(Debug)]
struct Serving(Child);

/// What `mirror-bench --json serve` prints once it listens.
#[derive(Deserialize)]
struct Listening {
    target: String,
}

impl Serving {
    fn start() -> Result<(Self, Word), Failure> {
        let failed = |error| Failure::io("cannot start the serving process", &error);
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        command.args(["--json", "serve", "--once", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().map_err(failed)?;
        let stdout = child.stdout.take();
        let serving = Self(child);
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        let strange = |_| Failure::new(Code::Failed, "the serving process does not listen").cause(line.trim());
        let listening: Listening = serde_json::from_str(&line).map_err(strange)?;
        Ok((serving, listening.target.parse()?))
    }
}

impl Drop for Serving {
    /// It ends by itself when its client has gone, and clears up; a moment later it is made to.
    fn drop(&mut self) {
        for _ in 0..200 {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_survives_being_pasted_and_gives_both_ends_their_keys() {
        let word = Word::new("[::1]:7750".into()).unwrap();
        let pasted: Word = format!(" {word}\n").parse().unwrap();
        assert!(pasted == word);
        assert_eq!(pasted.keys().1.id(), word.keys().1.id());
        assert_ne!(word.keys().0.id(), word.keys().1.id());
    }

    #[test]
    fn what_is_no_target_is_a_usage_error() {
        for text in ["", "host:1", "host:1/", "host:1/zz", "host:1/é0", "host:1/00"] {
            assert_eq!(text.parse::<Word>().map(|_| ()).unwrap_err().code, Code::Usage, "{text}");
        }
    }
}
