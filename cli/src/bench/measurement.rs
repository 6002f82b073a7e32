//! One row of a result: what was measured, over how many rounds, at which cost.

use super::{console::table, statistics};
use crate::render::{Record, bytes_text, rate_text};
use clap::ValueEnum;
use mirror_engine::transport::{Choice, TransportKind};
use serde::Serialize;
use std::time::Duration;

pub(super) const GIB: f64 = (1_u64 << 30) as f64;

/// `--transport`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Over {
    /// Whichever the engine chooses
    Auto,
    /// QUIC over UDP
    Quic,
    /// TLS over TCP
    Tcp,
}

impl Over {
    pub(super) fn choice(self) -> Choice {
        match self {
            Self::Auto => Choice::Auto,
            Self::Quic => Choice::Only(TransportKind::Quic),
            Self::Tcp => Choice::Only(TransportKind::Tcp),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// In what a rate is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    #[serde(rename = "bit/s")]
    Bits,
    #[serde(rename = "objects/s")]
    Objects,
}

/// Whether bytes on the wire can be read by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wire {
    Encrypted,
    Plain,
    /// Nothing was on a wire.
    None,
}

/// What one round of something gave.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// In the unit of its row, a second.
    pub(super) rate: f64,
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
    /// Processor time at the sending end; none where it cannot be told.
    pub(super) sender: Option<Duration>,
    pub(super) receiver: Option<Duration>,
    /// Of the end that needed more.
    pub(super) peak_bytes: Option<u64>,
    /// Bytes moved until then, while it ran.
    pub(super) progress: Vec<(Duration, u64)>,
    /// What the summary called the limiting stage.
    pub(super) limiting_stage: Option<String>,
}

impl Sample {
    /// Of bytes in a time.
    pub(super) fn of(bytes: u64, elapsed: Duration) -> Self {
        Self { rate: bytes as f64 * 8.0 / elapsed.as_secs_f64().max(1e-6), bytes, elapsed, ..Self::default() }
    }
}

/// Rounds of one thing.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) wire: Wire,
    pub(super) samples: Vec<Sample>,
}

impl Row {
    pub(super) fn new(name: impl Into<String>, unit: Unit, wire: Wire) -> Self {
        Self { name: name.into(), unit, wire, samples: Vec::new() }
    }

    pub(super) fn rate(&self) -> f64 {
        statistics::median(&self.rates())
    }

    fn rates(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.rate).collect()
    }

    /// Median of CPU-seconds for each GiB; none if any round could not tell.
    fn cpu_s_per_gib(&self, of: impl Fn(&Sample) -> Option<Duration>) -> Option<f64> {
        let each = |sample: &Sample| Some(of(sample)?.as_secs_f64() / (sample.bytes.max(1) as f64 / GIB));
        self.samples.iter().map(each).collect::<Option<Vec<f64>>>().filter(|values| !values.is_empty()).map(|v| statistics::median(&v))
    }

    /// The round in the middle, which stands for all where one has to be shown.
    fn typical(&self) -> Option<&Sample> {
        let rate = self.rate();
        self.samples.iter().min_by(|left, right| (left.rate - rate).abs().total_cmp(&(right.rate - rate).abs()))
    }

    /// `raw` is the rate of the same link with nothing on it but bytes.
    pub(super) fn record<'a>(&'a self, operation: &'a str, raw: Option<f64>) -> Measurement<'a> {
        let (rates, typical) = (self.rates(), self.typical());
        let both = |sample: &Sample| match (sample.sender, sample.receiver) {
            (None, None) => None,
            (sender, receiver) => Some(sender.unwrap_or_default() + receiver.unwrap_or_default()),
        };
        Measurement {
            operation,
            name: &self.name,
            unit: self.unit,
            wire: self.wire,
            rounds: rates.len(),
            median: self.rate(),
            least: statistics::least(&rates),
            most: statistics::most(&rates),
            ratio_to_raw: raw.filter(|raw| *raw > 0.0).map(|raw| self.rate() / raw),
            bytes: typical.map_or(0, |sample| sample.bytes),
            elapsed_ms: typical.map_or(0.0, |sample| sample.elapsed.as_secs_f64() * 1e3),
            cpu_s_per_gib: self.cpu_s_per_gib(both),
            cpu_s_per_gib_sender: self.cpu_s_per_gib(|sample| sample.sender),
            cpu_s_per_gib_receiver: self.cpu_s_per_gib(|sample| sample.receiver),
            peak_bytes: self.samples.iter().filter_map(|sample| sample.peak_bytes).max(),
            limiting_stage: typical.and_then(|sample| sample.limiting_stage.as_deref()),
            progress: typical.map_or_else(Vec::new, |sample| sample.progress.iter().map(|(at, b)| (at.as_secs_f64() * 1e3, *b)).collect()),
        }
    }
}

