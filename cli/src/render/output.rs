//! stdout: data, and nothing else.

use crate::failure::Failure;
use serde::Serialize;
use std::{
    io::{self, BufWriter, Stdout, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people and pipes.
    Text,
    /// One JSON object a line.
    Json,
}

/// A JSON object with its `type`.
pub(crate) trait Record: Serialize {
    /// Value of the field `type`.
    const TYPE: &'static str;
}

#[derive(Serialize)]
struct Tagged<'a, R> {
    r#type: &'static str,
    #[serde(flatten)]
    record: &'a R,
}

/// `record` as one line without its line break. Our records hold only what JSON can say, so that this does not fail.
pub(crate) fn json_line<R: Record>(record: &R) -> String {
    serde_json::to_string(&Tagged { r#type: R::TYPE, record })
        .unwrap_or_else(|error| format!("{{\"type\":\"error\",\"message\":\"{error}\"}}"))
}

/// Buffered stdout, shared by a command and its progress.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    stdout: Mutex<BufWriter<Stdout>>,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, stdout: Mutex::new(BufWriter::with_capacity(64 * 1024, io::stdout())) }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Prints the record in JSON, or the text (which is not made otherwise).
    ///
    /// # Errors
    /// When stdout cannot be written; [`Failure::is_silent`] when its reader has gone.
    pub(crate) fn show<R: Record>(&self, record: impl FnOnce() -> R, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.line(&json_line(&record())),
            Format::Text => self.line(&text()),
        }
    }

    /// Prints one line that is ready.
    ///
    /// # Errors
    /// As [`Output::show`].
    pub(crate) fn line(&self, line: &str) -> Result<(), Failure> {
        let mut stdout = self.lock();
        stdout.write_all(line.as_bytes()).and_then(|()| stdout.write_all(b"\n")).map_err(|error| stdout_failure(&error))
    }

    /// Hands on everything that is buffered.
    ///
    /// # Errors
    /// As [`Output::show`].
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        self.lock().flush().map_err(|error| stdout_failure(&error))
    }

    /// stdout for the bytes of a value.
    pub(crate) fn lock(&self) -> MutexGuard<'_, BufWriter<Stdout>> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it means that stdout cannot be written.
pub(crate) fn stdout_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe { Failure::output_closed() } else { Failure::io("cannot write to stdout", error) }
}
