//! Where passphrases and phrases come from: a file, a command, a file descriptor (`/dev/fd/N` is a file) or a prompt.
//!
//! Never from the command line, which every process on the machine can read. Everything is held in memory that is
//! overwritten when it is dropped. Nobody is asked who cannot answer: without a terminal, or with `--json`, a missing
//! passphrase is an error that names the flags.

use crate::{
    config::environment,
    failure::{Code, Failure},
    render::{Format, path_text},
};
use mirror_engine::vault::Unlock;
use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use zeroize::Zeroizing;

/// Longest passphrase, recovery phrase or ticket, in bytes.
const SECRET_BYTES_MAX: usize = 1 << 20;
const FLAGS: &str =
    "give --passphrase-file FILE or --passphrase-command COMMAND, or set MIRROR_PASSPHRASE_FILE or MIRROR_PASSPHRASE_COMMAND";

/// Where one secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    /// For `sh -c`.
    Command(String),
}

/// Whether somebody is there to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    Possible,
    Impossible,
}

/// What was named to open a vault with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretSources {
    /// Named for this run: a flag or the environment.
    named: Option<Source>,
    /// From the configuration file: for vaults that this device has no slot for.
    standing: Option<Source>,
    recovery_phrase: Option<PathBuf>,
    asking: Asking,
}

impl SecretSources {
    /// Flags, then environment, then the configuration file (file and command).
    pub(crate) fn resolve(
        file: Option<PathBuf>,
        command: Option<String>,
        recovery_phrase: Option<PathBuf>,
        config: (Option<PathBuf>, Option<String>),
        format: Format,
    ) -> Self {
        let variable_file = || environment("MIRROR_PASSPHRASE_FILE").map(PathBuf::from);
        let variable_command = || environment("MIRROR_PASSPHRASE_COMMAND").map(|command| command.to_string_lossy().into_owned());
        let pick = |file: Option<PathBuf>, command: Option<String>| file.map(Source::File).or(command.map(Source::Command));
        let asking = if format == Format::Text && io::stdin().is_terminal() { Asking::Possible } else { Asking::Impossible };
        Self {
            named: pick(file, command).or_else(|| pick(variable_file(), variable_command())),
            standing: pick(config.0, config.1),
            recovery_phrase,
            asking,
        }
    }

    /// What to open a vault with first: what was named for this run is tried even where this device needs nothing, so that a
    /// wrong passphrase is never taken for a right one. Without that, the device's slot.
    ///
    /// # Errors
    /// As [`SecretSources::unlock`].
    pub(crate) fn first(&self) -> Result<Unlock, Failure> {
        if self.named.is_some() || self.recovery_phrase.is_some() { self.unlock() } else { Ok(Unlock::Device) }
    }

    /// The same, but for a vault whose settings say where its passphrase is.
    pub(crate) fn or_standing(&self, file: Option<PathBuf>, command: Option<String>) -> Self {
        let own = file.map(Source::File).or(command.map(Source::Command));
        Self { standing: own.or_else(|| self.standing.clone()), ..self.clone() }
    }

    fn passphrase(&self) -> Option<&Source> {
        self.named.as_ref().or(self.standing.as_ref())
    }

    /// What to open a vault with that this device has no slot for.
    ///
    /// # Errors
    /// [`Code::Locked`] when nothing was named and nobody can be asked; [`Code::WrongKey`] for what opens no vault anyway.
    pub(crate) fn unlock(&self) -> Result<Unlock, Failure> {
        if let Some(path) = &self.recovery_phrase {
            let phrase = read_source(&Source::File(path.clone()), Code::WrongKey)?;
            let phrase = std::str::from_utf8(&phrase).map_err(|_| Failure::new(Code::WrongKey, "the recovery phrase is not text"))?;
            return Ok(Unlock::Recovery(Zeroizing::new(phrase.trim().to_owned())));
        }
        let passphrase = match (self.passphrase(), self.asking) {
            (Some(source), _) => read_source(source, Code::WrongKey)?,
            (None, Asking::Possible) => checked(ask("Passphrase: ")?, Code::WrongKey)?,
            (None, Asking::Impossible) => {
                return Err(Failure::new(
                    Code::Locked,
                    "the vault is locked for this device, and there is no terminal to ask for the passphrase",
                )
                .hint(FLAGS));
            }
        };
        Ok(Unlock::Passphrase(passphrase))
    }

    /// The passphrase of a new vault; asked for twice.
    ///
    /// # Errors
    /// [`Code::Usage`] when nothing was named and nobody can be asked, or when it is none.
    pub(crate) fn new_passphrase(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        if let Some(source) = self.passphrase() {
            return read_source(source, Code::Usage);
        }
        if self.asking == Asking::Impossible {
            return Err(Failure::usage("a new vault needs a passphrase, and there is no terminal to ask for one")
                .hint(format!("{FLAGS}; or --no-passphrase")));
        }
        let first = checked(ask("Passphrase of the new vault: ")?, Code::Usage)?;
        if *first != *ask("The same again: ")? {
            return Err(Failure::usage("the two passphrases are not the same").hint("nothing was made; run the same command again"));
        }
        Ok(first)
    }
}

