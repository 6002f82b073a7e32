//! Where results go: records or a table to stdout, what happens meanwhile to stderr.

use crate::{
    config,
    failure::{Code, Failure},
    interrupt::Interrupt,
    render::{Format, Output, Record, Style, Talk, Volume},
};
use indicatif::MultiProgress;

/// One run of the program.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) output: Output,
    pub(super) talk: Talk,
    pub(super) interrupt: Interrupt,
}

impl Console {
    pub(super) fn new(format: Format, quiet: bool) -> Result<Self, Failure> {
        let style: Style = config::early_style();
        let volume = if quiet { Volume::Errors } else { Volume::Everything };
        let talk = Talk { volume, style, screen: MultiProgress::new() };
        Ok(Self { output: Output::new(format), talk, interrupt: Interrupt::install()? })
    }

    /// A record for programs; people get it in a table, or a text, of its own.
    pub(super) fn record<R: Record>(&self, record: &R) -> Result<(), Failure> {
        if self.output.format() == Format::Json {
            self.output.line(&crate::render::json_line(record))?;
            self.output.flush()?;
        }
        Ok(())
    }

    /// A table or a text for people.
    pub(super) fn text(&self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.output.format() == Format::Text {
            self.output.line(&text())?;
            self.output.flush()?;
        }
        Ok(())
    }

    /// Something that is not measured here, and why. Said to programs and to people alike.
    pub(super) fn skipped(&self, skipped: &Skipped) -> Result<(), Failure> {
        self.talk.warn(&format!("SKIPPED {}: {}", skipped.what, skipped.reason));
        self.record(skipped)
    }

    /// What comes next.
    pub(super) fn step(&self, text: &str) -> Result<(), Failure> {
        self.check()?;
        self.talk.note(text);
        Ok(())
    }

    /// # Errors
    /// [`Code::Interrupted`] when the user wants to stop.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.interrupt.is_set() { Err(Failure::new(Code::Interrupted, "interrupted")) } else { Ok(()) }
    }
}

/// Something that is not measured here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Skipped {
    pub(super) what: String,
    pub(super) reason: String,
}

impl Record for Skipped {
    const TYPE: &'static str = "skipped";
}

impl Skipped {
    pub(super) fn new(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { what: what.into(), reason: reason.into() }
    }
}

/// A table whose first column is text and whose others are numbers.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &&Vec<String>| {
        let cells = cells.iter().zip(&widths).enumerate();
        let text: Vec<String> =
            cells.map(|(at, (cell, width))| if at == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }).collect();
        text.join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "1234".to_owned()]];
        assert_eq!(table(&["what", "n"], &rows), "what     n\na        1\nlong  1234");
    }
}
