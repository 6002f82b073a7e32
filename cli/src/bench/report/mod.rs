//! `report`: one HTML page that needs nothing but itself.
//!
//! ```text
//! JSON lines of any command, history files of gate ─► read ─► plots (SVG) and tables (HTML) ─► one file
//! ```
//! No script, no font, no image from elsewhere: the page is what it is in twenty years too. Every plot has a title, units on its axes and a table
//! beside it with the same numbers, for whoever does not see the plot; colours follow the reader's light or dark setting.

mod page;
mod plot;
mod read;

use super::{args::ReportArgs, console::Console};
use crate::{
    failure::{Code, Failure},
    render::{Record, path_text},
};
use serde::Serialize;
use std::fs;

/// Where the page is.
#[derive(Debug, Serialize)]
struct Written {
    file: String,
    bytes: usize,
    plots: usize,
}

impl Record for Written {
    const TYPE: &'static str = "report";
}

pub(super) fn report(console: &Console, args: &ReportArgs) -> Result<Code, Failure> {
    let found = read::read(&args.files)?;
    let html = page::page(&args.title, &found);
    fs::write(&args.output, &html).map_err(|error| Failure::writing(&args.output, &error))?;
    let written = Written { file: path_text(&args.output), bytes: html.len(), plots: html.matches("<svg").count() };
    console.record(&written)?;
    console.text(|| format!("{}: {} plots", written.file, written.plots))?;
    Ok(Code::Ok)
}