/// A ticket: text in a file, or on stdin for `-`.
///
/// # Errors
/// When it cannot be read or is no text.
pub(crate) fn read_ticket(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = read_bytes(&Source::File(path.to_owned()))?;
    if bytes.is_empty() {
        let failure = Failure::usage("the ticket is empty").cause(format!("read from {}", path_text(path)));
        return Err(failure.hint("mirror invite on the other device prints one"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage("the ticket is not text").hint("mirror invite prints one"))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// `refused` is the exit code for a secret that is empty or too long.
fn read_source(source: &Source, refused: Code) -> Result<Zeroizing<Vec<u8>>, Failure> {
    checked(read_bytes(source)?, refused).map_err(|failure| match source {
        Source::File(path) => failure.cause(format!("read from {}", path_text(path))),
        Source::Command(_) => failure.cause("read from the output of --passphrase-command"),
    })
}

fn read_bytes(source: &Source) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bytes = match source {
        Source::File(path) if path == Path::new("-") => {
            read_bounded(&mut io::stdin().lock()).map_err(|error| Failure::io("cannot read stdin", &error))?
        }
        Source::File(path) => {
            File::open(path).and_then(|mut file| read_bounded(&mut file)).map_err(|error| Failure::reading(path, &error))?
        }
        Source::Command(command) => run(command)?,
    };
    Ok(strip_newline(bytes))
}

fn checked(secret: Zeroizing<Vec<u8>>, refused: Code) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if secret.is_empty() {
        return Err(Failure::new(refused, "the passphrase is empty").hint(FLAGS));
    }
    if secret.len() > SECRET_BYTES_MAX {
        return Err(Failure::new(refused, "the passphrase is longer than 1 MiB").hint("is that the right file?"));
    }
    Ok(secret)
}

/// One byte more than is allowed is enough to know. The buffer has its full size at once: growing would leave copies behind.
fn read_bounded(source: &mut dyn Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 4));
    source.take(SECRET_BYTES_MAX as u64 + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Editors and `echo` end a file with one line break that nobody typed.
fn strip_newline(mut secret: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    secret
}

fn run(command: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error: &io::Error| Failure::io("cannot run --passphrase-command", error);
    let mut child = Command::new("sh").arg("-c").arg(command).stdout(Stdio::piped()).spawn().map_err(|error| failed(&error))?;
    // Dropping the pipe after a bounded read ends a command that never stops printing.
    let output = child.stdout.take().map(|mut stdout| read_bounded(&mut stdout)).transpose().map_err(|error| failed(&error))?;
    let status = child.wait().map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(Failure::new(Code::Failed, "--passphrase-command failed")
            .cause(status.to_string())
            .hint("run it by hand: its output must be the passphrase"));
    }
    Ok(output.unwrap_or_default())
}

fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match rpassword::prompt_password(prompt) {
        Ok(answer) => Ok(Zeroizing::new(answer.into_bytes())),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Failure::interrupted()),
        Err(error) => Err(Failure::io("cannot ask for the passphrase", &error).hint(FLAGS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn secret_in(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        read_source(&Source::File(file.path().to_owned()), Code::WrongKey)
    }

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_it() {
        for (file, secret) in [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), ("pw\n\n", "pw\n"), (" p\nw ", " p\nw ")] {
            assert_eq!(secret_in(file.as_bytes()).unwrap().as_slice(), secret.as_bytes());
        }
    }

    #[test]
    fn any_bytes_are_a_passphrase_up_to_the_limit() {
        assert_eq!(secret_in(b"\xff\x00\n").unwrap().as_slice(), b"\xff\x00");
        let mut longest = vec![b'x'; SECRET_BYTES_MAX];
        longest.push(b'\n');
        assert_eq!(secret_in(&longest).unwrap().len(), SECRET_BYTES_MAX);
        longest.push(b'x');
        assert_eq!(secret_in(&longest).unwrap_err().code, Code::WrongKey);
    }

    #[test]
    fn an_empty_passphrase_is_refused() {
        assert_eq!(secret_in(b"").unwrap_err().code, Code::WrongKey);
        assert_eq!(secret_in(b"\n").unwrap_err().code, Code::WrongKey);
    }

    #[test]
    fn a_command_prints_the_passphrase() {
        assert_eq!(run("echo secret").map(|secret| secret.to_vec()), Ok(b"secret\n".to_vec()));
        assert_eq!(run("exit 3").unwrap_err().code, Code::Failed);
    }

    #[test]
    fn a_command_that_never_ends_is_cut_off() {
        assert!(run("yes").is_err());
    }
}
