//! The one place that turns an error into what a user sees: message, causes, hint, exit code, as text and as JSON.
//!
//! The engine's errors say which operation failed and who is at fault. Here each becomes a remedy: the hint is the next
//! command to type. Exit codes are a contract that scripts rely on; [`Code`] is its only table.

use crate::render::{self, Record};
use mirror_engine::{
    discovery::DiscoveryError,
    home::HomeError,
    io::{backend::Unavailable, descriptors},
    replicate::ReplicateError,
    transport::TransportError,
    vault::VaultError,
};
use serde::Serialize;
use std::{error::Error, io, path::Path};

/// How a command ended, as an exit code. Unknown codes mean failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    /// Some objects are not done.
    Partial = 3,
    /// Conflicts remain, and the user asked to be told so.
    Conflicts = 4,
    /// The same command may work later.
    Temporary = 5,
    /// Not paired, or not allowed.
    Refused = 6,
    /// Format or protocol.
    TooNew = 8,
    /// Rollback or fork found.
    Forked = 9,
    NoVault = 10,
    Locked = 11,
    /// Wrong passphrase or key.
    WrongKey = 12,
    Damaged = 13,
    NoSpace = 14,
    /// More deletions than the user allows.
    Fuse = 15,
    Unreachable = 16,
    Interrupted = 130,
}

impl Code {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Partial,
        Self::Conflicts,
        Self::Temporary,
        Self::Refused,
        Self::TooNew,
        Self::Forked,
        Self::NoVault,
        Self::Locked,
        Self::WrongKey,
        Self::Damaged,
        Self::NoSpace,
        Self::Fuse,
        Self::Unreachable,
        Self::Interrupted,
    ];

    /// What the process returns.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// The code of another process. Unknown codes mean failure.
    pub(crate) fn of_number(number: u8) -> Self {
        Self::ALL.into_iter().find(|code| code.number() == number).unwrap_or(Self::Failed)
    }
}

/// An error, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// What led to it, nearest first.
    pub(crate) causes: Vec<String>,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// Whether there is anybody to tell: not when stdout has been closed by its reader.
    silent: bool,
}

#[derive(Serialize)]
struct ErrorRecord<'a> {
    code: u8,
    message: &'a str,
    causes: &'a [String],
    hint: Option<&'a str>,
}

impl Record for ErrorRecord<'_> {
    const TYPE: &'static str = "error";
}

/// For whoever has asked for io_uring where it is not to be had.
const IO_HINT: &str = "--io auto takes what there is, --io portable works everywhere";

