//! What is said on stderr beside the data.

use super::{Style, escape_lines};
use indicatif::MultiProgress;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Volume {
    /// Only errors: with `--quiet`, and with `--json`, where everything is on stdout.
    Errors,
    /// Warnings and what was done.
    Everything,
}

/// stderr, shared with the progress bar, which steps aside while something is written.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    pub(crate) volume: Volume,
    pub(crate) style: Style,
    pub(crate) screen: MultiProgress,
}

impl Talk {
    /// What was done.
    pub(crate) fn note(&self, text: &str) {
        if self.volume == Volume::Everything {
            self.line(&escape_lines(text));
        }
    }

    /// What the user should know though it is no error.
    pub(crate) fn warn(&self, text: &str) {
        if self.volume == Volume::Everything {
            self.line(&format!("{} {}", self.style.warning("warning:"), escape_lines(text)));
        }
    }

    /// A text that is already safe to print. A stderr that is closed is nobody's concern.
    pub(crate) fn line(&self, text: &str) {
        use std::io::Write;
        self.screen.suspend(|| drop(writeln!(std::io::stderr(), "{text}")));
    }
}
