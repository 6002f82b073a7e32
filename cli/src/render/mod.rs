//! How results look: text for people, JSON lines for programs.
//!
//! stdout is data and stderr is talk. Names come from other machines, so nothing that could steer a terminal is ever
//! printed as it is: [`escape`] is on every path from a key to a text.

mod acknowledged;
mod certificate;
mod daemon;
mod demo;
mod doctor;
mod entry;
mod findings;
mod folder;
mod following;
mod merge;
mod neighbour;
mod output;
mod report;
mod rewrite;
mod scrub;
mod stages;
mod style;
mod talk;
mod text;
mod time;
mod transfer;
mod units;
mod why;

pub(crate) use acknowledged::{Acknowledged, Unheld};
pub(crate) use daemon::{Live, Ready, connection_text, daemon_text, limit_text, standing_text};
pub(crate) use demo::{Cut, DemoStep, DemoSummary};
pub(crate) use doctor::{diagnosis_record, diagnosis_text, finding_record, finding_text};
pub(crate) use entry::{Detail, KeyField, entry_line, entry_record, log_line, log_record};
pub(crate) use findings::*;
pub(crate) use folder::{WAY_OUT, folder_state, folder_text};
pub(crate) use following::{FollowState, Following};
pub(crate) use merge::*;
pub(crate) use neighbour::{neighbour_hint, neighbour_record, neighbour_text};
pub(crate) use output::{Format, Output, Record, json_line, stdout_failure};
pub(crate) use report::*;
pub(crate) use rewrite::{rewrite_record, rewrite_text, unreadable_line};
pub(crate) use scrub::{LastScrub, Scrubbed, last_scrub_text, scrub_record, scrub_text};
pub(crate) use stages::{StageShares, stage_text};
pub(crate) use style::Style;
pub(crate) use talk::{Talk, Volume};
pub(crate) use text::{escape, escape_lines, key_text, path_text};
pub(crate) use time::{rfc3339, span_text};
pub(crate) use transfer::*;
pub(crate) use units::{bytes_text, count_text, rate_text};
pub(crate) use why::{why_record, why_text};
