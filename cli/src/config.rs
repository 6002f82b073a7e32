//! What flags, environment and configuration file mean together.
//!
//! Precedence: flag, environment, `config.toml` in this device's directory, default. That directory is `MIRROR_HOME`, else
//! `mirror` below the platform's directory for configuration. Only this file and [`crate::secrets`] read the environment.

use crate::{
    args::{ColorChoice, GlobalArgs, IoChoice, Size, nearest},
    failure::Failure,
    render::{Format, Style},
    secrets::SecretSources,
};
use etcetera::BaseStrategy;
use mirror_engine::{io::backend::Choice, limits::MEMORY_BYTES_DEFAULT};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    env, fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

const FILE: &str = "config.toml";
/// A configuration file that is longer than this is none.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Less would not hold a handful of the largest chunks on each side.
const MEMORY_BYTES_MIN: u64 = 256 << 20;

/// `config.toml`. Every field has a flag of the same name that wins over it.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    /// Vault to use when none is named.
    vault: Option<PathBuf>,
    /// When to use colour.
    color: Option<ColorChoice>,
    /// Whether to show progress; yes by default.
    progress: Option<bool>,
    /// Whether to announce this device on the local network and look for others there; yes by default.
    discovery: Option<bool>,
    /// Where to write a log.
    log_file: Option<PathBuf>,
    /// Memory to use at most, as text with a unit.
    memory: Option<Size>,
    /// How to write packs.
    io: Option<IoChoice>,
    /// File with the passphrase.
    passphrase_file: Option<PathBuf>,
    /// Shell command that prints the passphrase.
    passphrase_command: Option<String>,
}

/// How talkative stderr and the log are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    /// With so many `-v`.
    Verbose(u8),
}

/// Everything that is the same for all commands.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The vault that was named, if one was.
    pub(crate) vault: Option<PathBuf>,
    /// This device's directory.
    pub(crate) home: PathBuf,
    pub(crate) format: Format,
    pub(crate) verbosity: Verbosity,
    pub(crate) stderr_style: Style,
    /// Whether a bar on stderr would be seen.
    pub(crate) progress: ProgressPlace,
    /// How much of this machine to claim.
    pub(crate) priority: Priority,
    /// Whether to speak and listen on the local network beyond what was asked for.
    pub(crate) discovery: Discovery,
    pub(crate) log_file: Option<PathBuf>,
    /// Budget for buffers and caches.
    pub(crate) memory_bytes: u64,
    /// How packs are written.
    pub(crate) io: Choice,
    pub(crate) secrets: SecretSources,
}

/// Beside other programs on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    Normal,
    Low,
}

/// Multicast DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discovery {
    On,
    Off,
}

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgressPlace {
    /// A bar on stderr.
    Terminal,
    /// JSON lines on stdout.
    JsonLines,
    Nowhere,
}

impl Settings {
    /// Puts the sources together.
    ///
    /// # Errors
    /// A configuration file that cannot be read, or a choice that this build does not have.
    pub(crate) fn resolve(args: GlobalArgs) -> Result<Self, Failure> {
        let home = home_dir()?;
        let file: ConfigFile = read_settings(&home.join(FILE), FileRule::MayBeMissing)?;
        let style = style(args.color.or(file.color).unwrap_or_default(), io::stderr().is_terminal());
        let format = if args.json { Format::Json } else { Format::Text };
        Ok(Self {
            vault: args.vault.or(file.vault),
            home,
            format,
            verbosity: verbosity(args.quiet, args.verbose),
            stderr_style: style,
            progress: progress_place(format, args.quiet || args.no_progress || file.progress == Some(false)),
            priority: if args.low_priority { Priority::Low } else { Priority::Normal },
            discovery: discovery(args.no_discovery, file.discovery),
            log_file: args.log_file.or(file.log_file),
            memory_bytes: memory_bytes(args.memory.or(file.memory))?,
            io: io_choice(args.io.or(file.io).unwrap_or_default()),
            secrets: SecretSources::resolve(
                args.passphrase_file,
                args.passphrase_command,
                args.recovery_phrase_file,
                (file.passphrase_file, file.passphrase_command),
                format,
            ),
        })
    }
}

/// The value of an environment variable; an empty one counts as not set.
pub(crate) fn environment(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Colour before anything has been resolved, for errors in the command line itself.
pub(crate) fn early_style() -> Style {
    style(ColorChoice::Auto, io::stderr().is_terminal())
}

pub(crate) fn home_dir() -> Result<PathBuf, Failure> {
    if let Some(dir) = environment("MIRROR_HOME") {
        return Ok(dir.into());
    }
    let strategy = etcetera::choose_base_strategy().map_err(|error| {
        Failure::new(crate::failure::Code::Failed, "there is no home directory").cause(error.to_string()).hint("set MIRROR_HOME")
    })?;
    Ok(strategy.config_dir().join("mirror"))
}

/// What can be read from a file of settings.
pub(crate) trait SettingsText: DeserializeOwned + Default {
    /// What to do with a word that is not known where it stands, if it is in another place.
    fn belongs(_word: &str) -> Option<String> {
        None
    }
}

impl SettingsText for ConfigFile {}

/// Whether a file of settings has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileRule {
    MustExist,
    /// A missing one says nothing.
    MayBeMissing,
}