/// For whoever works on a vault directory that was rolled back.
pub(crate) const ROLLED_BACK_HINT: &str =
    "mirror pull PEER gives back what is gone; if nobody has it any more, go on from what is here: mirror recover --accept-loss";

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hint: None, silent: false }
    }

    /// What went wrong, without causes and hint.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(Code::Interrupted, "interrupted").hint("what was committed stays; the same command continues from there")
    }

    /// The reader of stdout has gone (as in `mirror ls | head`): the end, but no failure.
    pub(crate) fn output_closed() -> Self {
        Self { silent: true, ..Self::new(Code::Ok, "stdout is closed") }
    }

    /// `what` says what was being done to which file.
    pub(crate) fn io(what: impl Into<String>, error: &io::Error) -> Self {
        let failure = Self::new(code_of_io(error), what).cause(error.to_string());
        if Unavailable::behind(error).is_some() {
            return failure.hint(IO_HINT);
        }
        if descriptors::is_lack(error) {
            return failure.hint(open_files_hint());
        }
        match error.kind() {
            io::ErrorKind::PermissionDenied => failure.hint("check the permissions and the owner of that path"),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure.hint("free some space, then run the same command again"),
            io::ErrorKind::NotFound => failure.hint("there is nothing by that name: check the path"),
            io::ErrorKind::NotADirectory => failure.hint("a part of that path is a file: check the path"),
            io::ErrorKind::AlreadyExists => failure.hint("something else by that name is in the way: name another path"),
            io::ErrorKind::ReadOnlyFilesystem => {
                failure.hint("it is mounted for reading only: mount it for writing, or name a path elsewhere")
            }
            _ => failure,
        }
    }

    pub(crate) fn reading(path: &Path, error: &io::Error) -> Self {
        Self::io(format!("cannot read {}", render::path_text(path)), error)
    }

    pub(crate) fn writing(path: &Path, error: &io::Error) -> Self {
        Self::io(format!("cannot write {}", render::path_text(path)), error)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// An error of the engine: its message, and its sources as causes unless the message already says them.
    fn of(code: Code, error: &dyn Error) -> Self {
        let mut failure = Self::new(code, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !failure.message.contains(&text) && !failure.causes.contains(&text) {
                failure.causes.push(text);
            }
            source = cause.source();
        }
        failure
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    /// Several lines for stderr. Control characters in names that came with the error are escaped.
    pub(crate) fn to_text(&self, style: render::Style) -> String {
        let mut text = format!("{} {}", style.error("error:"), render::escape_lines(&self.message));
        for cause in &self.causes {
            text.push_str(&format!("\n  because: {}", render::escape_lines(cause)));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n{} {}", style.bold("hint:"), render::escape_lines(hint)));
        }
        text
    }

    /// One line for stdout.
    pub(crate) fn to_json(&self) -> String {
        render::json_line(&ErrorRecord {
            code: self.code.number(),
            message: &self.message,
            causes: &self.causes,
            hint: self.hint.as_deref(),
        })
    }
}

impl From<clap::Error> for Failure {
    /// Clap's paragraphs become message (the first), and hint (the tips; else where help is).
    fn from(error: clap::Error) -> Self {
        let text = error.to_string();
        let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").replace("\n  ", " ");
        if message.ends_with(": invalid socket address syntax") {
            return Self::usage(message).hint("write an IP address and a port, as in 192.168.1.5:7740, 127.0.0.1:0 or [::]:7740");
        }
        let tips: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).collect();
        let values = text.lines().find_map(|line| line.trim().strip_prefix('[')?.strip_suffix(']'));
        let hint = match (tips.is_empty(), values) {
            (false, _) => tips.join("; "),
            (true, Some(values)) if !message.contains(values) => values.to_owned(),
            (true, _) => "--help explains every flag".to_owned(),
        };
        Self::usage(message.trim()).hint(hint)
    }
}

impl From<DiscoveryError> for Failure {
    fn from(error: DiscoveryError) -> Self {
        Self::of(Code::Failed, &error).hint("peers can be reached by address: mirror peer add NAME HOST:PORT --device ID")
    }
}

