//! The story that `demo` tells: one line or record a step, and a summary.

use super::{Record, bytes_text, escape_lines, rate_text, span_text};
use mirror_engine::{replicate::Summary, transport::TransportKind};
use serde::Serialize;
use std::time::Duration;

/// What one step did.
#[derive(Debug, Serialize)]
pub(crate) struct DemoStep {
    step: &'static str,
    what: String,
    items: u64,
    bytes: u64,
    elapsed_ms: u64,
    rate_bits_per_s: u64,
    #[serde(skip)]
    elapsed: Duration,
}

impl Record for DemoStep {
    const TYPE: &'static str = "step";
}

impl DemoStep {
    pub(crate) fn new(step: &'static str, what: String, elapsed: Duration) -> Self {
        Self { step, what, items: 0, bytes: 0, elapsed_ms: elapsed.as_millis() as u64, rate_bits_per_s: 0, elapsed }
    }

    /// So many things and bytes, in the time it took.
    #[must_use]
    pub(crate) fn amount(self, items: u64, bytes: u64) -> Self {
        let rate_bits_per_s = (bytes as f64 * 8.0 / self.elapsed.as_secs_f64().max(1e-6)) as u64;
        Self { items, bytes, rate_bits_per_s, ..self }
    }

    /// One line for people.
    pub(crate) fn text(&self) -> String {
        let time = time_text(self.elapsed);
        let figures = match self.bytes {
            0 => time,
            bytes => format!("{} in {time}, {}", bytes_text(bytes), rate_text(self.rate_bits_per_s as f64)),
        };
        format!("{:<9}{}\n         {figures}", self.step, escape_lines(&self.what))
    }
}

/// How the first pull ended.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) transport: TransportKind,
    /// Bytes verified and stored at the cut.
    pub(crate) received: u64,
    /// From the start of the pull to the cut.
    pub(crate) elapsed: Duration,
    /// From the cut until the pull had failed.
    pub(crate) noticed: Duration,
    /// Bytes verified, stored and durable when it had failed: what was on its way at the cut is not lost.
    pub(crate) kept: u64,
    /// As the pull said it.
    pub(crate) error: String,
}

impl Cut {
    /// Its line of the story; `total` bytes would have had to come.
    pub(crate) fn step(&self, total: u64) -> DemoStep {
        let Self { transport, error, .. } = self;
        let percent = |bytes: u64| bytes * 100 / total.max(1);
        let (cut, kept, noticed) = (percent(self.received), percent(self.kept), time_text(self.noticed));
        let what =
            format!("pulled over {transport}; the serving process killed at {cut} %, noticed after {noticed} ({error}); {kept} % kept");
        DemoStep::new("cut", what, self.elapsed).amount(0, self.received)
    }

    /// The line of the pull that went on.
    pub(crate) fn resume_step(&self, summary: &Summary) -> DemoStep {
        let first = summary.first_chunk.map_or(String::new(), |after| format!(", first new chunk after {}", time_text(after)));
        let what = format!("the rest pulled over {}{first}", summary.transport);
        DemoStep::new("resume", what, summary.elapsed).amount(summary.chunks_received, summary.bytes_received)
    }
}

/// Everything that counts, at the end.
pub(crate) struct DemoSummary<'a> {
    pub(crate) entries: u64,
    pub(crate) source_bytes: u64,
    pub(crate) sealed_bytes: u64,
    pub(crate) equal: u64,
    pub(crate) different: u64,
    pub(crate) skipped: u64,
    /// Bytes that were kept at the cut and came again.
    pub(crate) resent_bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) cut: Cut,
    pub(crate) resumed: &'a Summary,
}

#[derive(Serialize)]
pub(crate) struct DemoRecord {
    operation: &'static str,
    ok: bool,
    entries: u64,
    source_bytes: u64,
    sealed_bytes: u64,
    entries_equal: u64,
    entries_different: u64,
    entries_skipped: u64,
    cut_transport: String,
    cut_bytes: u64,
    cut_kept_bytes: u64,
    cut_noticed_ms: u64,
    resumed: bool,
    resume_transport: String,
    resume_bytes: u64,
    resume_first_chunk_ms: Option<u64>,
    resume_elapsed_ms: u64,
    resent_bytes: u64,
    root: String,
    identical: bool,
    elapsed_ms: u64,
}

impl Record for DemoRecord {
    const TYPE: &'static str = "summary";
}

impl DemoSummary<'_> {
    fn is_equal(&self) -> bool {
        self.different == 0 && self.skipped == 0
    }

    pub(crate) fn record(&self) -> DemoRecord {
        DemoRecord {
            operation: "demo",
            ok: self.is_equal(),
            entries: self.entries,
            source_bytes: self.source_bytes,
            sealed_bytes: self.sealed_bytes,
            entries_equal: self.equal,
            entries_different: self.different,
            entries_skipped: self.skipped,
            cut_transport: self.cut.transport.to_string(),
            cut_bytes: self.cut.received,
            cut_kept_bytes: self.cut.kept,
            cut_noticed_ms: self.cut.noticed.as_millis() as u64,
            resumed: self.resumed.resumed,
            resume_transport: self.resumed.transport.to_string(),
            resume_bytes: self.resumed.bytes_received,
            resume_first_chunk_ms: self.resumed.first_chunk.map(|after| after.as_millis() as u64),
            resume_elapsed_ms: self.resumed.elapsed.as_millis() as u64,
            resent_bytes: self.resent_bytes,
            root: self.resumed.root.to_string(),
            identical: self.resumed.is_identical(),
            elapsed_ms: self.elapsed.as_millis() as u64,
        }
    }

    pub(crate) fn text(&self) -> String {
        let resent = self.resent_bytes as f64 * 100.0 / self.sealed_bytes.max(1) as f64;
        let resent =
            format!("of the bytes that had been verified before the cut, {} ({resent:.2} %) came again", bytes_text(self.resent_bytes));
        let verdict = if self.is_equal() {
            format!("all {} files, directories and links came back equal", self.equal)
        } else {
            format!("{} equal, {} different, {} skipped", self.equal, self.different, self.skipped)
        };
        let replicas = format!("both replicas are at {}, {} sealed", self.resumed.root.short(), bytes_text(self.sealed_bytes));
        format!("\n{resent}\n{replicas}\n{verdict}; {} in all", time_text(self.elapsed))
    }
}

/// As [`span_text`], to the millisecond where that is what there is.
fn time_text(span: Duration) -> String {
    if span < Duration::from_secs(1) { format!("{} ms", span.as_millis()) } else { span_text(span) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::json_line;

    #[test]
    fn a_step_says_how_much_and_how_fast() {
        let step = DemoStep::new("add", "2 entries".into(), Duration::from_secs(2)).amount(2, 2_000_000);
        assert_eq!(step.text(), "add      2 entries\n         1.9 MiB in 2.0 s, 8.0 Mbit/s (1.0 MB/s)");
        assert!(
            json_line(&step).starts_with(r#"{"type":"step","step":"add","what":"2 entries","items":2,"bytes":2000000,"elapsed_ms":2000"#)
        );
    }
}