/// Reads a file of settings.
///
/// # Errors
/// [`crate::failure::Code::Usage`] for what is too long or not as [`parse_settings`] wants it, and what reading can fail with.
pub(crate) fn read_settings<T: SettingsText>(path: &Path, rule: FileRule) -> Result<T, Failure> {
    let too_long = |length: u64| Failure::usage(format!("{} is too long: {length} bytes", path.display()));
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(too_long(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && rule == FileRule::MayBeMissing => return Ok(T::default()),
        _ => {}
    }
    let text = fs::read_to_string(path).map_err(|error| Failure::reading(path, &error))?;
    parse_settings(&text).map_err(|failure| failure.cause(format!("in {}", path.display())))
}

/// Settings in TOML; the error names the line, and the known word that is nearest to an unknown one.
///
/// # Errors
/// [`crate::failure::Code::Usage`]
pub(crate) fn parse_settings<T: SettingsText>(text: &str) -> Result<T, Failure> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let message = error.message().lines().next().unwrap_or_default();
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let failure = Failure::usage(format!("the configuration file is wrong in line {line}: {message}"));
        match unknown_word(message) {
            Some((typed, known)) => failure.hint(match (T::belongs(typed), nearest(typed, &known)) {
                (Some(place), _) => place,
                (None, Some(meant)) => format!("did you mean {meant}?"),
                (None, None) => format!("known here: {}", known.join(", ")),
            }),
            None => failure.hint("nothing was started; mend that line and run the same command again"),
        }
    })
}

/// Whether `word` is a setting of `T`, whatever it is set to.
pub(crate) fn is_setting_of<T: DeserializeOwned>(word: &str) -> bool {
    let parsed = toml::from_str::<T>(&format!("{word} = {{}}"));
    !parsed.is_err_and(|error| error.message().starts_with("unknown field"))
}

/// From `` unknown field `a`, expected one of `b`, `c` ``: the word that was typed, and those that are known.
fn unknown_word(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field ").or_else(|| message.strip_prefix("unknown variant "))?;
    let mut quoted = rest.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

fn io_choice(choice: IoChoice) -> Choice {
    match choice {
        IoChoice::Auto => Choice::Auto,
        IoChoice::Uring => Choice::Uring,
        IoChoice::Portable => Choice::Portable,
    }
}

fn discovery(unwanted: bool, configured: Option<bool>) -> Discovery {
    let off = unwanted || environment("MIRROR_NO_DISCOVERY").is_some_and(|value| value != "0") || configured == Some(false);
    if off { Discovery::Off } else { Discovery::On }
}

fn memory_bytes(size: Option<Size>) -> Result<u64, Failure> {
    match size {
        None => Ok(MEMORY_BYTES_DEFAULT),
        Some(size) if size.bytes < MEMORY_BYTES_MIN => Err(Failure::usage("--memory is too small").hint("give at least 256MiB")),
        Some(size) => Ok(size.bytes),
    }
}

fn verbosity(quiet: bool, verbose: u8) -> Verbosity {
    match (quiet, verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, times) => Verbosity::Verbose(times),
    }
}

fn style(choice: ColorChoice, terminal: bool) -> Style {
    let wanted = || environment("NO_COLOR").is_none() && environment("TERM").is_none_or(|term| term != "dumb");
    match choice {
        ColorChoice::Always => Style::Colored,
        ColorChoice::Auto if terminal && wanted() => Style::Colored,
        ColorChoice::Auto | ColorChoice::Never => Style::Plain,
    }
}

fn progress_place(format: Format, unwanted: bool) -> ProgressPlace {
    match format {
        _ if unwanted => ProgressPlace::Nowhere,
        Format::Json => ProgressPlace::JsonLines,
        Format::Text if io::stderr().is_terminal() => ProgressPlace::Terminal,
        Format::Text => ProgressPlace::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, Failure> {
        parse_settings(text)
    }

    #[test]
    fn a_configuration_file_is_read() {
        let file = parse("memory = \"1GiB\"\ncolor = \"never\"\nprogress = false\n").unwrap();
        assert_eq!(file.memory, Some(Size { bytes: 1 << 30 }));
        assert_eq!((file.color, file.progress), (Some(ColorChoice::Never), Some(false)));
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_nearest_known_one() {
        let failure = parse("# mine\ncolour = \"never\"\n").unwrap_err();
        assert_eq!(failure.code, crate::failure::Code::Usage);
        assert!(failure.message.contains("line 2"), "{}", failure.message);
        assert_eq!(failure.hint.as_deref(), Some("did you mean color?"));
    }

    #[test]
    fn a_size_without_a_unit_is_refused() {
        assert!(parse("memory = \"512\"").unwrap_err().message.contains("has no unit"));
        assert!(memory_bytes(Some(Size { bytes: 1 })).is_err());
    }
}