impl From<Unavailable> for Failure {
    fn from(error: Unavailable) -> Self {
        Self::of(Code::Failed, &error).hint(IO_HINT)
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        use VaultError as E;
        match &error {
            E::NoVault(_) => {
                Self::of(Code::NoVault, &error).hint("name the vault with -V DIR or MIRROR_VAULT, or make one: mirror init DIR")
            }
            E::Gone(_) => Self::of(Code::Failed, &error)
                .hint("nothing that was acknowledged is lost: plug it in or mount it, then run the same command again; mirord waits for it by itself"),
            E::NotEmpty(_) => Self::of(Code::Usage, &error).hint("name a directory that is empty or does not exist yet"),
            E::Nested { .. } => Self::of(Code::Usage, &error).hint("keep vaults apart from each other, and from the files that go into them"),
            E::Locked => Self::of(Code::Locked, &error)
                .hint("give --passphrase-file or --passphrase-command, or --recovery-phrase-file; on a terminal you are asked"),
            E::WrongPassphrase => Self::of(Code::WrongKey, &error)
                .hint("nothing was changed; try again, or unlock with the recovery phrase: --recovery-phrase-file FILE"),
            E::NotOwner { owners, .. } => {
                let owner = owners.first().map_or("an owner", String::as_str);
                Self::of(Code::Refused, &error).hint(format!("run the same command on {owner}"))
            }
            E::Unsigned => Self::of(Code::Refused, &error)
                .hint("members and keyless replicas can be invited all the same; make a new vault for signed roles: mirror init DIR"),
            E::NotAllowed(_) => Self::of(Code::Refused, &error).hint(
                "get what is new: mirror pull PEER; a device that was removed comes back with a new ticket: mirror invite on an owner",
            ),
            E::Keyless => Self::of(Code::Refused, &error)
                .hint("run this on a replica with the key; here: status, verify, scrub, recover, serve, push, pull, sync"),
            E::NoSuchKey(_) => Self::of(Code::Failed, &error).hint("mirror ls --deleted lists the keys there are and were"),
            E::NoEpochKey { .. } => Self::of(Code::WrongKey, &error).hint(
                "what was written before still reads; an owner gives keys to who is in: mirror rekey there, then mirror pull here; who was removed needs a new ticket",
            ),
            E::NoSuchVersion { .. } => {
                Self::of(Code::Failed, &error).hint("mirror merge --explain KEY lists the versions and their events")
            }
            E::WouldClobber(_) => Self::of(Code::Failed, &error)
                .hint("nothing was written; replace what is there with --overwrite, or name another directory"),
            E::TooNew { .. } => Self::of(Code::TooNew, &error).hint("nothing was changed; update mirror on this device"),
            E::Damaged(_) => Self::of(Code::Damaged, &error)
                .hint("mirror verify --read-data lists what is affected; mirror scrub --from PEER fetches good copies, mirror recover rebuilds the rest"),
            E::DamagedKey(_) => Self::of(Code::Damaged, &error).hint(
                "open it another way: --passphrase-file FILE or --recovery-phrase-file FILE; passphrase and recovery slots can be copied from keys/ of another member",
            ),
            E::NoSpace(_) => {
                Self::of(Code::NoSpace, &error).hint("free some space, then run the same command again: it continues where it stopped")
            }
            E::NoSlot(_) => Self::of(Code::WrongKey, &error).hint("open it with what it has: passphrase, recovery phrase or device"),
            E::Fork(_) => Self::of(Code::Forked, &error)
                .hint("both branches are kept; do not copy or roll back a vault directory, clone it: mirror invite, mirror clone"),
            E::RolledBack(_) => Self::of(Code::Forked, &error).hint(ROLLED_BACK_HINT),
            E::Retired(_) => Self::of(Code::Forked, &error).hint("run the same command again: it writes as a new author"),
            E::Busy(_) => {
                Self::of(Code::Temporary, &error).hint("wait for the other process to end, or end it, then run the same command again")
            }
            E::Usage(_) => Self::of(Code::Usage, &error).hint("--help explains every flag"),
            E::Cancelled => Self::interrupted(),
            E::Io { what, source } => Self::io(what.clone(), source),
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        use HomeError as E;
        let of = |code| Self::of(code, &error);
        match &error {
            E::TicketNotOpen | E::TicketExpired(_) => of(Code::Refused).hint("make a new ticket: mirror invite"),
            E::NoSuchPeer(_) => of(Code::Usage).hint("mirror peer list shows who is known"),
            E::NameTaken { .. } => of(Code::Usage).hint("choose another name, or forget that peer: mirror peer remove NAME"),
            E::Invalid(_) => of(Code::Usage).hint("--help explains every flag"),
            E::Damaged { .. } => of(Code::Damaged).hint("put that file back from a backup of MIRROR_HOME; it is never replaced by itself"),
            _ if system_error(&error).is_some_and(descriptors::is_lack) => of(Code::Failed).hint(open_files_hint()),
            _ => of(system_error(&error).map_or(Code::Failed, code_of_io))
                .hint("MIRROR_HOME names the directory that holds this device's key and peers"),
        }
    }
}

impl From<ReplicateError> for Failure {
    fn from(error: ReplicateError) -> Self {
        use ReplicateError as E;
        match error {
            E::Vault(error) => error.into(),
            E::Transport(error) => error.into(),
            E::Ticket(_) => Self::of(Code::Refused, &error)
                .hint("a ticket is good once and for a short time; make a new one on the other device: mirror invite"),
            E::Fork(_) => Self::of(Code::Forked, &error)
                .hint("both branches are kept; do not copy a vault directory, clone it: mirror invite, mirror clone"),
            E::Fuse { deletions, .. } => Self::of(Code::Fuse, &error).hint(format!(
                "if that is meant, the same command with --max-delete {deletions} takes it over; mirror undelete brings keys back"
            )),
            E::Refused(_) => Self::of(Code::Refused, &error)
                .hint("that device decides: what it lets in is in its mirror peer list and in the flags of its mirror serve; is this the right vault?"),
            E::NotAllowed(_) => {
                Self::of(Code::Refused, &error).hint("mirror peer list shows who is in; an owner lets devices in: mirror invite")
            }
            E::Peer(_) => Self::of(Code::Failed, &error).hint("is that device's mirror healthy and up to date? mirror verify there"),
            E::PeerStopped(_) => Self::of(Code::Temporary, &error).hint("run the same command again: it continues where it stopped"),
            E::BrokeDown(_) => Self::of(Code::Failed, &error).hint("run the same command again, with -v; what was committed stays"),
            E::NoAddress(_) => Self::of(Code::Unreachable, &error).hint("give one that works: mirror peer add NAME HOST:PORT --device ID"),
            E::Unsupported(_) => Self::of(Code::TooNew, &error).hint("update mirror on that device"),
            E::Partial(_) => Self::of(Code::Partial, &error)
                .hint("everything else was done; run mirror verify there, or sync with another replica that has them"),
            E::Cancelled => Self::interrupted(),
            _ => Self::of(Code::Failed, &error),
        }
    }
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        use TransportError as E;
        match &error {
            E::Unreachable { causes } => {
                let failure = Self::new(Code::Unreachable, "the peer cannot be reached")
                    .hint("is mirror serve running there, and may this device reach its port?");
                let failure = if causes.is_empty() { failure.cause("no address is known") } else { failure };
                causes.iter().fold(failure, |failure, cause| failure.cause(cause.to_string()))
            }
            E::Refused => Self::of(Code::Refused, &error)
                .hint("pair with it: mirror invite there, mirror clone TICKET DIR here; or mirror peer add there"),
            E::WrongPeer { .. } => Self::of(Code::Refused, &error)
                .hint("if that device was set up anew, forget it and pair again: mirror peer remove NAME; nothing is accepted by itself"),
            E::Version => Self::of(Code::TooNew, &error).hint("update mirror on the device that has the older one"),
            E::Timeout => Self::of(Code::Temporary, &error).hint("run the same command again: it continues where it stopped"),
            // A peer that gives up a lane in the middle goes away, or is cut off.
            E::Closed(_) | E::LaneReset => {
                Self::of(Code::Temporary, &error).hint("run the same command again: it continues where it stopped")
            }
            E::Io { source, .. } if descriptors::is_lack(source) => Self::of(Code::Failed, &error).hint(open_files_hint()),
            E::Io { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Self::of(Code::Failed, &error).hint(
                "another program listens there, perhaps mirord (mirror daemon status) or mirror serve; take another port: --listen ADDR:PORT, 0 is any that is free",
            ),
            E::Io { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                Self::of(Code::Failed, &error).hint("no interface here has that address; --listen [::]:7740 takes all of them")
            }
            E::Io { source, .. } if is_cut(source) => {
                Self::of(Code::Temporary, &error).hint("run the same command again: it continues where it stopped")
            }
            _ => Self::of(system_error(&error).map_or(Code::Failed, code_of_io), &error),
        }
    }
}

/// The wire or the peer went away, as opposed to this system refusing something.
fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::UnexpectedEof
            | K::BrokenPipe
            | K::ConnectionReset
            | K::ConnectionAborted
            | K::NotConnected
            | K::TimedOut
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
    )
}