/// A row in JSON. Rates are in `unit`; `progress` is `[milliseconds, bytes so far]` of a typical round.
#[derive(Debug, Serialize)]
pub(super) struct Measurement<'a> {
    operation: &'a str,
    name: &'a str,
    unit: Unit,
    wire: Wire,
    rounds: usize,
    median: f64,
    least: f64,
    most: f64,
    ratio_to_raw: Option<f64>,
    bytes: u64,
    elapsed_ms: f64,
    cpu_s_per_gib: Option<f64>,
    cpu_s_per_gib_sender: Option<f64>,
    cpu_s_per_gib_receiver: Option<f64>,
    peak_bytes: Option<u64>,
    limiting_stage: Option<&'a str>,
    progress: Vec<(f64, u64)>,
}

impl Record for Measurement<'_> {
    const TYPE: &'static str = "measurement";
}

/// The same for people.
pub(super) fn rows_text(rows: &[Measurement<'_>]) -> String {
    let head = ["what", "median", "least", "most", "of raw", "CPU-s/GiB", "sender", "receiver", "peak memory", "encrypted"];
    table(&head, &rows.iter().map(line).collect::<Vec<_>>())
}

fn line(row: &Measurement<'_>) -> Vec<String> {
    let rate = |value: f64| match row.unit {
        Unit::Bits => rate_text(value),
        Unit::Objects => format!("{value:.0}/s"),
    };
    let short = |value: f64| rate(value).split(" (").next().unwrap_or_default().to_owned();
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    let encrypted = match row.wire {
        Wire::Encrypted => "yes",
        Wire::Plain => "no",
        Wire::None => "-",
    };
    vec![
        row.name.to_owned(),
        rate(row.median),
        short(row.least),
        short(row.most),
        row.ratio_to_raw.map_or_else(|| "-".to_owned(), |ratio| format!("{:.0} %", ratio * 100.0)),
        number(row.cpu_s_per_gib),
        number(row.cpu_s_per_gib_sender),
        number(row.cpu_s_per_gib_receiver),
        row.peak_bytes.map_or_else(|| "-".to_owned(), bytes_text),
        encrypted.to_owned(),
    ]
}

/// Ends every command that measured rows.
#[derive(Debug, Serialize)]
pub(super) struct Finished<'a> {
    pub(super) operation: &'a str,
    pub(super) rounds: u32,
    pub(super) ok: bool,
    pub(super) skipped: Vec<String>,
}

impl Record for Finished<'_> {
    const TYPE: &'static str = "summary";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(bits: u64, cpu_ms: u64) -> Sample {
        let cpu = Some(Duration::from_millis(cpu_ms));
        Sample { sender: cpu, ..Sample::of(bits / 8, Duration::from_secs(1)) }
    }

    #[test]
    fn a_row_gives_medians_and_what_is_unknown_stays_unknown() {
        let samples = vec![sample(800, 1), sample(8_000, 1), sample(1_600, 1)];
        let row = Row { samples, ..Row::new("push", Unit::Bits, Wire::Encrypted) };
        let record = row.record("link", Some(3_200.0));
        assert_eq!((record.median, record.least, record.most, record.ratio_to_raw), (1_600.0, 800.0, 8_000.0, Some(0.5)));
        assert!(record.cpu_s_per_gib_sender.is_some() && record.cpu_s_per_gib_receiver.is_none());
        assert!(rows_text(&[record]).contains("1.6 kbit/s (200 B/s)"));
    }
}
