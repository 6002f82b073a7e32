//! What every command has at hand: settings, stdout, stderr, and the way to a vault.

use crate::{
    args::GlobalArgs,
    config::{Priority, ProgressPlace, Settings, Verbosity},
    failure::Failure,
    interrupt::Interrupt,
    logging,
    progress::Progress,
    render::{self, Format, Output, Talk, Volume},
};
use indicatif::MultiProgress;
use mirror_engine::{
    home::Home,
    io::{backend, priority},
    vault::{Repair, Vault, VaultError},
};
use std::{env, path::PathBuf, sync::Arc};

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) output: Arc<Output>,
    pub(crate) talk: Talk,
    pub(crate) interrupt: Interrupt,
}

impl Session {
    /// Resolves settings and starts what runs beside a command: the log and the signal thread.
    ///
    /// # Errors
    /// When settings are wrong, or the system refuses a log file or a signal handler.
    pub(crate) fn start(args: GlobalArgs) -> Result<Self, Failure> {
        let settings = Settings::resolve(args)?;
        let talk = Talk { volume: volume(&settings), style: settings.stderr_style, screen: MultiProgress::new() };
        give_way(&settings, &talk);
        logging::start(&settings, &talk)?;
        tracing::debug!(home = %settings.home.display(), memory_bytes = settings.memory_bytes, "settings");
        backend::choose(settings.io)?;
        let output = Arc::new(Output::new(settings.format));
        Ok(Self { output, talk, interrupt: Interrupt::install()?, settings })
    }

    /// This device's directory.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        Ok(Home::open(&self.settings.home)?)
    }

    /// The vault that was named, else the nearest one above the working directory.
    ///
    /// # Errors
    /// [`crate::failure::Code::NoVault`].
    pub(crate) fn vault_dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.settings.vault {
            return Ok(dir.clone());
        }
        let here = env::current_dir().map_err(|error| Failure::io("cannot tell the working directory", &error))?;
        Vault::find(&here).ok_or_else(|| VaultError::NoVault(here).into())
    }

    /// Opens the vault: with what was named for this run, else with this device's slot, else with what is configured or asked for.
    ///
    /// # Errors
    /// Whatever keeps it from opening. What opening has mended is said, and is no error.
    pub(crate) fn open(&self) -> Result<Vault, Failure> {
        let (dir, home) = (self.vault_dir()?, self.home()?);
        let (mut vault, repairs) = match Vault::open(&dir, &home, self.settings.secrets.first()?) {
            Err(VaultError::Locked) => Vault::open(&dir, &home, self.settings.secrets.unlock()?)?,
            other => other?,
        };
        repairs.iter().try_for_each(|repair| self.mention(repair))?;
        vault.limit_memory(self.settings.memory_bytes);
        Ok(vault)
    }

    /// Something that was mended on the way.
    fn mention(&self, repair: &Repair) -> Result<(), Failure> {
        match self.output.format() {
            Format::Json => self.output.line(&render::json_line(&render::repair_record(repair))),
            Format::Text => {
                self.talk.warn(&render::repair_text(repair));
                Ok(())
            }
        }
    }

    /// Progress of a command on this machine: a bar, if a terminal would show it.
    pub(crate) fn progress(&self, operation: &'static str) -> Progress {
        let place = match self.settings.progress {
            ProgressPlace::Terminal => ProgressPlace::Terminal,
            ProgressPlace::JsonLines | ProgressPlace::Nowhere => ProgressPlace::Nowhere,
        };
        Progress::start(operation, place, &self.output, &self.talk, self.interrupt.clone())
    }

    /// Progress of a transfer: with `--json` too.
    pub(crate) fn transfer_progress(&self, operation: &'static str) -> Progress {
        Progress::start(operation, self.settings.progress, &self.output, &self.talk, self.interrupt.clone())
    }

    /// Prints a report: JSON is data on stdout; what was done is talk for people.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn report<R: render::Record>(&self, record: impl FnOnce() -> R, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.output.format() {
            Format::Json => self.output.line(&render::json_line(&record())),
            Format::Text => {
                self.talk.note(&text());
                Ok(())
            }
        }
    }
}

/// Before there are other threads: they inherit it. What the system forbids costs only politeness.
fn give_way(settings: &Settings, talk: &Talk) {
    if settings.priority == Priority::Low
        && let Err(error) = priority::give_way()
    {
        talk.warn(&format!("the priority could not be lowered: {error}"));
    }
}

fn volume(settings: &Settings) -> Volume {
    match (settings.format, settings.verbosity) {
        (Format::Json, _) | (_, Verbosity::Quiet) => Volume::Errors,
        (Format::Text, _) => Volume::Everything,
    }
}
