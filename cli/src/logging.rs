//! The log: on stderr for people, with `--log-file` as JSON lines in a file.

use crate::{
    config::{Settings, Verbosity},
    failure::Failure,
    render::{Format, Talk},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Mutex,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, Registry, fmt::MakeWriter, layer::SubscriberExt};

/// Starts logging, once a process.
///
/// # Errors
/// When the log file cannot be opened.
pub(crate) fn start(settings: &Settings, talk: &Talk) -> Result<(), Failure> {
    let file = settings.log_file.as_deref().map(open).transpose()?;
    let file =
        file.map(|file| tracing_subscriber::fmt::layer().json().with_writer(Mutex::new(file)).with_filter(file_level(settings.verbosity)));
    let stderr = tracing_subscriber::fmt::layer().without_time().with_target(false).with_writer(BesideProgress(talk.clone()));
    let subscriber = Registry::default().with(file).with(stderr.with_filter(stderr_level(settings.verbosity, settings.format)));
    // A second start in one process (in tests) keeps the first.
    drop(tracing::subscriber::set_global_default(subscriber));
    Ok(())
}

pub(crate) fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| Failure::writing(path, &error))
}

/// With `--json` everything that matters is on stdout, so that stderr is empty unless it is asked for.
fn stderr_level(verbosity: Verbosity, format: Format) -> LevelFilter {
    match (verbosity, format) {
        (Verbosity::Quiet, _) => LevelFilter::ERROR,
        (Verbosity::Normal, Format::Json) => LevelFilter::OFF,
        (Verbosity::Normal, Format::Text) => LevelFilter::WARN,
        (Verbosity::Verbose(1), _) => LevelFilter::INFO,
        (Verbosity::Verbose(2), _) => LevelFilter::DEBUG,
        (Verbosity::Verbose(_), _) => LevelFilter::TRACE,
    }
}

fn file_level(verbosity: Verbosity) -> LevelFilter {
    match verbosity {
        Verbosity::Quiet => LevelFilter::WARN,
        Verbosity::Normal | Verbosity::Verbose(1) => LevelFilter::INFO,
        Verbosity::Verbose(2) => LevelFilter::DEBUG,
        Verbosity::Verbose(_) => LevelFilter::TRACE,
    }
}

/// stderr that makes the progress bar step aside for each line.
struct BesideProgress(Talk);

impl<'a> MakeWriter<'a> for BesideProgress {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &BesideProgress {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.screen.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