/// The system's error behind another, if there is one.
fn system_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Open files that serving one vault takes, with a peer or two and their lanes.
const SERVING_FILES: u64 = 64;
/// And each vault more.
const VAULT_FILES: u64 = 32;

/// Whoever stays for long says at its start that so few open files will not do: later every peer would run into it, one after the other.
///
/// # Errors
/// [`Code::Failed`] if this process may have fewer open than serving so many vaults takes.
pub(crate) fn require_open_files(vaults: usize) -> Result<(), Failure> {
    let needed = SERVING_FILES + VAULT_FILES * (vaults as u64).saturating_sub(1);
    match descriptors::limit() {
        Some(limit) if limit < needed => {
            let what = crate::render::count_text(vaults as u64, "vault");
            Err(Failure::new(Code::Failed, format!("too few open files: to serve {what} takes {needed}")).hint(open_files_hint()))
        }
        _ => Ok(()),
    }
}

/// For whoever may not have as many files open as this needs.
fn open_files_hint() -> String {
    let limit = descriptors::limit().map_or_else(String::new, |limit| format!("this process may have {limit} files open; "));
    format!("{limit}raise the limit, then run the same command again: ulimit -n 1024")
}

fn code_of_io(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::NoSpace,
        _ => Code::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_engine::{
        id::DeviceId,
        transport::{Cause, CloseReason, TransportKind},
    };
    use std::path::PathBuf;

    fn code(error: impl Into<Failure>) -> u8 {
        error.into().code.number()
    }

    fn vault_errors() -> Vec<(VaultError, u8)> {
        use VaultError as E;
        let path = PathBuf::from("v");
        let io = |kind: io::ErrorKind| E::Io { what: "writing v".into(), source: kind.into() };
        vec![
            (E::NoVault(path.clone()), 10),
            (E::NotEmpty(path.clone()), 2),
            (E::Nested { inner: path.clone(), outer: path }, 2),
            (E::Locked, 11),
            (E::WrongPassphrase, 12),
            (E::Keyless, 6),
            (E::NoEpochKey { key: "k".into(), epoch: 2, why: "no".into() }, 12),
            (E::NoSuchKey("k".into()), 1),
            (E::WouldClobber("d".into()), 1),
            (E::TooNew { what: "vault.toml".into(), found: 9, known: 1 }, 8),
            (E::Damaged("chunk".into()), 13),
            (E::DamagedKey("slot".into()), 13),
            (E::NoSpace("packs".into()), 14),
            (E::Busy("pid 7".into()), 5),
            (E::Usage("no".into()), 2),
            (E::Cancelled, 130),
            (io(io::ErrorKind::StorageFull), 14),
            (io(io::ErrorKind::PermissionDenied), 1),
            (io(io::ErrorKind::NotFound), 1),
            (io(io::ErrorKind::NotADirectory), 1),
            (io(io::ErrorKind::AlreadyExists), 1),
            (io(io::ErrorKind::ReadOnlyFilesystem), 1),
        ]
    }

    #[test]
    fn every_error_of_a_vault_has_its_exit_code_and_a_hint() {
        for (error, expected) in vault_errors() {
            let name = format!("{error:?}");
            let failure = Failure::from(error);
            assert_eq!(failure.code.number(), expected, "{name}");
            assert!(failure.hint.is_some(), "{name}");
        }
    }

    #[test]
    fn every_error_of_a_transfer_has_its_exit_code() {
        use {ReplicateError as R, TransportError as T};
        let device = DeviceId::from_bytes([1; 32]);
        let transport = |error: T| code(R::Transport(error));
        assert_eq!(transport(T::Unreachable { causes: Vec::new() }), 16);
        assert_eq!(transport(T::Refused), 6);
        assert_eq!(transport(T::WrongPeer { expected: device, found: device }), 6);
        assert_eq!(transport(T::Version), 8);
        assert_eq!(transport(T::Timeout), 5);
        assert_eq!(transport(T::LaneReset), 5);
        let io = |kind: io::ErrorKind| transport(T::Io { what: "the connection was cut", source: std::sync::Arc::new(kind.into()) });
        assert_eq!((io(io::ErrorKind::UnexpectedEof), io(io::ErrorKind::PermissionDenied)), (5, 1));
        assert_eq!(transport(T::Closed(CloseReason::Busy)), 5);
        assert_eq!(transport(T::LaneReset), 5);
        assert_eq!(code(R::Ticket("expired".into())), 6);
        assert_eq!(code(R::Fork("two events".into())), 9);
        assert_eq!(code(R::Fuse { deletions: 5, allowed: 1 }), 15);
        assert_eq!(code(R::Refused("no member".into())), 6);
        assert_eq!(code(R::PeerStopped("no space".into())), 5);
        assert_eq!(code(R::BrokeDown("a thread of it panicked".into())), 1);
        assert_eq!(code(R::NoAddress("nowhere".into())), 16);
        assert_eq!(code(R::Cancelled), 130);
        assert_eq!(code(R::Vault(VaultError::Keyless)), 6);
    }

    #[test]
    fn every_error_of_a_device_s_directory_has_its_exit_code_and_a_hint() {
        use HomeError as E;
        let taken = E::NameTaken { name: "nas".into(), device: DeviceId::from_bytes([1; 32]) };
        let damaged = E::Damaged { file: "device.key".into(), reason: "too short".into() };
        for (error, expected) in [
            (E::TicketNotOpen, 6),
            (E::TicketExpired(7), 6),
            (E::NoSuchPeer("nas".into()), 2),
            (taken, 2),
            (E::Invalid("too long"), 2),
            (damaged, 13),
            (E::TooMany("peers"), 1),
            (E::Io { what: "home".into(), source: io::ErrorKind::StorageFull.into() }, 14),
        ] {
            let name = format!("{error:?}");
            let failure = Failure::from(error);
            assert_eq!(failure.code.number(), expected, "{name}");
            assert!(failure.hint.is_some(), "{name}");
        }
    }

    #[test]
    fn each_way_that_was_tried_is_a_cause() {
        let cause = |kind| Cause { kind, addr: "127.0.0.1:7740".parse().unwrap(), what: "refused".into() };
        let failure = Failure::from(TransportError::Unreachable { causes: vec![cause(TransportKind::Quic), cause(TransportKind::Tcp)] });
        assert_eq!(failure.causes, ["quic 127.0.0.1:7740: refused", "tcp 127.0.0.1:7740: refused"]);
    }

    #[test]
    fn text_names_causes_and_hint_and_is_safe_to_print() {
        let failure = Failure::new(Code::Failed, "bad \x1b[2J name").cause("one").hint("do this");
        assert_eq!(failure.to_text(render::Style::Plain), "error: bad \\x1b[2J name\n  because: one\nhint: do this");
        assert!(failure.to_text(render::Style::Colored).starts_with("\x1b[1;31merror:\x1b[0m"));
    }

    #[test]
    fn json_has_the_fields_of_the_contract_in_order() {
        let failure = Failure::new(Code::WrongKey, "no").cause("c").hint("h");
        assert_eq!(failure.to_json(), r#"{"type":"error","code":12,"message":"no","causes":["c"],"hint":"h"}"#);
    }

    #[test]
    fn a_source_that_the_message_already_says_is_no_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("reading the log: {source}")]
        struct Outer {
            source: io::Error,
        }
        let failure = Failure::of(Code::Failed, &Outer { source: io::Error::other("bad sector") });
        assert_eq!((failure.message.as_str(), failure.causes.len()), ("reading the log: bad sector", 0));
    }
}
